"""``python -m minidl distill``: train a teacher on digits, distil it, and compare. The README shows its output."""

import argparse
import json
import math
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..callbacks import Callback
from ..datasets import mnist
from ..layers import Dense, Dropout, Flatten, Input, RandomTranslation, Rescaling
from ..losses import KnowledgeDistillation, Loss, SparseCategoricalCrossentropy
from ..models import Sequential
from ..optimizers import Adam
from ..optimizers.schedules import CosineDecay
from ..report import describe_layers, format_table, mean_and_std, measure
from ..runtime import set_num_threads, warmup
from ..teachers import cached_logits

_FEW_DIGITS = 10_000
"""Up to so many training digits the defaults are more epochs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    sizes = partial(parse_numbers, separators="-,", rule="hidden layer sizes must look like 64-64")
    embedded = "folder with MNIST's four IDX files; without it the 8,000 embedded digits"
    add("--data", metavar="FOLDER", help=embedded)
    add("--teacher", type=sizes, default="512-512", metavar="SIZES", help="the teacher's hidden layers")
    add("--student", type=sizes, default="64-64", metavar="SIZES", help="the student's hidden layers")
    add("--temperature", type=float, default=4.0, help="softens the answers of both")
    add("--hard-weight", type=float, default=0.1, help="weight of the labels")
    add("--soft-weight", type=float, default=0.9, help="weight of the teacher's answers")
    add("--teacher-epochs", type=int, default=None, help="50 for up to 10,000 digits, 15 for more")
    add("--epochs", type=int, default=None, help="of each student; 40 for up to 10,000 digits, 20 for more")
    add("--batch-size", type=int, default=32, help="of the students; the teacher's is twice that")
    add("--learning-rate", type=float, default=0.002, help="of the students (Adam, cosine decay to 0)")
    add("--teacher-learning-rate", type=float, default=0.001)
    add("--seeds", type=int, default=5, help="how many students of each kind; the table has mean +- std")
    add("--seed", type=int, default=0, help="the first of them, and the teacher's")
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


def run(options: argparse.Namespace) -> None:
    """Teacher, plain students, distilled students; then the table."""
    started = time.perf_counter()
    if options.seeds < 1:
        raise ValueError(f"--seeds must be >= 1, got {options.seeds}")
    if options.threads is not None:
        set_num_threads(options.threads)
    loss = KnowledgeDistillation(options.temperature, options.hard_weight, options.soft_weight)
    digits = mnist.load_subset() if options.data is None else mnist.load_data(options.data)
    (x, y), (x_test, y_test) = digits
    source = "MNIST, embedded in the package" if options.data is None else options.data
    print(f"{len(x):,} training and {len(x_test):,} test digits from {source}")
    compile_seconds = compile_kernels()

    groups = _train_all(options, loss, (x, y))
    teacher_logits = groups["teacher"][0].predict_logits(x_test)
    rows = [_row(name, models, x_test, y_test, teacher_logits) for name, models in groups.items()]
    table = format_table(_HEAD, [_cells(row) for row in rows])
    verdict = _verdict(rows[1], rows[2], loss)
    seconds = time.perf_counter() - started
    times = f"{seconds:.0f} seconds in all, {compile_seconds:.1f} of them for the kernels."
    print(f"\n{table}\n\n{verdict}\n{times}")
    if options.output:
        result = dict(models=rows, verdict=verdict, seconds=seconds, seconds_compiling=compile_seconds)
        kept_out = ("run", "command", "output", "save")
        result["settings"] = {k: v for k, v in vars(options).items() if k not in kept_out}
        _write_result(options.output, result | dict(training_digits=len(x), test_digits=len(x_test)))
    if options.save:
        groups["distilled student"][-1].save(options.save)


def compile_kernels(dtype: str = "float32") -> float:
    """Compile ahead, or load from the disk, and print how long it took; returns the seconds."""
    print("kernels: ", end="", flush=True)
    seconds = warmup(dtype, verbose=False)
    print(f"{seconds:.1f} s to {'compile, and kept on disk' if seconds > 2 else 'load from disk'}")
    return seconds


def _make_model(name: str, digits: tuple, layers: list, seed: int) -> Sequential:
    x, y = digits
    layers = [Input(x.shape[1:]), Rescaling(1 / 255), *layers, Dense(int(y.max()) + 1, "softmax")]
    return Sequential(layers, name, seed=seed)


def _train_all(options: argparse.Namespace, loss: Loss, digits: tuple) -> dict[str, list[Sequential]]:
    """The teacher, the plain students and the distilled ones."""
    few = len(digits[0]) <= _FEW_DIGITS
    epochs = options.teacher_epochs or (50 if few else 15)
    for_teacher = epochs, 2 * options.batch_size, options.teacher_learning_rate
    for_students = options.epochs or (40 if few else 20), options.batch_size, options.learning_rate
    labels_only = SparseCategoricalCrossentropy()

    # A large net that sees each digit shifted a little and with pixels missing, never twice the same.
    height, width = digits[0].shape[1:]
    layers = [RandomTranslation(2 / height, 2 / width), Flatten(), Dropout(0.1)]
    for units in options.teacher:
        layers += [Dense(units, activation="relu"), Dropout(0.3)]
    teacher = _make_model("teacher", digits, layers, options.seed)
    _train("teacher", teacher, digits, labels_only, *for_teacher)
    # The teacher is asked once: every student learns from the same logits, matched to the digits by index.
    teacher_logits = cached_logits(teacher, digits[0])
    lessons = {"plain student": (labels_only, None), "distilled student": (loss, teacher_logits)}
    groups: dict = {"teacher": [teacher], **{name: [] for name in lessons}}
    for seed in range(options.seed, options.seed + options.seeds):
        # small nets without regularization; those of one seed have the same initial weights
        for name, (lesson, logits) in lessons.items():
            layers = [Flatten(), *(Dense(units, activation="relu") for units in options.student)]
            groups[name].append(_make_model("student", digits, layers, seed))
            _train(f"{name} {seed}", groups[name][-1], digits, lesson, *for_students, logits)
    return groups


def _train(title, model, digits, loss, epochs, batch_size, learning_rate, teacher_logits=None) -> None:
    steps = epochs * math.ceil(len(digits[0]) / batch_size)
    model.compile(optimizer=Adam(CosineDecay(learning_rate, steps)), loss=loss, metrics=["accuracy"])
    bar = _Bar(f"{title:<22} {describe_layers(model):<18}")
    model.fit(*digits, batch_size, epochs, verbose=0, callbacks=[bar], target_model=teacher_logits)


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


_HEAD = "model|layers|parameters|size on disk|test errors|accuracy|agrees with teacher|us an image".split("|")


def _row(name: str, models: list[Sequential], x, y, teacher_logits) -> dict:
    """The figures of models of one kind, one per seed, with their mean and standard deviation."""
    figures = []
    for model in models:
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


def _cells(row: dict) -> list[str]:
    errors = f"{row['errors_mean']:.0f}"
    if row["runs"] > 1:
        errors = f"{row['errors_mean']:.1f} +- {row['errors_std']:.1f}"
    agreement = "" if row["model"] == "teacher" else f"{row['agreement_mean']:.2%}"
    cells = [row["model"], row["layers"], f"{row['parameters']:,}", f"{row['bytes_on_disk'] / 1000:,.0f} kB"]
    return [*cells, errors, f"{row['accuracy_mean']:.2%}", agreement, f"{row['latency_us']:.1f}"]


def _verdict(plain: dict, distilled: dict, loss: Any) -> str:
    """What the table says, in a sentence, with the spread over seeds."""
    gains = np.array(plain["errors"], dtype=float) - distilled["errors"]
    runs = f"over {len(gains)} seeds" if len(gains) > 1 else "with one seed, which says little"
    setting = f"temperature {loss.temperature:g}, weights {loss.hard_weight:g} and {loss.soft_weight:g}"
    if (mean := gains.mean()) <= 0:
        return f"Distilling did not help here: {-mean:.1f} errors more on average, {runs} ({setting})."
    wins = int((gains > 0).sum())
    share = mean / max(plain["errors_mean"], 1e-9)
    spread = f" +- {gains.std(ddof=1):.1f}" if len(gains) > 1 else ""
    return (
        f"Distilling saved {mean:.1f}{spread} of {plain['errors_mean']:.1f} errors ({share:.0%}) "
        f"{runs}; it won {wins} of {len(gains)} ({setting})."
    )


def _write_result(path: str, result: dict) -> None:
    text = json.dumps(result, indent=1) + "\n"
    if Path(path).suffix == ".md":
        table = format_table(_HEAD, [_cells(row) for row in result["models"]], markdown=True)
        digits = f"{result['training_digits']} training digits, {result['test_digits']} test digits"
        text = f"{table}\n\n{result['verdict']}\n\n{digits}, {result['seconds']:.0f} seconds.\n"
    Path(path).write_text(text, encoding="utf-8")
    print(f"written to {path}")
