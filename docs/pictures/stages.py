"""The picture of the three stages as SVG, in light and dark: `python docs/pictures/stages.py`."""

from __future__ import annotations

from pathlib import Path

STAGES = (
    ("1  coarse-grained alignment", ("connector",), "captions, OCR"),
    ("2  fine-grained alignment", ("connector", "tower"), "richer captions, documents"),
    ("3  world knowledge infusion", ("connector", "tower", "language"), "questions, maths, text"),
)
PARTS = ("tower", "connector", "language")
COLOURS = {
    "light": {"ink": "#1f2937", "soft": "#6b7280", "train": "#0f766e", "frozen": "#e5e7eb"},
    "dark": {"ink": "#e5e7eb", "soft": "#9ca3af", "train": "#2dd4bf", "frozen": "#374151"},
}
ON_TRAIN = {"light": "#ffffff", "dark": "#0b1220"}


def box(x: int, y: int, label: str, fill: str, ink: str) -> str:
    """A rounded rectangle of 104 x 34 px with a label in its middle."""
    return (
        f'<rect x="{x}" y="{y}" width="104" height="34" rx="7" fill="{fill}"/>'
        f'<text x="{x + 52}" y="{y + 22}" text-anchor="middle" fill="{ink}">{label}</text>'
    )


def draw(mode: str) -> str:
    """The whole picture, 880 x 236 px."""
    colours, parts = COLOURS[mode], []
    for index, (name, trains, data) in enumerate(STAGES):
        y = 14 + index * 64
        for column, part in enumerate(PARTS):
            on = part in trains
            fill = colours["train"] if on else colours["frozen"]
            parts.append(
                box(250 + column * 124, y, part, fill, ON_TRAIN[mode] if on else colours["soft"])
            )
        parts.append(f'<text x="8" y="{y + 22}" fill="{colours["ink"]}">{name}</text>')
        parts.append(f'<text x="634" y="{y + 22}" fill="{colours["soft"]}">{data}</text>')
    note = "filled: trains in this stage    grey: frozen    afterwards: keep the tower, plug it in"
    parts.append(f'<text x="250" y="222" font-size="13" fill="{colours["soft"]}">{note}</text>')
    font = "font-family='system-ui, sans-serif' font-size='15'"
    size = "width='880' height='236' viewBox='0 0 880 236'"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} {font}>{''.join(parts)}</svg>\n"


if __name__ == "__main__":
    for chosen in COLOURS:
        path = Path(__file__).with_name(f"stages-{chosen}.svg")
        path.write_text(draw(chosen), encoding="utf-8")
