"""The samples a report is measured on, and whether training has seen them."""

import math
from dataclasses import dataclass, field

import numpy as np

from ..callbacks import ModelCheckpoint
from ..models import Sequential
from ..report import Figures, as_labels, measure
from ..teachers import cached_logits, named_teacher
from ..validation import check_rows
from .checks import Job, check_pair


@dataclass
class ReportData:
    """Samples to measure models on."""

    x: np.ndarray
    y: np.ndarray | None
    rows: slice | None = None  # of the training arrays; None: they are other samples
    unseen: bool = True  # neither training nor the choice of the epoch saw them, as far as is known
    notes: list[str] = field(default_factory=list)  # what a reader of figures measured on them must know
    teacher_logits: np.ndarray | None = None  # the teacher's answers on them, if they are known

    def measure_teacher(self, job: Job) -> Figures | None:
        if self.teacher_logits is None:
            return None
        timed = None if job.teacher.samples is not None else getattr(job.teacher, "model", job.teacher)
        return measure("teacher", self.teacher_logits, self.y, None, timed, self.x)

    def measure_student(self, role: str, model: Sequential) -> Figures:
        return measure(role, model.predict_logits(self.x), self.y, self.teacher_logits, model, self.x)


def choose_report_data(job: Job, test_data: object, test_teacher: object) -> ReportData:
    """The test data, or else the validation data, or else the training samples; with the teacher's answers."""
    x, y, validation_data = (job.fit_arguments[name] for name in ("x", "y", "validation_data"))
    seen, held_out = split_rows(len(x), job.fit_arguments["validation_split"])
    given = {"test_data": test_data, "validation_data": validation_data}
    argument = next((name for name, pair in given.items() if pair is not None), None)
    if argument is not None:
        data = ReportData(*check_pair(job.student, argument, given[argument]))
        data.notes.append(f"measured on the {len(data.x)} samples of {argument}")
    elif held_out is not None:
        data = ReportData(x[held_out], None if y is None else np.asarray(y)[held_out], held_out)
        data.notes.append(f"measured on the {len(data.x)} samples of validation_split")
    else:
        data = ReportData(x, y, seen, unseen=False)
        data.notes.append(
            f"measured on the {len(x)} training samples themselves: give validation_data or test_data "
            "to learn how the student does on others"
        )
    if data.unseen:
        _note_choice_of_epoch(data, job.fit_arguments, held_out, test_data is not None)
    if data.rows is None and (shared := _count_shared(x[seen], data.x)):
        data.unseen = False
        data.notes.append(f"{shared} of the {len(data.x)} samples measured on are training samples too")
    if data.y is not None and (labelled := int((as_labels(data.y) >= 0).sum())) < len(data.x):
        data.notes.append(f"loss, errors, accuracy and calibration are of the {labelled} that have labels")
    data.teacher_logits = _teacher_logits(job, data, test_teacher)
    return data


def split_rows(count: int, validation_split: float) -> tuple[slice, slice | None]:
    """The rows ``fit`` trains on and those it holds out: the last ones, as in Keras."""
    if not validation_split:
        return slice(0, count), None
    kept = math.floor(count * (1 - validation_split))
    return slice(0, kept), slice(kept, count)


def _teacher_logits(job: Job, data: ReportData, test_teacher: object) -> np.ndarray | None:
    """The teacher's answers on ``data``; None, with a note, for an array of logits that has none for it."""
    teacher = job.teacher
    if test_teacher is not None:
        if teacher.samples is None:
            raise ValueError(
                "test_teacher is for a teacher that is an array of logits for x; this one answers for test_data itself"
            )
        found = named_teacher("test_teacher", test_teacher)
        if found.samples is not None:
            check_rows("test_teacher", found.samples, len(data.x), "the test data")
        return cached_logits(found, data.x, classes=teacher.classes)
    if teacher.samples is None:
        return cached_logits(teacher, data.x)
    if data.rows is not None:
        return np.asarray(teacher.logits(data.x, data.rows))
    data.notes.append(
        "the teacher is an array of logits for x and has none for these samples: give test_teacher"
    )
    return None


# ---------------------------------------------------------------- has training seen them?


def _note_choice_of_epoch(
    data: ReportData, fit_arguments: dict, held_out: slice | None, is_test_data: bool
) -> None:
    """Note on ``data`` if a callback chose the epoch by these samples, as far as that can be seen."""
    choosers = [callback for callback in fit_arguments["callbacks"] if _chooses_epoch(callback)]
    if not choosers:
        return
    chosen_on = None
    if fit_arguments["validation_data"] is not None:
        chosen_on = np.asarray(fit_arguments["validation_data"][0])
    elif held_out is not None:
        chosen_on = fit_arguments["x"][held_out]
    if not is_test_data or (chosen_on is not None and _count_shared(chosen_on, data.x)):
        data.unseen = False
        data.notes.append(
            f"{type(choosers[0]).__name__} chose the epoch on these samples, so the figures flatter the student: "
            f"give {'other test_data' if is_test_data else 'test_data'}"
        )


def _chooses_epoch(callback: object) -> bool:
    """Whether a callback chooses weights by the validation data."""
    keeps_best = not isinstance(callback, ModelCheckpoint) or callback.save_best_only
    return keeps_best and str(getattr(callback, "monitor", "")).startswith("val_")


def _count_shared(x: np.ndarray, x_test: np.ndarray) -> int:
    """How many test samples are among those of ``x``, value for value; 0 if there is too much to compare."""
    if x.shape[1:] != x_test.shape[1:] or x.dtype != x_test.dtype or x.nbytes + x_test.nbytes > 1 << 30:
        return 0
    known = {hash(np.ascontiguousarray(row).tobytes()) for row in x}
    return sum(hash(np.ascontiguousarray(row).tobytes()) in known for row in x_test)
