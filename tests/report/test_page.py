"""The whole page: complete, self-contained, safe, and honest about what is missing."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner
from written_run import scene, write_run

from sailvit.core.errors import RunError
from sailvit.core.run import append_line, read_json, write_json
from sailvit.report.page import IMAGE_BUDGET, write_report

VOID = {"meta", "img", "br", "use", "path", "rect", "link"}


class Outline(HTMLParser):
    """Collects headings and images, and checks that elements close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.images, self.tags, self.links = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "action")
        ]
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def html(run):
    return write_report(run).read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(html):
    outline = Outline(html)
    assert outline.open == []
    assert "script" not in outline.tags
    assert all(link.startswith(("#", "data:image/")) for link in outline.links)
    assert "url(http" not in html
    assert "default-src 'none'" in html


def test_lineage_goes_from_the_base_tower_to_the_exported_one(html):
    chain = html[html.index('class="chain"') : html.index("</ol>")]
    order = [
        chain.index(text)
        for text in (
            "sailvit:world-tower",
            ">coarse<",
            ">fine<",
            ">knowledge<",
            "02-knowledge/tower",
        )
    ]
    assert order == sorted(order)
    assert "after 80 steps of tower training" in chain
    for fact in ("9f2c51e07ab3", "5b1d22aa90fe", "torch: 2.13.0", "seed 3"):
        assert fact in html


def test_stage_table_shows_shares_counts_and_proof(html):
    row = re.search(r'<tr><th scope="row">knowledge</th>.*?</tr>', html, re.DOTALL).group()
    for cell in ("0.5</b>", "1</b>", "0.1</b>", "640", "80 k", "110", "✓ as planned"):
        assert cell in row
    assert "Frozen, identical" in html


def test_scores_examples_and_distances_are_there(html):
    for text in (
        "0.348 → 0.563",
        "+21.5 points",
        "95 % interval +19.0 to +24.0",
        "✗ wrong",
        "✓ right",
        "Wasserstein",
    ):
        assert text in html


def test_every_image_has_a_text(html):
    images = Outline(html).images
    assert len(images) == 5
    assert all(image["alt"] for image in images)
    assert html.count('<svg role="img" aria-label="') == html.count("<svg")


def test_model_output_stays_text(html):
    assert "one &lt;b&gt;blue&lt;/b&gt; square" in html
    assert "<b>blue" not in html


@pytest.mark.parametrize(
    "image", ["https://example.org/a.png", 'data:image/svg+xml;base64,AA"onload="x', "javascript:x"]
)
def test_only_plain_bitmaps_are_shown(run, image):
    evaluation = read_json(run.evaluation)
    evaluation["examples"][0]["image"] = image
    write_json(run.evaluation, evaluation)
    assert image not in write_report(run).read_text()


def test_large_images_are_left_out_and_said_to_be(run):
    evaluation = read_json(run.evaluation)
    evaluation["examples"][0]["image"] = "data:image/png;base64," + "A" * IMAGE_BUDGET
    write_json(run.evaluation, evaluation)
    html = write_report(run).read_text()
    assert "too large for this page" in html
    assert len(Outline(html).images) == 4


def test_without_scores_the_page_has_no_empty_box_but_the_command_that_fills_them(bare_run):
    html = write_report(bare_run).read_text()
    assert "evaluation.json" in html
    assert "affinity.json" in html
    assert html.count(f"sailvit report {bare_run.path} --evaluation OTHER_RUN") == 1
    assert 'class="empty"' not in html
    assert "Base and refined tower, task by task" not in html


def test_before_the_first_step_the_page_still_opens(bare_run):
    bare_run.metrics.unlink()
    bare_run.proofs.unlink()
    bare_run.recipe.unlink()
    write_json(bare_run.manifest, {**read_json(bare_run.manifest), "stages": []})
    html = write_report(bare_run).read_text()
    assert "No stage has started" in html
    assert "none yet" in html


def test_a_failed_proof_is_open_and_marked(run):
    row = {
        "part": "tower",
        "planned": 10,
        "in_optimizer": 0,
        "moved": 0,
        "frozen": 0,
        "frozen_identical": 0,
        "lr": 0.0,
    }
    row["verdict"] = "10 parameters have no optimizer group"
    append_line(
        run.proofs,
        {"stage": "fine", "stage_index": 1, "step": 10, "when": "end", "ok": False, "rows": [row]},
    )
    html = write_report(run).read_text()
    assert "6 of 7" in html
    assert html.count("<details open>") == 1
    assert "10 parameters have no optimizer group" in html


def test_a_demo_size_run_stays_small(tmp_path):
    run = write_run(tmp_path / "large", steps=1000)
    evaluation = read_json(run.evaluation)
    evaluation["examples"] = [
        {**evaluation["examples"][0], "image": scene(np.random.default_rng(i))} for i in range(40)
    ]
    write_json(run.evaluation, evaluation)
    page = write_report(run)
    assert page.stat().st_size < 1_500_000
    assert "24 held-out questions of 40" in page.read_text()


def test_the_report_runs_without_torch():
    code = "import sys, sailvit.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_names_the_file(run):
    import typer

    from sailvit.cli.report import report

    app = typer.Typer()
    app.command()(report)
    result = CliRunner().invoke(app, [str(run.path)])
    assert result.exit_code == 0
    assert "report.html" in result.output
    assert run.report.exists()


def test_a_report_that_cannot_be_written_is_a_sentence(run):
    run.report.mkdir()
    with pytest.raises(RunError, match=r"report\.html is a folder; give the name of a file"):
        write_report(run)


def test_what_was_left_out_is_in_the_page(run):
    assert "Records left out" not in write_report(run).read_text(encoding="utf-8")
    line = {"stage": "coarse", "step": 0, "source": "photos <b>", "kind": "cut shard"}
    line["reason"] = "it ends early"
    append_line(run.quarantine, {**line, "count": 1200})
    append_line(run.quarantine.with_stem("quarantine-1"), {**line, "kind": "crc"})
    html = write_report(run).read_text(encoding="utf-8")
    assert Outline(html).open == []
    assert "Records left out" in html
    assert "photos &lt;b&gt;</td><td>cut shard</td><td>1,200</td>" in html
    assert "<td>crc</td><td>1</td>" in html


def test_every_figure_says_its_heading_for_screens_without_columns(html):
    stacked = re.findall(r'<table class="numbers stacked">.*?</table>', html, re.DOTALL)
    assert len(stacked) >= 3
    for table in stacked:
        heads = re.findall(r'<th scope="col">(.*?)</th>', table)[1:]
        row = re.findall(r"<tr><th scope=\"row\">.*?</tr>", table, re.DOTALL)[0]
        assert re.findall(r'data-label="(.*?)"', row) == heads
