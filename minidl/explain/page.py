"""The page: one file that loads nothing, with a slider over steps and one over temperatures.

Python computes and writes every position of the sliders; the script only exchanges them.
"""

from __future__ import annotations

import json
import re
from html import escape

import numpy as np

from ..pages import STYLE
from . import svg
from .distillation import Softened, Study
from .document import Matrix, Section, Sum, Table, number
from .text import cut

TEMPERATURES = 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 50.0, 100.0
_FIRST_TEMPERATURE = 4.0
_MOST_ROWS = 3
"""So many samples have bars."""

_OWN_STYLE = """
:root { --plus: #1f6fb5; --minus: #b85400; }
@media (prefers-color-scheme: dark) { :root { --plus: #74b4f2; --minus: #f2a35c; } }
.control { position: sticky; top: 0; background: var(--page); padding: .5rem 0; z-index: 1;
           border-bottom: 1px solid var(--line); }
.control label { display: flex; justify-content: space-between; gap: 1rem; font-weight: 600; }
.control input { width: 100%; height: 1.75rem; margin: .2rem 0 0; accent-color: var(--plus); }
.formula { color: var(--soft); }
.pair { display: flex; flex-wrap: wrap; gap: 0 1.5rem; } .pair figure { flex: 1 1 20rem; margin: .6rem 0; }
.plus { stroke: var(--plus); } .minus { stroke: var(--minus); stroke-dasharray: 5 3; }
circle.plus { fill: var(--plus); } circle.minus { fill: var(--minus); } circle.back { fill: var(--page); }
circle.unit { stroke-width: 1.5; } circle.dot { stroke-dasharray: none; stroke: var(--page); stroke-width: 2; }
.pair text { stroke: none; } nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; } a { color: var(--plus); }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.2rem; font-size: .875rem; } .key { display: inline; width: 2.6rem; }
.matrix { display: inline-block; vertical-align: top; margin: .4rem 1.5rem .4rem 0; max-width: 100%;
          overflow-x: auto; }
.matrix .note { background: none; padding: 0; color: var(--soft);
          font-size: .875rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .875rem; }
td, th { text-align: right; padding: .1rem .5rem; white-space: nowrap; }
th { border-bottom: 1px solid var(--line); white-space: normal; vertical-align: bottom; }
.matrix .list td { min-width: 0; }
td:first-child, th:first-child { text-align: left; }
.matrix table { border-left: 2px solid var(--line); border-right: 2px solid var(--line); }
.matrix td { text-align: right; min-width: 4.2em; }
.sum { font: .8125rem/1.45 ui-monospace, monospace; margin-left: 1rem; }
.bars { display: grid; grid-template-columns: max-content 1fr 3.6em; gap: .15rem .5rem; align-items: center;
        font-size: .875rem; margin: .4rem 0; }
.bars span:nth-child(3n) { text-align: right; font-variant-numeric: tabular-nums; }
.bars svg { height: .8rem; } .bars .fill { fill: var(--plus); } .bars .student { fill: var(--minus); }
"""

_SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
for (const [name, places] of Object.entries(data)) {
  const slider = document.getElementById(name);
  const show = () => {
    const place = places[Number(slider.value)];
    document.getElementById(name + "-label").textContent = place.label;
    document.getElementById(name + "-shown").innerHTML = place.html;
    slider.setAttribute("aria-valuetext", place.label);
  };
  slider.addEventListener("input", show);
  show();
}
"""


def html(explanation) -> str:
    """The page of an `Explanation`."""
    lesson, most = explanation.lesson, explanation.most
    data = {"step": _steps(explanation)}
    sliders = [_slider("step", "Step of training", data["step"], 0)]
    if explanation.study is not None:
        data["temperature"] = _temperatures(explanation.study)
        first = TEMPERATURES.index(_FIRST_TEMPERATURE)
        sliders.append(_slider("temperature", "Temperature", data["temperature"], first))
    title = "A training step in slow motion"
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{STYLE}{_OWN_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{title}</h1>",
        f"<p>Every number of {len(explanation.steps)} steps of a net, computed by minidl in float64. Move the slider: "
        "the drawings and all numbers below it follow.</p>",
        _contents(explanation),
        _section(explanation.head, most),
        svg.legend(),
        *sliders,
        *(_section(section, most) for section in explanation.further),
        f'<p class="read">Made by minidl\'s explain; loss {escape(lesson.loss.name)}, optimizer '
        f"{escape(lesson.optimizer.name)}.</p>",
        # "<" in JSON could end the script
        f'<script type="application/json" id="data">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>',
        f"<script>{_SCRIPT}</script>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _contents(explanation) -> str:
    """Links: a page of many steps is long."""
    links = {"step-panel": "Steps"}
    if explanation.study is not None:
        links["temperature-panel"] = "Temperature"
    links |= {_anchor(section): section.title.split(":")[0].split(",")[0] for section in explanation.further}
    anchors = (f'<a href="#{to}">{escape(name)}</a>' for to, name in links.items())
    return f"<nav>{''.join(anchors)}</nav>"


def _anchor(section: Section) -> str:
    return re.sub("[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _slider(name: str, title: str, places: list[dict[str, str]], first: int) -> str:
    """A slider, and its first position for where no script runs."""
    place = places[first]
    return (
        f'<div id="{name}-panel"><div class="control"><label for="{name}"><span>{title}</span>'
        f'<output id="{name}-label" for="{name}">{place["label"]}</output></label>'
        f'<input type="range" id="{name}" min="0" max="{len(places) - 1}" value="{first}" autocomplete="off"></div>'
        f'<div id="{name}-shown">{place["html"]}</div></div>'
    )


# ---------------------------------------------------------------- the positions of the sliders


def _steps(explanation) -> list[dict[str, str]]:
    lesson, steps = explanation.lesson, explanation.steps
    values = [step.trace.loss for step in steps] + [steps[-1].loss_after]
    places = []
    for i, (step, sections) in enumerate(zip(steps, explanation.by_step, strict=True)):
        pictures = (
            f'<div class="pair">{svg.net(lesson, step, "weights")}{svg.net(lesson, step, "gradients")}</div>'
        )
        losses = svg.curve(values, i, "steps taken", "loss before this step") if len(steps) > 1 else ""
        text = "".join(_section(section, explanation.most) for section in sections)
        places.append({"label": f"{step.number} of {len(steps)}", "html": pictures + losses + text})
    return places


def _temperatures(study: Study) -> list[dict[str, str]]:
    found = [study.at(t) for t in TEMPERATURES]
    without, with_it = [at.norm_without for at in found], [at.norm for at in found]
    series = {"without T^2": without, "with T^2": with_it}
    places = []
    for i, at in enumerate(found):
        bars = "".join(_bars(study, at, row) for row in range(min(len(at.teacher), _MOST_ROWS)))
        text = (
            f"KL = {number(at.kl)}, T^2 KL = {number(at.kl * at.temperature**2)}. "
            f"The norm of the gradient of KL is {number(at.norm_without)}, {number(at.norm_without / without[0])} of "
            f"that at T = 1. With T^2 it is {number(at.norm)}, {number(at.norm / with_it[0])} of that at T = 1."
        )
        norms = svg.norms(list(TEMPERATURES), series, i)
        places.append(
            {
                "label": f"T = {at.temperature:g}",
                "html": f"<section><h2>Answers at T = {at.temperature:g}</h2>{bars}</section><section>"
                f"<h2>The norm of the soft term's gradient</h2>{norms}<p>{text}</p></section>",
            }
        )
    return places


def _bars(study: Study, at: Softened, row: int) -> str:
    label = "" if study.targets is None else f"; the label says class {int(study.targets[row].argmax())}"
    cells = []
    for place in range(at.teacher.shape[1]):
        for who, p, kind in (("teacher", at.teacher, ""), ("student", at.student, " student")):
            share = float(p[row, place])
            cells.append(
                f"<span>class {place}, {who}</span>"
                f'<svg role="img" aria-label="{share:.4f}"><rect class="track" width="100%" height="100%"/>'
                f'<rect class="fill{kind}" width="{100 * share:.2f}%" height="100%"/></svg><span>{share:.4f}</span>'
            )
    return f'<p>Sample {row}{label}.</p><div class="bars">{"".join(cells)}</div>'


# ---------------------------------------------------------------- sections


def _section(section: Section, most: int | None) -> str:
    formula = f'<p class="formula">{escape(section.formula)}</p>' if section.formula else ""
    parts = "".join(_part(part, most) for part in section.parts)
    return f'<section id="{_anchor(section)}"><h2>{escape(section.title)}</h2>{formula}{parts}</section>'


def _part(part, most: int | None) -> str:
    if isinstance(part, Matrix):
        return _matrix(part, most)
    if isinstance(part, Table):
        head = "".join(f"<th>{escape(cell)}</th>" for cell in part.head)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in part.rows)
        return f'<div class="matrix"><table class="list"><tr>{head}</tr>{rows}</table></div>'
    if isinstance(part, Sum):
        return f'<p class="sum">{escape(part.text)}</p>'
    return f"<p>{escape(part)}</p>"


def _matrix(part: Matrix, most: int | None) -> str:
    values, rest = cut(part.values, most)
    note = ", ".join(said for said in (part.note, rest) if said)
    shown = f' <span class="note">{escape(note)}</span>' if note else ""
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in values)
    return f'<div class="matrix"><div><b>{escape(part.name)}</b>{shown}</div><table>{rows}</table></div>'


def _cell(value: float) -> str:
    if np.isnan(value):
        return "not measured"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"
