"""Drawings of the page: the net with its weights or gradients, the losses over steps, norms over temperatures."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from ..layers import Dense
from .document import number
from .step import Lesson, Step

_MOST_UNITS = 8
_WIDTH, _COLUMN, _ROW = 360, 26, 46


def net(lesson: Lesson, step: Step, of: str) -> str:
    """The net on the first sample. ``of``: "weights", with outputs in the units, or "gradients" of both.

    Positive is blue and solid, negative orange and dashed; thicker is larger.
    """
    pairs = [(layer, trace) for layer, trace in zip(lesson.model.layers, step.trace.layers, strict=False)]
    dense = [(layer, trace) for layer, trace in pairs if type(layer) is Dense]
    if not dense:
        return ""
    ours = of == "weights"
    columns = [lesson.batch.x.reshape(len(lesson.batch.x), -1)[0] if ours else dense[0][1].dinput[0]]
    edges = []
    for _, trace in dense:
        columns.append(trace.output[0] if ours else trace.doutput[0])
        edges.append((trace.weights if ours else trace.gradients)["weight"])
    names = [
        "x",
        *(f"h_{place}" for place in range(1, len(dense))),
        "logits" if lesson.on_logits else "output",
    ]
    names = [name if ours else f"d{name}" for name in names]
    drawn = [column[:_MOST_UNITS] for column in columns]
    height = _ROW * max(map(len, drawn)) + 34
    places = [
        [(_x(i, len(drawn)), 22 + (height - 34) * (j + 0.5) / len(column)) for j in range(len(column))]
        for i, column in enumerate(drawn)
    ]
    top_edge = max(float(np.abs(edge).max()) for edge in edges) or 1.0
    parts = []
    for left, right, edge in zip(places[:-1], places[1:], edges, strict=True):
        for i, (x1, y1) in enumerate(left):
            for j, (x2, y2) in enumerate(right):
                parts.append(_edge(x1, y1, x2, y2, float(edge[i, j]), top_edge))
    for place, column, name, whole in zip(places, drawn, names, columns, strict=True):
        top = float(np.abs(column).max()) or 1.0
        parts += [_unit(x, y, float(value), top) for (x, y), value in zip(place, column, strict=True)]
        some = "" if len(column) == len(whole) else f" ({len(column)} of {len(whole)})"
        parts.append(f'<text x="{place[0][0]:.1f}" y="12" text-anchor="middle">{name}{some}</text>')
    what = "weights, and what the units give" if ours else "gradients of weights and of what the units give"
    label = f'viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="The net: {what}"'
    return (
        f"<figure><svg {label}>{''.join(parts)}</svg>"
        f"<figcaption>{what[0].upper()}{what[1:]}{' for the first sample' if ours else ''}. "
        f"The thickest line is {number(top_edge)}.</figcaption></figure>"
    )


def legend() -> str:
    """What colours and dashes mean."""
    line = (
        '<svg class="key" viewBox="0 0 44 10" aria-hidden="true">'
        '<line class="{0}" x1="2" x2="42" y1="5" y2="5" stroke-width="4"/></svg>'
    )
    return (
        f'<p class="legend"><span>{line.format("plus")} positive: blue, solid</span>'
        f"<span>{line.format('minus')} negative: orange, dashed</span><span>thicker: larger</span></p>"
    )


def _x(place: int, count: int) -> float:
    return _COLUMN + 6 + (_WIDTH - 2 * _COLUMN - 12) * place / (count - 1)


def _edge(x1, y1, x2, y2, value: float, top: float) -> str:
    sign = "minus" if value < 0 else "plus"
    width = 0.4 + 5.6 * abs(value) / top
    return (
        f'<line class="{sign}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width:.2f}">'
        f"<title>{value:.4f}</title></line>"
    )


def _unit(x: float, y: float, value: float, top: float) -> str:
    sign = "minus" if value < 0 else "plus"
    shown = f"{round(value, 2) + 0.0:.2f}" if abs(value) < 100 else f"{value:.3g}"
    return (
        f'<circle class="back" cx="{x:.1f}" cy="{y:.1f}" r="19"/>'
        f'<circle class="{sign} unit" cx="{x:.1f}" cy="{y:.1f}" r="19" fill-opacity="{0.4 * abs(value) / top:.3f}"/>'
        f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{shown}</text>'
    )


def curve(values: list[float], chosen: int, x_name: str, y_name: str) -> str:
    """``values`` as a line from left to right, the chosen one marked."""
    return _lines({y_name: values}, [str(i) for i in range(len(values))], chosen, x_name, False)


def norms(temperatures: list[float], series: dict[str, list[float]], chosen: int) -> str:
    """Norms over temperatures, on a scale where equal steps are equal factors."""
    return _lines(series, [f"{t:g}" for t in temperatures], chosen, "T", True)


def _lines(
    series: dict[str, list[float]], labels: list[str], chosen: int, x_name: str, logarithmic: bool
) -> str:
    left, right, bottom, height = 52, 12, 130, 162
    every = [math.log10(max(v, 1e-30)) if logarithmic else v for values in series.values() for v in values]
    low, high = min(every), max(every)
    span = (high - low) or 1.0
    count = max(len(labels) - 1, 1)

    def at(i: int, value: float) -> tuple[float, float]:
        v = math.log10(max(value, 1e-30)) if logarithmic else value
        return left + (_WIDTH - left - right) * i / count, bottom - 112 * (v - low) / span

    parts = []
    for value, y in ((high, bottom - 112), (low, bottom)):
        shown = f"{10**value:.2g}" if logarithmic else f"{value:.3g}"
        parts.append(f'<text class="tick" x="{left - 5}" y="{y + 4}" text-anchor="end">{shown}</text>')
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y}" y2="{y}"/>')
    for i, label in enumerate(labels):
        if len(labels) <= 12 or i % (len(labels) // 6) == 0 or i == chosen:
            x = at(i, 1.0)[0]
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{label}</text>'
            )
    parts.append(
        f'<text class="tick" x="{_WIDTH - right}" y="{height - 2}" text-anchor="end">{escape(x_name)}</text>'
    )
    keys = []
    for place, (name, values) in enumerate(series.items()):
        points = [at(i, value) for i, value in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = ("plus", "minus")[place]
        parts.append(f'<polyline class="{kind}" points="{path}" fill="none" stroke-width="2"/>')
        x, y = points[chosen]
        parts.append(f'<circle class="{kind} dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        colour = f"{('blue, solid', 'orange, dashed')[place]}: " if len(series) > 1 else ""
        keys.append(f"{colour}{name}, here {number(values[chosen])}")
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape("; ".join(keys))}">'
        f"{''.join(parts)}</svg><figcaption>{escape('; '.join(keys))}</figcaption></figure>"
    )
