"""One damaged record among good ones: it is left out and accounted for, and every other one stays where it was."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import zlib
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from damage import (
    BAD,
    RECORDS,
    costs_of,
    parquet_rows,
    picture,
    read,
    row,
    write_llava,
    write_parquet,
    write_tsv,
)
from PIL import Image

from sailvit.core.recipe import QuarantineConfig
from sailvit.data.processing.processor import Processor

NAME = f"r{BAD}"


@pytest.fixture(scope="module")
def processor(chatml, layout) -> Processor:
    return Processor(chatml, layout, 160)


class Set:
    """A good set, what it costs and what a pass over it gives."""

    def __init__(self, write, folder, processor):
        self.folder, self.processor = folder / "good", processor
        self.config = write(self.folder)
        self.costs = costs_of(self.config, processor)
        self.outcome = read(self.config, processor, costs=self.costs)
        assert not self.outcome.bad
        assert sorted(self.outcome.ids) == sorted(f"r{number}" for number in range(RECORDS))

    def damaged(self, tmp_path, damage, **settings):
        """The same pass over a copy that `damage` was done to."""
        folder = tmp_path / "damaged"
        shutil.copytree(self.folder, folder)
        damage(folder)
        moved = {
            key: str(getattr(self.config, key)).replace(str(self.folder), str(folder))
            for key in ("path", "images")
        }
        moved = {key: value for key, value in moved.items() if value != "None"}
        config = self.config.model_copy(update=moved)
        return read(config, self.processor, costs=self.costs, **settings)

    def expect(self, outcome, kind):
        """Only the damaged record is missing, and it is in the account with its kind, place and reason."""
        (bad,) = outcome.bad
        assert outcome.packs == self.outcome.without(NAME)
        assert (bad.source, bad.position, bad.kind) == ("set", BAD, kind)
        assert bad.id in ("", NAME)
        assert len(bad.reason) > 20
        assert " at 0x" not in bad.reason
        assert Path(bad.shard).exists()


@pytest.fixture(scope="module")
def llava(tmp_path_factory, processor) -> Set:
    return Set(write_llava, tmp_path_factory.mktemp("llava"), processor)


def turns(*given):
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in given]}


ASKED, TOLD = ("human", "<image>what?"), ("gpt", "blue")

ROWS = {
    "nul byte in a line": (b'{"id": "r7", "conver\0sations": []}', "text"),
    "nul character in a turn": (turns(ASKED, ("gpt", "blue\0")), "text"),
    "lone surrogate": (turns(ASKED, ("gpt", "blue \ud800")), "text"),
    "invalid UTF-8": (b'{"id": "r7", "caption": "\xff\xfe"}', "text"),
    "line cut off": (json.dumps(row(BAD))[:40].encode(), "text"),
    "two objects in a line": (b'{"id": 1} {"id": 2}', "text"),
    "list for an object": (b'["r7"]', "text"),
    "number for an object": (b"7", "text"),
    "nested too deeply": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "text"),
    "no conversation": ({"conversations": None}, "turns"),
    "empty conversation": ({"conversations": []}, "turns"),
    "conversation not a list": ({"conversations": "hello"}, "turns"),
    "turn not an object": ({"conversations": ["hello"]}, "turns"),
    "assistant first": (turns(TOLD, ASKED, TOLD), "turns"),
    "no assistant": (turns(ASKED), "turns"),
    "two users in a row": (turns(ASKED, ("human", "well?"), TOLD), "turns"),
    "two answers in a row": (turns(ASKED, TOLD, TOLD), "turns"),
    "unknown role": (turns(ASKED, ("narrator", "blue")), "turns"),
    "role missing": ({"conversations": [{"value": "<image>"}, {"from": "gpt", "value": "blue"}]}, "turns"),
    "text is a number": (turns(ASKED, ("gpt", 7)), "turns"),
    "text is null": (turns(ASKED, ("gpt", None)), "turns"),
    "text is NaN": (turns(ASKED, ("gpt", float("nan"))), "turns"),
    "text is Infinity": (turns(ASKED, ("gpt", float("inf"))), "turns"),
    "text is an object": (turns(ASKED, ("gpt", {"blue": 1})), "turns"),
    "unknown piece of content": (turns(ASKED, ("gpt", [{"type": "audio"}])), "turns"),
    "blank answer": (turns(ASKED, ("gpt", "  \n")), "turns"),
    "huge text": (turns(ASKED, ("gpt", "blue " * 500_000)), "too long"),
    "prompt longer than a pack": (turns(("human", "<image>" + "what? " * 400), TOLD), "too long"),
    "a mark too many": (turns(("human", "<image><image>what?"), TOLD), "marks"),
    "a mark too few": (turns(("human", "what?"), TOLD), "marks"),
    "placeholder token in a turn": (turns(("human", "<image><|image_pad|>what?"), TOLD), "marks"),
    "image is a number": ({"image": 7}, "image"),
    "image leads out of the folder": ({"image": "../../secret.jpg"}, "path"),
    "image path is absolute": ({"image": "/etc/passwd"}, "path"),
    "image does not exist": ({"image": "gone.jpg"}, "missing file"),
    "image is a URL": ({"image": "https://example.org/7.jpg"}, "missing file"),
    "image name with a NUL": ({"image": "7\0.jpg"}, "image"),
    "image name too long": ({"image": "7" * 5000 + ".jpg"}, "image"),
    "image in broken base64": ({"image": "data:image/jpeg;base64,%%%"}, "base64"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "kind"), ROWS.values(), ids=ROWS)
def test_a_damaged_row(llava, tmp_path, damage, kind):
    def spoil(folder):
        lines = (folder / "rows.jsonl").read_bytes().splitlines()
        lines[BAD] = (
            damage if isinstance(damage, bytes) else json.dumps({**row(BAD), **damage}).encode()
        )
        (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    llava.expect(llava.damaged(tmp_path, spoil), kind)


def test_a_name_that_is_no_text_can_still_be_written_down(llava, tmp_path):
    def spoil(folder):
        lines = (folder / "rows.jsonl").read_text().splitlines()
        lines[BAD] = json.dumps({**row(BAD), "id": "\ud800", "image": "gone\udfff.jpg"})
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")

    (bad,) = llava.damaged(tmp_path, spoil).bad
    assert bad.id == "\\ud800"
    assert "gone" in bad.reason
    json.dumps(bad.__dict__, ensure_ascii=False).encode()


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header tells another size."""
    file = bytearray(picture(BAD, "PNG"))
    file[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    return bytes(file)


def float_tiff() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(file, "TIFF")
    return file.getvalue()


def flipped(file: bytes, at: int) -> bytes:
    return file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]


class Planted:
    """What a pickle would run."""

    def __reduce__(self):
        return os._exit, (17,)


FILES = {
    "empty": (b"", "image"),
    "zero bytes": (bytes(1000), "image"),
    "text": (b"a blue circle", "image"),
    "HTML": (b"<!doctype html><title>404 Not Found</title>", "image"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image"),
    "mp3": (b"ID3\x04\x00\x00\x00\x00\x00\x23TSSE" + bytes(range(256)) * 4, "image"),
    "gzip around a JPEG": (gzip.compress(picture(BAD)), "image"),
    "a pickle that would end the process": (pickle.dumps(Planted()), "image"),
    "JPEG: only its mark": (b"\xff\xd8\xff\xe0", "image"),
    "JPEG: header without pixels": (picture(BAD)[: picture(BAD).index(b"\xff\xda")], "image"),
    "JPEG: half": (picture(BAD)[: len(picture(BAD)) // 2], "image"),
    "JPEG: two bytes short": (picture(BAD)[:-2], "image"),
    "JPEG: progressive, cut": (picture(BAD, progressive=True)[:-60], "image"),
    "PNG: half": (picture(BAD, "PNG")[: len(picture(BAD, "PNG")) // 2], "image"),
    "PNG: a flipped bit": (flipped(picture(BAD, "PNG"), 100), "image"),
    "PNG: tells 60000 x 60000": (png_header(60_000, 60_000), "image size"),
    "PNG: tells 10000 x 9000": (png_header(10_000, 9_000), "image size"),
    "PNG: tells 0 x 9": (png_header(0, 9), "image"),
    "PNG: tells a negative size": (png_header(2**32 - 5, 9), "image size"),
    "WebP: half": (picture(BAD, "WEBP")[:120], "image"),
    "GIF: half": (picture(BAD, "GIF")[:300], "image"),
    "TIFF: floats": (float_tiff(), "image"),
    "BMP: cut": (picture(BAD, "BMP")[:200], "image"),
}


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES)
def test_a_damaged_image(llava, tmp_path, content, kind):
    outcome = llava.damaged(
        tmp_path, lambda folder: (folder / f"images/{BAD}.jpg").write_bytes(content)
    )
    llava.expect(outcome, kind)


def no_file(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.jpg")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def forbidden(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.chmod(0)


@pytest.mark.parametrize(
    ("replace", "kind"),
    [
        (no_file, "missing file"),
        (a_folder, "image"),
        (a_loop, "image"),
        (a_dead_link, "missing file"),
        (forbidden, "permission"),
    ],
)
def test_something_else_than_an_image(llava, tmp_path, monkeypatch, replace, kind):
    # Copying would wait for a pipe, and loops cannot be copied; so it is replaced in the copy.
    outcome = llava.damaged(tmp_path, lambda folder: replace(folder / f"images/{BAD}.jpg"))
    llava.expect(outcome, kind)


def test_a_pipe_is_given_up(llava, tmp_path):
    quarantine = QuarantineConfig(timeout=2)
    outcome = llava.damaged(
        tmp_path, lambda folder: a_pipe(folder / f"images/{BAD}.jpg"), quarantine=quarantine
    )
    llava.expect(outcome, "timeout")
    assert "within 2 s, nor when tried again" in outcome.bad[0].reason


STRANGE = {
    "CMYK without a profile": lambda: save(Image.new("CMYK", (9, 7), (0, 255, 255, 0)), "JPEG"),
    "animated GIF": lambda: save(
        Image.new("P", (9, 7), 1), "GIF", save_all=True, append_images=[Image.new("P", (9, 7), 2)]
    ),
    "16 bits": lambda: save(Image.fromarray(np.full((7, 9), 40_000, np.uint16)), "PNG"),
    "transparent palette": lambda: save(Image.new("P", (9, 7), 1), "PNG", transparency=1),
    "broken EXIF": lambda: save(
        Image.new("RGB", (9, 7)), "JPEG", exif=b"Exif\0\0MM\x00\x2a\xff\xff\xff\xff"
    ),
    "one pixel": lambda: save(Image.new("RGB", (1, 1)), "PNG"),
    "a line of pixels": lambda: save(Image.new("RGB", (4000, 1)), "PNG"),
    "JPEG with rubbish behind it": lambda: picture(BAD) + b"rubbish",
}


def save(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_what_is_strange_but_whole_is_read(llava, tmp_path, make):
    outcome = llava.damaged(
        tmp_path, lambda folder: (folder / f"images/{BAD}.jpg").write_bytes(make())
    )
    assert outcome.bad == []
    assert outcome.packs == llava.outcome.packs


CELLS = {
    "bad base64": ("/9j/" * 20 + "!", "base64"),
    "base64 cut": (b64encode(picture(BAD)).decode()[:-1], "base64"),
    "base64 of text": (
        b64encode(b"a blue circle, no image at all, in plain letters").decode() * 4,
        "image",
    ),
    "base64 of half an image": (b64encode(picture(BAD)[:400]).decode(), "image"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory, processor) -> Set:
    return Set(write_tsv, tmp_path_factory.mktemp("tsv"), processor)


@pytest.mark.parametrize(("cell", "kind"), CELLS.values(), ids=CELLS)
def test_a_damaged_cell(table, tmp_path, cell, kind):
    def spoil(folder):
        lines = (folder / "table.tsv").read_text().splitlines()
        lines[BAD + 1] = "\t".join([*lines[BAD + 1].split("\t")[:3], cell])
        (folder / "table.tsv").write_text("\n".join(lines) + "\n")

    table.expect(table.damaged(tmp_path, spoil), kind)


def test_a_question_without_answer(table, tmp_path):
    def spoil(folder):
        text = (folder / "table.tsv").read_text()
        (folder / "table.tsv").write_text(text.replace(f"colour {BAD}?\tblue", f"colour {BAD}?\t"))

    table.expect(table.damaged(tmp_path, spoil), "turns")


COLUMNS = {
    "image without bytes": ({"image": {"bytes": b"", "path": None}}, "image"),
    "image is null": ({"image": None}, "marks"),
    "image of neither bytes nor path": ({"image": {"bytes": None, "path": None}}, "image"),
    "image path that is not there": (
        {"image": {"bytes": None, "path": "gone.jpg"}},
        "missing file",
    ),
    "image path that leads out": ({"image": {"bytes": None, "path": "../gone.jpg"}}, "path"),
    "image cut": ({"image": {"bytes": picture(BAD)[:300], "path": None}}, "image"),
    "messages are null": ({"messages": None}, "turns"),
    "messages are empty": ({"messages": []}, "turns"),
    "content is null": ({"messages": [{"role": "user", "content": None}]}, "turns"),
    "role is null": ({"messages": [{"role": None, "content": "<image>"}]}, "turns"),
}


@pytest.fixture(scope="module")
def columns(tmp_path_factory, processor) -> Set:
    pytest.importorskip("pyarrow")
    return Set(write_parquet, tmp_path_factory.mktemp("parquet"), processor)


@pytest.mark.parametrize(("change", "kind"), COLUMNS.values(), ids=COLUMNS)
def test_a_damaged_row_of_columns(columns, tmp_path, change, kind):
    rows = parquet_rows()
    rows[BAD] |= change
    columns.expect(columns.damaged(tmp_path, lambda folder: write_parquet(folder, rows)), kind)


def test_more_than_seventy_kinds_of_damage_are_told_apart():
    tables = (ROWS, FILES, CELLS, COLUMNS)
    assert sum(map(len, tables)) >= 75
    assert len({kind for table in tables for _, kind in table.values()}) >= 8
