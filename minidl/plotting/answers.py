"""What models answer: at several temperatures, beside one another or the labels, and how sure they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..figures import as_labels, calibration_bins, expected_calibration_error
from ..losses import check_logits, softmax
from ..validation import check_array, check_finite, check_labels, check_rows, describe
from .axes import CHARACTER, FAINT, LONGEST, axes_for, class_names, class_ticks, legend_outside, wrap

_MOST_BARS = 30
"""Classes whose softened answers are drawn."""
_MOST_NAMES = 40
"""Ticks of an axis of `confusion`."""
_SMALLEST = 4.5
"""Points of the font in which a count is written."""


def softened_probabilities(
    logits: np.ndarray,
    temperatures: Sequence[float] = (1, 2, 4, 8, 20),
    classes: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """A teacher's probabilities for one sample at several temperatures; a high one makes small ones visible.

    ``logits`` (C,): one row of ``teacher.predict_logits``. ``classes``: the names of the C classes. Of more than 30
    classes the likeliest 30 are drawn, in that order.
    """
    logits = check_array("logits", logits, ndim=1)
    check_finite("logits", logits)
    if not np.iterable(temperatures) or not len(temperatures):
        raise ValueError(f"temperatures must be a list of one or more, got {describe(temperatures)}")
    names = class_names(classes, len(logits), "logits")
    which, xlabel = np.arange(len(names)), "class"
    if len(names) > _MOST_BARS:
        which = np.argsort(-logits)[:_MOST_BARS]
        xlabel = f"class, the {_MOST_BARS} likeliest of {len(names):,}"
    room = min(
        max(6.0 / len(which), 0.13 * len(temperatures)), 1.6, max(9.0 / len(which), 0.3)
    )  # inches a class
    labels, upright = class_ticks([names[i] for i in which], room)
    ax = axes_for(ax, room * len(which) + 1.6, 4.0 + upright)
    from matplotlib import colormaps

    width = 0.8 / len(temperatures)
    colors = colormaps["viridis"](np.linspace(0.15, 0.85, len(temperatures)))
    for i, temperature in enumerate(temperatures):
        probs = softmax(np.asarray(logits, dtype=np.float64)[None], temperature)[0, which]
        places = np.arange(len(which)) + (i + 0.5) * width - 0.4
        ax.bar(places, probs, width, color=colors[i], label=f"T = {temperature:g}")
    ax.set(xlabel=xlabel, ylabel="probability", xlim=(-0.6, len(which) - 0.4))
    ax.set_xticks(range(len(which)), labels, rotation=90 if upright else 0)
    legend_outside(ax)
    return ax


def confusion(
    teacher_logits: np.ndarray | None = None,
    student_logits: np.ndarray | None = None,
    y: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """How often one thing is said (row) and another (column), of two: teacher, student, and the labels ``y``.

    ``confusion(teacher_logits, student_logits)`` shows where the student differs from its teacher,
    ``confusion(student_logits=..., y=...)`` which errors it makes. Logits (N, C); y: class indices (N,), -1 where
    unknown (these samples are left out), or rows of probabilities (N, C). ``classes``: names. What agrees is in the
    title, and left out of the picture.
    """
    logits = _two_of(teacher_logits, student_logits, y)
    samples, count = next(iter(logits.values())).shape
    names = class_names(classes, count, next(iter(logits)))
    said = {f"{name.split('_')[0]} says": values.argmax(axis=1) for name, values in logits.items()}
    if y is not None:
        said = {"label": _known_labels(y, samples, count)} | said
    (row_title, rows), (column_title, columns) = said.items()
    known = rows >= 0
    counts = np.zeros((count, count), int)
    np.add.at(counts, (rows[known], columns[known]), 1)
    how = "they agree on" if y is None else "right:"
    title = f"{how} {counts.trace() / known.sum():.2%} of {known.sum():,}"
    np.fill_diagonal(counts, 0)
    size = min(max(4.0, 0.34 * count), 14.0)
    shown = range(0, count, -(-count // _MOST_NAMES))
    names = [names[i] for i in shown]
    labels, upright = class_ticks(names, size / len(names))
    beside = min(max(map(len, names)), LONGEST) * CHARACTER
    ax = axes_for(ax, size + beside + 0.6, size + upright + 1.0)
    _draw_counts(ax, counts)
    ax.set(xlabel=column_title, ylabel=row_title, title=title)
    ax.set_xticks(shown, labels, rotation=90 if upright else 0)
    ax.set_yticks(shown, [wrap(name) for name in names])
    return ax


def _two_of(teacher_logits: Any, student_logits: Any, y: Any) -> dict[str, np.ndarray]:
    """The logits among what is compared, by name, checked."""
    given = {"teacher_logits": teacher_logits, "student_logits": student_logits, "y": y}
    told = [name for name, value in given.items() if value is not None]
    if len(told) != 2:
        raise ValueError(f"confusion compares two of {', '.join(given)}, got {', '.join(told) or 'none'}")
    logits = {name: check_array(name, given[name]) for name in told if name != "y"}
    for name, values in logits.items():
        if values.ndim != 2:
            raise ValueError(f"{name} must have shape (N, C), got {values.shape}; labels are given as y=")
        check_finite(name, values)
    first, *others = logits.values()
    if others and others[0].shape != first.shape:
        raise ValueError(
            f"student_logits must have the shape of teacher_logits, {first.shape}, got {others[0].shape}"
        )
    return logits


def _known_labels(y: Any, samples: int, classes: int) -> np.ndarray:
    """Class indices (N,), -1 where unknown; at least one is known."""
    labels = as_labels(check_array("y", y))
    check_rows("y", len(labels), samples, "logits")
    labels = check_labels(labels, classes, unlabelled=True)
    if not (labels >= 0).any():
        raise ValueError("y must hold labels, got none >= 0")
    return labels


def _draw_counts(ax: Any, counts: np.ndarray) -> None:
    """A square a cell with its count, or a scale of colours where counts have no room; the diagonal is gray."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    classes, most = len(counts), max(counts.max(), 1)
    blues = colormaps["Blues"].with_extremes(under="#f7f7f4", bad="#dcdcd8")
    shown = np.ma.masked_array(np.where(counts > 0, counts, -1), mask=np.eye(classes, dtype=bool))
    image = ax.imshow(shown, cmap=blues, vmin=0, vmax=most)
    cell = min(ax.bbox.width, ax.bbox.height) / ax.figure.dpi * 72 / classes  # points
    of_names = 0.75 * cell * -(-classes // _MOST_NAMES)
    ax.tick_params(which="both", length=0, labelsize=max(3.0, min(10.0, of_names)))
    size = min(10.0, 0.75 * cell / max(1.4, 0.62 * len(str(most))))
    if size < _SMALLEST:
        ticks = MaxNLocator(integer=True)
        ax.figure.colorbar(image, ax=ax, label="samples", shrink=0.7, ticks=ticks)
        return
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "w" if counts[row, column] > most / 2 else "k"
        ax.text(column, row, counts[row, column], ha="center", va="center", fontsize=size, color=color)
    ax.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="w", linewidth=0.6)


def reliability(logits: Any, y: np.ndarray, bins: int = 15, ax: Any = None) -> Any:
    """Accuracy against confidence, in ``bins`` equal intervals; above it the number of samples of each.

    ``logits``: (N, C), or ``{name: (N, C)}``. y: class indices (N,), -1 where unknown (these samples are left out), or
    rows of probabilities (N, C). On the dotted line a model is right as often as it is sure.
    """
    if not isinstance(logits, Mapping):
        logits = {"model": logits}
    y = as_labels(check_array("y", y))
    if not (y >= 0).any():
        raise ValueError("y must hold labels, got none >= 0")
    if not logits:
        raise ValueError("logits must hold those of one model or more, got none")
    found = {}
    for name, values in logits.items():
        values = check_logits("logits", values)
        labels = _known_labels(y, *values.shape)
        probs = softmax(np.asarray(values[labels >= 0], dtype=np.float64))
        labels = labels[labels >= 0]
        error = expected_calibration_error(probs, labels, bins)
        found[f"{name}, calibration error {error:.2%}"] = calibration_bins(probs, labels, bins)
    ax = axes_for(ax, 6.0, 5.6)
    above = ax.inset_axes([0, 1.04, 1, 0.24], sharex=ax)
    width = 0.86 / bins / len(found)
    for i, (label, (confidence, accuracy, counts)) in enumerate(found.items()):
        filled = counts > 0
        ax.plot(confidence[filled], accuracy[filled], "-", color=f"C{i}", label=label)
        sizes = 4 + 60 * np.sqrt(counts[filled] / counts.max())
        ax.scatter(confidence[filled], accuracy[filled], sizes, color=f"C{i}", zorder=3)
        places = (np.arange(bins) + 0.07) / bins + (i + 0.5) * width
        above.bar(places, counts, width, color=f"C{i}")
        if len(found) == 1 and bins <= 20:
            for place, count in zip(places[filled], counts[filled], strict=True):
                above.annotate(
                    f"{count:,}",
                    (place, count),
                    (0, 1),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6.5,
                )
    ax.plot([0, 1], [0, 1], ":", color=FAINT)
    ax.set(xlabel="how sure", ylabel="how often right", xlim=(0, 1), ylim=(0, 1))
    above.set(ylabel="samples", yscale="log")
    most = max(counts.max() for _, _, counts in found.values())
    above.set_ylim(0.6, most * 4)
    above.set_yticks([10**power for power in range(len(str(most)))])
    above.yaxis.set_major_formatter("{x:,g}")
    above.minorticks_off()
    above.tick_params(axis="y", labelsize="small")
    above.tick_params(labelbottom=False)
    above.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="best", fontsize="small")
    return ax
