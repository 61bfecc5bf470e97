"""`data check` and `data stats` list, once per source, the keys that are not read."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from sailvit.cli.app import app

TALK = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a cat"}]


def test_keys_that_are_not_read_are_listed_once(tmp_path):
    rows = [{"messages": TALK, "score": 1, **({"note": "x"} if n == 0 else {})} for n in range(3)]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for command in (["check"], ["stats", "--no-near"]):
        done = CliRunner().invoke(app, ["data", command[0], str(path), *command[1:]])
        assert done.exit_code == 0, done.output
        assert done.output.count("source chat: keys not read: `score` (3), `note` (1)") == 1


def test_a_key_that_changes_the_meaning_is_refused_by_name(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": TALK, "videos": ["a.mp4"]}) + "\n")
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert done.exit_code == 1
    assert "found `videos`" in done.output
