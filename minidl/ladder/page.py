"""The ladder as a page: one file, nothing from elsewhere, light and dark, for a phone and a screen."""

from __future__ import annotations

import math
from html import escape

from ..machine import rate_text
from ..pages import STYLE
from . import text
from .assembly import Loop
from .figures import Figures, Machine
from .rungs import Rung
from .waits import percent_text


def html(size: int, machine: Machine, results: list[tuple[Rung, Figures]], loops: dict[str, Loop]) -> str:
    """The page; ``loops`` has the inner loops to show, by kernel."""
    rates = [0.0, *(figures.rate for _, figures in results)]
    sections = [
        _section(number, rung, figures, rates[number - 1], loops.get(rung.kernel))
        for number, (rung, figures) in enumerate(results, 1)
    ]
    notes = [f'<p class="note">{escape(note)}</p>' for note in text.notes(machine, results)]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>A fast matrix product, rung by rung</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        "<h1>A fast matrix product, rung by rung</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in text.head(size, machine)),
        *notes,
        _overview(machine, results),
        *sections,
        '<p class="read">Made by <code>python -m minidl ladder --html</code>. Each bar is as long as its speed; '
        "the whole width is what all threads can do at most, and the line in it what one can.</p>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _section(number: int, rung: Rung, figures: Figures, before: float, loop: Loop | None) -> str:
    said = "".join(f"<span>{part}</span>" for part in text.speed(figures, before))
    lines = [
        f'<section id="rung-{number}">',
        f"<h2>{number} {escape(text.title(rung, figures))}</h2>",
        f'<div class="speed">{said}</div>',
        _bar(figures),
        f'<p class="changed">{escape(text.changed(rung, figures))}</p>',
        f"<p>{escape(rung.waits(figures))}</p>",
        f'<p class="read">{"<br>".join(f"<code>{escape(place)}</code>" for place in text.sources(rung))}</p>',
    ]
    if loop is not None:
        code = escape("\n".join(loop.lines))
        lines.append(
            f"<details><summary>The inner loop, {escape(str(loop))}</summary><pre>{code}</pre></details>"
        )
    return "\n".join([*lines, "</section>"])


def _bar(figures: Figures) -> str:
    """A bar whose whole width is what all threads can do at most."""
    machine = figures.machine
    top = max(machine.ceiling, machine.ceiling_together)
    width, mark = (100 * min(1.0, rate / top) for rate in (figures.rate, machine.ceiling))
    line = f'<line class="mark" x1="{mark:.2f}%" x2="{mark:.2f}%" y1="0" y2="100%"/>' if mark < 99 else ""
    return (
        f'<svg class="bar" role="img" aria-label="{percent_text(figures.rate / top)} of what all threads can do">'
        '<rect class="track" width="100%" height="100%"/>'
        f'<rect class="fill" width="{max(width, 0.2):.2f}%" height="100%"/>'
        f"{line}</svg>"
    )


def _overview(machine: Machine, results: list[tuple[Rung, Figures]]) -> str:
    """All rungs at once, as points: equal steps to the right are equal factors."""
    top = max(machine.ceiling, machine.ceiling_together, *(f.rate for _, f in results))
    low = math.floor(math.log10(min(f.rate for _, f in results)))
    high = math.log10(top) + 0.05
    left, width, step = 118, 360, 20

    def x(rate: float) -> float:
        return left + (width - left - 30) * (math.log10(rate) - low) / (high - low)

    bottom, parts = step * len(results) + 6, []
    for power in range(low, math.floor(high) + 1):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 13}" text-anchor="middle">{10.0 ** (power - 9):g}</text>'
        )
    for rate in sorted({machine.ceiling, machine.ceiling_together}):
        parts.append(f'<line class="mark" x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="0" y2="{bottom}"/>')
    for number, (rung, figures) in enumerate(results):
        y, at = step * number + 14, x(figures.rate)
        name = text.title(rung, figures).split(" (")[0]
        parts.append(f'<text x="0" y="{y}">{number + 1} {escape(name)}</text>')
        parts.append(f'<circle class="fill" cx="{at:.1f}" cy="{y - 4}" r="4.5"/>')
        parts.append(f'<text class="tick" x="{at + 8:.1f}" y="{y}">{rate_text(figures.rate)}</text>')
    return (
        f'<figure><svg viewBox="0 0 {width} {bottom + 18}" role="img" aria-label="The speed of all rungs">'
        f"{''.join(parts)}"
        "</svg><figcaption>GFLOP/s; equal steps to the right are equal factors. "
        "The lines mark the ceilings of one thread and of all.</figcaption></figure>"
    )
