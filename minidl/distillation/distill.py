"""``distill``: check, train, measure, report; and the plain student, the same model trained on labels alone."""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import callbacks, metrics, optimizers
from ..figures import TASK_FIGURES, as_labels, holds_rows
from ..losses.distillation import Schedule
from ..models import Sequential
from ..report import DistillationReport, Figures, count_of, describe_loss, measure
from ..teachers import (
    InputsTeacher,
    Teacher,
    cached_logits,
    may_be_probabilities,
    named_teacher,
    untrained_note,
)
from ..training import AUTO
from ..training.compiled import names_to_train
from ..training.samples import loss_without_teacher
from ..training.tasks import TASKS, Task
from ..validation import blocks, check_array, check_rows
from ..warmup import compile_before_fit
from .checks import Job, check_job, check_not_swapped, check_pair, check_settings, check_some_labels

_STEERING = {callbacks.EarlyStopping, callbacks.TerminateOnNaN}
_STEERING |= {callbacks.LearningRateScheduler, callbacks.ReduceLROnPlateau}
_SET_BY_COMPILE = ["optimizer", "loss", "metrics", "unfinished", "draw_epoch", "best_logs"]
_SET_BY_COMPILE += ["_weights_given_at"]


def distill(
    teacher: object,
    student: Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    loss: object = None,
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: object = None,
    validation_data: tuple | None = None,
    validation_split: float = 0.0,
    test_data: tuple | None = None,
    transfer: np.ndarray | None = None,
    plain_student: bool = False,
    test_teacher: np.ndarray | None = None,
    from_probs: bool = False,
    temperature: Schedule | str = AUTO,
    hard_weight: Schedule | None = None,
    soft_weight: Schedule | None = None,
    teacher_inputs: np.ndarray | None = None,
    test_teacher_inputs: np.ndarray | None = None,
    **fit_arguments,
) -> DistillationReport:
    """Train ``student`` to give the teacher's answers, and report how well it does.

    Parameters
    ----------
    teacher : a model, an ``Ensemble``, logits ``(N, C)`` row-aligned with ``x`` (an ``np.memmap`` too), or a
        function ``x -> logits``. It is run in inference mode and not changed. A model that
        ``EarlyStopping(restore_best_weights=True)`` stopped teaches with the weights it has now; a ``deepcopy``
        of the student may teach it (self-distillation); zeros are the uniform teacher, which smooths labels.
    student : a ``Sequential``. Its ending, its loss if it is compiled with one, and ``y`` say what it learns; the
        table is in ``docs/methods.md``. Softmax or ``Dense(C)``: one class of many. Sigmoid: the answers yes or no of
        one output or several. No activation, with a loss such as "mse" or a ``y`` of numbers: a regression.
    x : samples ``(N, ...)``, also as a data frame or a CSR matrix, of which a teacher sees 1,024 rows at a time.
    y : labels ``(N,)`` with -1 where there is none, or one-hot rows ``(N, C)``; or None: no labels at all. Of
        sigmoids 0 or 1, ``(N,)`` or ``(N, C)``, and rows of -1 for samples without a label; of a regression
        numbers, ``(N,)`` or ``(N, C)``.
    temperature, hard_weight, soft_weight : of the task's loss, ``KnowledgeDistillation``, for sigmoids
        ``BinaryKnowledgeDistillation``, for a regression ``RegressionDistillation``; numbers or schedules. By default
        they are chosen on held-out training samples, labels alone among the candidates; that costs at most as much
        as three further trainings (``minidl.training.tuning``).
    loss : a distillation loss in their place; it counts before all else.
    optimizer : by default the one the student was compiled with, or Adam.
    validation_data, validation_split : as in ``fit``; evaluated during training.
    test_data : ``(x, y)`` for the report. By default the validation data; without any the figures are taken
        on ``x`` itself, and the report says so.
    transfer : more samples, without labels: the teacher labels them. If the teacher is an array of logits, its
        rows for these samples come last.
    plain_student : also train a copy of the student, from the same initial weights, on the labels alone, for as many
        steps: where some samples have no label, those that have one come more often.
    test_teacher : the teacher's logits on the test data, for a teacher that is an array.
    from_probs : the teacher is an array of probabilities, or a function that returns them; so may ``test_teacher`` be.
    teacher_inputs : what the teacher is asked about in place of ``x``, row i for sample i (those of ``transfer``
        last): other features, or the same images at a higher resolution.
    test_teacher_inputs : the same for the data of the report, if that is ``test_data`` or ``validation_data``.
    fit_arguments : ``callbacks``, ``verbose``, ``shuffle``, ``sample_weight``, ``class_weight`` and so on.

    Returns a ``DistillationReport``: ``print`` it. The student is trained and compiled with ``loss``; ``evaluate``
    needs labels only.

    Raises ValueError or TypeError before anything is trained: for arguments that do not fit, a teacher that is
    the student, teacher and student swapped, probabilities where logits are meant, no labels where
    ``hard_weight`` wants them.
    """
    # check: whatever is refused is refused here
    fit_arguments |= dict(x=x, y=y, batch_size=batch_size, epochs=epochs)
    fit_arguments |= dict(validation_data=validation_data, validation_split=validation_split)
    verbose = callbacks.check_verbose(fit_arguments.get("verbose", "auto"))
    given = dict(temperature=temperature, hard_weight=hard_weight, soft_weight=soft_weight)
    settings = check_settings(loss, given)
    is_auto = loss is None and not settings
    job = check_job(teacher, student, loss, fit_arguments, transfer, from_probs, teacher_inputs, settings)
    optimizer = optimizers.get(student.optimizer or "adam" if optimizer is None else optimizer)
    y, validates = job.fit_arguments["y"], validation_data is not None or validation_split > 0
    used = [job.loss, None] if plain_student or validates else [job.loss]
    compile_kernels([(student, each, optimizer, y) for each in used], verbose != 0, job.task)
    note = untrained_note(job.teacher, student, resumed=bool(fit_arguments.get("initial_epoch")))
    check_not_swapped(job)
    if plain_student:
        check_some_labels(y, job.task)
    data = _choose_report_data(job, test_data, _TestTeacher(test_teacher, from_probs, test_teacher_inputs))

    # train
    if plain_student:  # copies, so that the student's training changes none of it
        plain, plain_optimizer = copy.deepcopy(student), fresh_optimizer(optimizer)
        # not the callbacks that write files, nor the user's own
        steering = [copy.deepcopy(each) for each in job.fit_arguments["callbacks"] if type(each) in _STEERING]
        announce("distilled student", verbose)
    started = time.perf_counter()
    history = _train(job, optimizer, is_auto)
    seconds = time.perf_counter() - started

    # measure and report
    report = DistillationReport(
        data.measure("student", student),
        data.measure_teacher(job.teacher),
        loss=describe_loss(student.loss),
        unseen=data.unseen,
        notes=[note, *data.notes] if note else data.notes,
        seconds=seconds,
        history=history,
        tuning=history.tuning,
    )
    if plain_student:
        announce("plain student", verbose)
        arguments = {**job.fit_arguments, "callbacks": steering}
        report.plain_history = train_on_labels(
            plain, plain_optimizer, arguments, job.task, as_many_steps=True
        )
        report.plain = data.measure("plain student", plain)
        report.notes += _notes_on_plain(job)
    report.notes += report.concerns()
    return report


def compile_kernels(fits: Iterable[tuple], aloud: bool, task: Task = TASKS["softmax"]) -> float:
    """Compile at once what several fits with the task's metric need; returns the seconds.

    Each is a model, a loss (None: that on labels alone), an optimizer and the labels.
    """
    names = defaultdict(set)
    for model, loss, optimizer, y in fits:
        alone = loss_without_teacher(model, task.loss(), y)
        found = [metrics.get(name) for name in task.metrics(model)]
        kinds = [each.kind_for(alone.sparse, math.prod(model.output_shape)) for each in found]
        found = names_to_train(model, loss or alone, optimizers.get(optimizer), kinds)
        names[model.dtype.name].update(found)
    return sum(compile_before_fit(dtype, aloud, each) for dtype, each in names.items())


def announce(role: str, verbose: int | str) -> None:
    """Say whose epochs come next."""
    if verbose != 0:
        callbacks.say(f"{role}:\n")


def _train(job: Job, optimizer: optimizers.Optimizer, is_auto: bool) -> callbacks.History:
    """Compile the student with the loss and fit it.

    If that is refused, or interrupted before the first step, it is compiled as it was before.
    """
    student, done = job.student, optimizer.iterations
    compiled = {name: getattr(student, name) for name in _SET_BY_COMPILE}
    try:
        student.compile(optimizer=optimizer, loss=job.loss, metrics=job.task.metrics(student))
        return student.fit(
            target_model=job.teacher, temperature=AUTO if is_auto else None, **job.fit_arguments
        )
    except BaseException as error:
        untrained = optimizer.iterations == done
        if untrained or isinstance(error, (TypeError, ValueError)):
            for name in _SET_BY_COMPILE if untrained else _SET_BY_COMPILE[:3]:
                setattr(student, name, compiled[name])
        raise


@dataclass
class _ReportData:
    """Samples to measure models on."""

    x: np.ndarray
    y: np.ndarray | None
    rows: slice | None  # of the training arrays; None: they are other samples
    unseen: bool  # neither training nor the choice of the epoch saw them, as far as is known
    notes: list[str]  # what a reader of figures measured on them must know
    task: Task
    teacher_logits: np.ndarray | None = None  # the teacher's answers on them, if they are known
    teacher_inputs: np.ndarray | None = None  # what it saw, if that is not x

    def measure(self, role: str, model: Sequential) -> Figures:
        answers = self.task.answers(model, self.x)
        return measure(role, answers, self.y, self.teacher_logits, model, self.x, self.task.name)

    def measure_teacher(self, teacher: Teacher) -> Figures | None:
        if self.teacher_logits is None:
            return None
        timed, x = None, self.x
        if isinstance(teacher, InputsTeacher):
            teacher, x = teacher.teacher, self.teacher_inputs
        if teacher.samples is None and x is not None:
            timed = getattr(teacher, "model", teacher)
        return measure("teacher", self.teacher_logits, self.y, None, timed, x, self.task.name)


class _TestTeacher(NamedTuple):
    """What is known of the teacher on the test data alone."""

    answers: object
    from_probs: bool
    inputs: object


def _choose_report_data(job: Job, test_data: object, test_teacher: _TestTeacher) -> _ReportData:
    """The test data, or else the validation data, or else the training samples; with the teacher's answers."""
    x, y, validation_data = (job.fit_arguments[name] for name in ("x", "y", "validation_data"))
    seen, held_out = _split_rows(len(x), job.fit_arguments["validation_split"])
    given = {"test_data": test_data, "validation_data": validation_data}
    source = next((name for name, pair in given.items() if pair is not None), None)
    if source is not None:
        rows, (x_test, y_test) = None, check_pair(job.student, source, given[source], job.loss)
    else:
        source, rows = (None, seen) if held_out is None else ("validation_split", held_out)
        x_test, y_test = x[rows], None if y is None else y[rows]
    note = f"measured on the {len(x_test)} samples of {source}"
    if source is None:
        note = (
            f"measured on the {len(x)} training samples themselves: give validation_data or test_data "
            "to learn how the student does on others"
        )
    data = _ReportData(x_test, y_test, rows, source is not None, [note], job.task)
    chosen_on = validation_data[0] if validation_data is not None else x[held_out] if held_out else None
    if data.unseen:
        _note_choice_of_epoch(data, job, chosen_on, source == "test_data")
    if data.rows is None and (shared := _count_shared(x[seen], data.x)):
        data.unseen = False
        data.notes.append(f"{shared} of the {len(data.x)} samples measured on are training samples too")
    has_label = TASK_FIGURES[job.task.name].has_label
    if data.y is not None and (labelled := int(has_label(data.y).sum())) < len(data.x):
        data.notes.append(f"loss, errors, accuracy and calibration are of the {labelled} that have labels")
    data.teacher_logits = _teacher_logits(job, data, test_teacher)
    return data


def _split_rows(count: int, validation_split: float) -> tuple[slice, slice | None]:
    """The rows ``fit`` trains on and those it holds out: the last ones, as in Keras."""
    kept = math.floor(count * (1 - validation_split))
    return slice(0, kept), slice(kept, count) if validation_split else None


def _teacher_logits(job: Job, data: _ReportData, test: _TestTeacher) -> np.ndarray | None:
    """The teacher's answers on ``data``; None, with a note, for an array of logits that has none for it."""
    teacher, has_inputs = job.teacher, isinstance(job.teacher, InputsTeacher)
    if test.inputs is not None:
        if not has_inputs or data.rows is not None:
            raise ValueError(
                "test_teacher_inputs go with teacher_inputs, and with test_data or validation_data whose samples they "
                "belong to"
            )
        data.teacher_inputs = check_array("test_teacher_inputs", test.inputs, may_be_sparse=True)
        check_rows("test_teacher_inputs", len(data.teacher_inputs), len(data.x), "the test data")
        return cached_logits(teacher.teacher, data.teacher_inputs, classes=teacher.classes)
    if test.answers is not None:
        if teacher.samples is None:
            raise ValueError(
                "test_teacher is for a teacher that is an array of logits for x; this one answers for test_data itself"
            )
        activation = job.loss.fused_activation
        from_probs = test.from_probs and may_be_probabilities(test.answers, activation)
        found = named_teacher("test_teacher", test.answers, from_probs=from_probs, activation=activation)
        if found.samples is not None:
            check_rows("test_teacher", found.samples, len(data.x), "the test data")
        return cached_logits(found, data.x, classes=teacher.classes)
    if teacher.samples is None:
        return cached_logits(teacher, data.x)
    if data.rows is not None:
        data.teacher_inputs = teacher.inputs[data.rows] if has_inputs else None
        return np.asarray(teacher.logits(data.x, rows=data.rows))
    known = (
        "has inputs of its own for x and none" if has_inputs else "is an array of logits for x and has none"
    )
    instead = "test_teacher_inputs" if has_inputs else "test_teacher"
    data.notes.append(f"the teacher {known} for these samples: give {instead}")
    return None


def _note_choice_of_epoch(data: _ReportData, job: Job, chosen_on: object, is_test_data: bool) -> None:
    """Note on ``data`` if a callback chose the epoch by these samples, as far as that can be seen."""
    chooser = next(filter(_chooses_epoch, job.fit_arguments["callbacks"]), None)
    if chooser is None:
        return
    if not is_test_data or (chosen_on is not None and _count_shared(chosen_on, data.x)):
        data.unseen = False
        data.notes.append(
            f"{type(chooser).__name__} chose the epoch on these samples, so the figures flatter the student: "
            f"give {'other test_data' if is_test_data else 'test_data'}"
        )


def _chooses_epoch(callback: object) -> bool:
    """Whether a callback chooses weights by the validation data."""
    keeps_best = not isinstance(callback, callbacks.ModelCheckpoint) or callback.save_best_only
    return keeps_best and str(getattr(callback, "monitor", "")).startswith("val_")


def _count_shared(x: np.ndarray, x_test: np.ndarray) -> int:
    """How many test samples are among those of ``x``, value for value; 0 if there is too much to compare."""
    x = check_array("x", x, may_be_sparse=True)
    if x.shape[1:] != x_test.shape[1:] or x.dtype != x_test.dtype or x.nbytes + x_test.nbytes > 1 << 30:
        return 0
    known = {hash(row.tobytes()) for _, part in blocks(x) for row in np.asarray(part)}
    return sum(hash(row.tobytes()) in known for _, part in blocks(x_test) for row in np.asarray(part))


def fresh_optimizer(optimizer: object) -> object:
    """The same kind of optimizer, without state."""
    if isinstance(optimizer, (str, dict, type)):
        return optimizer
    optimizer = optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


def _notes_on_plain(job: Job) -> list[str]:
    seen, _ = _split_rows(len(job.fit_arguments["x"]), job.fit_arguments["validation_split"])
    known = TASK_FIGURES[job.task.name].has_label(job.fit_arguments["y"][seen])
    if known.all():
        return []
    labelled = count_of(int(known.sum()), "labelled sample")
    return [
        f"the plain student took as many steps as the distilled one: its {labelled} came "
        f"{len(known) / known.sum():.1f} times an epoch"
    ]


def train_on_labels(
    model: Sequential,
    optimizer: object,
    fit_arguments: dict,
    task: Task = TASKS["softmax"],
    as_many_steps: bool = False,
) -> callbacks.History:
    """Fit ``model`` to the samples that have labels; the samples held out for validation are the distilled one's.

    ``as_many_steps``: as with all samples. Those that have labels are repeated within an epoch, so that what counts
    epochs, such as the patience of a callback, means the same.
    """
    arguments = dict(fit_arguments)
    x, y, weight = (arguments.get(name) for name in ("x", "y", "sample_weight"))
    loss, known = loss_without_teacher(model, task.loss(), y), TASK_FIGURES[task.name].has_label(y)
    if not known.all():
        seen, held_out = _split_rows(len(x), arguments.pop("validation_split", 0.0))
        if held_out is not None:
            arguments["validation_data"] = x[held_out], y[held_out]
        if not known[seen].any():
            count = len(y[seen])
            raise ValueError(f"y must hold labels to learn from without a teacher, got -1 for all {count}")
        weight = None if weight is None else check_array("sample_weight", weight)[seen]
        given = _labelled(task, x[seen], y[seen], weight)
        if as_many_steps:
            again = np.arange(len(x[seen])) % len(given[0])
            given = tuple(part if part is None else part[again] for part in given)
        arguments |= zip(("x", "y", "sample_weight"), given, strict=True)
    if arguments.get("validation_data") is not None:
        x_val, y_val, *weight = _labelled(task, *arguments["validation_data"])
        if task.name == "classification" and holds_rows(y_val) == loss.sparse:
            y_val = as_labels(y_val) if loss.sparse else np.eye(y.shape[1])[as_labels(y_val)]
        arguments["validation_data"] = (x_val, y_val, *weight)
    model.compile(optimizer=optimizer, loss=loss, metrics=task.metrics(model))
    return model.fit(**arguments)


def _labelled(task: Task, x: np.ndarray, y: np.ndarray, *weight: np.ndarray | None) -> tuple:
    """The samples that have a label (not -1), with what else belongs to them."""
    y = check_array("y", y)
    known = TASK_FIGURES[task.name].has_label(y)
    rows = slice(None) if known.all() else known
    parts = [None if part is None else check_array("x", part, may_be_sparse=True) for part in (x, y, *weight)]
    return tuple(None if part is None else part[rows] for part in parts)
