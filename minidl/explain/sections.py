"""The sections of a step: the net, forward, loss, backward, the check, update."""

from __future__ import annotations

import numpy as np

from ..layers import Dense
from .document import Matrix, Part, Section, dot
from .loss import gradient_section, loss_section
from .step import Lesson, Step, before_activation
from .update import update_section

_IN_WORDS = {
    # activations by name: formula, note, and what the backward does; of any other, the name is shown
    "relu": (
        "max({a}, 0)",
        "negative ones became 0",
        "{dh} where {a} > 0, else 0: the slope of ReLU is 1 or 0",
    ),
    "tanh": ("tanh({a})", "", "{dh} (1 - {h}^2): the slope of tanh"),
    "sigmoid": ("1 / (1 + exp(-{a}))", "", "{dh} {h} (1 - {h}): the slope of the sigmoid"),
    "softmax": ("exp({a}) / sum of exp({a})", "", "{h} ({dh} - sum({dh} {h})): softmax's Jacobian"),
}


def step_sections(lesson: Lesson, step: Step, names: list[str]) -> list[Section]:
    """All of one step. ``names``: of the layers that are shown."""
    shown = _shown(lesson, step, names)
    found = [
        _forward(lesson, step, shown),
        loss_section(lesson, step),
        gradient_section(lesson, step),
        _backward(lesson, step, shown),
    ]
    if step.number == 1:
        found.append(_check(step, names))
    found.append(update_section(lesson, step, names))
    for place, section in enumerate(found, 1):
        before = f"{place}." if step.number == 1 else f"Step {step.number}:"
        section.title = f"{before} {section.title}"
    return found


def net_section(lesson: Lesson, names: list[str]) -> Section:
    model, batch = lesson.model, lesson.batch
    inside = [_described(layer) for layer in model.layers]
    size = "x".join(map(str, model.input_shape))
    rows = len(batch.x)
    section = Section(
        "The net",
        f"{size} inputs -> {' -> '.join(inside)}. A batch of B = {rows} sample{'s' * (rows != 1)}. "
        f"Loss: {lesson.loss.name}. Optimizer: {lesson.optimizer.name}.",
    )
    if model.layers[0].name in names:
        section.add(Matrix("x", batch.x.reshape(rows, -1), "(B, inputs)"))
    if lesson.targets is not None:
        section.add(Matrix("y", lesson.targets, "the labels as rows (B, outputs)"))
    place = 0
    for layer in model.layers:
        place += bool(layer.parameters)
        if layer.name in names:
            for parameter in layer.parameters:
                note = "(in, out)" if parameter.name == "weight" else ""
                section.add(Matrix(f"{parameter.name}_{place}", getattr(layer, parameter.name).copy(), note))
    return section


def _described(layer) -> str:
    if type(layer) is Dense:
        activation = "" if layer.activation == "linear" else f", {layer.activation}"
        return f"{layer.units} units{activation}"
    return type(layer).__name__


class _Shown:
    """A layer of the trace with what its numbers are called."""

    def __init__(self, layer, trace, place: int, number: int, is_last: bool, on_logits: bool):
        self.layer, self.trace, self.number = layer, trace, number
        self.input = f"h_{place}" if place else "x"
        self.output = f"h_{place + 1}"
        self.is_dense = type(layer) is Dense
        is_linear = not self.is_dense or layer.activation == "linear" or (is_last and on_logits)
        if is_last:
            self.output = "logits" if on_logits or layer_is_linear(layer) else "output"
        self.activation = None if is_linear else layer.activation
        self.place = place + 1

    def in_words(self) -> list[str]:
        """The activation's formula, a note on it, and what its backward does."""
        name = self.activation
        words = _IN_WORDS.get(name, (f"{name}({{a}})", "", f"{{dh}} times the slope of {name}"))
        names = {"a": f"a_{self.place}", "h": self.output, "dh": f"d{self.output}"}
        return [text.format(**names) for text in words]


def layer_is_linear(layer) -> bool:
    return type(layer) is Dense and layer.activation == "linear"


def _shown(lesson: Lesson, step: Step, names: list[str]) -> list[_Shown]:
    found, number = [], 0
    traces = step.trace.layers
    for place, (layer, trace) in enumerate(zip(lesson.model.layers, traces, strict=False)):
        number += bool(layer.parameters)
        if layer.name in names:
            is_last = place == len(traces) - 1
            found.append(_Shown(layer, trace, place, number, is_last, lesson.on_logits))
    return found


def _forward(lesson: Lesson, step: Step, shown: list[_Shown]) -> Section:
    formulas, parts = [], []
    for this in shown:
        trace, k = this.trace, this.number
        if not this.is_dense:
            formulas.append(f"{this.output} = {type(this.layer).__name__}({this.input})")
            parts.append(Matrix(this.output, trace.output))
            continue
        before = f"a_{this.place}" if this.activation else this.output
        bias = f" + bias_{k}" if this.layer.use_bias else ""
        formulas.append(f"{before} = {this.input} weight_{k}{bias}")
        a = before_activation(this.layer, trace)[0] if this.activation else trace.output
        parts.append(Matrix(before, a))
        if step.number == 1:
            more = trace.weights["bias"][:1] if this.layer.use_bias else ()
            parts.append(dot(f"{before}[0,0]", trace.input[0], trace.weights["weight"][:, 0], a[0, 0], *more))
        if this.activation:
            formula, note, _ = this.in_words()
            formulas.append(f"{this.output} = {formula}")
            parts.append(Matrix(this.output, trace.output, note))
    section = Section("Forward", ";  ".join(formulas), parts)
    if lesson.on_logits:
        what = {
            "softmax": "softmax: exp(logit) / sum of exp(logits), each row sums to 1",
            "sigmoid": "sigmoid: 1 / (1 + exp(-logit))",
        }[lesson.model.final_activation]
        section.add(Matrix("q", step.trace.output.reshape(len(step.trace.output), -1), what))
    return section


def _backward(lesson: Lesson, step: Step, shown: list[_Shown]) -> Section:
    section = Section(
        "Backward",
        "from the end: dweight = input^T dout;  dbias = column sums of dout;  dinput = dout weight^T",
    )
    for this in reversed(shown):
        section.add(*_backward_of(this, step.number == 1))
    return section


def _backward_of(this: _Shown, in_full: bool) -> list[Part]:
    trace, k = this.trace, this.number
    below = f"d{this.input}"
    if not this.is_dense:
        learned = [parameter.name for parameter in this.layer.parameters if parameter.learns]
        found: list[Part] = [Matrix(f"d{name}_{k}", trace.gradients[name]) for name in learned]
        return [*found, Matrix(below, trace.dinput, f"through {type(this.layer).__name__}")]
    found, dout, called = [], trace.doutput, f"d{this.output}"
    if this.activation:
        called, dout = f"da_{this.place}", before_activation(this.layer, trace)[1]
        found.append(Matrix(called, dout, this.in_words()[2]))
    dweight = trace.gradients["weight"]
    found.append(Matrix(f"dweight_{k}", dweight, f"{this.input}^T {called}"))
    if in_full:
        found.append(dot(f"dweight_{k}[0,0]", trace.input[:, 0], dout[:, 0], dweight[0, 0]))
    if this.layer.use_bias:
        found.append(Matrix(f"dbias_{k}", trace.gradients["bias"]))
    note = f"{called} weight_{k}^T"
    if this.input == "x":
        note += ": what a layer below would receive"
    return [*found, Matrix(below, trace.dinput, note)]


def _check(step: Step, names: list[str]) -> Section:
    section = Section(
        "Is that right?", "each parameter moved by +-1e-6: (loss(+) - loss(-)) / 2e-6 beside its gradient"
    )
    worst, count, total = 0.0, 0, 0
    for parameter in step.parameters:
        measured, gradient = parameter.measured, step.own_gradient(parameter.name)
        is_measured = ~np.isnan(measured)
        total, count = total + measured.size, count + int(is_measured.sum())
        if is_measured.any():
            worst = max(worst, float(np.abs(measured - gradient)[is_measured].max()))
        if is_measured.all() and parameter.layer in names:
            section.add(Matrix(f"d{parameter.name}", gradient), Matrix("measured", measured))
    which = "" if count == total else f" of {count:,} of the {total:,} parameters, evenly chosen"
    section.add(f"largest difference{which}: {worst:.1e}")
    return section
