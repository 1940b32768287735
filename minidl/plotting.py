"""Pictures of trainings and distillations. Each function draws on ``ax``, by default one of its own, and returns it.

An ``Axes`` of its own shows by itself in a notebook; ``ax.figure.savefig("picture.png")`` writes it to a file. It
belongs to no window and needs no closing. Needs matplotlib: ``pip install "minidl[plots]"``.
"""

import functools
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .figures import as_labels, calibration_bins, expected_calibration_error
from .losses import check_logits, softmax
from .validation import check_array, check_finite, check_labels, check_rows, describe

_DPI = 180  # twice what a notebook draws an inch with: sharp on screens of high density
_CHARACTER = 0.085  # inches, in the font of labels
_FAINT = "gray"  # on light and dark grounds alike


# ---------------------------------------------------------------- axes


def axes_for(ax: Any, width: float = 6.0, height: float = 4.0) -> Any:
    """``ax``, or for None the only ``Axes`` of a new figure of that size in inches."""
    if ax is not None:
        if not callable(getattr(ax, "plot", None)):
            raise TypeError(f"ax must be a matplotlib Axes, got {describe(ax)}")
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "minidl[plots]"') from error
    # outside pyplot, which would keep every figure until it is closed, and show none of them again
    ax = Figure(figsize=(width, height), layout="constrained").add_subplot()
    ax._repr_png_ = functools.partial(_png_of, ax)  # what IPython asks an object for
    return ax


def _png_of(ax: Any) -> tuple[bytes, dict]:
    """The figure of ``ax`` as PNG, and the size at which a notebook shows it."""
    stream = io.BytesIO()
    ax.figure.savefig(stream, format="png", dpi=_DPI)
    width, height = ax.figure.get_size_inches() * _DPI / 2
    return stream.getvalue(), {"width": round(width), "height": round(height)}


def _note(ax: Any, text: str) -> None:
    """A few words below the x axis's label."""
    label = ax.get_xlabel()
    ax.set_xlabel(f"{label}\n{textwrap.fill(text, 66)}" if text else label, fontsize="small")


def _legend_outside(ax: Any, **options: Any) -> None:
    """To the right of the plot, where it hides nothing; long labels are wrapped."""
    handles, labels = ax.get_legend_handles_labels()
    labels = [textwrap.fill(label, 30) for label in labels]
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small", **options)


def _class_names(classes: Sequence[str] | None, count: int, of: str) -> list[str]:
    if isinstance(classes, str):
        raise TypeError(f"classes must be a list of names, got {describe(classes)}")
    names = [str(name) for name in (range(count) if classes is None else classes)]
    if len(names) != count:
        raise ValueError(
            f"classes must have one name for each of the {count} classes of {of}, got {len(names)}"
        )
    return names


_LONGEST = 24  # characters in a line of a class's name


def _wrap(name: str, width: int = _LONGEST) -> str:
    """A name in lines of at most ``width`` characters; of a very long one the beginning."""
    lines = textwrap.wrap(name, width, max_lines=3, placeholder=" …", break_on_hyphens=False)
    return "\n".join(lines) or name


def _class_ticks(names: list[str], room: float) -> tuple[list[str], float]:
    """Labels for the x axis, ``room`` inches apart, and the height they need if they have to stand upright, else 0."""
    width = int(room / _CHARACTER)
    if max(len(word) for name in names for word in [*name.split(), ""]) <= width:
        return [_wrap(name, width) for name in names], 0.0
    labels = [_wrap(name) for name in names]
    return labels, _CHARACTER * max(len(line) for label in labels for line in label.split("\n"))


# ---------------------------------------------------------------- curves


def learning_curves(histories: object, metric: str = "loss", ax: Any = None) -> Any:
    """``metric`` over the epochs, in training and, dashed, in validation, of one History or of ``{name: History}``.

    An object with a ``history``, such as a report or a model, may stand for its History. Training's values are means
    over an epoch, while the weights change, so they stand in its middle. Dropout and augmentation are at work in
    them, in validation they are not. A training loss that is of another kind than validation's, such as that of
    distillation, is named in the legend; of several models with losses of different kinds only the validation is
    drawn, if all have one.
    """
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    found = {name: _history_of(given, metric) for name, given in histories.items()}
    ax = axes_for(ax, 7.0, 4.0)
    kinds = {}  # of the losses of training
    for name, (history, _) in found.items():
        kinds[name] = getattr(history, "training_loss", "") if metric == "loss" else ""
    validated = f"val_{metric}"
    apart = len(set(kinds.values())) > 1 and all(values.get(validated) for _, values in found.values())
    longest = 0
    for i, (name, (history, values)) in enumerate(found.items()):
        for key, style, shift in ((metric, "-", 0.5), (validated, "--", 1.0)):
            if key not in values or (apart and key == metric):
                continue
            y = [float(np.mean(value)) for value in values[key]]  # of several numbers their mean
            epochs = getattr(history, "epochs_of", {}).get(key, [])
            x = np.asarray(epochs if len(epochs) == len(y) else range(len(y))) + shift
            label = f"{name} {'training' if key == metric else 'validation'}".strip()
            if key == metric and kinds[name]:
                label += f": {kinds[name]} (not comparable)"
            marker = "" if len(y) > 25 else "o" if key == metric else "s"
            hollow = {"markersize": 4, "markerfacecolor": f"C{i}" if key == metric else "none"}
            ax.plot(x, y, style, color=f"C{i}", label=label, marker=marker, **hollow)
            longest = max([longest, *x])
    ax.set(xlabel="epochs", ylabel=metric, xlim=(0, longest * 1.02))
    ax.xaxis.get_major_locator().set_params(integer=True)
    _legend_outside(ax)
    if apart:
        _note(ax, "The training losses are left out: they are of different kinds.")
    elif validated in {key for _, values in found.values() for key in values}:
        _note(
            ax,
            "Training: means over the epochs, with dropout and augmentation. Validation: at their ends, without.",
        )
    return ax


def _history_of(given: Any, metric: str) -> tuple[Any, Mapping]:
    """The History that ``given`` is or holds, and its logs."""
    history = values = given
    while hasattr(values, "history"):
        history, values = values, values.history
    if not isinstance(values, Mapping):
        raise TypeError(f"histories must be a History or a dict of them, got {describe(given)}")
    if metric not in values:
        raise ValueError(f"metric must be one of {sorted(values)}, got {metric!r}")
    return history, values


def sweep(result: Any, ax: Any = None) -> Any:
    """Errors (AUC, RMSE) against temperature of a ``distill_sweep``, a line for each method and pair of weights.

    The bars are one standard deviation to either side. A setting without a single temperature (the plain
    student, logit matching, a schedule) is a dashed line in a band of that width.
    """
    if not isinstance(getattr(result, "rows", None), list) or not isinstance(result.rows[0], Mapping):
        raise TypeError(f"result must be what distill_sweep returned, got {describe(result)}")
    ax = axes_for(ax, 8.0, 4.0)
    lines: dict[str, list] = {}
    judge = getattr(result, "judge", "errors")
    for label, row in zip(_labels_of(result.rows), result.rows, strict=True):
        lines.setdefault(label, []).append((row["temperature"], row[f"{judge}_mean"], row[f"{judge}_std"]))
    curves = sum(points[0][0] is not None for points in lines.values())
    shifts = [i - (curves - 1) / 2 for i in range(curves)]  # so that no curve's bars hide another's
    for i, (label, points) in enumerate(lines.items()):
        temperature, mean, std = points[0]
        if temperature is None:
            ax.axhline(mean, ls="--", color=f"C{i}", label=label)
            ax.axhspan(mean - std, mean + std, color=f"C{i}", alpha=0.1, lw=0)
        else:
            temperature, mean, std = zip(*sorted(points), strict=True)
            places = np.asarray(temperature) * 1.02 ** shifts.pop(0)
            ax.errorbar(places, mean, std, color=f"C{i}", marker="o", capsize=3, label=label)
    shown = sorted({row["temperature"] for row in result.rows} - {None})
    ax.set(ylabel=judge if judge == "errors" else judge.upper())
    if shown:  # a regression has none
        ax.set(xlabel="temperature", xscale="log")
        ax.set_xticks(shown, [f"{temperature:g}" for temperature in shown])
        ax.set_xticks([], minor=True)
    else:
        ax.set_xticks([])
    _legend_outside(ax)
    return ax


def _labels_of(rows: list) -> list[str]:
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


# ---------------------------------------------------------------- answers


def softened_probabilities(
    logits: np.ndarray,
    temperatures: Sequence[float] = (1, 2, 4, 8, 20),
    classes: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """A teacher's probabilities for one sample at several temperatures; a high one makes small ones visible.

    ``logits`` (C,): one row of ``teacher.predict_logits``. ``classes``: the names of the C classes.
    """
    logits = check_array("logits", logits, ndim=1)
    if not np.iterable(temperatures) or not len(temperatures):
        raise ValueError(f"temperatures must be a list of one or more, got {describe(temperatures)}")
    names = _class_names(classes, len(logits), "logits")
    room = min(
        max(6.0 / len(names), 0.13 * len(temperatures)), 1.6, max(9.0 / len(names), 0.3)
    )  # inches a class
    labels, upright = _class_ticks(names, room)
    ax = axes_for(ax, room * len(names) + 1.6, 4.0 + upright)
    from matplotlib import colormaps

    width = 0.8 / len(temperatures)
    colors = colormaps["viridis"](np.linspace(0.15, 0.85, len(temperatures)))
    for i, temperature in enumerate(temperatures):
        probs = softmax(np.asarray(logits, dtype=np.float64)[None], temperature)[0]
        places = np.arange(len(names)) + (i + 0.5) * width - 0.4
        ax.bar(places, probs, width, color=colors[i], label=f"T = {temperature:g}")
    ax.set(xlabel="class", ylabel="probability", xlim=(-0.6, len(names) - 0.4))
    ax.set_xticks(range(len(names)), labels, rotation=90 if upright else 0)
    _legend_outside(ax)
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
    given = {"teacher_logits": teacher_logits, "student_logits": student_logits, "y": y}
    logits = {
        name: check_array(name, given[name], ndim=2) for name in list(given)[:2] if given[name] is not None
    }
    if sum(value is not None for value in given.values()) != 2:
        told = [name for name, value in given.items() if value is not None]
        raise ValueError(f"confusion compares two of {', '.join(given)}, got {', '.join(told) or 'none'}")
    for name, values in logits.items():
        check_finite(name, values)
    shape = next(iter(logits.values())).shape
    if len(logits) == 2 and logits["student_logits"].shape != shape:
        shapes = f"the shape of teacher_logits, {shape}, got {logits['student_logits'].shape}"
        raise ValueError(f"student_logits must have {shapes}")
    names = _class_names(classes, shape[1], next(iter(logits)))
    said = {f"{name.split('_')[0]} says": values.argmax(axis=1) for name, values in logits.items()}
    if y is not None:
        known = _known_labels(y, *shape)
        said = {"label": known} | said
    (row_title, rows), (column_title, columns) = said.items()
    columns = columns[rows >= 0]
    rows = rows[rows >= 0]
    counts = np.zeros((shape[1], shape[1]), int)
    np.add.at(counts, (rows, columns), 1)
    how = "they agree on" if y is None else "right:"
    title = f"{how} {counts.trace() / len(rows):.2%} of {len(rows):,}"
    np.fill_diagonal(counts, 0)
    size = min(max(4.0, 0.34 * len(names)), 14.0)
    labels, upright = _class_ticks(names, size / len(names))
    beside = min(max(map(len, names)), _LONGEST) * _CHARACTER
    ax = axes_for(ax, size + beside + 0.6, size + upright + 1.0)
    _draw_counts(ax, counts)
    ax.set(xlabel=column_title, ylabel=row_title, title=title)
    ax.set_xticks(range(len(names)), labels, rotation=90 if upright else 0)
    ax.set_yticks(range(len(names)), [_wrap(name) for name in names])
    return ax


def _known_labels(y: Any, samples: int, classes: int) -> np.ndarray:
    """Class indices (N,), -1 where unknown; at least one is known."""
    labels = as_labels(check_array("y", y))
    check_rows("y", len(labels), samples, "logits")
    labels = check_labels(labels, classes, unlabelled=True)
    if not (labels >= 0).any():
        raise ValueError("y must hold labels, got none >= 0")
    return labels


def _draw_counts(ax: Any, counts: np.ndarray) -> None:
    """A square a cell, its count within it; zeros are blank, and so is the diagonal, in gray."""
    from matplotlib import colormaps

    classes = len(counts)
    most = max(counts.max(), 1)
    blues = colormaps["Blues"].with_extremes(under="#f7f7f4", bad="#dcdcd8")
    shown = np.ma.masked_array(np.where(counts > 0, counts, -1), mask=np.eye(classes, dtype=bool))
    ax.imshow(shown, cmap=blues, vmin=0, vmax=most)
    cell = min(ax.bbox.width, ax.bbox.height) / ax.figure.dpi * 72 / classes  # points
    size = min(10.0, 0.75 * cell / max(1.4, 0.62 * len(str(most))))
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = counts[row, column] > most / 2
        ax.text(
            column,
            row,
            counts[row, column],
            ha="center",
            va="center",
            fontsize=size,
            color="w" if dark else "k",
        )
    ax.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="w", linewidth=0.6)
    ax.tick_params(which="both", length=0)


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
    ax.plot([0, 1], [0, 1], ":", color=_FAINT)
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
