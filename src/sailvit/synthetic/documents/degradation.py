"""How a page is degraded between printing and reading: paper, ink, slant, blur and JPEG
artefacts.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.documents.fonts import font
from sailvit.synthetic.documents.sheets import Page

STEEPEST = 1.5
"""Most degrees by which a page is turned, to either side."""


@dataclass(frozen=True)
class Degradation:
    """How a page looks."""

    paper: tuple[int, int, int]
    """Colour of the paper."""
    ink: tuple[int, int, int]
    """Colour of the ink, in strong contrast to the paper."""
    angle: float = 0.0
    """Degrees by which the page is turned, anticlockwise."""
    blur: float = 0.0
    """Radius of the blur, in pixels."""
    grain: float = 0.0
    """Standard deviation of the paper's grain, in grey levels."""
    shade: float = 0.0
    """How much darker the page becomes from one corner to the opposite one, in grey levels."""
    quality: int | None = None
    """Quality of the JPEG that the page is stored as once; None: it is not stored as JPEG."""
    seed: int = 0
    """Seed of the grain."""


@dataclass(frozen=True)
class PageDrawing:
    """A page that is drawn when its pixels are needed; every drawing by one version of Pillow
    has the same pixels.
    """

    page: Page
    """What is written on it."""
    degradation: Degradation
    """How it looks."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.page.size

    def pixels(self) -> np.ndarray:
        """uint8[H, W, 3]."""
        degradation = self.degradation
        image = Image.new("RGB", self.page.size, degradation.paper)
        draw = ImageDraw.Draw(image)
        for rule in self.page.rules:
            draw.line(rule, fill=degradation.ink, width=1)
        for span in self.page.spans:
            draw.text(
                (span.x, span.y), span.text, fill=degradation.ink, font=font(span.face, span.size)
            )
        # In the order in which a scan gets them: turned on the glass, blurred by the lens,
        # grain of the sensor, compressed as a file.
        if degradation.angle:
            image = image.rotate(
                degradation.angle, Image.Resampling.BICUBIC, fillcolor=degradation.paper
            )
        if degradation.blur:
            image = image.filter(ImageFilter.GaussianBlur(degradation.blur))
        if degradation.grain or degradation.shade:
            image = Image.fromarray(_textured(np.asarray(image), degradation))
        return np.asarray(
            # Copied, as an image's own memory is read-only, and torch wants to write.
            image if degradation.quality is None else _compressed(image, degradation.quality)
        ).copy()


def some_degradation(rng: np.random.Generator, type_size: int, *, worn: bool) -> Degradation:
    """Random paper and ink; only pages that are `worn` are slanted, blurred, grainy and
    compressed.
    """
    paper, ink = int(rng.integers(215, 256)), int(rng.integers(0, 90))
    tint = rng.integers(-8, 1, 3)
    light = (paper + int(tint[0]), paper + int(tint[1]), paper + int(tint[2]))
    dark = (ink, ink, ink + int(rng.integers(0, 60)))
    plain = Degradation(light, dark) if rng.random() < 0.9 else Degradation(dark, light)
    if not worn:
        return plain
    return replace(
        plain,
        angle=round(float(rng.uniform(-STEEPEST, STEEPEST)), 2),
        # In units of the type's size: what large type survives makes small type unreadable.
        blur=round(float(rng.uniform(0, 0.045 * type_size)), 2),
        grain=round(float(rng.uniform(0, 9)), 1),
        shade=round(float(rng.uniform(0, 30)), 1),
        quality=int(rng.integers(45, 95)),
        seed=int(rng.integers(1 << 31)),
    )


def turned(
    box: tuple[float, float, float, float], size: tuple[int, int], angle: float
) -> np.ndarray:
    """float[4, 2]: corners of a box after the page is turned about its centre."""
    left, upper, right, lower = box
    centre = np.array(size) / 2
    corners = np.array([(left, upper), (right, upper), (right, lower), (left, lower)]) - centre
    # y grows downwards, so this turns anticlockwise to the eye, as Pillow's rotate does.
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    places: np.ndarray = corners @ np.array([(cosine, -sine), (sine, cosine)]) + centre
    return places


def _textured(pixels: np.ndarray, degradation: Degradation) -> np.ndarray:
    """uint8[H, W, 3]: the page with fine and coarse grain and a shadow across it."""
    height, width = pixels.shape[:2]
    rng = numpy_generator(degradation.seed, "grain")
    fine = rng.standard_normal((height, width), dtype=np.float32)
    # Coarse grain is drawn small and enlarged: spots of the paper, at a fraction of the draws.
    spots = Image.fromarray(
        rng.standard_normal((height // 24 + 2, width // 24 + 2), dtype=np.float32)
    )
    coarse = np.asarray(spots.resize((width, height), Image.Resampling.BICUBIC))
    shadow = np.linspace(0, 0.5, height)[:, None] + np.linspace(0, 0.5, width)
    change = degradation.grain * (fine + 0.5 * coarse) - degradation.shade * shadow
    return np.clip(pixels + change[..., None], 0, 255).astype(np.uint8)


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return Image.open(file)
