"""Formats: sources that read records from files. A new one is a module, and its opener in
`FORMATS` with an example beside it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.core.own_code import is_own, own_class
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Source
from sailvit.data.sources.arrow import open_arrow
from sailvit.data.sources.captions import open_captions
from sailvit.data.sources.folder import open_folder
from sailvit.data.sources.indexed import open_indexed
from sailvit.data.sources.llava import open_llava
from sailvit.data.sources.parquet import open_parquet
from sailvit.data.sources.selected import open_selected
from sailvit.data.sources.tsv import open_tsv
from sailvit.data.sources.video_frames import open_video_frames
from sailvit.data.sources.webdataset import open_webdataset
from sailvit.synthetic.documents.source import open_documents
from sailvit.synthetic.world.source import open_world

Opener = Callable[[SourceConfig, Path], Source]
"""Opens a source; relative paths start at the given folder."""


def _open_charts(config: SourceConfig, folder: Path) -> Source:
    # It imports matplotlib, which takes half a second.
    from sailvit.synthetic.charts.source import open_charts

    return open_charts(config, folder)


FORMATS: dict[str, Opener] = {
    "llava": open_llava,
    "chat": open_llava,
    "captions": open_captions,
    "video_frames": open_video_frames,
    "folder": open_folder,
    "webdataset": open_webdataset,
    "parquet": open_parquet,
    "arrow": open_arrow,
    "tsv": open_tsv,
    "selected": open_selected,
    "indexed": open_indexed,
    "world": open_world,
    "charts": _open_charts,
    "documents": open_documents,
}
"""Openers by `format` of a recipe's source."""
EXAMPLES = {
    "llava": "{format: llava, path: chats.jsonl, images: pictures}",
    "chat": "{format: chat, path: chats.jsonl}",
    "captions": "{format: captions, path: captions.jsonl, images: pictures}",
    "video_frames": "{format: video_frames, path: videos.jsonl}",
    "folder": "{format: folder, path: pictures}",
    "webdataset": "{format: webdataset, path: 'shards/*.tar'}",
    "parquet": "{format: parquet, path: 'rows/*.parquet'}",
    "arrow": "{format: arrow, path: saved_to_disk}",
    "tsv": "{format: tsv, path: questions.tsv}",
    "selected": "{format: selected, path: curated}",
    "indexed": "{format: indexed, path: prepared}",
    "world": "{format: world, options: {tasks: {fine: 3, ocr: 1}, size: 8000}}",
    "charts": "{format: charts, options: {size: 8000}}",
    "documents": "{format: documents, options: {size: 8000}}",
}
"""A source of each format, as it stands under `sources` in a recipe."""
ABILITIES = ("__len__", "__getitem__", "fingerprint")
"""Attributes that every source has."""
RENAMED = {"saved": "arrow", "frames": "video_frames", "pages": "documents"}
"""Formats by their names in earlier versions, which old recipes and selections still hold."""


def open_source(name: str, config: SourceConfig, folder: Path) -> Source:
    """The source that a recipe calls `name`, ready to read; DataError when it cannot be."""
    if (renamed := RENAMED.get(config.format)) is not None:
        raise DataError(
            f"source {name} has format {config.format!r}, which is called {renamed!r} now:"
            f" write format: {renamed}"
        )
    if is_own(config.format):
        return _open_own(name, config)
    if config.format not in FORMATS:
        near = get_close_matches(config.format, FORMATS, n=1, cutoff=0.0)[0]
        raise DataError(
            f"source {name} has format {config.format!r}; known are {', '.join(FORMATS)} (did"
            f" you mean {near}?)"
        )
    try:
        return FORMATS[config.format](config, folder)
    except DataError as error:
        raise DataError(f"source {name}: {error}", kind=error.kind) from error


def _open_own(name: str, config: SourceConfig) -> Source:
    """A source of the user's own class, which is called with `path`, `images` and the options,
    as far as the recipe gives them.
    """
    cls = own_class(config.format, DataError)
    places = {"path": config.path, "images": config.images}
    settings = {
        **{key: value for key, value in places.items() if value is not None},
        **config.options,
    }
    try:
        # Before it is called: a TypeError from inside the user's code is not about these names.
        inspect.signature(cls).bind(**settings)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"source {name}: {config.format} cannot be made from"
            f" {', '.join(settings) or 'nothing'} ({error}); expected the names that its"
            " __init__ takes, under path, images and options"
        ) from error
    made = cls(**settings)
    if lacking := [ability for ability in ABILITIES if not hasattr(made, ability)]:
        raise DataError(
            f"source {name}: {config.format} has no {', '.join(lacking)}; expected a source, with"
            " __len__, __getitem__(position) -> Record, and fingerprint"
        )
    source: Source = made
    return source
