"""Benchmark pictures tell the values they are given."""

from __future__ import annotations

import io
import json

import pytest
from extras import needs

needs("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.image import imread  # noqa: E402

from benchmarks import hinton_mnist, pictures  # noqa: E402


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn; they are not made PNG, which takes the time."""
    found = []
    monkeypatch.setattr(pictures, "_png", lambda figure: found.append(figure) or b"")
    return found


def test_a_picture_is_as_wide_as_a_page():
    png = pictures.bars("Title", {"": {"minidl": 1.0, "NumPy": 2.0}})
    assert imread(io.BytesIO(png)).shape[1] == 1200


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def lengths(axis) -> list[float]:
    return [bar.get_width() for bar in axis.patches]


def test_bars_are_sorted_and_tell_their_ratio(figures):
    cases = {"batch 1": {"NumPy": 4e-3, "minidl": 1e-3, "minidl, cold": 2e-3}, "batch 8": {"JAX": 8e-3}}
    pictures.bars("Title", cases, limits={"batch 1": 5e-4}, note="a machine")
    first, second = figures[0].axes
    assert lengths(first) == [5e-4, 1e-3, 2e-3, 4e-3] and lengths(second) == [8e-3]
    assert texts(first)[0::2] == ["500 µs   0.50 ×", "1 ms", "2 ms   2.0 ×", "4 ms   4.0 ×"]
    assert texts(first)[1::2] == [pictures.MACHINES_LIMIT, "minidl", "minidl, cold", "NumPy"]
    assert first.get_ylim()[0] > first.get_ylim()[1], "the first bar is on top"
    assert {"Title", "batch 1", "batch 8", "a machine ×: multiples of the bold one."} == {
        text.get_text() for text in figures[0].texts
    }
    assert first.get_xlim() != second.get_xlim()
    pictures.bars("Title", cases, one_scale=True)
    assert len({axis.get_xlim() for axis in figures[1].axes}) == 1


def test_values_a_thousandfold_apart_show_on_a_logarithmic_axis(figures):
    pictures.bars("Title", {"ladder": {"Python": 1.0, "SIMD": 1e-4}}, ours=None, logarithmic=True)
    axis = figures[0].axes[0]
    assert axis.get_xscale() == "log" and axis.get_xlim()[0] < 1e-4 and texts(axis)[0::2] == ["100 µs", "1 s"]


def test_curves_name_each_line_at_its_end(figures):
    lines = {"minidl": ([1, 10, 100], [50, 400, 500]), "NumPy": ([1, 10, 100], [20, 490, 490])}
    pictures.curves("Title", lines, "rows", "GFLOP/s", limit=([1, 100], [600, 600]))
    axis = figures[0].axes[0]
    assert axis.get_yscale() == "log" and [t.get_text() for t in axis.get_xticklabels()] == ["1", "10", "100"]
    ends = {
        text.get_text(): text.get_position()[1]
        for text in axis.texts
        if text.get_text() in {*lines, "GFLOP/s"}
    }
    assert ends["minidl"] - ends["NumPy"] > 0.06, "names of lines that end together stand apart"
    pictures.curves("Title", {"a": ([1, 2], [5.0, 6.0])}, "x", "y", deviations={"a": [1.0, 1.0]})
    assert figures[1].axes[0].get_yscale() == "linear" and figures[1].axes[0].get_ylim()[0] == 0


def test_committed_results_are_drawn_under_the_names_that_stand_there_and_nothing_leaves_them(figures):
    drawn = set()
    for path in sorted(pictures.RESULTS.glob("*.json")):
        results = json.loads(path.read_text())
        if "cases" in results or path.stem == "hinton_mnist":
            drawn |= set((pictures if "cases" in results else hinton_mnist).draw(results))
    assert drawn <= {path.stem for path in pictures.RESULTS.glob("*.png")} and len(drawn) == len(figures)
    assert not [leaving for figure in figures for leaving in outside(figure)]
    pictures.bars("Title", {"": {"a name that is much too long for its place " * 3: 1.0}})
    assert outside(figures[-1]), "control"


def outside(figure) -> list[str]:
    """The texts of which a part is beyond the figure's edge."""
    FigureCanvasAgg(figure).draw()
    shown = [text for axis in figure.axes for text in axis.texts] + figure.texts
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_text()]
    return [text for text, box in boxes if not all(figure.bbox.contains(*corner) for corner in box.corners())]
