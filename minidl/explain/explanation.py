"""``explain``: the numbers of a model's training step, as text or as a page."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import losses, optimizers
from ..models import Sequential
from ..pages import check_writable
from ..validation import check_int, describe, known_names
from .distillation import Study, make_study, study_sections
from .document import Section
from .sections import net_section, step_sections
from .step import Lesson, Step, make_lesson, take_steps
from .text import render
from .update import first_steps_section

_MOST_NUMBERS = 1500
"""More numbers than this are not shown unless a slice is asked for."""


@dataclass
class Explanation:
    """Training steps with all of their numbers. ``str`` is the text; so is what a prompt shows.

    ``lesson``: the model as a float64 copy, after the steps. ``steps``: each step's trace and parameters.
    """

    lesson: Lesson
    steps: list[Step]
    head: Section
    by_step: list[list[Section]]
    further: list[Section]
    """What does not belong to one step: the first steps of the optimizer, the temperatures."""
    study: Study | None = None
    most: int | None = None

    def text(self, width: int | None = None) -> str:
        """The text at this width, by default the terminal's, at most 110."""
        width = self.width() if width is None else check_int("width", width, minimum=40)
        sections = [self.head, *(section for step in self.by_step for section in step), *self.further]
        return render(sections, width, self.most)

    @staticmethod
    def width() -> int:
        """The terminal's, between 40 and 110."""
        return min(max(shutil.get_terminal_size().columns, 40), 110)

    def html(self) -> str:
        """The same as a page: one file with sliders, which loads nothing."""
        from .page import html

        return html(self)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__


def explain(
    model: Sequential,
    x,
    y=None,
    *,
    loss=None,
    optimizer=None,
    teacher_logits=None,
    steps: int = 1,
    layers=None,
    samples: int | None = None,
    most: int | None = None,
    html=None,
) -> Explanation:
    """One training step of your own small model, or a few, with every number: forward, loss, backward, update.

    The result prints as text; ``result.html()`` is the same as a page. The numbers are the engine's, in float64, of a
    copy; the model stays as it is. Each gradient stands beside its measurement by differences of the loss.

    Parameters
    ----------
    model : Sequential.
    x, y : the batch, as ``fit`` takes it. Keep it small: two or three samples.
    loss : a name or a loss; by default the one of ``compile``. A distilling loss is shown term by term.
    optimizer : a name or an optimizer, which stays as it is; by default one like that of ``compile``, else "sgd". It
        begins without a memory.
    teacher_logits : (B, C), a teacher's answers to x: for a distilling loss, and to see how a temperature softens them.
    steps : how many.
    layers : names or indices of the layers to show; by default all.
    samples : so many of the first rows are the batch; by default all.
    most : of each matrix, show at most so many rows and columns.
    html : a file to write the page to.

    Raises
    ------
    ValueError
        For more numbers than one can read, with the slices that help, and for arguments that do not fit.
    OSError
        If ``html`` cannot be written; nothing is computed then.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    if html is not None:
        check_writable("html", os.fspath(html))
    steps = check_int("steps", steps, minimum=1, maximum=100)
    most = None if most is None else check_int("most", most, minimum=1)
    if samples is not None:
        rows = slice(check_int("samples", samples, minimum=1))
        x, y, teacher_logits = (
            part if part is None else np.asarray(part)[rows] for part in (x, y, teacher_logits)
        )
    if not model.built:
        model.build((None, *np.shape(x)[1:]))
    loss = _loss_of(model, loss)
    lesson = make_lesson(
        model, x, y, loss, _fresh(model, optimizer), teacher_logits if loss.distills else None
    )
    names = _names_of(model, layers)
    _check_size(lesson, names, most)
    first_loss = lesson.loss_now()
    if not np.isfinite(first_loss):
        raise ValueError(f"the loss must be finite to be explained, got {first_loss} from {loss.name}")
    head = net_section(lesson, names)
    study = None if teacher_logits is None else make_study(lesson, teacher_logits)
    taken = take_steps(lesson, steps)
    first = first_steps_section(lesson.optimizer)
    further = ([] if study is None else study_sections(study)) + ([] if first is None else [first])
    by_step = [step_sections(lesson, step, names) for step in taken]
    found = Explanation(lesson, taken, head, by_step, further, study, most)
    if html is not None:
        Path(html).write_text(found.html(), encoding="utf-8")
    return found


def _loss_of(model: Sequential, loss) -> losses.Loss:
    loss = model.loss if loss is None else losses.get_to_train(loss)
    if loss is None:
        raise ValueError('loss must be given, as loss="mse": the model was not compiled with one')
    return loss


def _fresh(model: Sequential, optimizer) -> optimizers.Optimizer:
    """An optimizer without a memory."""
    found = model.optimizer if optimizer is None else optimizers.get(optimizer)
    found = optimizers.get("sgd") if found is None else found
    return type(found).from_config(found.get_config())


def _names_of(model: Sequential, layers) -> list[str]:
    names = [layer.name for layer in model.layers]
    if layers is None:
        return names
    found = []
    for one in [layers] if isinstance(layers, (str, int)) else layers:
        if isinstance(one, str) and one not in names:
            raise ValueError(
                f"layers must be names or indices of layers, got {one!r}: {known_names(one, names)}"
            )
        found.append(model.get_layer(one).name if isinstance(one, str) else model.get_layer(index=one).name)
    return found


def _check_size(lesson: Lesson, names: list[str], most: int | None) -> None:
    """ValueError if there are more numbers than one can read."""
    if most is not None:
        return
    rows = len(lesson.batch.x)
    shown = [layer for layer in lesson.model.layers if layer.name in names]
    of_layers = sum(math.prod(layer.output_shape) for layer in shown)
    if shown:
        of_layers += math.prod(shown[0].input_shape)
    numbers = sum(layer.count_params() for layer in shown) + rows * of_layers
    if numbers > _MOST_NUMBERS:
        raise ValueError(
            f"the model has {lesson.model.count_params():,} parameters and x {rows:,} rows: {numbers:,} numbers are "
            f"too many to read (at most {_MOST_NUMBERS:,}). Ask for a slice: most=6 shows at most 6 rows and columns "
            "of each matrix, samples=2 makes the first 2 rows the batch, "
            f"layers=[{lesson.model.layers[-1].name!r}] shows that layer alone"
        )
