"""Pictures of a distillation. Each function draws on ``ax`` (a new figure by default) and returns it.

Needs matplotlib: ``pip install "minidl[plots]"``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .losses import check_logits, softmax
from .report import as_labels, calibration_bins, expected_calibration_error
from .validation import check_array, check_finite, check_labels, check_rows, describe


def _axes(ax):
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "minidl[plots]"') from error
    # a figure outside pyplot needs no display and no closing
    return Figure(figsize=(6, 4), layout="constrained").add_subplot()


def learning_curves(histories: object, metric: str = "loss", ax=None):
    """``metric`` over the epochs, and its ``val_`` dashed, of one History or of ``{name: History}``.

    An object with a ``history``, such as a report or a model, may stand for its History.
    """
    ax = _axes(ax)
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    for i, (name, history) in enumerate(histories.items()):
        values = history
        while hasattr(values, "history"):
            values = values.history
        if not isinstance(values, Mapping):
            raise TypeError(f"histories must be a History or a dict of them, got {describe(history)}")
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
    """A teacher's probabilities for one sample at several temperatures; a high one makes small ones visible.

    ``logits`` (C,): one row of ``teacher.predict_logits``.
    """
    logits = check_array("logits", logits, ndim=1)
    if not np.iterable(temperatures) or not len(temperatures):
        raise ValueError(f"temperatures must be a list of one or more, got {describe(temperatures)}")
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
    """How often the teacher answers one class (row) and the student another (column)."""
    teacher = check_array("teacher_logits", teacher_logits, ndim=2)
    student = check_array("student_logits", student_logits, ndim=2)
    check_finite("teacher_logits", teacher)
    check_finite("student_logits", student)
    if teacher.shape != student.shape:
        shapes = f"the shape of teacher_logits, {teacher.shape}, got {student.shape}"
        raise ValueError(f"student_logits must have {shapes}")
    classes = teacher.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (teacher.argmax(axis=1), student.argmax(axis=1)), 1)
    agreed = counts.trace() / len(teacher)
    np.fill_diagonal(counts, 0)
    ax = _axes(ax)
    ax.imshow(counts, cmap="Blues")
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = counts[row, column] > counts.max() / 2
        ax.text(column, row, counts[row, column], ha="center", va="center", color="w" if dark else "k")
    ax.set(xlabel="student says", ylabel="teacher says", title=f"they agree on {agreed:.2%}")
    ax.set(xticks=range(classes), yticks=range(classes))
    return ax


def reliability(logits: Any, y: np.ndarray, bins: int = 15, ax=None):
    """Accuracy against confidence, in ``bins`` equal intervals. ``logits``: (N, C), or ``{name: (N, C)}``.

    y: class indices (N,), -1 where unknown (these samples are left out), or rows of probabilities (N, C).
    """
    ax = _axes(ax)
    if not isinstance(logits, Mapping):
        logits = {"model": logits}
    y = as_labels(check_array("y", y))
    known = y >= 0
    if not known.any():
        raise ValueError("y must hold labels, got none >= 0")
    for name, values in logits.items():
        values = check_logits("logits", values)
        check_rows("y", len(y), len(values), "logits")
        labels = check_labels(y, values.shape[1], unlabelled=True)[known]
        probs = softmax(np.asarray(values[known], dtype=np.float64))
        confidence, accuracy, counts = calibration_bins(probs, labels, bins)
        error = expected_calibration_error(probs, labels, bins)
        filled = counts > 0
        ax.plot(confidence[filled], accuracy[filled], "o-", label=f"{name}, calibration error {error:.2%}")
    ax.plot([0, 1], [0, 1], ":", color="gray")
    ax.set(xlabel="how sure", ylabel="how often right", xlim=(0, 1), ylim=(0, 1))
    ax.legend()
    return ax


def sweep(result: Any, ax=None):
    """Errors (AUC, RMSE) against temperature of a ``distill_sweep``, a line for each method and pair of weights.

    The bars are one standard deviation to either side. A setting without a single temperature (the plain
    student, logit matching, a schedule) is a dashed line in a band of that width.
    """
    if not isinstance(getattr(result, "rows", None), list) or not isinstance(result.rows[0], Mapping):
        raise TypeError(f"result must be what distill_sweep returned, got {describe(result)}")
    ax = _axes(ax)
    lines: dict[str, list] = {}
    judge = getattr(result, "judge", "errors")
    for label, row in zip(_labels_of(result.rows), result.rows, strict=True):
        lines.setdefault(label, []).append((row["temperature"], row[f"{judge}_mean"], row[f"{judge}_std"]))
    for i, (label, points) in enumerate(lines.items()):
        temperature, mean, std = points[0]
        if temperature is None:
            ax.axhline(mean, ls="--", color=f"C{i}", label=label)
            ax.axhspan(mean - std, mean + std, color=f"C{i}", alpha=0.1, lw=0)
        else:
            temperature, mean, std = zip(*sorted(points), strict=True)
            ax.errorbar(temperature, mean, std, color=f"C{i}", marker="o", capsize=3, label=label)
    shown = sorted({row["temperature"] for row in result.rows} - {None})
    ax.set(ylabel=judge if judge == "errors" else judge.upper())
    if shown:  # a regression has none
        ax.set(xlabel="temperature", xscale="log")
        ax.set_xticks(shown, [f"{temperature:g}" for temperature in shown])
        ax.set_xticks([], minor=True)
    # above the plot, where it hides no points
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize="x-small")
    return ax


def _labels_of(rows):
    """A label for each row: its method, and the settings in which rows of that method differ.

    The temperature is left out where the x axis shows it.
    """
    methods = [row["setting"].split("(")[0] for row in rows]
    settings = [dict(re.findall(r"(\w+)=(\w+\(.*?\)|[^,)]+)", row["setting"])) for row in rows]
    labels = []
    for row, method, mine in zip(rows, methods, settings, strict=True):
        others = [other for name, other in zip(methods, settings, strict=True) if name == method]
        apart = [key for key, value in mine.items() if any(other.get(key) != value for other in others)]
        shown = [key for key in apart if key != "temperature" or row["temperature"] is None]
        labels.append(", ".join([method, *(f"{key}={mine[key]}" for key in shown)]))
    return labels
