"""Videos as frames: rows with a folder (`video`) or a list (`frames`) of images, and turns or a
caption.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sailvit.core.errors import DataError
from sailvit.core.recipe import Positive, SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.rows.conversations import RecordOptions, put_first, row_name, unread
from sailvit.data.rows.image_refs import image_from, image_path
from sailvit.data.rows.keys import refuse_keys, refuse_marks
from sailvit.data.rows.row import RowFile, RowSource, read_options
from sailvit.data.rows.turns import Talk, has_turns, read_talk, system_text
from sailvit.data.sources.detect import IMAGES

VIDEO_MARK = "<video>"
"""Mark in a turn's text for the frames of a video."""
_READ = ("video", "frames", "fps")
"""Keys that this format reads beside turns."""


class VideoFramesOptions(RecordOptions):
    """Options of format `video_frames`."""

    kind: str | None = "video"
    """Kind of records whose row has no `kind`; `caption` makes contrastive pairs only of single
    frames."""
    frames: Annotated[int, Field(ge=1)] = 8
    """Most frames of a video: the middle ones of as many equal parts, in their order."""
    fps: Positive | None = None
    """Frames per second of the frames, for rows without `fps`; None: not known."""
    label: str = ""
    """Text before each frame; `{number}` is its number, from 1 on, `{seconds}` its time by
    `fps`."""


class VideoFramesSource(RowSource[VideoFramesOptions]):
    """Videos as records of several images."""

    def __getitem__(self, position: int) -> Record:
        row, options = self._rows[position], self._options
        refuse_keys(row, read=_READ)
        talk = self._talk(row, position)
        turns = talk.turns
        found = _frames(row, self._rows.images)
        marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
        # Such turns speak of every frame by its place, so none of them can be left out.
        if marks > 1 and marks == len(found):
            picked = list(range(len(found)))
        else:
            picked = pick(len(found), options.frames)
            turns = _expanded(turns, self._marks(row, picked), row_name(row, position))
        refuse_marks(turns)
        images = tuple(image_from(found[index], self._rows.images) for index in picked)
        kind = str(row.get("kind") or options.kind or "video")
        rest = unread(row, talk, turns, _READ)
        return Record(row_name(row, position), tuple(turns), images, kind, rest)

    def _talk(self, row: dict[str, Any], position: int) -> Talk:
        """The row's turns, with one mark for the video or one per frame."""
        if has_turns(row):
            talk = read_talk(row)
            if self._options.mark == "prepend":
                talk.turns = put_first(talk.turns, VIDEO_MARK)
            return talk
        key = "text" if row.get("text") else "caption"
        text = row.get(key)
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f"found keys {', '.join(row) or 'none'}; expected turns, or a `text` or"
                " `caption` that is not blank",
                kind="text",
            )
        prompt = self._options.prompts[position % len(self._options.prompts)]
        talk = Talk(read={key})
        system = system_text(row, talk)
        talk.turns = [Turn("system", system)] if system else []
        talk.turns += [Turn("user", f"{VIDEO_MARK}\n{prompt}"), Turn("assistant", text)]
        return talk

    def _marks(self, row: dict[str, Any], picked: Sequence[int]) -> str:
        """The text in the place of the video: a mark per frame, each after its label."""
        label, fps = self._options.label, row.get("fps") or self._options.fps
        if "{seconds}" in label and not isinstance(fps, int | float):
            raise DataError(
                "the label shows {seconds}, and no rate is known; set `fps` in the options or in"
                " the row"
            )
        seconds = [f"{index / fps:.1f}" if fps else "" for index in picked]
        # Not str.format: a label may hold other braces, and a format can reach attributes.
        labels = [
            label.replace("{number}", str(number)).replace("{seconds}", time)
            for number, time in enumerate(seconds, 1)
        ]
        return "\n".join(text + IMAGE_MARK for text in labels)


def open_video_frames(config: SourceConfig, folder: Path) -> VideoFramesSource:
    """The videos in the file of rows at `path`; paths of their folders and frames start at
    `images`.
    """
    options = read_options(VideoFramesOptions, config)
    return VideoFramesSource(RowFile(config, folder, options), options)


def pick(count: int, most: int) -> list[int]:
    """The frames to show, of `count`: the middle ones of `most` equal parts, or all when there
    are not more.
    """
    shown = min(count, most)
    # Part i of n has its middle at (2 i + 1) / (2 n); in whole numbers the same on every
    # machine.
    return [(2 * index + 1) * count // (2 * shown) for index in range(shown)]


def _frames(row: dict[str, Any], folder: Path) -> list[Any]:
    """The frames of a row: its list, or the images of its folder, ordered by the numbers in
    their names.
    """
    listed = row.get("frames")
    if isinstance(listed, list) and listed:
        return listed
    video = row.get("video") or listed
    if not isinstance(video, str):
        raise DataError(
            f"found keys {', '.join(row) or 'none'}; expected `frames`, a list of images, or"
            " `video`, a folder of them",
            kind="image",
        )
    return [
        f"{video}/{name}" for name in sorted(_images_in(image_path(folder, video)), key=_by_number)
    ]


def _images_in(video: Path) -> list[str]:
    """Names of the images in a folder; for a video file, DataError with the command that makes
    such a folder.
    """
    if video.is_file():
        raise DataError(
            f"{video} is a file; expected a folder of frames: take them out,"
            f" `ffmpeg -i {video.name} -vf fps=2 {video.stem}/%05d.jpg`",
            kind="image",
        )
    names = (
        [path.name for path in video.iterdir() if path.suffix.lower() in IMAGES]
        if video.is_dir()
        else []
    )
    if not names:
        raise DataError(
            f"{video} holds no images; expected the frames of a video", kind="missing file"
        )
    return names


def _by_number(name: str) -> list[tuple[int, str]]:
    """A sort key by which `2.jpg` comes before `10.jpg`."""
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _expanded(turns: Sequence[Turn], marks: str, name: str) -> list[Turn]:
    """The turns with their one video mark, or their only image mark, replaced by `marks`."""
    mark = next(
        (mark for mark in (VIDEO_MARK, IMAGE_MARK) if any(mark in turn.text for turn in turns)),
        VIDEO_MARK,
    )
    found = sum(turn.text.count(VIDEO_MARK) + turn.text.count(IMAGE_MARK) for turn in turns)
    if found != 1:
        raise DataError(
            f"record {name} has {found} marks for one video; expected {VIDEO_MARK} or"
            f" {IMAGE_MARK} once, or one {IMAGE_MARK} per frame"
            + ("" if found else ": put it in, or set the option mark: prepend"),
            kind="marks",
        )
    return [replace(turn, text=turn.text.replace(mark, marks)) for turn in turns]
