"""Charts are small, well-formed, labelled and coloured by the page."""

import re
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np
import pytest

from sailvit.report.charts import feature_charts, loss_chart, run_chart, task_chart
from sailvit.report.drawing import COLOURS

STEPS = np.arange(1.0, 5001.0)
FALLING = 3 * np.exp(-STEPS / 900) + 0.1 * np.sin(STEPS)
MODELS = {
    "base": {"label": "base tower", "mean": 0.3, "tasks": {"colour": 0.4, "ocr": 0.2}},
    "refined": {"label": "refined tower", "mean": 0.45, "tasks": {"colour": 0.7, "ocr": 0.2}},
}


def drawings():
    cloud = np.random.default_rng(0).normal(size=(2000, 2)).tolist()
    features = feature_charts({"base": {"visual": cloud, "text": cloud}}, {"base": "base tower"})
    return [
        loss_chart("coarse", "next_token", STEPS, FALLING),
        run_chart("Padding", "share", [("coarse", FALLING), ("fine", FALLING)], share=True),
        task_chart(MODELS),
        *features,
    ]


@pytest.mark.parametrize("drawn", drawings(), ids=["loss", "run", "tasks", "features"])
def test_a_chart_is_one_labelled_element_without_fixed_colours(drawn):
    root = ElementTree.fromstring(drawn.svg)
    assert root.attrib["role"] == "img"
    assert len(root.attrib["aria-label"]) > 30
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    assert not re.search(r"(fill|stroke): #", drawn.svg)
    assert "<script" not in drawn.svg
    assert len(drawn.svg) < 120_000


def test_every_colour_has_a_light_and_a_dark_value():
    css = files("sailvit.report").joinpath("report.css").read_text()
    for name in COLOURS.values():
        assert css.count(f"--{name}: #") == 2, name


def test_axes_name_their_units():
    svg = loss_chart("fine", "contrastive", STEPS, FALLING).svg
    assert "nats per image" in svg
    assert "optimizer step of the stage" in svg
    assert ">fine<" in svg


def test_the_same_numbers_give_the_same_drawing():
    assert task_chart(MODELS).svg == task_chart(MODELS).svg


def test_two_charts_of_a_page_share_no_identifier():
    found = [set(re.findall(r' id="([^"]+)"', drawn.svg)) for drawn in drawings()]
    assert sum(map(len, found)) == len(set().union(*found))


def test_steps_without_a_finite_loss_are_counted():
    loss = FALLING.copy()
    loss[10:13] = np.nan
    assert (
        loss_chart("coarse", "next_token", STEPS, loss).caption
        == "3 of 5000 steps had no finite loss."
    )
    assert "without a finite value" in loss_chart("coarse", "x", STEPS, np.full(5000, np.nan)).svg


def test_the_task_chart_shows_changes_and_tells_them_to_screen_readers():
    svg = task_chart(MODELS).svg
    assert ">+30<" in svg
    assert ">+15<" in svg
    assert "colour: base 0.400, refined 0.700" in svg


def test_a_task_that_one_model_lacks_has_no_change():
    models = {
        "base": {"mean": 0.3, "tasks": {"colour": 0.3}},
        "refined": {"mean": 0.2, "tasks": {"ocr": 0.2}},
    }
    svg = task_chart(models).svg
    assert svg.count("\N{MINUS SIGN}10<") == 1


def test_names_are_neither_markup_nor_formulas():
    models = {"base": {"mean": 0.5, "tasks": {"$x^2$ <b>": 0.5}}}
    svg = task_chart(models).svg
    ElementTree.fromstring(svg)
    assert "$x^2$ &lt;b&gt;" in svg
