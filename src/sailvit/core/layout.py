"""What the data side must know about the tower: how an image becomes tiles and tiles become
tokens.
"""

from dataclasses import dataclass

PLACEHOLDER = "<|image_pad|>"
"""The token that stands for an image where a recipe names no other."""


@dataclass(frozen=True)
class VisualLayout:
    """The contract between images and the placeholder runs that stand for them in text."""

    tile_size: int
    """Height and width of a tile, in pixels."""
    tokens_per_tile: int
    """Visual tokens of one tile after merging, so the length of its placeholder run."""
    placeholder_id: int
    """Token id that visual features replace."""
    placeholder: str
    """The same token as text."""
    max_tiles: int = 1
    """Most crops of one image, thumbnail not counted; 1 means every image is one resized
    tile."""
    thumbnail: bool = True
    """Whether an image cut into several tiles also gets one tile of the whole."""
    wrap: tuple[str, str] | None = None
    """Tokens before and after an image's placeholders; None: none."""
    newline: bool = False
    """Whether a line break parts an image from the text or image behind it."""

    @property
    def edge(self) -> int:
        """Tokens of the wrap on either side of an image's placeholders."""
        return 0 if self.wrap is None else 1
