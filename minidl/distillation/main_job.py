"""``python -m minidl distill``: what is a teacher worth? Students of equal means are compared.

All students have the same initial weights (seed by seed), the same number of steps, and see digits shifted alike. What
differs is whom they learn from, and whether they use digits without labels. The README shows the table.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..callbacks import Callback
from ..datasets import mnist
from ..kernels import cache
from ..layers import Dense, Dropout, Flatten, Input, RandomTranslation, Rescaling
from ..losses import CategoricalCrossentropy, KnowledgeDistillation, Loss
from ..models import Sequential
from ..optimizers import Adam
from ..optimizers.schedules import CosineDecay
from ..report import describe_layers, format_table, mean_and_std, measure
from ..runtime import set_num_threads, warmup
from ..teachers import cached_logits
from ..utils import to_categorical

_SHIFT = 2  # pixels, up or down and left or right
_SMOOTHING = 0.1
_PASSES = 4
"""How often a student sees each shifted digit. The teacher is asked about it once."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    sizes = partial(parse_numbers, separators="-,", rule="hidden layer sizes must look like 64-64")
    embedded = "folder with MNIST's four IDX files; without it the 8,000 embedded digits"
    add("--data", metavar="FOLDER", help=embedded)
    labels = "how many digits have labels, the others serve distillation alone; or: all"
    add("--labels", type=_parse_labels, default="300", metavar="N", help=labels)
    add("--teacher", type=sizes, default="256-256", metavar="SIZES", help="the teacher's hidden layers")
    add("--student", type=sizes, default="64-64", metavar="SIZES", help="the student's hidden layers")
    add("--temperature", type=float, default=2.0, help="softens the answers of both")
    add("--hard-weight", type=float, default=0.1, help="weight of the labels")
    add("--soft-weight", type=float, default=0.9, help="weight of the teacher's answers")
    add("--teacher-steps", type=int, default=4_000, help="of each teacher")
    add("--steps", type=int, default=7_500, help="of each student")
    add("--batch-size", type=int, default=32, help="of the students; the teacher's is twice that")
    add("--learning-rate", type=float, default=0.002, help="of the students (Adam, cosine decay to 0)")
    add("--teacher-learning-rate", type=float, default=0.001)
    add("--seeds", type=int, default=5, help="how many students of each kind; the table has mean +- std")
    add("--seed", type=int, default=0, help="the first of them")
    add("--output", metavar="FILE", help="write the result: Markdown if it ends in .md, else JSON")
    add("--save", metavar="FILE", help="write the last distilled student, for minidl.models.load_model")
    add("--threads", type=int, default=None, help="default: all processors")


def parse_numbers(text: str, separators: str, rule: str, count: int | None = None) -> tuple[int, ...]:
    """The numbers >= 1 in an option such as ``512-512``; ``rule`` is the error message for anything else.

    ``count``: how many there must be; any number of them by default.
    """
    spaced = text.translate(dict.fromkeys(map(ord, separators), " "))
    try:
        numbers = tuple(int(part) for part in spaced.split())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or count not in (None, len(numbers)):
        raise argparse.ArgumentTypeError(f"{rule}, got {text!r}")
    return numbers


def _parse_labels(text: str) -> int | None:
    """``--labels``: None for all."""
    return None if text == "all" else parse_numbers(text, "", "--labels must be a number or: all", count=1)[0]


class _Kind(NamedTuple):
    """What the students of one row learn from."""

    name: str
    loss: Loss
    all_digits: bool = False  # whether digits without labels are used, too
    shifted: bool = True


def _kinds(options: argparse.Namespace) -> list[_Kind]:
    """The students to compare; the last one is judged by all others."""
    distilled = KnowledgeDistillation(options.temperature, options.hard_weight, options.soft_weight)
    kinds = [
        _Kind("labels", CategoricalCrossentropy()),
        _Kind(f"labels, smoothed {_SMOOTHING}", CategoricalCrossentropy(label_smoothing=_SMOOTHING)),
        _Kind("distilled", distilled),
    ]
    if options.labels is None:
        return [kind._replace(shifted=False) for kind in kinds] + kinds
    return [*kinds, _Kind("distilled, all digits", distilled, all_digits=True)]


def run(options: argparse.Namespace) -> None:
    """For each seed a teacher and a student of each kind; then the table."""
    started = time.perf_counter()
    for name in ("seeds", "steps", "teacher_steps", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be >= 1, got {getattr(options, name)}")
    if options.threads is not None:
        set_num_threads(options.threads)
    kinds = _kinds(options)
    (x, y), (x_test, y_test) = mnist.load_subset() if options.data is None else mnist.load_data(options.data)
    labelled = _first_of_each_class(y, options.labels or len(y))
    source = "MNIST, embedded in the package" if options.data is None else options.data
    print(f"{len(x):,} training digits, {len(labelled):,} with labels; {len(x_test):,} test digits; {source}")
    compile_seconds = compile_kernels()

    groups: list[list[Sequential]] = [[] for _ in ("teacher", *kinds)]
    for seed in range(options.seed, options.seed + options.seeds):
        for group, model in zip(groups, _train_all(options, kinds, (x, y), labelled, seed), strict=True):
            group.append(model)
    teachers_logits = [teacher.predict_logits(x_test) for teacher in groups[0]]
    rows = []
    for kind, models in zip([_Kind("teacher", CategoricalCrossentropy()), *kinds], groups, strict=True):
        row = _row(kind.name, models, x_test, y_test, teachers_logits)
        row |= {"digits": len(x if kind.all_digits else labelled), "labels": len(labelled)}
        rows.append(row | {"shifted": kind.shifted, "taught": kind.loss.distills})
    table, verdict = format_table(_HEAD, _lines(rows)), _verdict(rows[1:])
    seconds = time.perf_counter() - started
    print(f"\n{table}\n\n{verdict}\n{seconds:.0f} seconds, {compile_seconds:.1f} of them for the kernels.")
    if options.output:
        result = dict(models=rows, verdict=verdict, seconds=seconds, seconds_compiling=compile_seconds)
        kept_out = ("run", "command", "output", "save")
        result["settings"] = {k: v for k, v in vars(options).items() if k not in kept_out}
        _write_result(options.output, result | dict(training_digits=len(x), test_digits=len(x_test)))
    if options.save:
        groups[-1][-1].save(options.save)


def compile_kernels(dtype: str = "float32") -> float:
    """Compile ahead, or load from the disk, and print how long it took; returns the seconds."""
    print("kernels: ", end="", flush=True)
    seconds = warmup(dtype, verbose=False)
    kept = "kept on disk" if cache.folder() else f"not kept; {cache.ADVICE}"
    print(f"{seconds:.1f} s to {f'compile, and {kept}' if seconds > 2 else 'load from disk'}")
    return seconds


def _first_of_each_class(y: np.ndarray, count: int) -> np.ndarray:
    """Rows of ``count`` samples, equally many of each class as far as there are any."""
    place = np.empty(len(y), np.int64)  # of a sample among those of its class
    for label in np.unique(y):
        place[y == label] = np.arange(np.count_nonzero(y == label))
    return np.sort(np.argsort(place, kind="stable")[:count])


def _shifted(x: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Each image (N, H, W) moved by its own whole number of pixels, up to ``most`` each way; 0 moves in."""
    padded = np.pad(x, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, x.shape[1:], axis=(1, 2))
    top, left = np.random.default_rng(seed).integers(0, 2 * most + 1, (2, len(x)))
    return windows[np.arange(len(x)), top, left]


def _train_all(options, kinds: list[_Kind], digits: tuple, labelled: np.ndarray, seed: int):
    """Yield the seed's teacher, then its student of each kind."""
    (x, y), shape, classes = digits, digits[0].shape[1:], int(digits[1].max()) + 1

    def make(name: str, augmenting: list, layers: list) -> Sequential:
        layers = [*augmenting, Rescaling(1 / 255), Flatten(), *layers, Dense(classes, "softmax")]
        return Sequential([Input(shape), *layers], name, seed=seed)

    # a large net that sees each digit shifted and with pixels missing, never twice the same
    shifts, layers = [RandomTranslation(_SHIFT / shape[0], _SHIFT / shape[1])], [Dropout(0.1)]
    for units in options.teacher:
        layers += [Dense(units, activation="relu"), Dropout(0.3)]
    teacher = make("teacher", shifts, layers)
    batch_size, loss = 2 * options.batch_size, CategoricalCrossentropy(label_smoothing=_SMOOTHING)
    samples = x[labelled], to_categorical(y[labelled], classes), None
    epochs = math.ceil(options.teacher_steps * batch_size / len(labelled))
    _train(f"teacher {seed}", teacher, loss, samples, batch_size, epochs, options.teacher_learning_rate)
    yield teacher

    known = np.full(len(y), -1)
    known[labelled] = y[labelled]
    for kind in kinds:
        # Equally many rows for all kinds, so that they take the same steps: fewer digits come more often.
        count = math.ceil(options.steps * options.batch_size / _PASSES)
        rows = np.resize(np.arange(len(x)) if kind.all_digits else labelled, count)
        inputs, targets, logits = _shifted(x[rows], _SHIFT * kind.shifted, seed), known[rows], None
        if kind.loss.distills:
            logits = cached_logits(teacher, inputs)
        else:
            targets = to_categorical(targets, classes)
        # a small net without regularization; those of one seed have the same initial weights
        layers = [Dense(units, activation="relu") for units in options.student]
        student = make("student", [], layers)
        samples, batch_size = (inputs, targets, logits), options.batch_size
        _train(f"{kind.name} {seed}", student, kind.loss, samples, batch_size, _PASSES, options.learning_rate)
        yield student


def _train(title, model, loss, samples: tuple, batch_size: int, epochs: int, learning_rate: float) -> None:
    """Fit ``model`` to ``samples``: inputs, targets, and the teacher's logits or None."""
    x, y, teacher_logits = samples
    steps = epochs * math.ceil(len(x) / batch_size)
    model.compile(optimizer=Adam(CosineDecay(learning_rate, steps)), loss=loss, metrics=["accuracy"])
    bar = _Bar(f"{title:<23} {describe_layers(model):<16}")
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=[bar], target_model=teacher_logits)


class _Bar(Callback):
    """One line per training: a bar that fills up on a terminal, elsewhere a line when it is done."""

    def __init__(self, title: str):
        super().__init__()
        self.title, self.started = title, time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        done, epochs, on_terminal = epoch + 1, self.params["epochs"], sys.stdout.isatty()
        if on_terminal or done == epochs:
            bar, seconds = "=" * (20 * done // epochs), time.perf_counter() - self.started
            values = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            line = f"{self.title} [{bar:<20}] {done:>3}/{epochs}  {seconds:5.1f} s  {values}"
            print("\r" * on_terminal + line, end="\n" if done == epochs else "", flush=True)


_HEAD = "model|layers|on disk|digits|labels|shifted|test errors|last row saves|agrees|us an image".split("|")


def _row(name: str, models: list[Sequential], x, y, teachers_logits: list) -> dict:
    """The figures of models of one kind, one per seed, with their mean and standard deviation."""
    figures = []
    for model, teacher_logits in zip(models, teachers_logits, strict=True):
        timed = x if model is models[0] else None
        figures.append(vars(measure(name, model.predict_logits(x), y, teacher_logits, model, timed)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        models[0].save_weights(path)
        size = path.stat().st_size
    first, keys = figures[0], ("errors", "accuracy", "agreement", "loss", "teacher_kl")
    row: dict = {"model": name, "layers": first["layers"], "parameters": first["parameters"]}
    row |= {"bytes_on_disk": size, "runs": len(models), "latency_us": first["latency"]}
    return row | {key: [each[key] for each in figures] for key in keys} | mean_and_std(figures, keys)


def _lines(rows: list[dict]) -> list[list[str]]:
    """The table's cells, row by row."""
    lines = []
    for row in rows:
        errors, saving = f"{row['errors_mean']:.1f} +- {row['errors_std']:.1f}", ""
        if row["model"] != "teacher" and row is not rows[-1]:
            saving = "{:.1f} +- {:.1f}".format(*_saving(row, rows[-1]))
        trained_on = [f"{row['digits']:,}", f"{row['labels']:,}", "yes" if row["shifted"] else "no"]
        cells = [row["model"], row["layers"], f"{row['bytes_on_disk'] / 1000:,.0f} kB", *trained_on]
        lines.append([*cells, errors, saving, f"{row['agreement_mean']:.2%}", f"{row['latency_us']:.1f}"])
    return lines


def _saving(row: dict, last: dict) -> tuple[float, float]:
    """How many errors ``last`` makes fewer than ``row``, and the standard error of that for independent runs."""
    error = math.hypot(row["errors_std"], last["errors_std"]) / math.sqrt(last["runs"])
    return row["errors_mean"] - last["errors_mean"], error


def _verdict(students: list[dict]) -> str:
    """What the table says of the last student, beside the best one of equal means that has no teacher."""
    last = students[-1]
    equals = [row for row in students if row["shifted"] == last["shifted"] and not row["taught"]]
    best = min(equals, key=lambda row: row["errors_mean"])
    gain, error = _saving(best, last)
    certain = "with one seed, which says little"
    if last["runs"] > 1:
        sure = abs(gain) > 2 * error
        certain = f"over {last['runs']} seeds: {'more' if sure else 'less'} than two standard errors"
    did = "saved" if gain > 0 else "cost"
    return (
        f"{last['model'].capitalize()}: {last['errors_mean']:.1f} errors. That {did} {abs(gain):.1f} +- {error:.1f} of "
        f"the {best['errors_mean']:.1f} of the best student without a teacher ({best['model']}), {certain}."
    )


def _write_result(path: str, result: dict) -> None:
    text = json.dumps(result, indent=1) + "\n"
    if Path(path).suffix == ".md":
        table = format_table(_HEAD, _lines(result["models"]), markdown=True)
        digits = f"{result['training_digits']} training digits, {result['test_digits']} test digits"
        text = f"{table}\n\n{result['verdict']}\n\n{digits}, {result['seconds']:.0f} seconds.\n"
    Path(path).write_text(text, encoding="utf-8")
    print(f"written to {path}")
