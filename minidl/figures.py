"""What is told of a model beside labels and beside its teacher, for each kind of task: `TASK_FIGURES`."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .losses.softmax import log_softmax, sigmoid
from .validation import check_array, check_int


def holds_rows(y: np.ndarray) -> bool:
    """Whether ``y`` holds a row of class probabilities per sample, (N, C), rather than class indices."""
    return np.ndim(y) == 2 and np.shape(y)[1] > 1


def as_labels(y: np.ndarray) -> np.ndarray:
    """Class indices (N,) of labels ``(N,)`` or ``(N, 1)``, or of rows of probabilities."""
    y = check_array("y", y)
    return y.argmax(axis=1) if holds_rows(y) else y.reshape(len(y)).astype(np.int64)


# ---- one class of many: logits (N, C), class indices or rows of probabilities


def _finite_log_softmax(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the classes answered, log softmax); -1 and NaN where logits are not finite."""
    diverged = ~np.isfinite(logits).all(axis=1)
    log_q = log_softmax(np.where(diverged[:, None], 0.0, logits))
    answers = np.where(diverged, -1, log_q.argmax(axis=1))
    log_q[diverged] = np.nan
    return answers, log_q


def _classes_beside_labels(logits: np.ndarray, y: np.ndarray) -> dict:
    answers, log_q = _finite_log_softmax(logits)
    labels = as_labels(y)
    wrong = answers != labels
    picked = (np.asarray(y) * log_q).sum(axis=1) if holds_rows(y) else log_q[np.arange(len(labels)), labels]
    probs = np.exp(log_q)
    return dict(
        loss=float(-picked.mean()),
        errors=int(wrong.sum()),
        accuracy=float(1 - wrong.mean()),
        calibration_error=_calibration(probs, labels),
        class_errors=np.bincount(labels[wrong], minlength=logits.shape[1]).tolist(),
    )


def _classes_beside_teacher(logits: np.ndarray, teacher_logits: np.ndarray) -> dict:
    answers, log_q = _finite_log_softmax(logits)
    log_p = log_softmax(teacher_logits)
    return dict(
        agreement=float((answers == log_p.argmax(axis=1)).mean()),
        teacher_kl=float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()),
    )


# ---- answers of yes and no: logits (N, C) of sigmoids, targets (N, C) in [0, 1]


def _binary_beside_labels(logits: np.ndarray, y: np.ndarray) -> dict:
    y = np.asarray(y, np.float64).reshape(logits.shape)
    truth, diverged = y > 0.5, ~np.isfinite(logits).all(axis=1)
    z = np.where(diverged[:, None], np.nan, logits)
    wrong = ((z > 0) != truth) | diverged[:, None]
    with np.errstate(invalid="ignore"):  # NaN for NaN
        yes, surprise = sigmoid(z), np.logaddexp(0.0, z) - y * z
    probs = np.stack([1 - yes, yes], axis=-1).reshape(-1, 2)
    several = logits.shape[1] > 1
    by_class = [int(wrong[truth == answer].sum()) for answer in (False, True)]
    return dict(
        loss=float(surprise.mean()),
        errors=int(wrong.sum()),
        accuracy=float(1 - wrong.mean()),
        all_right=float(1 - wrong.any(axis=1).mean()) if several else None,
        auc=area_under_curve(truth, z),
        calibration_error=_calibration(probs, truth.reshape(-1).astype(np.int64)),
        class_errors=wrong.sum(axis=0).tolist() if several else by_class,
        errors_of="output" if several else "class",
    )


def _binary_beside_teacher(logits: np.ndarray, teacher_logits: np.ndarray) -> dict:
    z, v = logits, teacher_logits
    with np.errstate(invalid="ignore"):  # of a student that diverged
        p = sigmoid(v)
        kl = np.logaddexp(0.0, z) - np.logaddexp(0.0, v) - p * (z - v)
    agrees = ((z > 0) == (v > 0)) & np.isfinite(z)
    return dict(agreement=float(agrees.mean()), teacher_kl=float(kl.sum(axis=1).mean()))


def area_under_curve(truth: np.ndarray, scores: np.ndarray) -> float | None:
    """The area under the ROC curve, exactly: the probability that a positive sample scores above a negative one.

    By ranks (Mann and Whitney 1947), equal scores count one half. truth (N,) or (N, C) of booleans, scores of the
    same shape; of several columns the mean over those that hold both classes, None if there is none. NaN for NaN.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        return math.nan
    areas = []
    for positive, column in zip(
        truth.reshape(len(truth), -1).T, scores.reshape(len(scores), -1).T, strict=True
    ):
        count, others = int(positive.sum()), int((~positive).sum())
        if count and others:
            _, place, sizes = np.unique(column, return_inverse=True, return_counts=True)
            ranks = np.cumsum(sizes) - (sizes - 1) / 2  # the mean rank, from 1, of equal scores
            areas.append((ranks[place][positive].sum() - count * (count + 1) / 2) / (count * others))
    return float(np.mean(areas)) if areas else None


# ---- numbers: outputs (N, C), targets (N, C)


def _numbers_beside_labels(outputs: np.ndarray, y: np.ndarray) -> dict:
    y = np.asarray(y, np.float64).reshape(outputs.shape)
    with np.errstate(invalid="ignore", over="ignore"):  # of a student that diverged
        squares = (outputs - y) ** 2
        spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        varies = spread > 0
        r2 = 1 - squares.sum(axis=0)[varies] / spread[varies]
        return dict(
            loss=float(squares.mean()),
            rmse=float(np.sqrt(squares.mean())),
            mae=float(np.abs(outputs - y).mean()),
            r2=float(r2.mean()) if varies.any() else None,
        )


def _numbers_beside_teacher(outputs: np.ndarray, teacher_outputs: np.ndarray) -> dict:
    with np.errstate(invalid="ignore", over="ignore"):
        return dict(teacher_rmse=float(np.sqrt(((outputs - teacher_outputs) ** 2).mean())))


# ---- the table


class TaskFigures(NamedTuple):
    """The figures of one kind of task."""

    beside_labels: Callable[[np.ndarray, np.ndarray], dict]  # of the samples that have a label
    beside_teacher: Callable[[np.ndarray, np.ndarray], dict]
    has_label: Callable[[np.ndarray], np.ndarray]  # of y, (N,) booleans
    columns: dict[str, tuple[str, str]]  # of the report: title: (attribute of Figures, format)
    swept: dict[str, str]  # of a sweep: attribute and format; the first is what the best setting is best at
    better: Callable  # min or max of that one
    poor: Callable[[object], str]  # of the Figures of a teacher: what makes one suspect it, or ""

    @property
    def judge(self) -> str:
        """The figure by which models are compared: "errors", "auc" or "rmse"."""
        return next(iter(self.swept))

    @property
    def judge_title(self) -> str:
        """What a reader calls it: "errors", "AUC" or "RMSE"."""
        return self.judge if self.judge == "errors" else self.judge.upper()


def _poor_at_classes(teacher) -> str:
    poor = teacher.class_errors and teacher.accuracy < 1.5 / len(teacher.class_errors)
    return f"the teacher has only {teacher.accuracy:.1%} right, hardly more than by chance" if poor else ""


def _poor_at_answers(teacher) -> str:
    poor = teacher.auc is not None and teacher.auc < 0.6
    return f"the teacher's AUC is only {teacher.auc:.3f}, hardly more than by chance" if poor else ""


def _poor_at_numbers(teacher) -> str:
    poor = teacher.r2 is not None and teacher.r2 < 0
    return f"the teacher's R2 is {teacher.r2:.3g}, worse than the mean of y" if poor else ""


_WRONG = {"loss": ("loss", ".4f"), "errors": ("errors", ","), "accuracy": ("accuracy", ".2%")}
_BESIDE_TEACHER = {
    "agreement": ("agreement", ".2%"),
    "KL to teacher": ("teacher_kl", ".4f"),
    "calibration error": ("calibration_error", ".2%"),
}
_WRONG_SWEPT = {"errors": ".1f", "accuracy": ".2%", "agreement": ".2%", "loss": ".4f"}
TASK_FIGURES = {
    "classification": TaskFigures(
        _classes_beside_labels,
        _classes_beside_teacher,
        lambda y: as_labels(y) >= 0,
        _WRONG | _BESIDE_TEACHER,
        _WRONG_SWEPT,
        min,
        _poor_at_classes,
    ),
    "binary": TaskFigures(
        _binary_beside_labels,
        _binary_beside_teacher,
        lambda y: np.asarray(y).reshape(len(y), -1)[:, 0] >= 0,
        _WRONG | {"all right": ("all_right", ".2%"), "AUC": ("auc", ".4f")} | _BESIDE_TEACHER,
        {"auc": ".4f"} | _WRONG_SWEPT,
        max,
        _poor_at_answers,
    ),
    "regression": TaskFigures(
        _numbers_beside_labels,
        _numbers_beside_teacher,
        lambda y: np.ones(len(y), bool),
        {
            "RMSE": ("rmse", ".4g"),
            "MAE": ("mae", ".4g"),
            "R2": ("r2", ".4f"),
            "RMSE to teacher": ("teacher_rmse", ".4g"),
        },
        {"rmse": ".4g", "mae": ".4g", "r2": ".4f", "teacher_rmse": ".4g"},
        min,
        _poor_at_numbers,
    ),
}


def has_label(y: np.ndarray, task: str = "classification") -> np.ndarray:
    """(N,) booleans: which samples have a label; -1 stands for none, and numbers are labels all."""
    return TASK_FIGURES[task].has_label(y)


def has_labels(y: np.ndarray | None, task: str = "classification") -> bool:
    """Whether any sample has a label."""
    return y is not None and bool(has_label(y, task).any())


def skill(task: str, answers: np.ndarray, y: np.ndarray) -> float:
    """How much ``answers`` tell of y, from 0 to 1, whatever their unit or sign; only of binary and regression."""
    answers, y = np.asarray(answers, np.float64), np.asarray(y, np.float64).reshape(np.shape(answers))
    if task == "binary":
        area = area_under_curve(y > 0.5, answers)
        return 0.0 if area is None else abs(2 * area - 1)
    a, b = answers - answers.mean(axis=0), y - y.mean(axis=0)
    norms = (a**2).sum(axis=0) * (b**2).sum(axis=0)
    return float(np.mean((a * b).sum(axis=0) ** 2 / np.where(norms > 0, norms, 1.0)))


# ---- calibration


def _calibration(probs: np.ndarray, labels: np.ndarray) -> float:
    return math.nan if np.isnan(probs).any() else expected_calibration_error(probs, labels)


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """How far confidence is from accuracy: ``sum_b n_b/N * |accuracy_b - confidence_b|``.

    The samples, probabilities (N, C) and class indices (N,), are put in ``bins`` equal intervals of their largest
    probability, ``(b/bins, (b+1)/bins]`` (Guo et al., "On calibration of modern neural networks", ICML 2017).
    """
    confidence, accuracy, counts = calibration_bins(probs, labels, bins)
    return float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def calibration_bins(
    probs: np.ndarray, labels: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of samples of each bin; 0 where a bin is empty."""
    probs, labels = check_array("probs", probs, ndim=2), check_array("labels", labels, ndim=1)
    bins = check_int("bins", bins, minimum=1)
    confidence = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    divisor = np.maximum(counts, 1)
    return np.bincount(index, confidence, bins) / divisor, np.bincount(index, right, bins) / divisor, counts
