"""Draws the pictures of ``notebooks.md``: ``python docs/draw_notebooks.py`` runs the page and writes them beside it.

Needs matplotlib; it takes some seconds.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

HERE = Path(__file__).parent
PICTURES = ("curves", "errors", "sure")


def run_page(shorten=lambda listing: listing) -> dict:
    """The names that the page's listings define; ``shorten`` may change a listing before it runs."""
    page = (HERE / "notebooks.md").read_text(encoding="utf-8")
    names: dict = {}
    for listing in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(compile(shorten(listing), "notebooks.md", "exec"), names)
    return names


def main() -> None:
    from PIL import Image  # matplotlib needs it too

    names = run_page()
    for name in PICTURES:
        png, _ = names[name]._repr_png_()
        picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(64)  # a third of the bytes
        picture.save(HERE / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
