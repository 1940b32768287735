"""Values over the epochs of a training, and over the temperatures of a sweep."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..validation import describe
from .axes import axes_for, legend_outside, note


def learning_curves(histories: object, metric: str = "loss", ax: Any = None) -> Any:
    """``metric`` over the epochs, in training and, dashed, in validation, of one History or of ``{name: History}``.

    With "val_" before its name only the validation is drawn.

    An object with a ``history``, such as a report or a model, may stand for its History. Training's values are means
    over an epoch, while the weights change, so they stand in its middle. Dropout and augmentation are at work in
    them, in validation they are not. A training loss that is of another kind than validation's, such as that of
    distillation, is named in the legend; of several models with losses of different kinds only the validation is
    drawn, if all have one.
    """
    if not isinstance(histories, Mapping):
        histories = {"": histories}
    if not histories:
        raise ValueError("histories must hold one History or more, got none")
    found = {name: _history_of(given, metric) for name, given in histories.items()}
    ax = axes_for(ax, 7.0, 4.0)
    kinds = {}  # of the losses of training
    for name, (history, _) in found.items():
        kinds[name] = getattr(history, "training_loss", "") if metric == "loss" else ""
    validated = f"val_{metric.removeprefix('val_')}"
    have_validation = [bool(values.get(validated)) for _, values in found.values()]
    apart = len(set(kinds.values())) > 1 and all(have_validation)
    drawn = [validated] if apart or metric == validated else [metric, validated]
    longest = 0
    for i, (name, (history, values)) in enumerate(found.items()):
        for key in (key for key in drawn if key in values):
            is_training = key != validated
            y = [float(np.mean(value)) for value in values[key]]  # of several numbers their mean
            epochs = getattr(history, "epochs_of", {}).get(key, [])
            known = len(epochs) == len(y) == len(set(epochs))  # not of several fits in one History
            x = np.asarray(epochs if known else range(len(y))) + (0.5 if is_training else 1.0)
            label = f"{name} {'training' if is_training else 'validation'}".strip()
            if is_training and kinds[name]:
                label += f": {kinds[name]} (not comparable)"
            marker, style = ("o", "-") if is_training else ("s", "--")
            inside = f"C{i}" if is_training else "none"
            marks = {"marker": marker if len(y) <= 25 else "", "markersize": 4, "markerfacecolor": inside}
            ax.plot(x, y, style, color=f"C{i}", label=label, **marks)
            longest = max([longest, *x])
    ax.set(xlabel="epochs", ylabel=metric, xlim=(0, longest * 1.02))
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend_outside(ax)
    if apart:
        note(ax, "The training losses are left out: they are of different kinds.")
    elif len(drawn) == 2 and any(have_validation):
        means = "Training: means over the epochs, with dropout and augmentation."
        note(ax, f"{means} Validation: at their ends, without.")
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
    legend_outside(ax)
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
