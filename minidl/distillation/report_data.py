"""The samples that a report is measured on, with the teacher's answers, and what a reader must know of them."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import callbacks
from ..figures import has_label
from ..models import Sequential
from ..report import Figures, measure
from ..teachers import InputsTeacher, Teacher, cached_logits, may_be_probabilities, named_teacher
from ..training.samples import split_rows
from ..training.tasks import Task
from ..validation import blocks, check_array, check_rows
from .checks import Job, check_pair


@dataclass
class ReportData:
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
        """The figures of a model on these samples."""
        answers = self.task.answers(model, self.x)
        return measure(role, answers, self.y, self.teacher_logits, model, self.x, self.task.name)

    def measure_teacher(self, teacher: Teacher) -> Figures | None:
        """Those of the teacher; None if its answers are not known. An array of logits has no size and no speed."""
        if self.teacher_logits is None:
            return None
        timed, x = None, self.x
        if isinstance(teacher, InputsTeacher):
            teacher, x = teacher.teacher, self.teacher_inputs
        if teacher.samples is None and x is not None:
            timed = getattr(teacher, "model", teacher)
        return measure("teacher", self.teacher_logits, self.y, None, timed, x, self.task.name)


class TeacherAtTest(NamedTuple):
    """What is known of the teacher on the test data alone."""

    answers: object
    from_probs: bool
    inputs: object


def choose_report_data(job: Job, test_data: object, test_teacher: TeacherAtTest) -> ReportData:
    """The test data, or else the validation data, or else the training samples; with the teacher's answers."""
    x, y, validation_data = (job.fit_arguments[name] for name in ("x", "y", "validation_data"))
    seen, held_out = split_rows(len(x), job.fit_arguments["validation_split"])
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
    data = ReportData(x_test, y_test, rows, source is not None, [note], job.task)
    chosen_on = validation_data[0] if validation_data is not None else x[held_out] if held_out else None
    if data.unseen:
        _note_choice_of_epoch(data, job, chosen_on, source == "test_data")
    if data.rows is None and (shared := _count_shared(x[seen], data.x)):
        data.unseen = False
        data.notes.append(f"{shared} of the {len(data.x)} samples measured on are training samples too")
    if data.y is not None and (labelled := int(has_label(data.y, job.task.name).sum())) < len(data.x):
        data.notes.append(f"loss, errors, accuracy and calibration are of the {labelled} that have labels")
    data.teacher_logits = _teacher_logits(job, data, test_teacher)
    return data


def _teacher_logits(job: Job, data: ReportData, test: TeacherAtTest) -> np.ndarray | None:
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


def _note_choice_of_epoch(data: ReportData, job: Job, chosen_on: object, is_test_data: bool) -> None:
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
