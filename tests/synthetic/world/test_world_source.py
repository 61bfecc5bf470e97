import pickle
import zlib

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.core.recipe import SourceConfig
from sailvit.synthetic.world.source import WorldSource, open_world
from sailvit.synthetic.world.tasks import IMAGE_TASKS, READING_TASKS, TASKS, TEXT_TASKS

STRIPS = ("digit", "strip")
"""Tasks whose pictures are as large as they need."""


def same(first, second):
    if (first.id, first.turns, first.kind) != (second.id, second.turns, second.kind):
        return False
    return all(
        np.array_equal(a.pixels(), b.pixels())
        for a, b in zip(first.images, second.images, strict=True)
    )


def test_a_record_depends_on_the_options_and_its_position_only():
    tasks = dict.fromkeys(TASKS, 1.0)
    forward, longer = (
        WorldSource("train", tasks, 60, seed=3),
        WorldSource("train", tasks, 600, seed=3),
    )
    backward = {position: longer[position] for position in reversed(range(60))}
    assert all(same(forward[position], backward[position]) for position in range(60))


@pytest.mark.parametrize(
    "other",
    [
        WorldSource("held_out", "fine", 20),
        WorldSource("train", "fine", 20, seed=1),
        WorldSource("train", {"fine": 2.0}, 20),
    ],
)
def test_other_options_give_another_stream_and_another_fingerprint(other):
    source = WorldSource("train", "fine", 20)
    assert source.fingerprint != other.fingerprint
    assert not any(same(source[position], other[position]) for position in range(20))


def test_the_fingerprint_does_not_depend_on_the_order_of_tasks():
    first = WorldSource("train", {"fine": 1, "ocr": 2}, 20)
    second = WorldSource("train", {"ocr": 2, "fine": 1}, 20)
    assert first.fingerprint == second.fingerprint
    assert all(same(first[position], second[position]) for position in range(20))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_records_of_its_kind(task):
    for record in map(WorldSource("train", task, 20).__getitem__, range(20)):
        question, answer = record.turns
        assert (question.role, answer.role) == ("user", "assistant")
        assert answer.text == " ".join(answer.text.lower().split())
        assert record.kind == TASKS[task].kind
        assert (
            question.text.startswith("<image>\n")
            == (len(record.images) == 1)
            == (task in IMAGE_TASKS)
        )
        for image in record.images:
            width, height = image.size
            assert image.pixels().shape == (height, width, 3)
            assert image.pixels().dtype == np.uint8
            assert image.size == (64, 64) or task in STRIPS


def test_the_named_groups_cover_every_task():
    assert set(IMAGE_TASKS) | set(READING_TASKS) | set(TEXT_TASKS) == set(TASKS)


def test_tasks_are_mixed_by_their_shares():
    source = WorldSource("train", {"ocr": 3, "sum": 1}, 2000)
    share = np.mean([source[position].kind == "ocr" for position in range(2000)])
    assert share == pytest.approx(0.75, abs=0.03)


def test_the_registry_opens_a_world_from_a_recipe(tmp_path):
    config = SourceConfig(
        format="world", options={"tasks": ["fine", "ocr"], "size": 50, "split": "held_out"}
    )
    source = open_world(config, tmp_path)
    assert len(source) == 50
    assert source.options.tasks == {"fine": 1.0, "ocr": 1.0}
    assert source.fingerprint == WorldSource("held_out", {"ocr": 1, "fine": 1}, 50).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": "fien", "size": 5}, "write fine"),
        ({"tasks": {"fine": 0}, "size": 5}, "greater than 0"),
        ({"tasks": {}, "size": 5}, "at least 1"),
        ({"tasks": "fine"}, "size"),
        ({"tasks": "fine", "size": 5, "split": "test"}, "held_out"),
        ({"tasks": "fine", "size": 5, "sizes": 5}, "sizes"),
    ],
)
def test_options_that_do_not_hold_are_refused(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_world(SourceConfig(format="world", options=options), tmp_path)


@pytest.mark.parametrize("position", [-1, 5])
def test_a_position_outside_is_refused(position):
    with pytest.raises(IndexError, match="of 5 scenes"):
        WorldSource("train", "fine", 5)[position]


def test_a_picture_is_drawn_when_it_is_looked_at_and_is_the_same_each_time(monkeypatch):
    source = WorldSource("train", "fine", 20)
    drawn = source[3].images[0].pixels()
    monkeypatch.setattr(f"{WorldSource.__module__}.draw", lambda scene, rng: pytest.fail("drawn"))
    picture = source[3].images[0]
    monkeypatch.undo()
    assert np.array_equal(picture.pixels(), drawn)
    assert np.array_equal(picture.pixels(), drawn)
    assert np.array_equal(pickle.loads(pickle.dumps(picture)).pixels(), drawn)


def test_pictures_stay_what_they_were():
    assert checksum(set(IMAGE_TASKS) - set(STRIPS)) == 1543562101
    assert checksum(STRIPS) == 2352952667


def checksum(tasks):
    source = WorldSource("train", dict.fromkeys(tasks, 1.0), 50, seed=7)
    return zlib.crc32(
        b"".join(source[position].images[0].pixels().tobytes() for position in range(50))
    )
