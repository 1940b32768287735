"""``python -m minidl distill``: what is a teacher worth? Students of equal means are compared.

All students have the same initial weights (seed by seed), the same number of steps, and see digits shifted alike. What
differs is whom they learn from, and whether they use digits without labels. The README shows the table.
"""

import argparse
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..callbacks import LambdaCallback
from ..datasets import mnist
from ..kernels import cache
from ..layers import Dense, Dropout, Flatten, Input, RandomTranslation, Rescaling
from ..losses import CategoricalCrossentropy, KnowledgeDistillation, Loss
from ..models import Sequential
from ..optimizers import Adam
from ..optimizers.schedules import CosineDecay
from ..report import count_of, describe_layers, format_table, mean_and_std, measure
from ..runtime import get_num_threads, set_num_threads
from ..teachers import cached_logits
from ..utils import to_categorical
from .distill import compile_kernels

_SHIFT = 2  # pixels, up or down and left or right
_SMOOTHING = 0.1
_PASSES = 4
"""How often a student sees each shifted digit. The teacher is asked about it once."""


def add_options(add: Callable) -> None:
    sizes = partial(parse_numbers, separators="-,", rule="hidden layer sizes must look like 64-64")
    add("--data", metavar="FOLDER", help="MNIST's four IDX files; without it the 8,000 embedded digits")
    labels = "how many digits have labels, the others serve distillation alone; or: all"
    add("--labels", type=_parse_labels, default="300", metavar="N", help=labels)
    add("--teacher", type=sizes, default="256-256", metavar="SIZES", help="the teacher's hidden layers")
    add("--student", type=sizes, default="64-64", metavar="SIZES", help="the student's hidden layers")
    given: dict = dict(
        type=float, default=argparse.SUPPRESS
    )  # digits and a user's own data have their own defaults
    add("--temperature", **given, help="softens the answers of both; a regression has none (default: 2.0)")
    add("--hard-weight", **given, help="weight of the labels (default: 0.1, of your own data 0.5)")
    add("--soft-weight", **given, help="weight of the teacher's answers (default: 0.9, of your own data 0.5)")
    add("--teacher-steps", type=int, default=2_000, help="of each teacher")
    add("--steps", type=int, default=5_000, help="of each student")
    add("--batch-size", type=int, default=32, help="of the students; the teacher's is twice that")
    add("--learning-rate", type=float, default=0.002, help="of the students (Adam, cosine decay to 0)")
    add("--teacher-learning-rate", type=float, default=0.002)
    add("--seeds", type=int, default=5, help="how many students of each kind; the table has mean +- std")
    add("--seed", type=int, default=0, help="the first of them")
    add("--output", metavar="FILE", help="write the result: Markdown if it ends in .md, else JSON")
    add("--save", metavar="FILE", help="write the last distilled student, for minidl.models.load_model")
    add("--threads", type=int, default=None, help="default: all processors")


def parse_numbers(text: str, separators: str, rule: str, count: int | None = None) -> tuple[int, ...]:
    """The numbers >= 1 in an option such as ``512-512``, ``count`` of them if that is given; else ``rule`` is shown."""
    parts = text.translate(dict.fromkeys(map(ord, separators), " ")).split()
    numbers = tuple(int(part) for part in parts if part.isdecimal())
    if not numbers or 0 in numbers or not len(numbers) == len(parts) == (count or len(parts)):
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
    by_argmax: bool = False  # whether the teacher's most likely class is their label


_TEACHER = _Kind("teacher", CategoricalCrossentropy(label_smoothing=_SMOOTHING))


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
    argmax = _Kind("argmax, all digits", CategoricalCrossentropy(), all_digits=True, by_argmax=True)
    return [*kinds, argmax, _Kind("distilled, all digits", distilled, all_digits=True)]


def run(options: argparse.Namespace) -> None:
    """For each seed a teacher and a student of each kind; then the table."""
    started = time.perf_counter()
    set_numbers_of_loss(options, 0.1, 0.9)
    check_options(options)
    kinds = _kinds(options)
    (x, y), (x_test, y_test) = mnist.load_subset() if options.data is None else mnist.load_data(options.data)
    labelled = _first_of_each_class(y, options.labels or len(y))
    source = "MNIST, embedded in the package" if options.data is None else options.data
    print(f"{len(x):,} training digits, {len(labelled):,} with labels; {len(x_test):,} test digits; {source}")
    job = _Job(options, x, y, labelled, threading.Event())
    compile_seconds = say_what_compiling_took(lambda: job.compile_kernels(kinds))

    print(f"{count_of(options.seeds, 'teacher')} and {options.seeds * len(kinds)} students to train")
    groups = job.train_all(kinds)
    teachers_logits = [teacher.predict_logits(x_test) for teacher in groups[0]]
    rows = []
    for kind, models in zip([_TEACHER, *kinds], groups, strict=True):
        row = {"digits": len(x if kind.all_digits else labelled), "labels": len(labelled)}
        row |= {"shifted": kind.shifted, "taught": kind.loss.distills or kind.by_argmax}
        rows.append(_row(kind.name, models, x_test, y_test, teachers_logits) | row)
    table, verdict = format_table(_HEAD, _lines(rows)), _verdict(rows[1:])
    seconds = time.perf_counter() - started
    print(f"\n{table}\n\n{verdict}\n{seconds:.0f} seconds, {compile_seconds:.1f} of them for the kernels.")
    if options.output:
        result = dict(models=rows, verdict=verdict, seconds=seconds, seconds_compiling=compile_seconds)
        settings = {k: v for k, v in vars(options).items() if k not in ("run", "command", "output", "save")}
        result |= dict(settings=settings, training_digits=len(x), test_digits=len(x_test))
        form = "{verdict}\n\n{training_digits} training digits, {test_digits} test digits, {seconds:.0f} seconds."
        page = f"{format_table(_HEAD, _lines(rows), markdown=True)}\n\n{form.format(**result)}"
        write_result(options.output, result, page)
    if options.save:
        groups[-1][-1].save(options.save)


@contextlib.contextmanager
def one_thread_each(ended: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """A pool of as many workers as minidl has threads, each with one; ``ended`` is set when nobody waits any more."""
    threads = get_num_threads()
    set_num_threads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        ended.set()
        pool.shutdown(cancel_futures=True)
        set_num_threads(threads)


def say_what_compiling_took(compile_or_load: Callable[[], float]) -> float:
    """Compile ahead, or load from the disk, and print how long it took; returns the seconds."""
    print("kernels: ", end="", flush=True)
    seconds = compile_or_load()
    kept = "kept on disk" if cache.folder() else f"not kept; {cache.ADVICE}"
    print(f"{seconds:.1f} s to {f'compile, and {kept}' if seconds > 2 else 'load from disk'}")
    return seconds


def set_numbers_of_loss(options: argparse.Namespace, hard: float, soft: float) -> None:
    """Temperature and weights, where the options do not have them."""
    for name, number in (("temperature", 2.0), ("hard_weight", hard), ("soft_weight", soft)):
        vars(options).setdefault(name, number)


def check_options(options: argparse.Namespace) -> None:
    """Refuse numbers below 1 and files that cannot be written, and set the number of threads."""
    for name in ("seeds", "steps", "teacher_steps", "batch_size"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be >= 1, got {getattr(options, name)}")
    for name in ("output", "save"):
        path = Path(getattr(options, name) or "file")
        if path.is_dir() or not path.parent.is_dir():
            wrong = "this is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise ValueError(f"--{name} {path}: {wrong}")
    if options.threads is not None:
        set_num_threads(options.threads)


def _first_of_each_class(y: np.ndarray, count: int) -> np.ndarray:
    """Rows of ``count`` samples, equally many of each class as far as there are any."""
    place = np.cumsum(to_categorical(y), axis=0)[np.arange(len(y)), y]  # of a sample among those of its class
    return np.sort(np.argsort(place, kind="stable")[:count])


def _shifted(x: np.ndarray, rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """``x[rows]`` (N, H, W), each moved by its own whole number of pixels, up to ``most`` each way; 0 moves in."""
    padded = np.pad(x, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, x.shape[1:], axis=(1, 2))
    top, left = np.random.default_rng(seed).integers(0, 2 * most + 1, (2, len(rows)))
    return windows[rows, top, left]


def _answers(model: Sequential, y: np.ndarray) -> np.ndarray:
    """``y`` as the model's loss takes it."""
    return y if model.loss.distills else to_categorical(y, *model.output_shape)


class _Job(NamedTuple):
    """What all trainings share."""

    options: argparse.Namespace
    x: np.ndarray
    y: np.ndarray
    labelled: np.ndarray  # rows of the digits whose labels are used
    ended: threading.Event  # nobody waits for the trainings any more

    def compile_kernels(self, kinds: list[_Kind]) -> float:
        """At once, for all trainings, before they begin side by side; returns the seconds."""
        models = [self._new_model(kind, 0) for kind in (_TEACHER, *kinds)]
        fits = [(each, each.loss, each.optimizer, _answers(each, self.y[:1])) for each in models]
        return compile_kernels(fits, aloud=False)

    def train_all(self, kinds: list[_Kind]) -> list[list[Sequential]]:
        """The teachers, then the students of each kind, one per seed; as many at a time as there are threads.

        Each is trained on one thread: in nets this small, several would wait for each other.
        """
        seeds = range(self.options.seed, self.options.seed + self.options.seeds)
        # it works in the order of `submit`: no student waits for a teacher to begin
        with one_thread_each(self.ended) as pool:
            teachers = {seed: pool.submit(self._train_teacher, seed) for seed in seeds}
            train = self._train_student
            students = [[pool.submit(train, kind, *each) for each in teachers.items()] for kind in kinds]
            return [[training.result() for training in group] for group in (teachers.values(), *students)]

    def _new_model(self, kind: _Kind, seed: int, steps: int = 1) -> Sequential:
        """The teacher, or a student of a kind; its learning rate decays over so many steps.

        The teacher is a large net that sees each digit shifted and with pixels missing, never twice the same; a student
        is a small one without regularization. Students of one seed have the same initial weights.
        """
        options, shape = self.options, self.x.shape[1:]
        rate, layers = options.learning_rate, [Rescaling(1 / 255), Flatten()]
        if kind is _TEACHER:
            rate = options.teacher_learning_rate
            layers = [RandomTranslation(*(_SHIFT / pixels for pixels in shape)), *layers, Dropout(0.1)]
            for units in options.teacher:
                layers += [Dense(units, "relu"), Dropout(0.3)]
        else:
            layers += [Dense(units, "relu") for units in options.student]
        layers = [Input(shape), *layers, Dense(int(self.y.max()) + 1, "softmax")]
        model = Sequential(layers, kind.name, seed=seed)
        model.compile(optimizer=Adam(CosineDecay(rate, steps)), loss=kind.loss, metrics=["accuracy"])
        return model

    def _train_teacher(self, seed: int) -> Sequential:
        options, labelled = self.options, self.labelled
        batch_size = 2 * options.batch_size
        epochs = math.ceil(options.teacher_steps * batch_size / len(labelled))
        return self._train(_TEACHER, seed, (batch_size, epochs), self.x[labelled], self.y[labelled])

    def _train_student(self, kind: _Kind, seed: int, teacher: Future) -> Sequential:
        options = self.options
        # Equally many rows for all kinds, so that they take the same steps: fewer digits come more often.
        count = math.ceil(options.steps * options.batch_size / _PASSES)
        rows = np.resize(np.arange(len(self.x)) if kind.all_digits else self.labelled, count)
        x = _shifted(self.x, rows, _SHIFT * kind.shifted, seed)
        y = np.where(np.isin(rows, self.labelled), self.y[rows].astype(int), -1)
        logits = cached_logits(teacher.result(), x) if kind.loss.distills or kind.by_argmax else None
        if kind.by_argmax:
            y, logits = np.where(y < 0, logits.argmax(axis=1), y), None
        return self._train(kind, seed, (options.batch_size, _PASSES), x, y, logits)

    def _train(self, kind: _Kind, seed: int, plan: tuple[int, int], x, y, teacher_logits=None) -> Sequential:
        """A new model, fitted to images, labels and perhaps a teacher's logits; says so in a line."""
        started, (batch_size, epochs) = time.perf_counter(), plan
        model = self._new_model(kind, seed, epochs * math.ceil(len(x) / batch_size))

        def end(epoch, logs):
            if self.ended.is_set():
                raise CancelledError

        y, watch = _answers(model, y), LambdaCallback(on_epoch_begin=end)
        logs = model.fit(x, y, batch_size, epochs, 0, [watch], target_model=teacher_logits).history
        values = "  ".join(f"{name} {value[-1]:.4f}" for name, value in logs.items())
        did = f"{describe_layers(model):<14} {epochs:>4} epochs {time.perf_counter() - started:5.1f} s"
        # in one piece: other threads print, too
        print(f"{kind.name + f' {seed}':<23} {did}  {values}\n", end="")
        return model


_HEAD = "model|layers|weights|digits|labels|shifted|test errors|last row saves|agrees|us an image".split("|")


def _row(name: str, models: list[Sequential], x, y, teachers_logits: list) -> dict:
    """The figures of models of one kind, one per seed, with their mean and standard deviation."""
    figures = []
    for model, teacher_logits in zip(models, teachers_logits, strict=True):
        timed = x if model is models[0] else None
        figures.append(vars(measure(name, model.predict_logits(x), y, teacher_logits, model, timed)))
    first, keys = figures[0], ("errors", "accuracy", "agreement", "loss", "teacher_kl")
    row: dict = {"model": name, "layers": first["layers"], "parameters": first["parameters"]}
    row |= {"bytes": first["bytes"], "runs": len(models), "latency_us": first["latency"]}
    return row | {key: [each[key] for each in figures] for key in keys} | mean_and_std(figures, keys)


def _lines(rows: list[dict]) -> list[list[str]]:
    """The table's cells, row by row."""
    lines = []
    for row in rows:
        errors, saving = f"{row['errors_mean']:.1f} +- {row['errors_std']:.1f}", ""
        if row["model"] != "teacher" and row is not rows[-1]:
            saving = "{:.1f} +- {:.1f}".format(*gain_of(row, rows[-1]))
        trained_on = [f"{row['digits']:,}", f"{row['labels']:,}", "yes" if row["shifted"] else "no"]
        cells = [row["model"], row["layers"], f"{row['bytes'] / 1000:,.0f} kB", *trained_on]
        lines.append([*cells, errors, saving, f"{row['agreement_mean']:.2%}", f"{row['latency_us']:.1f}"])
    return lines


def gain_of(row: dict, last: dict, key: str = "errors") -> tuple[float, float]:
    """How many errors ``last`` makes fewer than ``row``, and the standard error of that for independent runs."""
    error = math.hypot(row[f"{key}_std"], last[f"{key}_std"]) / math.sqrt(last["runs"])
    return row[f"{key}_mean"] - last[f"{key}_mean"], error


def how_sure(gain: float, error: float, runs: int) -> str:
    """What ``runs`` seeds say of a gain with this standard error."""
    if runs == 1:
        return "with one seed, which says little"
    return f"over {runs} seeds: {'more' if abs(gain) > 2 * error else 'less'} than two standard errors"


def _verdict(students: list[dict]) -> str:
    """What the table says of the last student, beside the best one of equal means that has no teacher."""
    last = students[-1]
    equals = [row for row in students if row["shifted"] == last["shifted"] and not row["taught"]]
    best = min(equals, key=lambda row: row["errors_mean"])
    gain, error = gain_of(best, last)
    did, certain = "saved" if gain > 0 else "cost", how_sure(gain, error, last["runs"])
    return (
        f"{last['model'].capitalize()}: {last['errors_mean']:.1f} errors. That {did} {abs(gain):.1f} +- {error:.1f} of "
        f"the {best['errors_mean']:.1f} of the best student without a teacher ({best['model']}), {certain}."
    )


def write_result(path: str, result: dict, page: str) -> None:
    """Write the ``page`` to a file that ends in .md, the ``result`` as JSON to any other."""
    text = page if Path(path).suffix == ".md" else json.dumps(result, indent=1)
    Path(path).write_text(text + "\n", encoding="utf-8")
    print(f"written to {path}")
