"""The section of the update, and what an optimizer's correction does to its first steps."""

from __future__ import annotations

import numpy as np

from ..kernels import updates
from .document import Matrix, Section, Sum, Table, number
from .step import FOREVER, Lesson, Parameter, Step, has_correction

_GRADIENTS = 0.1, 1.0, 1000.0
_FIRST = 10


def formula_of(optimizer) -> list[str]:
    """The rule as its kernel states it, in lines."""
    kind = updates.Rule(optimizer.kind).name
    said = (updates.RULES[kind].formula.__doc__ or "").split("\n\n")[0]
    if kind == "ADAM":
        said = said.split("; amsgrad")[0]
    return [line.strip() for line in said.splitlines()]


def update_section(lesson: Lesson, step: Step, names: list[str]) -> Section:
    """``names``: of the layers that are shown."""
    optimizer, rate = lesson.optimizer, f"{step.rate:g}"
    section = Section(
        "Update", f"{optimizer.name}, by g, the gradient of each parameter w; lr = {rate}, t = {step.number}"
    )
    section.add(*(Sum(line) for line in formula_of(optimizer)))
    if not all(np.allclose(p.gradient, step.own_gradient(p.name), rtol=1e-12) for p in step.parameters):
        section.add("g is the loss's gradient with what regularizers add, limited as the optimizer says.")
    shown = [parameter for parameter in step.parameters if parameter.layer in names]
    if shown:
        section.add(_one_entry(shown[0], rate))
    for parameter in shown:
        section.add(
            *(Matrix(f"{name} of {parameter.name}", values) for name, values in parameter.slots.items())
        )
        section.add(Matrix(f"step of {parameter.name}", parameter.after - parameter.before, "after - before"))
        section.add(Matrix(parameter.name, parameter.after))
    if step.uncorrected is not None:
        section.add(
            f"This step is {number(step.length)} long. Without its correction of step {step.number} it would be "
            f"{number(step.uncorrected * step.length)}, {step.uncorrected:.2f} times as long."
        )
    section.add(f"the loss was {step.trace.loss:.6f}, and is now {step.loss_after:.6f}")
    return section


def _one_entry(parameter: Parameter, rate: str) -> Sum:
    old, new = parameter.before.flat[0], parameter.after.flat[0]
    gradient = parameter.gradient.flat[0]
    place = ",".join("0" * parameter.before.ndim)
    slots = "".join(f", {name} = {number(values.flat[0])}" for name, values in parameter.slots.items())
    if not parameter.slots and np.isclose(new, old - float(rate) * gradient):
        return Sum(f"{parameter.name}[{place}] = {old:.6f} - {rate} * {gradient:.6f} = {new:.6f}")
    return Sum(f"{parameter.name}[{place}]: g = {gradient:.6f}{slots}: {old:.6f} becomes {new:.6f}")


def first_steps_section(optimizer) -> Section | None:
    """The first ten steps of one parameter under a gradient that stays 1, with and without the correction."""
    if not has_correction(optimizer):
        return None
    name = type(optimizer).__name__
    with_it, without = _steps(optimizer, 1.0, 0), _steps(optimizer, 1.0, FOREVER)
    rows = [
        [str(t), number(a), number(b), f"{b / a:.2f}"]
        for t, (a, b) in enumerate(zip(with_it, without, strict=True), 1)
    ]
    section = Section(
        f"The first {_FIRST} steps of {name}, with and without its correction",
        "one parameter, whose gradient is 1 at each step; the correction is what depends on t in the formula",
        [Table(["step t", "with", "without", "times as long"], rows)],
    )
    firsts = ", ".join(f"{number(_steps(optimizer, g, 0)[0])} for g = {g:g}" for g in _GRADIENTS)
    section.add(f"The very first step: {firsts}. The learning rate is {optimizer.learning_rate:g}.")
    if updates.Rule(optimizer.kind).name in ("ADAM", "AMSGRAD"):
        beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
        for t in (1, _FIRST):
            part_1, part_2 = 1 - beta_1**t, 1 - beta_2**t
            section.add(
                Sum(
                    f"t = {t}: (1 - {beta_1:g}^{t}) / sqrt(1 - {beta_2:g}^{t}) = {part_1:.4g} / "
                    f"{part_2**0.5:.4g} = {part_1 / part_2**0.5:.2f}"
                )
            )
        section.add(
            f"Why: m and v begin at 0. After t steps of an equal g, m is (1 - {beta_1:g}^t) g and v is "
            f"(1 - {beta_2:g}^t) g^2: both too small, and sqrt(v), by which m is divided, more so, as v fills up more "
            "slowly. Without the correction the first steps are too long, when the net has seen least. With it, the "
            "first step is the learning rate in each direction, whatever the gradient's size."
        )
    return section


def _steps(optimizer, gradient: float, already: int) -> list[float]:
    """How far one parameter at 0 is moved by each of the first steps, which count on from ``already``."""
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.iterations = already
    found = []
    for _ in range(_FIRST):
        params = np.zeros(1)
        twin.step(params, np.array([gradient]))
        found.append(abs(float(params[0])))
    return found
