"""What a model gets right, how sure it is, and what it costs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from ..losses import log_softmax
from ..validation import check_array, check_int
from .labels import as_labels, holds_rows
from .text import describe_layers


@dataclass
class Figures:
    """One model's row of a report; None where nothing is known.

    Attributes
    ----------
    layers : sizes, ``"784-64-64-10"``.
    parameters, bytes : how many numbers, and how much memory they take.
    latency : microseconds per sample, predicted one at a time (the median).
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
    role : the model's name in the report.
    logits : (N, C), the model's answers.
    y : class indices ``(N,)``, -1 where unknown, or rows of probabilities ``(N, C)``, or None.
    teacher_logits : (N, C) of the teacher, or None.
    model, x : for size and speed: the model or the teacher, and samples to time it on.

    Logits that are not finite, after a training that diverged, count as wrong answers; their other figures are NaN.
    """
    figures = Figures(role, samples=len(logits))
    logits = np.asarray(logits, dtype=np.float64)
    diverged = ~np.isfinite(logits).all(axis=1)
    log_q = log_softmax(np.where(diverged[:, None], 0.0, logits))
    answers = np.where(diverged, -1, log_q.argmax(axis=1))
    log_q[diverged] = np.nan
    if y is not None:
        _compare_with_labels(figures, log_q, answers, y)
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


def _compare_with_labels(figures: Figures, log_q: np.ndarray, answers: np.ndarray, y: np.ndarray) -> None:
    """Fill in the figures that need labels, from the samples that have one."""
    labels = as_labels(y)
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        return
    labels = labels[known]
    wrong = answers[known] != labels
    figures.samples = len(known)
    figures.errors, figures.accuracy = int(wrong.sum()), float(1 - wrong.mean())
    picked = (np.asarray(y) * log_q).sum(axis=1) if holds_rows(y) else log_q[known, labels]
    figures.loss = float(-picked.mean())
    probs = np.exp(log_q[known])
    figures.calibration_error = (
        math.nan if np.isnan(probs).any() else expected_calibration_error(probs, labels)
    )
    figures.class_errors = np.bincount(labels[wrong], minlength=log_q.shape[1]).tolist()


def _models_of(model: object) -> list:
    """The Sequentials that a model or an ensemble consists of; none if one of its members is something else."""
    model = getattr(model, "model", model)
    if isinstance(getattr(model, "params", None), np.ndarray):
        return [model]
    found = [_models_of(member) for member in getattr(model, "members", tuple)()]
    return [each for models in found for each in models] if all(found) else []


def mean_and_std(key: str, values: list) -> dict[str, float]:
    """``{key_mean, key_std}`` over repeated runs, with ddof 1; the standard deviation of a single run is 0."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {f"{key}_mean": float(np.mean(values)), f"{key}_std": std}


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


# ---------------------------------------------------------------- calibration


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
    confidence = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    divisor = np.maximum(counts, 1)
    return np.bincount(index, confidence, bins) / divisor, np.bincount(index, right, bins) / divisor, counts
