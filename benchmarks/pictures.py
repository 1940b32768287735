"""Pictures for a page 800 pixels wide: `bars` for single cases, `curves` for what grows; `draw` those of a suite.

Each shows one idea on a light ground of its own, so that it reads the same on a light and on a dark page. minidl is
green and bold. A picture is a PNG as bytes, or None where matplotlib is not installed.
``python -m benchmarks.pictures [NAME ...]`` draws those of `results` again from the JSON files there.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import report

RESULTS = Path(__file__).parent / "results"
GROUND, INK, FAINT, GRID = (
    "#fafaf7",
    "#1f2328",
    "#59636e",
    "#e0e0d8",
)  # the first three are those of docs/draw.py
OURS, OURS_TOO, THEIRS, LIMIT = "#2f7d46", "#8fc3a0", "#9aa7b8", "#e3dccb"
LINES = ("#b0323f", "#2866b8", "#c27a10", "#7a4fa3", "#17808f", "#8a5a3c", "#5b6470")
WIDTH, DPI = 8.0, 150  # inches; 1,200 pixels, drawn at 800 on a page
BAR, HEADING, TITLE, NOTE = 0.29, 0.36, 0.46, 0.4  # inches of a bar, a case's name, the title, the note
MACHINES_LIMIT = "the machine's limit"


def bars(
    title: str,
    cases: Mapping[str, Mapping[str, float]],
    form: Callable[[float], str] = report.duration,
    note: str = "",
    ours: str | None = "minidl",
    limits: Mapping[str, float] | None = None,
    logarithmic: bool = False,
    one_scale: bool = False,
) -> bytes | None:
    """Horizontal bars, the shortest on top; each tells its value and how many times that of ``ours`` it is.

    Parameters
    ----------
    cases : for each case the values by name: ``{"batch 1": {"minidl": 3.3e-6, "NumPy": 11e-6}}``. A case is a block
        of bars under its name. The name of a single case is left out: the title has it.
    form : writes a value; by default as a duration, of seconds.
    note : a line under the picture, such as `machine_note`.
    ours : the name that others are compared with; where a case has none of it the shortest bar is. Names that
        begin with it are drawn in a lighter green. None: nothing is compared.
    limits : for each case the least that the machine allows, which is drawn as a bar too.
    logarithmic : for values that differ a thousandfold.
    one_scale : bars of all cases are to be compared; by default each case has its own scale.
    """
    blocks = {}
    for case, values in cases.items():
        limit = {MACHINES_LIMIT: limits[case]} if limits and case in limits else {}
        blocks[case] = sorted({**values, **limit}.items(), key=lambda item: item[1])
    if ours is not None:
        bold = any(ours in values for values in cases.values())
        note += f" ×: multiples of {'the bold one' if bold else 'the shortest'}."
    if logarithmic:
        note += " From one vertical line to the next: ten times."
    heading, note = HEADING if len(blocks) > 1 else 0.0, _wrapped(note)
    height = (
        TITLE + NOTE + 0.15 * note.count("\n") + sum(BAR * len(block) + heading for block in blocks.values())
    )
    figure = _card(height, title, note)
    if figure is None:
        return None
    longest = max(value for block in blocks.values() for _, value in block)
    longest_name = max(len(name) for block in blocks.values() for name, _ in block)
    left = min(0.48, (0.3 + 0.085 * longest_name) / WIDTH)
    top = height - TITLE
    for case, block in blocks.items():
        if heading:
            figure.text(0.02, (top - 0.25) / height, case, fontsize=11, color=INK, style="italic")
        size = BAR * len(block)
        top -= heading + size
        axis = figure.add_axes((left, top / height, 0.97 - left, size / height))
        _draw_block(axis, block, form, ours, longest if one_scale else block[-1][1], logarithmic)
    return _png(figure)


def _draw_block(
    axis: Any, block: list, form: Callable, ours: str | None, longest: float, logarithmic: bool
) -> None:
    """The bars of one case."""
    values = dict(block)
    others = [value for name, value in block if name != MACHINES_LIMIT]
    against = None if ours is None else values.get(ours, min(others))
    start = block[0][1] / 2 if logarithmic else 0.0
    for place, (name, value) in enumerate(block):
        color, weight = THEIRS, "bold" if name == ours else "normal"
        if name == MACHINES_LIMIT:
            color = LIMIT
        elif ours is not None and name.startswith(ours.partition(",")[0]):
            color = OURS if name == ours else OURS_TOO
        axis.barh(place, value - start, 0.78, left=start, color=color)
        ratio = "" if against in (None, value) else f"   {_times(value / against)}"
        style = {"va": "center", "fontsize": 10, "weight": weight, "textcoords": "offset points"}
        axis.annotate(form(value) + ratio, (value, place), (4, 0), color=INK, **style)
        axis.annotate(
            name, (0, place), (-6, 0), ha="right", xycoords=("axes fraction", "data"),
            color=FAINT if name == MACHINES_LIMIT else INK, **style,
        )  # fmt: skip
    if logarithmic:
        axis.set(xscale="log", xlim=(start, longest * (longest / start) ** 0.3))
        axis.grid(axis="x", color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(length=0, labelbottom=False)
        axis.minorticks_off()
    else:
        axis.set(xlim=(0, longest * 1.28), xticks=[])
    axis.set(ylim=(len(block) - 0.5, -0.5), yticks=[], facecolor=GROUND)
    for side, spine in axis.spines.items():
        spine.set(visible=side == "left", color=FAINT)


def _times(ratio: float) -> str:
    """Two digits: 1.3 -> "1.3 ×"."""
    digits = 0 if ratio >= 10 else 1 if ratio >= 1 else 2 if ratio >= 0.095 else 3
    return f"{ratio:,.{digits}f} ×"


def curves(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    note: str = "",
    ours: str = "minidl",
    limit: tuple[Sequence[float], Sequence[float]] | None = None,
    ticks: Mapping[float, str] | None = None,
    deviations: Mapping[str, Sequence[float]] | None = None,
) -> bytes | None:
    """A line for each name over a logarithmic x axis, the name at its end.

    Parameters
    ----------
    lines : ``{name: (x, y)}``. ``ours`` is drawn thick and green.
    ylabel : stands above the plot. The y axis is logarithmic where values differ more than tenfold, else it begins
        at 0.
    note : a line under the picture, such as `machine_note`.
    limit : ``(x, y)``, what the machine allows; a dashed line.
    ticks : what is written at each x, by default the number.
    deviations : for each name a deviation at each point, drawn to both sides.
    """
    figure = _card(4.5, title, _wrapped(note))
    if figure is None:
        return None
    axis = figure.add_axes((0.09, 0.2, 0.63, 0.6), facecolor=GROUND)
    colors = itertools.cycle(LINES)
    ends = []
    for name, (x, y) in lines.items():
        mine = name == ours
        color, width = (OURS, 2.6) if mine else (next(colors), 1.5)
        deviation = None if deviations is None else deviations.get(name)
        axis.errorbar(
            x, y, deviation, color=color, linewidth=width, marker="o", markersize=4 + mine, capsize=3
        )
        ends.append((x[-1], y[-1], name, color, "bold" if mine else "normal"))
    values = [value for _, y in lines.values() for value in y]
    if limit is not None:
        axis.plot(*limit, color=FAINT, linestyle="--", linewidth=1.3)
        ends.append((limit[0][-1], limit[1][-1], MACHINES_LIMIT, FAINT, "normal"))
        values += limit[1]
    _scale_axes(
        axis, {place for x, _ in lines.values() for place in x}, ticks, max(values) > 10 * min(values)
    )
    axis.set_xlabel(xlabel, color=INK)
    axis.annotate(
        ylabel, (0, 1), (-30, 8), xycoords="axes fraction", textcoords="offset points", fontsize=10, color=INK
    )
    _name_lines(axis, ends)
    return _png(figure)


def _scale_axes(axis: Any, places: set[float], ticks: Mapping | None, logarithmic: bool) -> None:
    """Ticks at ``places``, and at 1, 2 and 5 in each decade; lines behind the curves."""
    from matplotlib.ticker import LogLocator

    if logarithmic:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axis.set_ylim(bottom=0)
    axis.set_xscale("log")
    axis.set_xticks(sorted(places), [ticks[x] if ticks else f"{x:,g}" for x in sorted(places)])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK, length=0)
    for side, spine in axis.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=FAINT)


def _name_lines(axis: Any, ends: list[tuple]) -> None:
    """Each line's name to the right of its end, moved apart where names would overlap."""
    to_axis = (axis.transData + axis.transAxes.inverted()).transform
    ends = sorted(((to_axis((x, y))[1], *rest) for x, y, *rest in ends), key=lambda end: end[0])
    gap, heights = 0.07, [height for height, *_ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    heights[-1] = min(heights[-1], 1.0)
    for i in reversed(range(len(heights) - 1)):
        heights[i] = min(heights[i], heights[i + 1] - gap)
    for (end, name, color, weight), height in zip(ends, heights, strict=True):
        axis.annotate(
            name, (1.0, end), (1.045, height), xycoords="axes fraction", textcoords="axes fraction",
            va="center", fontsize=10, color=color, weight=weight, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def _wrapped(note: str) -> str:
    return textwrap.fill(note, 120)


def _card(height: float, title: str, note: str) -> Any:
    """A figure of so many inches with its title and note; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed")
        return None
    figure = Figure(figsize=(WIDTH, height), facecolor=GROUND)
    figure.text(0.02, 1 - 0.31 / height, title, fontsize=13, weight="bold", color=INK)
    figure.text(0.02, 0.13 / height, note, fontsize=8.5, color=FAINT)
    return figure


def _png(figure: Any) -> bytes:
    from PIL import Image  # matplotlib needs it too

    stream, small = io.BytesIO(), io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    Image.open(stream).convert("RGB").quantize(64).save(small, "PNG", optimize=True)  # a third of the bytes
    return small.getvalue()


# ---------------------------------------------------------------- the pictures of a suite

SHOWN = {  # what a peer of the tables is called in pictures
    "numpy": "NumPy",
    "sklearn": "scikit-learn",
    "torch": "PyTorch",
    "torch-eager": "PyTorch, eager",
    "torch-fused": "PyTorch, fused Adam",
    "torch-compile": "PyTorch, compiled",
    "torch-online": "PyTorch, online teacher",
    "jax": "JAX",
    "jax-step": "JAX, a step a call",
    "jax-scan": "JAX, lax.scan",
    "keras-jax": "Keras on JAX",
    "keras-torch": "Keras on PyTorch",
    "keras-distiller": "Keras's Distiller",
    "onnxruntime": "ONNX Runtime",
    "minidl-plain": "minidl, no teacher",
    "minidl-filling": "minidl, filling the cache",
    "minidl-online": "minidl, online teacher",
    "minidl-cold": "minidl, compiling first",
    "numba alone": "Numba alone",
}
SHOWN_OF_SUITE = {
    "logit_cache": {"minidl": "minidl, logits cached", "torch-fused": "PyTorch, logits cached"},
}
MOST_CASES = 3  # of which one picture shows everybody's bars


def machine_note(results: dict) -> str:
    """The machine and the day of a run, as a picture's note."""
    about = results["machine"]
    return f"{about['processor']}, {about['cores']} cores, {about['date'][:10]}."


def draw(results: dict) -> dict[str, bytes]:
    """A picture a group of cases, by the name of its file without ending."""
    groups: dict[str, list[dict]] = {}
    for record in results["cases"]:
        if record["times"]:
            groups.setdefault(record["group"], []).append(record)
    found, shown = {}, SHOWN | SHOWN_OF_SUITE.get(results["suite"], {})
    for group, records in groups.items():
        title = results["title"] + f": {group}" * (len(groups) > 1 and len(records) > 1)
        note = machine_note(results) + " Each at its best number of threads."
        if growth := find_growth([record["name"] for record in records]):
            picture = _draw_growth(title, records, growth, note, results["unit"])
        elif len(records) <= MOST_CASES:
            picture = _draw_cases(title, records, note, shown)
        else:
            picture = _draw_ratios(results["title"], records, note)
        if picture is not None:
            found[report.picture_name(results, group)] = picture
    return found


def _draw_cases(title: str, records: list[dict], note: str, shown: dict) -> bytes | None:
    """Everybody's time of each case."""
    cases = {
        r["name"]: {shown.get(peer, peer): report.best(r, (peer,))[0] for peer in _peers([r])}
        for r in records
    }
    limits = {r["name"]: min(v["seconds"] for v in r["limits"].values()) for r in records if r["limits"]}
    times = [seconds for values in cases.values() for seconds in values.values()]
    title += f": {records[0]['name']}" * (len(records) == 1)
    logarithmic, ours = max(times) > 1000 * min(times), shown.get("minidl", "minidl")
    return bars(title, cases, note=note, ours=ours, limits=limits, logarithmic=logarithmic)


def _draw_ratios(title: str, records: list[dict], note: str) -> bytes | None:
    """For each case how many times as long as minidl the fastest of the others takes."""
    ratios = {}
    for record in records:
        mine, rival = report.best(record, ("minidl",)), report.best_rival(record)
        if mine and rival:
            peer = rival[1].rpartition("@")[0]
            ratios[f"{record['name']}, {SHOWN.get(peer, peer)}"] = rival[0] / mine[0]
    note += " Below 1 the other is faster."
    title += ": the fastest other's time / minidl's"
    return bars(title, {"": ratios}, _times, note, ours=None) if ratios else None


def _draw_growth(title: str, records: list[dict], growth: tuple, note: str, unit: str) -> bytes | None:
    """Everybody's arithmetic a second as the cases grow, or their time where arithmetic was not counted."""
    label, places = growth
    counted = all(record["flops"] for record in records)

    def line(values):
        """The points of everybody's seconds, None where there are none."""
        points = sorted(
            (place, record["flops"] / seconds / 1e9 if counted else seconds * 1e6)
            for place, record, seconds in zip(places, records, values, strict=True)
            if seconds
        )
        return [x for x, _ in points], [y for _, y in points]

    lines = {
        SHOWN.get(peer, peer): line([(report.best(r, (peer,)) or (None,))[0] for r in records])
        for peer in _peers(records)
    }
    limits = [min((v["seconds"] for v in r["limits"].values()), default=None) for r in records]
    return curves(
        title,
        lines,
        label,
        "GFLOP/s: more is better" if counted else f"microseconds a {unit}: less is better",
        note,
        limit=line(limits) if all(limits) else None,
        ticks=dict(zip(places, (r["name"] for r in records), strict=True)) if label.endswith("m") else None,
    )


def _peers(records: list[dict]) -> list[str]:
    return list(dict.fromkeys(key.rpartition("@")[0] for record in records for key in record["times"]))


def find_growth(names: list[str]) -> tuple[str, list[int]] | None:
    """What grows from case to case, and its values: of names that differ in numbers alone, their product.

    ["784-16-16-10", "784-64-64-10", ...] -> ("n of 784-n-n-10", [16, 64, ...]); None of other names, and of few.
    """
    if len(names) <= MOST_CASES or len({re.sub(r"\d+", "", name) for name in names}) > 1:
        return None
    numbers = [[int(number) for number in re.findall(r"\d+", name)] for name in names]
    columns = list(dict.fromkeys(zip(*numbers, strict=True)))
    letters = dict(zip((each for each in columns if len(set(each)) > 1), "nmkl", strict=False))
    written = iter([letters.get(each, str(each[0])) for each in zip(*numbers, strict=True)])
    label = re.sub(r"\d+", lambda _: next(written), names[0])
    product = " x ".join(letters.values())
    label = f"n of {label}" if len(letters) == 1 else f"{label}, placed by {product}"
    return label, [math.prod(row) for row in zip(*letters, strict=True)]


def main(arguments: list[str] | None = None) -> int:
    """Draw the pictures of the results named, by default all, again."""
    names = sys.argv[1:] if arguments is None else arguments
    for name in names or sorted(path.stem for path in RESULTS.glob("*.json")):
        results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        own = (
            draw
            if "cases" in results
            else getattr(importlib.import_module(f"benchmarks.{name}"), "draw", None)
        )
        for file, data in (own(results) if own else {}).items():
            report.replace(RESULTS / f"{file}.png", data)
            print(f"wrote {RESULTS / file}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
