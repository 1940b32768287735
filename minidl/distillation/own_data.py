"""A user's own data for ``python -m minidl distill``: read, understood, split, normalised; and the student written."""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..archive import check_path
from ..datasets import table
from ..models import Sequential
from ..report import count_of
from ..validation import check_array, check_finite, check_rows

OPTIONS = ("file", "x", "y", "target", "task", "drop")
_TASKS = ("auto", "classification", "binary", "regression")
_MOST_CLASSES = 20
"""So many different whole numbers at most are guessed to be classes."""
_SHARE = 0.2
"""Of the rows, for validation and for test each."""


def add_options(add: Callable) -> None:
    add("file", nargs="?", help="your own data: a CSV file with a header, or an .npz file that holds x and y")
    add("--x", metavar="FILE", help="your own data: an .npy file of numbers (rows, columns)")
    add("--y", metavar="FILE", help="and one of their labels, classes or numbers")
    add("--target", metavar="COLUMN", help="the column of a CSV file to predict")
    add("--task", choices=_TASKS, default="auto", help="what to make of your data; auto guesses and says so")
    add("--drop", metavar="COLUMN", action="append", default=[], help="leave it out; may be given again")


class Data(NamedTuple):
    """All rows: features, answers, and what they are called."""

    x: np.ndarray  # float64 (N, features)
    y: np.ndarray  # numbers or words (N,)
    columns: list[table.Column] | None  # None: they have no names
    source: str
    target: str


def is_asked_for(options: argparse.Namespace) -> bool:
    """Whether any option of one's own data was given."""
    return any(getattr(options, name) not in (None, "auto", []) for name in OPTIONS)


def load(options: argparse.Namespace) -> Data:
    """The data that the options name, checked."""
    if (options.x is None) != (options.y is None) or (options.x is None) == (options.file is None):
        raise ValueError("give a CSV or .npz file, or --x FILE and --y FILE")
    for name, value, unset in (("data", options.data, None), ("labels", options.labels, 300)):
        if value != unset:
            raise ValueError(f"--{name} is for digits, not for your own data")
    path = options.file
    if path is None or Path(path).suffix == ".npz":
        for name in ("target", "drop"):
            if getattr(options, name):
                raise ValueError(f"--{name} is for a CSV file, whose columns have names")
        return _load_arrays(options)
    if Path(path).suffix == ".npy":
        raise ValueError("an .npy file holds x or y: give --x FILE and --y FILE")
    read = table.read_table(path)
    if options.target is None:
        raise ValueError(f"--target must name the column to predict: {', '.join(read.names)}")
    for name in (*options.drop, options.target):
        read.texts(name)
    if options.target in options.drop:
        raise ValueError(f"--drop {options.target!r}: it is the column to predict (--target)")
    numbers = table.numbers_of(read, options.target)
    y = np.array(read.texts(options.target)) if numbers is None else numbers
    columns = table.describe_columns(read, {*options.drop, options.target})
    return Data(table.encode(read, columns), y, columns, path, options.target)


def _load_arrays(options: argparse.Namespace) -> Data:
    def read(path: str) -> Any:
        try:
            return np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged zip file alone raises six kinds
            raise ValueError(f"{path} is no file of arrays that can be read: {error}") from error

    if options.file is None:
        source, x, y = options.x, read(options.x), read(options.y)
    else:
        source, file = options.file, read(options.file)
        if not {"x", "y"} <= set(file.files):
            raise ValueError(f"{source} must hold x and y, got {', '.join(file.files) or 'nothing'}")
        x, y = file["x"], file["y"]
    x = _check_numbers("x", x)
    if x.ndim != 2:
        raise ValueError(
            f"x must have shape (rows, columns), got {x.shape}: x.reshape(len(x), -1) makes it so"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.dtype.kind != "U":
        y = _check_numbers("y", y)
    if y.ndim != 1:
        raise ValueError(f"y must have shape (rows,), one answer a row, got {y.shape}")
    check_rows("y", len(y), len(x))
    return Data(x.astype(np.float64), y, None, source, "y")


def _check_numbers(argument: str, array: np.ndarray) -> np.ndarray:
    """As they come from a file: numbers that fit float32."""
    try:
        found = check_array(argument, array)
    except TypeError as error:
        raise ValueError(str(error)) from error
    check_finite(argument, found, np.float32)
    return found


class OwnTask(NamedTuple):
    """What the answers are: classes, or numbers."""

    name: str
    why: str
    classes: list | None  # None: numbers

    def without_a_model(self, y: np.ndarray, y_test: np.ndarray) -> str:
        """How good one answer for all rows is."""
        if self.classes is None:
            return f"the mean everywhere has an RMSE of {np.sqrt(np.mean((y_test - y.mean()) ** 2)):.4g}"
        errors = np.count_nonzero(y_test != np.bincount(y).argmax())
        return f"the most frequent class everywhere makes {errors:,} errors of {len(y_test):,}"

    def unit(self, y: np.ndarray) -> tuple[float, float]:
        """Mean and deviation of numbers, by which they are normalised for training; (0, 1) of classes."""
        return (0.0, 1.0) if self.classes is not None else (float(y.mean()), float(y.std()) or 1.0)


def choose_own_task(data: Data, wanted: str) -> tuple[OwnTask, np.ndarray]:
    """The task, and the answers as it wants them: class numbers, or float64."""
    y, values = data.y, np.unique(data.y)
    is_text = y.dtype.kind == "U"
    is_whole = not is_text and bool(np.all(values == np.trunc(values)))
    few = f"{len(values)} different {'words' if is_text else 'whole numbers'}"
    why = f"{data.target!r} holds {few}"
    if wanted == "auto":
        wanted = "classification" if is_text or (is_whole and len(values) <= _MOST_CLASSES) else "regression"
        if wanted == "regression":
            kind = "whole numbers" if is_whole else "numbers"
            why = f"{data.target!r} holds {len(values)} different {kind}"
        wanted = "binary" if wanted == "classification" and len(values) == 2 else wanted
        why = f"guessed, as {why}; --task says otherwise"
    if len(values) < 2:
        raise ValueError(f"{data.target!r} is {values[0]} in every row: there is nothing to learn")
    if wanted == "regression":
        if is_text:
            raise ValueError(f"--task regression needs numbers, but {why}, the first {str(y[0])!r}")
        return OwnTask(wanted, why, None), y.astype(np.float64)
    if not (is_text or is_whole):
        raise ValueError(f"--task {wanted} needs words or whole numbers, but {data.target!r} holds others")
    if wanted == "binary" and len(values) != 2:
        raise ValueError(f"--task binary needs two classes, but {why}: --task classification")
    found, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
    if counts.min() < 3:
        rare = found[counts.argmin()]
        raise ValueError(
            f"class {str(rare)!r} of {data.target!r} has {count_of(int(counts.min()), 'row')}: training, validation "
            "and test need one each. Leave it out, or join it with another"
            + ("" if is_text else "; of numbers to predict, --task regression")
        )
    classes = found.tolist() if is_text else [int(each) for each in found]
    return OwnTask(wanted, why, classes), labels


def split(labels: np.ndarray | None, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of training, validation and test; of each class alike, and one at least."""
    rng = np.random.default_rng(seed)
    groups = (
        [np.arange(count)]
        if labels is None
        else [np.flatnonzero(labels == c) for c in range(labels.max() + 1)]
    )
    parts: tuple[list, list, list] = ([], [], [])
    for group in groups:
        held_out = max(1, round(_SHARE * len(group)))
        shuffled = rng.permutation(group)
        for part, rows in zip(parts, np.split(shuffled[::-1], [-2 * held_out, -held_out]), strict=True):
            part.append(rows)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return train, validation, test


def normalisation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and factor of each column: ``(x - mean) * factor`` has mean 0 and variance 1, a constant column is 0."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    is_constant = deviation <= 1e-12 * np.abs(mean)  # but for rounding
    return mean, np.where(is_constant, 0.0, 1.0 / np.where(is_constant, 1.0, deviation))


def fold(
    model: Sequential,
    mean: np.ndarray,
    factor: np.ndarray,
    x: np.ndarray,
    unit: tuple[float, float] = (0.0, 1.0),
) -> Sequential:
    """``model`` for inputs that are not normalised: ``W' = factor W``, ``b' = b - mean factor W`` in its first layer.

    ``unit``: mean and deviation that its outputs get, by its last layer. In float64 where the rows ``x`` show that
    float32 would lose digits, as of seconds since 1970.
    """
    center, spread = unit
    expected = model.predict(((x - mean) * factor).astype(np.float32))
    weight, bias, *rest = (np.asarray(each, np.float64) for each in model.get_weights())
    weight = factor[:, None] * weight
    bias = bias - mean @ weight
    rest[-2:] = rest[-2] * spread, rest[-1] * spread + center
    for dtype in ("float32", "float64"):
        folded = Sequential.from_config({**model.get_config(), "dtype": dtype})
        folded.set_weights([weight, bias, *rest])
        if np.allclose((folded.predict(x) - center) / spread, expected, rtol=1e-3, atol=1e-4):
            break
    return folded


def input_names(data: Data) -> list[str]:
    """The name of each input of the model."""
    if data.columns is None:
        return [f"x[:, {place}]" for place in range(data.x.shape[1])]
    words: Iterable = ((column.name, column.words or [None]) for column in data.columns)
    return [name if word is None else f"{name}={word}" for name, listed in words for word in listed]


def check_place(path: str) -> str:
    """Where the student shall be written, and a .json file beside it; checked before anything is trained."""
    path = check_path(path)
    if Path(path).suffix == ".json":
        raise ValueError(
            f"--save names the model, for example student.npz; its .json is written beside it, got {path}"
        )
    return path


def save(path: str, model: Sequential, data: Data, task: OwnTask) -> None:
    """Write the student and what its inputs and outputs mean, and print how to use both."""
    about = Path(path).with_suffix(".json")
    model.save(path)
    columns = None if data.columns is None else [list(column) for column in data.columns]
    meaning = {"target": data.target, "task": task.name, "classes": task.classes, "columns": columns}
    about.write_text(json.dumps({**meaning, "inputs": input_names(data)}, indent=1) + "\n", encoding="utf-8")
    print(
        f"\nThe distilled student that was best in validation is in {path}, its columns and classes in {about}."
    )
    print("It takes the numbers as they are in your data, not normalised:\n")
    lines = ["import json, minidl", f"model = minidl.load_model({os.fspath(path)!r})"]
    lines.append(f"about = json.load(open({os.fspath(about)!r}, encoding='utf-8'))")
    if data.columns is None:
        lines.append("x = ...  # numbers (rows, columns), as those it was trained on")
    else:
        lines.append("from minidl.datasets.table import encode, read_table")
        lines.append("x = encode(read_table('new.csv'), about['columns'])  # the target may be missing there")
    classes = "[about['classes'][k] for k in model.predict(x).argmax(axis=1)]"
    lines.append(f"answers = {'model.predict(x)[:, 0]' if task.classes is None else classes}")
    print("".join(f"    {line}\n" for line in lines))
