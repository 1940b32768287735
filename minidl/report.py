"""``DistillationReport``, what ``distill`` returns, and the functions that measure models and show figures."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from .figures import (
    TASK_FIGURES,
    as_labels,
    calibration_bins,
    expected_calibration_error,
    has_label,
    has_labels,
    holds_rows,
)
from .tables import format_table, html_lines, html_table

__all__ = [
    "DistillationReport", "Figures", "as_labels", "calibration_bins", "count_of", "describe_layers",
    "describe_loss", "expected_calibration_error", "format_table", "has_labels", "holds_rows", "latency",
    "mean_and_std", "measure",
]  # fmt: skip


@dataclass
class Figures:
    """One model's row of a report; None where nothing is known."""

    role: str
    layers: str = ""  # sizes, "784-64-64-10"
    parameters: int | None = None  # how many numbers
    bytes: int | None = None  # how much memory they take
    latency: float | None = None  # microseconds per sample, predicted one at a time (the median)
    samples: int | None = None
    loss: float | None = None  # mean cross-entropy with the labels (temperature 1), or mean squared error
    errors: int | None = None  # wrong answers among ``samples``, of several sigmoids those of all outputs
    accuracy: float | None = None  # fraction of right answers
    agreement: float | None = None  # fraction of samples on which model and teacher give the same answer
    teacher_kl: float | None = None  # mean KL(teacher || model) at temperature 1, summed over classes
    calibration_error: float | None = None  # see `expected_calibration_error`
    class_errors: list[int] | None = None  # wrong answers among the samples of each class, or of each output
    errors_of: str = "class"  # what ``class_errors`` are of
    all_right: float | None = None  # fraction of samples with all of several outputs right
    auc: float | None = None  # see `area_under_curve`; of several outputs the mean
    rmse: float | None = None  # root of the mean squared error
    mae: float | None = None  # mean absolute error
    r2: float | None = None  # 1 - squared errors / squared deviations of y; of several outputs the mean
    teacher_rmse: float | None = None  # root of the mean squared distance from the teacher's outputs
    task: str = "classification"  # or "binary", answers of yes and no, or "regression"


_SIZE = {
    # title: (attribute of Figures, format)
    "model": ("role", ""),
    "layers": ("layers", ""),
    "parameters": ("parameters", ","),
    "bytes": ("bytes", ","),
}
_SPEED = {"us a sample": ("latency", ".1f")}


@dataclass
class DistillationReport:
    """What ``distill`` did and how well.

    ``print(report)`` shows the table; ``report.student``, ``report.teacher`` and ``report.plain`` are ``Figures``.
    """

    student: Figures
    teacher: Figures | None = None
    plain: Figures | None = None  # the same student trained on labels alone, if that was asked for
    notes: list[str] = field(default_factory=list)  # what a reader must know, such as what was measured on
    unseen: bool = True  # measured on data that neither training nor the choice of the epoch ever saw
    loss: str = ""
    seconds: float = 0.0  # the time training took
    history: object = None  # what ``fit`` returned
    plain_history: object = None
    tuning: object = None  # what ``temperature="auto"`` tried and chose: ``minidl.training.Tuning``

    @property
    def rows(self) -> list[Figures]:
        return [figures for figures in (self.teacher, self.plain, self.student) if figures is not None]

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Head and rows of the table of figures, and of that of each class's errors."""
        cells, columns = [], _SIZE | TASK_FIGURES[self.student.task].columns | _SPEED
        if self.student.all_right is None:  # but for several sigmoids
            columns = {title: shown for title, shown in columns.items() if shown[0] != "all_right"}
        for figures in self.rows:
            values = ((getattr(figures, attribute), form) for attribute, form in columns.values())
            cells.append(["" if value is None else format(value, form) for value, form in values])
        found = [(list(columns), cells)]
        if self.student.class_errors is not None:
            head = [f"errors of {self.student.errors_of}", *map(str, range(len(self.student.class_errors)))]
            rows = [[f.role, *map(str, f.class_errors)] for f in self.rows if f.class_errors is not None]
            found.append((head, rows))
        return found

    def table(self, markdown: bool = False) -> str:
        """The figures as an aligned table, or in Markdown."""
        return "\n\n".join(format_table(head, rows, markdown) for head, rows in self._tables())

    def __str__(self) -> str:
        return self.table() + "\n\n" + "\n".join(self._lines())

    def _repr_html_(self) -> str:
        return "".join(html_table(*each) for each in self._tables()) + html_lines(self._lines())

    def to_markdown(self) -> str:
        """The tables and notes in Markdown."""
        return self.table(markdown=True) + "\n\n" + "".join(f"- {line}\n" for line in self._lines())

    def _lines(self) -> list[str]:
        tuning = self.tuning.lines() if self.tuning else []
        return [f"{self.loss}, {self.seconds:.1f} s", *tuning, *self.notes]

    def to_dict(self) -> dict:
        """All figures as a dictionary that ``json.dumps`` takes."""
        told = {name: getattr(self, name) for name in ("loss", "seconds", "unseen")}
        told["tuning"] = self.tuning.to_dict() if self.tuning else None
        return {"models": [asdict(figures) for figures in self.rows], **told, "notes": list(self.notes)}

    def concerns(self) -> list[str]:
        """Notes on figures that hint at a mistake or a failure."""
        found = []
        teacher, plain, student = self.teacher, self.plain, self.student
        task = TASK_FIGURES[student.task]
        if teacher and (poor := task.poor(teacher)):
            as_y = (
                "are its outputs in the unit of y"
                if student.task == "regression"
                else "are its classes in the order of y"
            )
            found.append(
                f"{poor}: does it get its inputs as it was trained on them (scaled, flattened), and {as_y}?"
            )
        if any(
            math.isnan(value)
            for value in (student.loss, student.teacher_kl, student.teacher_rmse)
            if value is not None
        ):
            found.append(
                "the student's answers are not finite: its training diverged, which a smaller learning rate or "
                "clipping prevents"
            )
        ours, theirs = getattr(student, task.judge), plain and getattr(plain, task.judge)
        taught = self.tuning is None or not self.tuning.alone  # else they are the same model
        if taught and None not in (ours, theirs) and (ours == theirs or task.better(ours, theirs) == theirs):
            what = f"{task.judge_title} {ours:.4g}, that of the plain student is {theirs:.4g}"
            if task.judge == "errors":
                what = f"{count_of(ours - theirs, 'error')} more than the plain student"
            found.append(
                f"distillation did not help here: {what}. "
                "A single run says little: distill_sweep repeats it over seeds"
            )
        return found


def count_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def describe_layers(model) -> str:
    """The sizes of a sample on its way through the model: ``784-64-64-10``."""
    sizes = [int(np.prod(model.input_shape))]
    sizes += [int(layer.units) for layer in model.layers if hasattr(layer, "units")]
    return "-".join(map(str, sizes))


def describe_loss(loss) -> str:
    """``KnowledgeDistillation(temperature=4, hard_weight=0.1, soft_weight=0.9)``."""
    if loss is None:
        return "labels alone"
    settings = {k: v for k, v in loss.get_config().items() if k != "name" and v is not False}
    for key, value in settings.items():
        if isinstance(value, dict):  # the config of a schedule
            numbers = (f"{number:g}" for number in value["config"].values())
            settings[key] = f"{value['class_name']}({', '.join(numbers)})"
    listed = (f"{k}={v:g}" if type(v) in (int, float) else f"{k}={v}" for k, v in settings.items())
    return f"{type(loss).__name__}({', '.join(listed)})"


def measure(
    role: str,
    logits: np.ndarray,
    y: np.ndarray | None = None,
    teacher_logits: np.ndarray | None = None,
    model: object = None,
    x: np.ndarray | None = None,
    task: str = "classification",
) -> Figures:
    """The figures of one model.

    ``role`` is its name in the report, ``logits`` (N, C) are its answers: logits, or the outputs of a regression.
    ``y``: class indices ``(N,)``, -1 where unknown, or rows of probabilities or targets ``(N, C)``.
    ``teacher_logits``: (N, C). ``model``, ``x``: for size and speed, the model or the teacher, and samples to time it
    on. ``task``: of `TASK_FIGURES`.

    Logits that are not finite, after a training that diverged, count as wrong answers; their other figures are NaN.
    """
    figures, of_task = Figures(role, samples=len(logits), task=task), TASK_FIGURES[task]
    logits, found = np.asarray(logits, dtype=np.float64), {}
    if has_labels(y, task):
        known = np.flatnonzero(has_label(y, task))
        found = {"samples": len(known), **of_task.beside_labels(logits[known], np.asarray(y)[known])}
    if teacher_logits is not None:
        found |= of_task.beside_teacher(logits, np.asarray(teacher_logits, dtype=np.float64))
    vars(figures).update(found)
    models = _models_of(model)
    if models:
        figures.layers = " + ".join(describe_layers(each) for each in models)
        figures.parameters = sum(int(each.count_params()) for each in models)
        figures.bytes = sum(int(each.params.nbytes) for each in models)
        if x is not None:
            figures.latency = latency(model, x)
    return figures


def _models_of(model: object) -> list:
    """The Sequentials that a model or an ensemble consists of; none if one of its members is something else."""
    model = getattr(model, "model", model)
    if isinstance(getattr(model, "params", None), np.ndarray):
        return [model]
    found = [_models_of(member) for member in getattr(model, "members", tuple)()]
    return [each for models in found for each in models] if all(found) else []


def mean_and_std(runs: Sequence[dict], keys: Iterable[str]) -> dict[str, float]:
    """``{key_mean, key_std}`` for each key over repeated runs, with ddof 1; that of a single run is 0."""
    found = {}
    for key in keys:
        values = [run[key] for run in runs]
        found[f"{key}_mean"] = float(np.mean(values))
        found[f"{key}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return found


def latency(model, x: np.ndarray, repeats: int = 200) -> float:
    """Microseconds a model, or an ensemble of models, takes for one sample: the median over ``repeats``."""
    dtype = getattr(model, "dtype", np.float32)
    rows = [np.ascontiguousarray(x[i : i + 1], dtype=dtype) for i in range(min(len(x), 50))]
    answer = getattr(model, "predict_logits", None) or model.logits
    warm_up = 20
    seconds = []
    for i in range(warm_up + repeats):
        row = rows[i % len(rows)]
        started = time.perf_counter()
        answer(row)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[warm_up:]) * 1e6)
