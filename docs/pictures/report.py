"""The picture of a run's report, in light and dark: `python docs/pictures/report.py RUN`.

Wants a run that has its report (`sailvit demo`), and Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

SIZE = (1280, 850)
"""Width and height of what is shown, in pixels: the figures and where the tower comes from."""
COLOURS = 64
"""Colours of the picture's palette; the page is mostly flat."""
DARK = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")


def main() -> None:
    """Write both pictures beside this file."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if len(sys.argv) != 2 or browser is None:
        sys.exit(
            "usage: python docs/pictures/report.py RUN, with chromium or google-chrome in PATH"
        )
    page = Path(sys.argv[1]).absolute() / "report.html"
    for mode, flags in (("light", ()), ("dark", DARK)):
        path = Path(__file__).with_name(f"report-{mode}.png")
        window = f"--window-size={SIZE[0]},{SIZE[1]}"
        plain = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", window)
        shot = (browser, *plain, *flags, f"--screenshot={path}", page.as_uri())
        subprocess.run(shot, check=True, capture_output=True, timeout=120)
        Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
