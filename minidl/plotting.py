"""Pictures of a distillation. Each function draws on ``ax`` (a new figure by default) and returns it.

Needs matplotlib: ``pip install "minidl[plots]"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .losses import softmax
from .report import as_labels, calibration_bins, expected_calibration_error
from .validation import check_array, check_rows


def _axes(ax):
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "minidl[plots]"') from error
    # A figure of its own, outside pyplot: nothing to close, no display needed.
    figure = Figure(figsize=(6, 4), layout="constrained")
    return figure.add_subplot()


def learning_curves(histories: object, metric: str = "loss", ax=None):
    """``metric`` over the epochs, and its ``val_`` dashed, of one History or of ``{name: History}``."""
    ax = _axes(ax)
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    for i, (name, history) in enumerate(histories.items()):
        values = getattr(history, "history", history)
        if metric not in values:
            raise ValueError(f"metric must be one of {sorted(values)}, got {metric!r}")
        for key, style in ((metric, "-"), (f"val_{metric}", "--")):
            if key in values:
                epochs = np.arange(1, len(values[key]) + 1)
                ax.plot(epochs, values[key], style, color=f"C{i}", label=f"{name} {key}".strip())
    ax.set(xlabel="epoch", ylabel=metric)
    ax.legend()
    return ax


def softened_probabilities(
    logits: np.ndarray,
    temperatures: Sequence[float] = (1, 2, 4, 8, 20),
    classes: Sequence[str] | None = None,
    ax=None,
):
    """What a teacher says of one sample at several temperatures: the small answers grow visible.

    ``logits`` (C,): one row of ``teacher.predict_logits``.
    """
    logits = check_array("logits", logits, ndim=1)
    ax = _axes(ax)
    names = [str(c) for c in (range(len(logits)) if classes is None else classes)]
    check_rows("classes", len(names), len(logits), "logits")
    width = 0.8 / len(temperatures)
    for i, temperature in enumerate(temperatures):
        probs = softmax(np.asarray(logits, dtype=np.float64)[None], temperature)[0]
        ax.bar(np.arange(len(names)) + (i + 0.5) * width - 0.4, probs, width, label=f"T = {temperature:g}")
    ax.set_xticks(np.arange(len(names)), names)
    ax.set(xlabel="class", ylabel="probability")
    ax.legend()
    return ax


def confusion(teacher_logits: np.ndarray, student_logits: np.ndarray, ax=None):
    """How often the teacher says one class (row) and the student another (column), without the diagonal."""
    teacher_logits = check_array("teacher_logits", teacher_logits, ndim=2)
    student_logits = check_array("student_logits", student_logits, ndim=2)
    if teacher_logits.shape != student_logits.shape:
        raise ValueError(
            f"student_logits must have the shape of teacher_logits, {teacher_logits.shape}, "
            f"got {student_logits.shape}"
        )
    classes = teacher_logits.shape[1]
    pairs = teacher_logits.argmax(axis=1) * classes + student_logits.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    agreed = counts.trace() / max(1, counts.sum())
    np.fill_diagonal(counts, 0)
    ax = _axes(ax)
    ax.imshow(counts, cmap="Blues")
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = counts[row, column] > counts.max() / 2
        ax.text(column, row, counts[row, column], ha="center", va="center", color="w" if dark else "k")
    ax.set(xlabel="student says", ylabel="teacher says", title=f"they agree on {agreed:.2%}")
    ax.set_xticks(range(classes))
    ax.set_yticks(range(classes))
    return ax


def reliability(logits: object, y: np.ndarray, bins: int = 15, ax=None):
    """How often a model is right when it is this sure. ``logits``: (N, C), or ``{name: (N, C)}``."""
    ax = _axes(ax)
    if not isinstance(logits, Mapping):
        logits = {"model": logits}
    labels = as_labels(y)
    for name, values in logits.items():
        probs = softmax(np.asarray(check_array("logits", values, ndim=2), dtype=np.float64))
        check_rows("y", len(labels), len(probs), "logits")
        confidence, accuracy, counts = calibration_bins(probs, labels, bins)
        error = expected_calibration_error(probs, labels, bins)
        filled = counts > 0
        ax.plot(confidence[filled], accuracy[filled], "o-", label=f"{name}, calibration error {error:.2%}")
    ax.plot([0, 1], [0, 1], ":", color="gray")
    ax.set(xlabel="how sure", ylabel="how often right", xlim=(0, 1), ylim=(0, 1))
    ax.legend()
    return ax


def sweep(result: object, ax=None):
    """Errors against temperature for each method and pair of weights of a ``distill_sweep``, with their spread.

    The bars are one standard deviation to either side. The plain student, which has no temperature, is a
    dashed line.
    """
    ax = _axes(ax)
    lines: dict[str, list] = {}
    for row in result.rows:
        if row["method"] is None:
            ax.axhline(row["errors_mean"], ls="--", color="gray", label=row["setting"])
            continue
        label = row["method"]
        if row["soft_weight"] is not None:
            label += f", weights {row['hard_weight']:g} and {row['soft_weight']:g}"
        lines.setdefault(label, []).append(row)
    for label, rows in lines.items():
        rows.sort(key=lambda row: row["temperature"])
        x, mean, std = ([row[key] for row in rows] for key in ("temperature", "errors_mean", "errors_std"))
        ax.errorbar(x, mean, std, marker="o", capsize=3, label=label)
    ax.set(xlabel="temperature", ylabel="errors", xscale="log")
    ax.legend()
    return ax
