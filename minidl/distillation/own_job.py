"""``python -m minidl distill data.csv --target column``: the main job on a user's own data.

Rows are split into training, validation and test. Several large nets are trained, and together they teach. Small
students learn from the labels alone, and from labels and teacher; validation chooses the epoch, the test rows judge.
"""

import argparse
import math
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..callbacks import EarlyStopping, LambdaCallback
from ..figures import TASK_FIGURES
from ..layers import Dense, Dropout, Input
from ..losses import (
    KnowledgeDistillation,
    Loss,
    MeanSquaredError,
    RegressionDistillation,
    SparseCategoricalCrossentropy,
)
from ..models import Sequential
from ..optimizers import Adam
from ..optimizers.schedules import CosineDecay
from ..report import count_of, describe_layers, format_table, latency, mean_and_std
from ..teachers import Ensemble, cached_logits
from .main_job import (
    check_options,
    gain_of,
    how_sure,
    one_thread_each,
    say_what_compiling_took,
    set_numbers_of_loss,
    write_result,
)
from .own_data import (
    Data,
    OwnTask,
    check_place,
    choose_own_task,
    fold,
    input_names,
    load,
    normalisation,
    save,
    split,
)

_FEWEST_PASSES = 10
"""Over the training rows, however many steps that takes."""


class _Kind(NamedTuple):
    """Models of one row of the table."""

    name: str
    units: tuple[int, ...]
    loss: Loss
    dropout: float = 0.0


class _Job(NamedTuple):
    """What all trainings share; x and y of the numbers 0, 1, 2 for training, validation, test, normalised."""

    options: argparse.Namespace
    task: OwnTask
    x: list[np.ndarray]
    y: list[np.ndarray]
    unit: tuple[float, float]  # mean and deviation of y before
    ended: threading.Event

    def kinds(self) -> list[_Kind]:
        """Teacher, student of labels, student of both."""
        options, alone, taught = self.options, *self.losses()
        student = options.student
        names = ("teacher's nets", "labels alone", "distilled")
        return [
            _Kind(names[0], options.teacher, alone, 0.3),
            _Kind(names[1], student, alone),
            _Kind(names[2], student, taught),
        ]

    def losses(self) -> tuple[Loss, Loss]:
        """On labels alone, and with a teacher."""
        options = self.options
        weights = options.hard_weight, options.soft_weight
        if self.task.classes is None:
            return MeanSquaredError(), RegressionDistillation(*weights)
        return SparseCategoricalCrossentropy(), KnowledgeDistillation(options.temperature, *weights)

    def new_model(self, kind: _Kind, seed: int, steps: int = 1) -> Sequential:
        options, layers = self.options, [Input(self.x[0].shape[1:])]
        for units in kind.units:
            layers += [Dense(units, "relu"), *([Dropout(kind.dropout)] if kind.dropout else [])]
        outputs = 1 if self.task.classes is None else len(self.task.classes)
        layers.append(Dense(outputs, None if self.task.classes is None else "softmax"))
        rate = options.teacher_learning_rate if kind.dropout else options.learning_rate
        model = Sequential(layers, name=kind.name.replace(" ", "_"), seed=seed)
        model.compile(Adam(CosineDecay(rate, steps)), kind.loss)
        return model

    def train(self, kind: _Kind, seed: int, logits: np.ndarray | None = None) -> Sequential:
        """A new model with the parameters of the epoch that was best on the validation rows."""
        started, options = time.perf_counter(), self.options
        batch_size = options.batch_size * (2 if kind.dropout else 1)
        steps = options.teacher_steps if kind.dropout else options.steps
        rows = len(self.x[0])
        an_epoch = math.ceil(rows / batch_size)
        epochs = max(_FEWEST_PASSES, math.ceil(steps / an_epoch))
        model = self.new_model(kind, seed, epochs * an_epoch)

        def end(epoch, logs):
            if self.ended.is_set():
                raise CancelledError

        stop = EarlyStopping(patience=max(5, epochs // 4), restore_best_weights=True)
        callbacks = [stop, LambdaCallback(on_epoch_begin=end)]
        arguments: dict = dict(validation_data=(self.x[1], self.y[1]), target_model=logits)
        history = model.fit(self.x[0], self.y[0], batch_size, epochs, 0, callbacks, **arguments).history
        best, seconds = int(np.argmin(history["val_loss"])), time.perf_counter() - started
        epochs_run = f"best after {best + 1:>3} of {len(history['loss']):>3} epochs"
        did = f"{describe_layers(model):<16} {epochs_run} {seconds:5.1f} s"
        print(f"{kind.name + f' {seed}':<18} {did}  val_loss {history['val_loss'][best]:.4f}\n", end="")
        return model

    def compile_kernels(self) -> float:
        """By a step of each kind, before trainings begin side by side; returns the seconds."""
        started = time.perf_counter()
        for kind in self.kinds():
            model, few = self.new_model(kind, 0), slice(0, 4)
            logits = np.zeros((4, model.output_shape[-1]), np.float32)[: len(self.x[0])]
            teacher = logits if kind.loss.distills else None
            model.fit(self.x[0][few], self.y[0][few], verbose=0, target_model=teacher)
            model.predict(self.x[0])
        return time.perf_counter() - started

    def figures(self, outputs: np.ndarray) -> dict[str, float]:
        """Of the outputs, or logits, for the test rows; RMSE in the unit of the target."""
        if self.task.classes is None:
            found = TASK_FIGURES["regression"].beside_labels(outputs, self.y[2])
            r2 = math.nan if found["r2"] is None else found["r2"]  # all test rows have one value
            return {"rmse": found["rmse"] * self.unit[1], "r2": r2}
        found = TASK_FIGURES["classification"].beside_labels(outputs, self.y[2])
        return {key: found[key] for key in ("errors", "accuracy")}


_SHOWN = {
    # of a figure: its title, and its mean and deviation as text
    "errors": ("test errors", "{:.1f} +- {:.1f}"),
    "accuracy": ("accuracy", "{:.2%} +- {:.2%}"),
    "rmse": ("test RMSE", "{:.4g} +- {:.2g}"),
    "r2": ("R2", "{:.4f} +- {:.4f}"),
}


def run(options: argparse.Namespace) -> None:
    """The whole job; what a reader must know is printed on the way."""
    started = time.perf_counter()
    check_options(options)
    data = load(options)
    task, y = choose_own_task(data, options.task)
    if task.classes is None and hasattr(options, "temperature"):
        raise ValueError(
            f"--temperature softens probabilities; a regression has none, got {options.temperature}"
        )
    set_numbers_of_loss(options, 0.5, 0.5)
    if len(y) < 10:
        raise ValueError(f"{data.source} has {count_of(len(y), 'row')}: 10 at least are split in three parts")
    parts = split(None if task.classes is None else y, len(y), options.seed)
    mean, factor = normalisation(data.x[parts[0]])
    x = [((data.x[rows] - mean) * factor).astype(np.float32) for rows in parts]
    unit = task.unit(y[parts[0]])
    answers = [y[rows] if task.classes is not None else (y[rows] - unit[0]) / unit[1] for rows in parts]
    job = _Job(options, task, x, answers, unit, threading.Event())
    job.losses()
    saved = check_place(options.save or f"{Path(data.source).stem}-student.npz")
    _introduce(data, task, job, factor)
    print(task.without_a_model(y[parts[0]], y[parts[2]]))
    say_what_compiling_took(job.compile_kernels)

    kinds, seeds = job.kinds(), range(options.seed, options.seed + options.seeds)
    with one_thread_each(job.ended) as pool:
        nets = [each.result() for each in [pool.submit(job.train, kinds[0], seed) for seed in seeds]]
        teacher = Ensemble(nets)
        logits = cached_logits(teacher, x[0], temperature=options.temperature)
        trainings = [
            [pool.submit(job.train, kind, seed, logits if kind.loss.distills else None) for seed in seeds]
            for kind in kinds[1:]
        ]
        groups = [nets, *([each.result() for each in group] for group in trainings)]
    rows = [_row(job, kind.name, models) for kind, models in zip(kinds, groups, strict=True)]
    rows.insert(1, _row(job, "teacher, all of them", [teacher]))
    text, verdict = _table(rows), _verdict(rows)
    print(f"\n{text}\n\n{verdict}")
    chosen = min(groups[-1], key=lambda model: model.evaluate(x[1], job.y[1], verbose=0))
    save(saved, fold(chosen, mean, factor, data.x[parts[1]], unit), data, task)
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} seconds.")
    if options.output:
        result = dict(models=rows, verdict=verdict, seconds=seconds, task=task.name, student=saved)
        result["rows"] = [len(part) for part in parts]
        write_result(options.output, result, f"{_table(rows, markdown=True)}\n\n{verdict}")


def _introduce(data: Data, task: OwnTask, job: _Job, factor: np.ndarray) -> None:
    """Print what was read, and how it will be used."""
    print(f"{data.source}: {len(data.x):,} rows, {count_of(data.x.shape[1], 'input')} -> {data.target!r}")
    for column in data.columns or ():
        if column.words is not None:
            print(f"column {column.name!r}: {len(column.words)} words, a column of 0 and 1 for each")
    if constant := [name for name, each in zip(input_names(data), factor, strict=True) if each == 0]:
        print(f"left out, for they have one value in all training rows: {', '.join(constant)}")
    classes = "" if task.classes is None else f" of {len(task.classes)} classes"
    print(f"task: {task.name}{classes} ({task.why})")
    train, validation, test = (f"{len(rows):,}" for rows in job.x)
    print(
        f"{train} rows to train, {validation} to choose the epoch, {test} to judge (seed {job.options.seed})"
    )


def _row(job: _Job, name: str, models: list) -> dict:
    """Mean and deviation of the figures of models of one kind."""
    figures = [
        job.figures(each.predict_logits(job.x[2]) if isinstance(each, Sequential) else each(job.x[2]))
        for each in models
    ]
    nets = models[0].models() if isinstance(models[0], Ensemble) else models[:1]
    shape = f"{len(nets)} x {describe_layers(nets[0])}" if len(nets) > 1 else describe_layers(nets[0])
    row: dict = {
        "model": name,
        "layers": shape,
        "runs": len(models),
        "bytes": sum(net.params.nbytes for net in nets),
    }
    row["latency_us"] = latency(models[0], job.x[2])
    return (
        row | {key: [each[key] for each in figures] for key in figures[0]} | mean_and_std(figures, figures[0])
    )


def _table(rows: list[dict], markdown: bool = False) -> str:
    shown = {key: value for key, value in _SHOWN.items() if key in rows[0]}
    lines = [
        [
            row["model"],
            row["layers"],
            f"{row['bytes'] / 1000:,.0f} kB",
            *(form.format(row[f"{key}_mean"], row[f"{key}_std"]) for key, (_, form) in shown.items()),
            f"{row['latency_us']:.1f}",
        ]
        for row in rows
    ]
    head = ["model", "layers", "weights", *(title for title, _ in shown.values()), "us a row"]
    return format_table(head, lines, markdown)


def _verdict(rows: list[dict]) -> str:
    """What a teacher was worth."""
    *_, alone, distilled = rows
    key = next(key for key in _SHOWN if key in distilled)
    gain, error = gain_of(alone, distilled, key)
    title, form = _SHOWN[key]
    mean = form.split(" +-")[0]
    did, certain = "cost" if gain < 0 else "saved", how_sure(gain, error, distilled["runs"])
    return (
        f"Distilled: {mean.format(distilled[f'{key}_mean'])} {title}. The teacher {did} "
        f"{form.format(abs(gain), error)} of the {mean.format(alone[f'{key}_mean'])} from labels alone, {certain}."
    )
