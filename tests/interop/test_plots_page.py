"""docs/notebooks.md runs, and shows the pictures that its script draws."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from extras import needs

needs("matplotlib")

DOCS = Path(__file__).resolve().parents[2] / "docs"
spec = importlib.util.spec_from_file_location("draw_notebooks", DOCS / "draw_notebooks.py")
draw_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw_notebooks)


def shorten(listing: str) -> str:
    return re.sub(r"epochs=\d+", "epochs=2", listing)


def test_the_page_runs_and_its_words_on_progress_are_true(capsys):
    names = draw_notebooks.run_page(shorten)
    said = capsys.readouterr().out
    for title in ("student (distilled, T 4, 0.1/0.9)", "plain student (labels alone)"):
        assert f"{title}  epoch 2/2 - " in said and f"`{title}  epoch 3/12`" in page()
    for name in (*draw_notebooks.PICTURES, "differences", "softened", "one", "both"):
        assert names[name]._repr_png_()[0][:4] == b"\x89PNG"
    for shown in (names["teacher"], names["history"], names["report"]):
        assert shown._repr_html_().count("<tr>") > 2


def page() -> str:
    return (DOCS / "notebooks.md").read_text(encoding="utf-8").replace("\n", " ")


def test_its_pictures_are_there_and_small():
    linked = re.findall(r"!\[[^\]]+\]\((\w+)\.png\)", page())
    assert tuple(linked) == draw_notebooks.PICTURES
    assert all(1000 < (DOCS / f"{name}.png").stat().st_size < 60_000 for name in linked)
