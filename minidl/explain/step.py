"""The numbers of a few training steps, by the engine's own layers, losses and optimizers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .. import losses
from ..gradcheck import in_float64
from ..kernels import updates
from ..kernels.matmul import dense_forward
from ..layers import Dense
from ..models import Sequential
from ..optimizers import Optimizer
from ..training.layerwise import check_batch
from ..training.objective import reduced, score_rows
from ..training.samples import Samples
from ..training.trace import LayerTrace, Trace

_NUDGE = 1e-6
MOST_MEASURED = 400
"""Of so many parameters at most the gradient is measured; of more, of some that lie evenly."""
FOREVER = 10**9
"""The number of a step at which no correction of a first step is left."""


@dataclass
class Lesson:
    """What is explained: a model of float64, its loss, its optimizer, and a batch."""

    model: Sequential
    loss: losses.Loss
    optimizer: Optimizer
    x: np.ndarray
    y: object
    teacher_logits: np.ndarray | None  # of a distilling loss
    batch: Samples

    def trace(self) -> Trace:
        return self.model.trace(self.x, self.y, self.loss, teacher_logits=self.teacher_logits, training=True)

    def loss_now(self) -> float:
        """The loss alone, on the parameters as they are; moving averages stay."""
        objective, batch = self.model.objective(self.loss), self.batch
        averages = [average.copy() for average in self.model.averages]
        out = self.model.forward(batch.x, training=True, logits=objective.on_logits)
        for view, before in zip(self.model.averages, averages, strict=True):
            view[...] = before
        batch = reduced(self.loss, objective, batch)
        row_loss, _ = score_rows(self.loss, objective, out.reshape(len(out), -1), batch, len(out), False)
        return float(row_loss.sum())

    @property
    def on_logits(self) -> bool:
        """Whether the loss is fused with the final activation, which the trace then leaves out."""
        return self.model.objective(self.loss).on_logits

    @property
    def targets(self) -> np.ndarray | None:
        """(B, outputs): what the outputs should be; of an unlabelled row 0. None without labels."""
        if self.batch.targets is not None:
            return np.asarray(self.batch.targets, np.float64)
        if not self.batch.labels.size:
            return None
        classes = np.eye(math.prod(self.model.output_shape))
        return np.where(self.batch.labels[:, None] < 0, 0.0, classes[self.batch.labels])


@dataclass
class Parameter:
    """One parameter array in one step."""

    layer: str
    name: str
    before: np.ndarray
    gradient: np.ndarray
    after: np.ndarray
    slots: dict[str, np.ndarray] = field(default_factory=dict)
    measured: np.ndarray | None = None
    """Its gradient from differences of the loss; NaN where it was not measured. None after the first step."""


@dataclass
class Step:
    number: int
    trace: Trace
    loss_after: float
    parameters: list[Parameter]
    rate: float
    uncorrected: float | None
    """How many times as long the step would be without the optimizer's correction; None where it has none."""

    @property
    def length(self) -> float:
        """The norm of the parameters' change."""
        return float(np.sqrt(sum(((p.after - p.before) ** 2).sum() for p in self.parameters)))

    def own_gradient(self, name: str) -> np.ndarray:
        """A parameter's gradient of the loss alone, before penalties and limits."""
        kind, place = name.rsplit("_", 1)
        with_parameters = [trace for trace in self.trace.layers if trace.weights]
        return with_parameters[int(place) - 1].gradients[kind]


def make_lesson(model, x, y, loss, optimizer, teacher_logits) -> Lesson:
    """``model`` as a copy of float64, compiled anew."""
    twin = in_float64(model)
    vars(twin).update(optimizer=None, loss=None, metrics=[])
    twin.compile(optimizer=optimizer, loss=loss)
    batch = check_batch(twin, loss, x, y, None, None, teacher_logits)
    return Lesson(twin, loss, optimizer, x, y, teacher_logits, batch)


def take_steps(lesson: Lesson, count: int) -> list[Step]:
    model, optimizer = lesson.model, lesson.optimizer
    # the same rule far from its first steps: what it would do without their correction
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.iterations = FOREVER
    found = []
    for number in range(1, count + 1):
        model.set_step(model.draw_epoch, optimizer.batches)
        trace = lesson.trace()
        measured = _measure(lesson) if number == 1 else None
        before, rate = model.params.copy(), optimizer.learning_rate
        train = {"teacher_logits": lesson.teacher_logits} if lesson.loss.distills else {}
        model.train_on_batch(lesson.x, lesson.y, **train)
        model.set_step(model.draw_epoch, optimizer.batches - 1)
        after = lesson.loss_now()
        uncorrected = _uncorrected(optimizer, twin, before, model)
        parameters = _parameters(model, before, measured)
        found.append(Step(number, trace, after, parameters, rate, uncorrected))
    return found


def _uncorrected(optimizer, twin, before: np.ndarray, model) -> float | None:
    if optimizer.schedule is not None or optimizer.batches_to_an_update > 1:
        return None
    other, length = before.copy(), np.linalg.norm(model.params - before)
    twin.step(other, model.grads.copy())
    ratio = float(np.linalg.norm(other - before) / length) if length else 1.0
    return ratio if has_correction(optimizer) else None


def has_correction(optimizer) -> bool:
    """Whether the first steps of the optimizer's rule differ from later ones."""
    scalars = np.zeros((2, 8))
    for row, step in zip(scalars, (1, FOREVER), strict=True):
        updates.step_scalars(row, optimizer.kind, optimizer.hyper, 1.0, step)
    return not np.allclose(*scalars)


def slot_names(optimizer) -> dict[int, str]:
    """By the place of each slot that the rule keeps, what the rule's formula calls it: 0: "m", 1: "v"."""
    formula = updates.RULES[updates.Rule(optimizer.kind).name].formula
    names = formula.__code__.co_varnames[1:4]
    return {place: names[place] for place in updates.KEEPS[optimizer.kind]}


def _parameters(model, before: np.ndarray, measured: np.ndarray | None) -> list[Parameter]:
    found, names = [], slot_names(model.optimizer)
    for number, layer in enumerate((layer for layer in model.layers if layer.parameters), 1):
        for parameter in layer.parameters:
            if not parameter.trainable:
                continue
            place = slice(parameter.offset, parameter.offset + parameter.size)

            def of(flat, place=place, shape=parameter.shape):
                return flat[place].reshape(shape).copy()

            slots = {name: of(model.optimizer.slots[at]) for at, name in names.items()}
            found.append(
                Parameter(
                    layer.name,
                    f"{parameter.name}_{number}",
                    of(before),
                    of(model.grads),
                    of(model.params),
                    slots,
                    None if measured is None else of(measured),
                )
            )
    return found


def _measure(lesson: Lesson) -> np.ndarray:
    """(loss(w + h) - loss(w - h)) / 2h of the parameters."""
    model = lesson.model
    measured = np.full(model.params.size, np.nan)
    count = min(MOST_MEASURED, measured.size)
    for place in np.linspace(0, measured.size - 1, count).astype(int):
        kept = float(model.params[place])
        model.params[place] = kept + _NUDGE
        above = lesson.loss_now()
        model.params[place] = kept - _NUDGE
        measured[place] = (above - lesson.loss_now()) / (2 * _NUDGE)
        model.params[place] = kept
    return measured


def before_activation(layer: Dense, trace: LayerTrace) -> tuple[np.ndarray, np.ndarray]:
    """(a, da) of a Dense: what goes into its activation, and the gradient there."""
    pre = np.empty((len(trace.input), layer.units))
    bias = trace.weights.get("bias", np.empty(0))
    dense_forward(pre, np.ascontiguousarray(trace.input), trace.weights["weight"], bias)
    return pre, layer._activation.backward(trace.doutput, trace.output, pre)
