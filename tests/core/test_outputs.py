"""Output files and folders: what sailvit has not made is never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sailvit.core.errors import RunError
from sailvit.core.outputs import (
    GENERATOR,
    refuse_foreign_file,
    refuse_foreign_folder,
    write_output,
)

FIGURES = dict.fromkeys(("recipe", "device"))
ROWS = {"id": None, "kind": "qa"}


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (None, f"<!doctype html>\n{GENERATOR}\n"),
        (None, "<title>demo · SAILViT run</title>"),
        (FIGURES, json.dumps({"recipe": "a", "device": "cpu", "more": [1]}, indent=1)),
        (ROWS, json.dumps({"id": "1", "kind": "qa"}) + "\n" + json.dumps({"id": "2"}) + "\n"),
        (ROWS, ""),
    ],
)
def test_what_a_command_made_it_may_replace(tmp_path: Path, mark: dict | None, text: str):
    (tmp_path / "out").write_text(text)
    refuse_foreign_file(tmp_path / "out", mark)


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        (None, "<!doctype html><title>My page</title>"),
        (None, "thesis"),
        (FIGURES, "{}"),
        (FIGURES, json.dumps({"recipe": "a"}, indent=1)),
        (FIGURES, json.dumps([{"recipe": "a", "device": "b"}])),
        (FIGURES, json.dumps({"inner": {"recipe": "a", "device": "b"}}, indent=1)),
        (ROWS, json.dumps({"id": "1", "kind": "chat"}) + "\n"),
        (ROWS, "a,b\n1,2\n"),
    ],
)
def test_what_it_did_not_make_is_refused_unless_asked(tmp_path: Path, mark: dict | None, text: str):
    out = tmp_path / "out"
    out.write_text(text)
    with pytest.raises(RunError, match="was not written by this command; give another name"):
        refuse_foreign_file(out, mark)
    refuse_foreign_file(out, mark, overwrite=True)
    assert out.read_text() == text


def test_folders_and_devices(tmp_path: Path):
    with pytest.raises(RunError, match="is a folder; give the name of a file"):
        refuse_foreign_file(tmp_path, overwrite=True)
    refuse_foreign_file(Path("/dev/null"))
    write_output(Path("/dev/null"), "x")
    refuse_foreign_folder(tmp_path / "new", "mark.json")
    (tmp_path / ".gitkeep").touch()
    refuse_foreign_folder(tmp_path, "mark.json")
    (tmp_path / "thesis").touch()
    with pytest.raises(RunError, match="holds thesis, which this command did not write"):
        refuse_foreign_folder(tmp_path, "mark.json")
    (tmp_path / "mark.json").touch()
    refuse_foreign_folder(tmp_path, "mark.json")
    with pytest.raises(RunError, match="thesis is a file"):
        refuse_foreign_folder(tmp_path / "thesis", "mark.json")
    with pytest.raises(RunError, match="thesis is a file; give a folder"):
        refuse_foreign_file(tmp_path / "thesis" / "page.html")


def test_links_stay_and_missing_folders_are_made(tmp_path: Path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_output(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    write_output(tmp_path / "a/b/c.json", "{}")
    assert (tmp_path / "a/b/c.json").read_text() == "{}"
    with pytest.raises(RunError, match=r"x cannot be written \(File exists\)"):
        write_output(tmp_path / "real/x", "")
