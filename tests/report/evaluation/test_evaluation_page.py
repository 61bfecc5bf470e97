"""The page about an evaluation: whole, safe, small, and right about what was answered."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner
from written_evaluation import MODELS, PICTURE, measured, probes, write_evaluation

from sailvit.cli.app import app
from sailvit.core.errors import RunError
from sailvit.core.run import read_json, write_json
from sailvit.report.evaluation.charts import (
    cloud_charts,
    drift_charts,
    layer_chart,
    probe_charts,
    set_chart,
)
from sailvit.report.evaluation.page import write_evaluation_report
from sailvit.report.evaluation.reading import is_evaluation, read_evaluation
from sailvit.report.evaluation.tables import MeasureRow, measure_tables, probe_table, set_table


@pytest.fixture
def folder(tmp_path):
    return write_evaluation(tmp_path / "eval")


@pytest.fixture
def html(folder):
    return write_evaluation_report(folder).read_text(encoding="utf-8")


def payload(html):
    text = re.search(r'<script type="application/json" id="payload">(.*?)</script>', html).group(1)
    return json.loads(text)


def test_the_page_needs_nothing_else_and_allows_its_own_script_alone(html):
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", html)
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/\S+", "", html)
    assert "innerHTML" not in script


def test_all_sections_are_there(html):
    for name in ("scores", "probes", "affinity", "drift", "predictions"):
        assert f'<h2 id="{name}">' in html
    assert "▲ improves" in html
    assert "61.2" in html
    assert "1 unparsed" in html
    assert "not in the chart, as it is not out of 100: MME" in html
    assert "Not measured: captions: there are none" in html
    assert "120 questions" in html
    assert "12 questions, evenly taken of 120" in html


def test_answers_stand_beside_what_they_count(html):
    data = payload(html)
    assert data["models"] == list(MODELS)
    rows = [row for row in data["questions"] if row[0] == "MMStar"]
    assert [row[8] for row in rows[:2]] == [[0.0, 1.0], [1.0, 1.0]]
    # A question without a verdict of its own, as a rotation, is neither right nor wrong.
    assert rows[-1][8] == [None, None]
    assert rows[2][7] == ["base says 2", "refined says 2"]
    assert data["tables"]["scores"][1] == ["base", "MMStar", "score", 61.25]
    assert data["tables"]["affinity"][0][0] == "section"


def test_what_models_and_tables_say_cannot_leave_its_place(folder):
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    path = folder / "questions" / "MMStar.json"
    value = read_json(path)
    value["questions"][0] |= {"question": bad, "answer": "=1+1"}
    value["pictures"]["p0"] = "data:image/svg+xml;base64,PHN2Zz4="
    write_json(path, value)
    results = read_json(folder / "results.json")
    results["models"] = {bad: results["models"]["base"]}
    results["comparison"] = []
    write_json(folder / "results.json", results)
    html = write_evaluation_report(folder).read_text(encoding="utf-8")
    assert html.count("<script") == 2
    assert "<img src=x" not in html
    data = payload(html)
    assert data["questions"][0][3] == bad
    assert set(data["pictures"]) == {"p0", "p1"}
    assert data["pictures"]["p0"] == PICTURE
    assert "svg+xml" not in html


def test_five_thousand_predictions_take_less_than_15_mb(tmp_path):
    folder = write_evaluation(tmp_path / "eval", count=2500)
    path = folder / "questions" / "MMStar.json"
    value = read_json(path)
    picture = "data:image/webp;base64," + "A" * 1772
    value["pictures"] = {f"p{n}": picture for n in range(5000)}
    for number, each in enumerate(value["questions"]):
        each |= {"pictures": [f"p{number}"], "question": "word " * 300}
    write_json(path, value)
    page = write_evaluation_report(folder)
    assert 9e6 < page.stat().st_size < 15e6


def test_folders_are_told_apart(folder, tmp_path):
    assert is_evaluation(folder)
    (folder / "results.json").unlink()
    assert read_evaluation(folder).models == []
    write_evaluation_report(folder)
    run = tmp_path / "run"
    write_json(run / "affinity.json", {"models": {}})
    assert not is_evaluation(run)
    with pytest.raises(RunError, match=r"has none of results\.json"):
        write_evaluation_report(run)
    write_json(folder / "results.json", {"models": {"base": {"sets": {"MMStar": {}}}}})
    write_json(folder / "questions" / "MMStar.json", {"count": 3})
    with pytest.raises(RunError, match="start sailvit evaluate again"):
        read_evaluation(folder)


def test_a_foreign_page_stays(folder):
    (folder / "report.html").write_text("<title>mine</title>")
    with pytest.raises(RunError, match="not written by this command"):
        write_evaluation_report(folder)


def test_the_command_knows_an_evaluation(folder):
    made = CliRunner().invoke(app, ["report", str(folder)])
    assert made.output.strip() == str(folder / "report.html")


def test_it_runs_without_torch(folder):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from sailvit.report.evaluation.page import write_evaluation_report\n"
        "write_evaluation_report(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_charts_are_well_formed_and_named():
    data = {"sets": {"MMStar": {"score": 50.0}, "MME": {"score": 1500.0}}}
    scores, beyond = set_chart({"base": data, "refined": data}, ["MMStar", "MME"])
    assert beyond == ["MME"]
    found = write_drawn()
    for drawn in [scores, *found]:
        root = ElementTree.fromstring(drawn.svg)
        assert len(root.attrib["aria-label"]) > 30
        assert not re.search(r"(fill|stroke): #", drawn.svg)
    assert "MMStar: base 50.0, refined 50.0" in scores.svg
    nothing = set_chart({"base": {"sets": {"MMVet": {"score": None}}}}, ["MMVet"])
    assert nothing == (None, [])


def write_drawn():
    from written_evaluation import affinity

    value = affinity()
    ((name, clouds),) = cloud_charts(value["published"])
    assert (name, len(clouds)) == ("qwen", 2)
    assert "30 % of patches, 10 % of words" in clouds[0].svg
    layers = layer_chart(value["joint"])
    assert layer_chart([{**value["joint"][0], "integration": None}]) is None
    return [*clouds, layers, *drift_charts(value["drift"]), *probe_charts(probes())]


def test_probes_at_one_layer_have_no_curve():
    assert len(probe_charts(probes())) == 1
    assert probe_charts([row for row in probes() if row["layer"] == 2]) == []


def test_probes_are_shown_at_the_layer_that_was_chosen_without_the_test_set(tmp_path):
    first, second = dict.fromkeys(row["tower"] for row in probes())
    write_json(tmp_path / "probe.json", probes())
    towers = {first: {"best layers": {"knn": 2}}, second: {"best layers": {}}}
    write_json(tmp_path / "probe_comparison.json", {"towers": towers})
    data = read_evaluation(tmp_path)
    ((_, cells),) = probe_table(data.probes, data.best_layers)
    assert cells == ["80.0 (60.0 to 90.0), layer 2", "85.0 (60.0 to 90.0), layer 3"]


def test_tables_show_numbers_as_they_are():
    ((name, cells),) = probe_table(probes(), {})
    assert name == "knn, digits, top-1"
    assert cells == ["85.0 (60.0 to 90.0), layer 3"] * 2
    row = MeasureRow("m", "t", measured(0.25, low=None, high=None, chance=None))
    assert (row.value, row.interval, row.chance) == ("0.25", "—", "—")
    models = {"a": {"sets": {"MMVet": {"score": None, "unparsed": 2}}}, "b": {"sets": {}}}
    assert set_table(models, ["MMVet"]) == [("MMVet", [("no score", "2 unparsed"), ("—", "")])]
    from written_evaluation import affinity

    titles = [table.title for table in measure_tables(affinity())]
    assert titles == [
        "patches and qwen, as published",
        "pictures and captions in qwen",
        "behind the connector, in full width",
        "scores",
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_a_browser_draws_the_first_questions(folder):
    page = write_evaluation_report(write_evaluation(folder, count=50))
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    made = subprocess.run(
        [*words, f"file://{page}"], capture_output=True, text=True, check=True, timeout=120
    )
    assert made.stdout.count('<li class="example">') == 40
    assert "1 to 40 of 100" in made.stdout
    assert "✗ wrong" in made.stdout
