"""What ``distill`` and its relatives refuse before anything is trained."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import losses, validation
from ..callbacks import CallbackList
from ..figures import as_labels, has_label, has_labels, holds_rows, skill
from ..models import Sequential
from ..sparse import SparseRows
from ..teachers import InputsTeacher, Teacher, as_teacher
from ..training.options import AUTO, FitOptions
from ..training.tasks import Task, choose_task, task_of

_MISPLACED = {
    # an argument that distill does not take: what to write instead
    "target_model": "target_model is what distill calls teacher: pass it as the first argument",
    **dict.fromkeys(
        ("temperature", "hard_weight", "soft_weight"),
        "{name} belongs to the loss: loss=KnowledgeDistillation({name}={value})",
    ),
    "alpha": "alpha means the labels' weight in some libraries and the teacher's in others: write "
    "loss=KnowledgeDistillation(hard_weight=..., soft_weight=...)",
}
_FIT_ARGUMENTS = {field.name for field in dataclasses.fields(FitOptions)} - {"target_model", *_MISPLACED}


class Job(NamedTuple):
    """A distillation whose arguments have been checked: who teaches whom, by which loss, on which data."""

    teacher: Teacher
    student: Sequential
    loss: losses.Loss
    task: Task
    fit_arguments: dict  # ``x``, ``y`` and all else that ``student.fit`` is called with, the teacher left out


def check_job(
    teacher: object,
    student: Sequential,
    loss: object,
    fit_arguments: dict,
    transfer: np.ndarray | None = None,
    from_probs: bool = False,
    teacher_inputs: np.ndarray | None = None,
    settings: dict | None = None,
) -> Job:
    """The arguments of ``distill``, checked; ``x`` and ``y`` are in ``fit_arguments``.

    ``settings``: temperature and weights of the task's loss, where no loss is given.
    """
    check_fit_arguments("distill", fit_arguments)
    y = fit_arguments["y"]
    if loss is not None:
        loss = distillation_loss(loss, y)
    x = build_for(student, fit_arguments["x"])
    if loss is None:
        loss = distillation_loss(choose_task(student, y).loss_for(y, settings or {}), y)
    task = task_of(loss)
    teacher = as_teacher(teacher, student, from_probs, loss.fused_activation)
    if teacher_inputs is not None:
        teacher = InputsTeacher(teacher, teacher_inputs)
    y = check_answers(student, fit_arguments["y"], len(x), loss)
    callbacks = CallbackList(fit_arguments.get("callbacks")).callbacks
    fit_arguments = {**fit_arguments, "x": x, "y": y, "callbacks": callbacks}
    if transfer is not None:
        fit_arguments = _with_transfer(fit_arguments, transfer, student.dtype, task)
    if fit_arguments["validation_data"] is not None:
        fit_arguments["validation_split"] = 0.0  # as in Keras, the data given count
    rows, rows_of = len(fit_arguments["x"]), "teacher" if teacher_inputs is None else "teacher_inputs"
    if transfer is not None and teacher.samples not in (None, rows):
        raise ValueError(
            f"{rows_of} must have a row for each of the {len(x)} samples of x and of the {rows - len(x)} of "
            f"transfer, got {teacher.samples}"
        )
    if teacher.samples is not None:
        validation.check_rows(rows_of, teacher.samples, rows)
    split = validation.check_float("validation_split", fit_arguments["validation_split"], minimum=0, below=1)
    return Job(teacher, student, loss, task, {**fit_arguments, "validation_split": split})


def check_fit_arguments(function: str, arguments: dict) -> None:
    """Refuse what ``fit`` does not take, in the name of the function that was called."""
    for name, value in arguments.items():
        if name in _MISPLACED:
            raise TypeError(_MISPLACED[name].format(name=name, value=value))
        if name not in _FIT_ARGUMENTS:
            known = validation.known_names(name, _FIT_ARGUMENTS)
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}: {known}")


def check_answers(
    student: Sequential, y: object, rows: int, loss: losses.Loss | None = None, argument: str = "y"
) -> np.ndarray | None:
    """``y``, a list or a data frame too, as class indices (N,), -1 where unknown, or as rows (N, C).

    Without a ``loss`` they are read as those of the student's task.
    """
    if y is None:
        return None
    loss = loss or choose_task(student, y).loss()
    labels, targets = loss.check_y(y, student.output_shape, rows, student.dtype, argument)
    return labels if targets is None else targets


def check_some_labels(y: np.ndarray | None, task: Task) -> None:
    """A ValueError if a plain student would have nothing to learn from."""
    if not has_labels(y, task.name):
        raise ValueError("plain_student=True needs labels, got y without any")


def check_pair(
    student: Sequential, argument: str, given: Any, loss: losses.Loss, lengths: tuple[int, ...] = (2, 3)
) -> tuple:
    """``x`` and ``y`` of a pair the user passed, which may hold sample weights as a third."""
    if not isinstance(given, (tuple, list)) or len(given) not in lengths:
        raise ValueError(f"{argument} must be (x, y), got {validation.describe(given)}")
    x = validation.check_inputs(given[0], student.input_shape, student.dtype, f"{argument} x")
    y = check_answers(student, given[1], len(x), loss, f"{argument} y")
    if y is not None and y.ndim == 1:
        validation.check_classes_left(y, student.output_shape[-1], f"{argument} y")
    return x, y


def check_settings(loss: object, given: dict) -> dict:
    """The numbers among temperature, hard_weight and soft_weight; a loss has its own."""
    settings = {name: value for name, value in given.items() if not (value is None or value == AUTO)}
    if loss is not None and settings:
        name, value = next(iter(settings.items()))
        raise ValueError(f"{name} belongs to the loss, which is given: leave {name}={value} out, or loss")
    return settings


def distillation_loss(loss: object, y: np.ndarray | None) -> losses.Loss:
    """The loss by name, config or object."""
    found = losses.get(loss)
    if found is None or not found.distills:
        raise ValueError(f"loss must be a distillation loss such as KnowledgeDistillation(), got {found!r}")
    found.check_trainable()
    if y is None and found.needs_labels:
        raise ValueError(f"y must be given, got None: {found.labels_missing()}")
    return found


def build_for(student: Sequential, x: object) -> np.ndarray:
    """``x`` as an array that fits the student, which is built if its input shape was left to the data."""
    if not isinstance(student, Sequential):
        raise TypeError(f"student must be a Sequential, got {validation.describe(student)}")
    x = validation.check_array("x", x, may_be_sparse=True)
    checked = validation.check_input_shape(x, student.input_shape)  # each fit looks at the values
    if not student.built:
        student.build((None, *checked.shape[1:]))
    return x


def _with_transfer(fit_arguments: dict, transfer: object, dtype: np.dtype, task: Task) -> dict:
    """``fit_arguments`` with the unlabelled samples of ``transfer`` behind those of ``x``."""
    if fit_arguments["validation_split"]:
        raise ValueError(
            "validation_split keeps the last samples, and those of transfer come last: give "
            "validation_data=(x[n:], y[n:]) and train on x[:n], y[:n] instead"
        )
    x, y, weight = fit_arguments["x"], fit_arguments["y"], fit_arguments.get("sample_weight")
    if isinstance(x, SparseRows):
        raise TypeError(
            "transfer goes with a dense x: stack both, scipy.sparse.vstack([x, transfer]), with -1 in y"
        )
    transfer = validation.check_array("transfer", transfer)
    wanted, got = x.shape[1:], transfer.shape[1:]
    if got != wanted:
        raise ValueError(f"transfer must have samples of shape {wanted} as x has, got {got}")
    validation.check_finite("transfer", transfer, dtype)
    if y is not None and task.name == "regression":
        raise ValueError(
            "transfer must be None where y holds numbers, none of which can mean 'no label': let the teacher's "
            "outputs be the y of these samples, y=np.concatenate([y, teacher.predict(transfer)]), and join x too"
        )
    if y is not None and task.name == "binary":
        y = np.concatenate([y, np.full((len(transfer), *y.shape[1:]), -1.0, dtype)])
    elif y is not None:
        labels = as_labels(y)
        if holds_rows(y) and not np.array_equal(y, np.eye(y.shape[1])[labels]):
            raise ValueError("y must be class indices or one-hot rows when transfer is given, got soft rows")
        y = np.concatenate([labels, np.full(len(transfer), -1)])
    if weight is not None:
        validation.check_rows("sample_weight", len(weight), len(x))
        weight = np.concatenate([weight, np.ones(len(transfer))])
    return {**fit_arguments, "x": np.concatenate([x, transfer]), "y": y, "sample_weight": weight}


def check_not_swapped(job: Job) -> None:
    """Refuse a student that already knows what its teacher never learnt."""
    teacher, student, x, y = job.teacher, job.student, job.fit_arguments["x"], job.fit_arguments["y"]
    task = job.task
    if not has_labels(y, task.name):
        return
    rows = np.flatnonzero(has_label(y, task.name))[:1000]
    y = y[rows]

    def teachers_answers():
        inputs = np.ascontiguousarray(x[rows], dtype=student.dtype)
        return np.asarray(teacher.logits(inputs, rows=rows)).reshape(len(rows), -1)

    if task.name != "classification":
        _check_skill(task, task.answers(student, x[rows]), teachers_answers, y)
        return
    labels = as_labels(y)
    student_accuracy = float((student.predict_logits(x[rows]).argmax(axis=1) == labels).mean())
    if student_accuracy < 0.5:
        return
    logits = teachers_answers()
    teacher_accuracy = float((logits.argmax(axis=1) == labels).mean())
    if teacher_accuracy < student_accuracy - 0.3 and teacher_accuracy < 2 / logits.shape[1]:
        raise ValueError(
            f"teacher and student look swapped: of {len(rows)} samples the teacher has {teacher_accuracy:.0%} "
            f"right, the student already {student_accuracy:.0%}. The order is distill(teacher, student, x, y)"
        )


def _check_skill(task: Task, students: np.ndarray, teachers_answers: Callable, y: np.ndarray) -> None:
    """By what the answers tell of y. Only sure where many do: a teacher of constant answers may smooth labels."""
    if len(y) < 50 or skill(task.name, students, y) < 0.5:
        return
    answers = teachers_answers()
    if answers.shape != students.shape:
        return  # fit refuses them
    if np.ptp(answers, axis=0).max() > 0 and skill(task.name, answers, y) < 0.05:
        raise ValueError(
            f"teacher and student look swapped: the teacher's answers to {len(y)} samples tell nothing of y, the "
            "student's do already. The order is distill(teacher, student, x, y)"
        )
