"""Fonts for pages: those that come with Pillow and matplotlib, or those in a folder of the
user's.
"""

from __future__ import annotations

import string
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont, Layout

from sailvit.core.errors import DataError

BUILT_IN = ""
"""Stands for Pillow's own font, which has no file."""
CHARACTERS = string.ascii_letters + string.digits + ".,:;-/#()|%$'"
"""Characters that a font must have."""
_SHIPPED = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSansMono.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
)
_ENDINGS = (".ttf", ".otf")


@cache
def shipped_faces() -> tuple[str, ...]:
    """Fonts that every installation has."""
    # The folder is found without importing matplotlib, which takes half a second.
    spec = find_spec("matplotlib")
    folder = (
        Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" if spec and spec.origin else Path()
    )
    return (BUILT_IN, *(str(folder / name) for name in _SHIPPED if (folder / name).is_file()))


@cache
def faces_in(folder: str) -> tuple[str, ...]:
    """The fonts in a folder and its subfolders that have all `CHARACTERS`; DataError if there
    are none.
    """
    paths = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in _ENDINGS)
    usable = tuple(path for path in paths if not missing(path, CHARACTERS))
    if not usable:
        raise DataError(
            f"{folder} has {len(paths)} font files, none of which can write letters, digits and"
            f" {CHARACTERS[62:]}; expected at least one such {' or '.join(_ENDINGS)} file"
        )
    return usable


@cache
def font(face: str, size: int) -> FreeTypeFont:
    """A font at a size in pixels, with basic layout."""
    # Raqm, the other layout engine, would make pixels depend on its version and on whether it
    # is there.
    if face == BUILT_IN:
        built_in = ImageFont.load_default(size)
        if not isinstance(built_in, FreeTypeFont):
            raise DataError(
                "this Pillow was built without FreeType; install a wheel of Pillow that has it"
            )
        return built_in.font_variant(layout_engine=Layout.BASIC)
    return ImageFont.truetype(face, size, layout_engine=Layout.BASIC)


def faces_for(text: str, faces: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the fonts that have all characters of the text; DataError if there are none."""
    characters = "".join(sorted(set(text)))
    lacking = {face: missing(face, characters) for face in faces}
    if usable := tuple(face for face in faces if not lacking[face]):
        return usable
    fewest = min(lacking.values(), key=len)
    raise DataError(
        f"none of {len(faces)} fonts can write all characters of the text; the best one lacks"
        f" {fewest[:40]!r}: set `fonts` to a folder with fonts that have them, or remove them"
    )


def missing(face: str, characters: str) -> str:
    """Those of the characters for which the font has no glyph of its own; all of them if it
    cannot be read.
    """
    try:
        made = font(face, 16)
    except OSError:
        return characters
    # U+FFFF is no character, so a font draws its sign for missing glyphs.
    sign = bytes(made.getmask("\uffff"))
    return "".join(
        each for each in characters if not each.isspace() and bytes(made.getmask(each)) == sign
    )
