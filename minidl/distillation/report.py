"""``DistillationReport``: the figures of teacher, plain student and student side by side."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from .measure import Figures
from .text import format_table

COLUMNS = {
    # title: (attribute of Figures, format)
    "model": ("role", ""),
    "layers": ("layers", ""),
    "parameters": ("parameters", ","),
    "bytes": ("bytes", ","),
    "loss": ("loss", ".4f"),
    "errors": ("errors", ","),
    "accuracy": ("accuracy", ".2%"),
    "agreement": ("agreement", ".2%"),
    "KL to teacher": ("teacher_kl", ".4f"),
    "calibration error": ("calibration_error", ".2%"),
    "us a sample": ("latency", ".1f"),
}


@dataclass
class DistillationReport:
    """What ``distill`` did and how well.

    ``print(report)`` shows the table; ``report.student``, ``report.teacher`` and ``report.plain``
    are ``Figures`` (plain: the same student trained on labels alone, if that was asked for).

    Attributes
    ----------
    student, teacher, plain : Figures; teacher or plain may be None.
    notes : what a reader of the figures must know, such as what they were measured on.
    unseen : True if the figures were measured on data that neither training nor the choice of
        the epoch ever saw.
    history, plain_history : what ``fit`` returned.
    seconds : the time training took.
    """

    student: Figures
    teacher: Figures | None = None
    plain: Figures | None = None
    notes: list[str] = field(default_factory=list)
    unseen: bool = True
    loss: str = ""
    seconds: float = 0.0
    history: object = None
    plain_history: object = None

    @property
    def rows(self) -> list[Figures]:
        return [figures for figures in (self.teacher, self.plain, self.student) if figures is not None]

    def table(self, markdown: bool = False) -> str:
        """The figures as an aligned table, or in Markdown."""
        text = format_table(list(COLUMNS), [_cells(figures) for figures in self.rows], markdown)
        if self.student.class_errors is not None:
            head = ["errors of class", *map(str, range(len(self.student.class_errors)))]
            rows = [[f.role, *map(str, f.class_errors)] for f in self.rows if f.class_errors is not None]
            text += "\n\n" + format_table(head, rows, markdown)
        return text

    def __str__(self) -> str:
        return self.table() + "\n\n" + "\n".join(self._lines())

    def to_markdown(self) -> str:
        """The tables and notes in Markdown."""
        lines = [f"- {line}" for line in self._lines()]
        return self.table(markdown=True) + "\n\n" + "\n".join(lines) + "\n"

    def _lines(self) -> list[str]:
        return [f"{self.loss}, {self.seconds:.1f} s", *self.notes]

    def to_dict(self) -> dict:
        """All figures as a dictionary that ``json.dumps`` takes."""
        return {
            "models": [asdict(figures) for figures in self.rows],
            "loss": self.loss,
            "seconds": self.seconds,
            "unseen": self.unseen,
            "notes": list(self.notes),
        }

    def concerns(self) -> list[str]:
        """Notes on figures that hint at a mistake or a failure."""
        found = []
        teacher, plain, student = self.teacher, self.plain, self.student
        if teacher is not None and teacher.accuracy is not None and teacher.class_errors:
            if teacher.accuracy < 1.5 / len(teacher.class_errors):
                found.append(
                    f"the teacher has only {teacher.accuracy:.1%} right, hardly more than by chance: does it get its "
                    "inputs as it was trained on them (scaled, flattened), and are its classes in the order of y?"
                )
        if any(math.isnan(value) for value in (student.loss, student.teacher_kl) if value is not None):
            found.append(
                "the student's answers are not finite: its training diverged, which a smaller learning rate or "
                "clipping prevents"
            )
        if plain is not None and plain.errors is not None and student.errors is not None:
            more_errors = student.errors - plain.errors
            if more_errors >= 0:
                found.append(
                    f"distillation did not help here: {more_errors} errors more than the plain student. A single run "
                    "says little: distill_sweep repeats it over seeds"
                )
        return found


def _cells(figures: Figures) -> list[str]:
    """One row of the report's table; an empty cell where nothing is known."""
    values = ((getattr(figures, attribute), form) for attribute, form in COLUMNS.values())
    return ["" if value is None else format(value, form) for value, form in values]
