"""What a model got right, how sure it was of it, and what it costs: figures, and tables of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from .losses import log_softmax
from .validation import check_array, check_int


@dataclass
class Figures:
    """One model's row of a report; None where there is nothing to tell.

    Attributes
    ----------
    layers : sizes, ``"784-64-64-10"``.
    parameters, bytes : how many numbers, and how much memory they take.
    latency : microseconds a sample, predicted one at a time (the median).
    loss : mean cross-entropy with the labels, natural logarithm, temperature 1.
    errors, accuracy : wrong answers among ``samples``, and the fraction of right ones.
    agreement : fraction of samples on which model and teacher give the same answer.
    teacher_kl : mean ``KL(teacher || model)`` at temperature 1, summed over classes.
    calibration_error : ``expected_calibration_error``.
    class_errors : wrong answers among the samples of each class.
    """

    role: str
    layers: str = ""
    parameters: int | None = None
    bytes: int | None = None
    latency: float | None = None
    samples: int | None = None
    loss: float | None = None
    errors: int | None = None
    accuracy: float | None = None
    agreement: float | None = None
    teacher_kl: float | None = None
    calibration_error: float | None = None
    class_errors: list[int] | None = None


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """How far confidence is from accuracy: ``sum_b n_b/N * |accuracy_b - confidence_b|``.

    Samples are put in ``bins`` equal intervals of their largest probability, ``(b/bins, (b+1)/bins]``
    (Guo et al., "On calibration of modern neural networks", ICML 2017).

    Parameters
    ----------
    probs : (N, C) probabilities.
    labels : (N,) class indices.
    """
    confidence, accuracy, counts = calibration_bins(probs, labels, bins)
    return float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def calibration_bins(
    probs: np.ndarray, labels: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of samples of each bin; 0 where a bin is empty."""
    probs, labels = check_array("probs", probs, ndim=2), check_array("labels", labels, ndim=1)
    bins = check_int("bins", bins, minimum=1)
    sure = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == labels
    index = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = np.maximum(counts, 1)
    return (
        np.bincount(index, sure, bins) / filled,
        np.bincount(index, right, bins) / filled,
        counts,
    )


def measure(
    role: str,
    logits: np.ndarray,
    y: np.ndarray | None = None,
    teacher_logits: np.ndarray | None = None,
    model: object = None,
    x: np.ndarray | None = None,
) -> Figures:
    """The figures of one model.

    Parameters
    ----------
    logits : (N, C), what the model says.
    y : class indices ``(N,)``, -1 where unknown, or rows of probabilities ``(N, C)``, or None.
    teacher_logits : (N, C) of the teacher, or None.
    model, x : for size and speed: the model or the teacher, and samples to time it on.

    Logits that are not finite, after a training that diverged, are wrong answers; figures of them are NaN.
    """
    figures = Figures(role, samples=len(logits))
    logits = np.asarray(logits, dtype=np.float64)
    lost = ~np.isfinite(logits).all(axis=1)
    log_q = log_softmax(np.where(lost[:, None], 0.0, logits))
    answers = np.where(lost, -1, log_q.argmax(axis=1))
    log_q[lost] = np.nan
    if y is not None and len(known := np.flatnonzero((labels := as_labels(y)) >= 0)):
        wrong = answers[known] != labels[known]
        figures.samples = len(known)
        figures.errors, figures.accuracy = int(wrong.sum()), float(1 - wrong.mean())
        soft = np.ndim(y) == 2 and np.shape(y)[1] > 1
        picked = (np.asarray(y) * log_q).sum(axis=1) if soft else log_q[known, labels[known]]
        figures.loss = float(-picked.mean())
        figures.calibration_error = math.nan
        if not lost[known].any():
            figures.calibration_error = expected_calibration_error(np.exp(log_q[known]), labels[known])
        figures.class_errors = np.bincount(labels[known][wrong], minlength=log_q.shape[1]).tolist()
    if teacher_logits is not None:
        log_p = log_softmax(np.asarray(teacher_logits, dtype=np.float64))
        figures.agreement = float((answers == log_p.argmax(axis=1)).mean())
        figures.teacher_kl = float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())
    models = _models_of(model)
    if models:
        figures.layers = " + ".join(describe_layers(each) for each in models)
        figures.parameters = sum(int(each.count_params()) for each in models)
        figures.bytes = sum(int(each.params.nbytes) for each in models)
        if x is not None:
            figures.latency = latency(model, x)
    return figures


def _models_of(model: object) -> list:
    """The Sequentials a model or an ensemble is made of; none if one of its members is something else."""
    model = getattr(model, "model", model)
    if isinstance(getattr(model, "params", None), np.ndarray):
        return [model]
    found = [_models_of(member) for member in getattr(model, "members", tuple)()]
    return [each for models in found for each in models] if all(found) else []


def as_labels(y: np.ndarray) -> np.ndarray:
    """Class indices (N,) of labels ``(N,)`` or ``(N, 1)``, or of rows of probabilities."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1:
        return y.argmax(axis=1)
    return y.reshape(len(y)).astype(np.int64)


def describe_layers(model) -> str:
    """The sizes a sample takes on its way through the model: ``784-64-64-10``."""
    sizes = [int(np.prod(model.input_shape))]
    for layer in model.layers:
        if hasattr(layer, "units"):
            sizes.append(int(layer.units))
    return "-".join(map(str, sizes))


def describe_loss(loss) -> str:
    """``KnowledgeDistillation(temperature=4, hard_weight=0.1, soft_weight=0.9)``."""
    if loss is None:
        return "labels alone"
    settings = {k: v for k, v in loss.get_config().items() if k != "name" and v is not False}
    for key, value in settings.items():
        if isinstance(value, dict):  # a schedule, as get_config tells it
            numbers = (f"{number:g}" for number in value["config"].values())
            settings[key] = f"{value['class_name']}({', '.join(numbers)})"
    listed = (f"{k}={v:g}" if type(v) in (int, float) else f"{k}={v}" for k, v in settings.items())
    return f"{type(loss).__name__}({', '.join(listed)})"


def latency(model, x: np.ndarray, repeats: int = 200) -> float:
    """Microseconds a model, or an ensemble of models, takes for one sample: the median over ``repeats``."""
    dtype = getattr(model, "dtype", np.float32)
    rows = [np.ascontiguousarray(x[i : i + 1], dtype=dtype) for i in range(min(len(x), 50))]
    answer = getattr(model, "predict_logits", None) or model.logits
    seconds = []
    for i in range(repeats + 20):
        row = rows[i % len(rows)]
        began = time.perf_counter()
        answer(row)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[20:]) * 1e6)


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
        text = format_table(COLUMNS, [_cells(figures) for figures in self.rows], markdown)
        if self.student.class_errors is not None:
            head = ["errors of class", *map(str, range(len(self.student.class_errors)))]
            rows = [[f.role, *map(str, f.class_errors)] for f in self.rows if f.class_errors is not None]
            text += "\n\n" + format_table(head, rows, markdown)
        return text

    def __str__(self) -> str:
        lines = [f"{self.loss}, {self.seconds:.1f} s", *self.notes]
        return self.table() + "\n\n" + "\n".join(lines)

    def to_markdown(self) -> str:
        """The tables and notes in Markdown."""
        lines = [f"- {line}" for line in (f"{self.loss}, {self.seconds:.1f} s", *self.notes)]
        return self.table(markdown=True) + "\n\n" + "\n".join(lines) + "\n"

    def to_dict(self) -> dict:
        """All figures as a dictionary that ``json.dumps`` takes."""
        return {
            "models": [asdict(figures) for figures in self.rows],
            "loss": self.loss,
            "seconds": self.seconds,
            "unseen": self.unseen,
            "notes": list(self.notes),
        }


COLUMNS = (
    *("model", "layers", "parameters", "bytes", "loss", "errors", "accuracy"),
    *("agreement", "KL to teacher", "calibration error", "us a sample"),
)


def _cells(f: Figures) -> list[str]:
    def text(value, form):
        return "" if value is None else format(value, form)

    return [
        f.role,
        f.layers,
        text(f.parameters, ","),
        text(f.bytes, ","),
        text(f.loss, ".4f"),
        text(f.errors, ","),
        text(f.accuracy, ".2%"),
        text(f.agreement, ".2%"),
        text(f.teacher_kl, ".4f"),
        text(f.calibration_error, ".2%"),
        text(f.latency, ".1f"),
    ]


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Lines of aligned columns: the first to the left, all others to the right."""
    everything = [list(head), *[list(row) for row in rows]]
    least = 2 if markdown else 0  # "-:", without a dash it is no table
    widths = [max(least, *(len(row[i]) for row in everything)) for i in range(len(head))]

    def line(row):
        cells = [
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    rule = [
        ("-" * w if i == 0 else "-" * (w - 1) + ":") if markdown else "-" * w for i, w in enumerate(widths)
    ]
    return "\n".join([line(everything[0]), line(rule), *map(line, everything[1:])])
