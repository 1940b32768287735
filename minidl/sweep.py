"""Many distillations at once: every setting from several seeds, each run in a process and on a thread of its own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .distillation import distillation_loss, fresh_optimizer, train_on_labels
from .losses import KnowledgeDistillation, Ramp
from .models import Sequential
from .report import as_labels, describe_loss, format_table, measure
from .teachers import as_teacher, cached_logits, say_if_untrained
from .training import augmenting_layer
from .validation import check_array, check_inputs, check_int, describe


@dataclass
class Sweep:
    """The runs of ``distill_sweep``: ``rows`` holds one dict a setting, ``runs`` one a run."""

    rows: list[dict]
    runs: list[dict]
    notes: list[str] = field(default_factory=list)

    def table(self, markdown: bool = False) -> str:
        """Mean +- standard deviation (ddof 1) over the seeds, a row a setting."""
        head = ["student", "runs", "errors", "accuracy", "agreement", "loss"]
        forms = {"errors": ".1f", "accuracy": ".2%", "agreement": ".2%", "loss": ".4f"}
        rows = []
        for row in self.rows:
            cells = [row["setting"], str(row["runs"])]
            for key, form in forms.items():
                cells.append(f"{row[key + '_mean']:{form}} +- {row[key + '_std']:{form}}")
            rows.append(cells)
        return format_table(head, rows, markdown)

    def __str__(self) -> str:
        return "\n".join([self.table(), "", *self.notes])

    def to_markdown(self) -> str:
        return "\n".join([self.table(markdown=True), "", *(f"- {note}" for note in self.notes), ""])

    def to_dict(self) -> dict:
        return {"rows": self.rows, "runs": self.runs, "notes": list(self.notes)}

    @property
    def best(self) -> dict:
        """The row with the fewest errors on average."""
        return min(self.rows, key=lambda row: row["errors_mean"])


def distill_sweep(
    teacher: object,
    student: Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    temperatures: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
    weights: Sequence[tuple[float, float]] = ((0.1, 0.9),),
    loss_list: Sequence[object] = (),
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: object = "adam",
    validation_data: tuple | None = None,
    plain_student: bool = True,
    processes: int | None = None,
) -> Sweep:
    """Distil the student under many settings, each from several seeds; mean and standard deviation of each.

    Parameters
    ----------
    student : tells the architecture; every run begins with a new model of it, and it is not changed itself.
    temperatures, weights : every pair of a temperature and a ``(hard_weight, soft_weight)`` is one
        ``KnowledgeDistillation``.
    loss_list : further distillation losses to try.
    seeds : one run each; they decide initial weights and shuffling.
    validation_data : ``(x, y)`` the errors are counted on. The best setting is chosen by them: judge it on
        other data afterwards. Required.
    plain_student : also train on labels alone, as a setting of its own.
    processes : runs at a time, each on one thread; by default one a processor. 1 runs them here, one after
        another. A script that uses more must do so under ``if __name__ == "__main__":``.

    Returns a ``Sweep``: ``print`` it, or read ``rows`` (a dict a setting, with ``errors_mean``, ``errors_std``
    and so on), ``runs`` and ``best``; ``minidl.plotting.sweep`` draws it.

    Raises ValueError or TypeError before anything is trained for arguments that do not fit, for a teacher that
    only knows the logits of ``x``, and for a student that augments its inputs, which has to be taught online.
    """
    if not isinstance(student, Sequential):
        raise TypeError(f"student must be a Sequential, got {describe(student)}")
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise ValueError(f"validation_data must be (x, y), got {describe(validation_data)}")
    if validation_data[1] is None:
        raise ValueError("validation_data must be (x, y), got y=None: errors are counted by labels")
    lists = {"temperatures": temperatures, "weights": weights, "loss_list": loss_list, "seeds": seeds}
    for name, value in lists.items():
        if not np.iterable(value) or isinstance(value, str):
            raise TypeError(f"{name} must be a list, got {describe(value)}")
    for pair in weights:
        if not np.iterable(pair) or len(pair) != 2:
            raise ValueError(f"weights must hold pairs (hard_weight, soft_weight), got {describe(pair)}")
    seeds = [check_int(f"seeds[{i}]", seed, minimum=0) for i, seed in enumerate(seeds)]
    if not seeds:
        raise ValueError("seeds must hold one seed or more, got none")
    processes = check_int("processes", os.cpu_count() if processes is None else processes, minimum=1)
    x = check_array("x", x)
    student._build_for(x)
    check_inputs(x, student.input_shape, student.dtype)
    teacher = as_teacher(teacher, student)
    x_val = check_inputs(validation_data[0], student.input_shape, student.dtype, "validation_data x")
    student.check_y(validation_data[1], len(x_val), KnowledgeDistillation(), "validation_data y")
    y_val = as_labels(validation_data[1])
    if not (y_val >= 0).any():
        raise ValueError("validation_data y must hold labels to count errors by, got none >= 0")
    if y is not None:
        student.check_y(y, len(x), KnowledgeDistillation())
        if plain_student and not (as_labels(y) >= 0).any():
            raise ValueError("plain_student=True needs labels, got y without any")
    untrained = say_if_untrained(teacher, Sequential.from_config(student.get_config()))
    if teacher.samples is not None:
        raise ValueError(
            "teacher must be able to answer for validation_data too, got an array of logits for x"
        )
    if (layer := augmenting_layer(student)) is not None:
        raise ValueError(
            f"student's layer {layer.name!r} augments its inputs, so each run would need the teacher itself: leave "
            "that layer out, or call distill for each setting"
        )
    candidates = [KnowledgeDistillation(t, h, s) for t, (h, s) in itertools.product(temperatures, weights)]
    candidates = [distillation_loss(loss, y) for loss in (*candidates, *loss_list)]
    if processes > 1 and any(not isinstance(f, Ramp) for loss in candidates for f in loss.schedules.values()):
        raise ValueError(
            "a schedule must be a minidl.losses.Ramp, which other processes can be sent, or processes must be 1"
        )
    if not candidates:
        raise ValueError("temperatures and weights, or loss_list, must name one setting or more, got none")
    candidates = list({describe_loss(loss): loss for loss in candidates}.values())  # each once
    settings = ([None] if plain_student and y is not None else []) + candidates

    with tempfile.TemporaryDirectory(prefix="minidl_sweep_") as folder:
        arrays = {"x": x, "x_val": x_val, "y_val": y_val, "teacher_val": cached_logits(teacher, x_val)}
        if y is not None:
            arrays["y"] = np.asarray(y)
        jobs = []
        for setting in settings:
            temperature = float(getattr(setting, "temperature", 1.0)) if teacher.softens else 1.0
            name = f"teacher_{temperature!r}"
            if setting is not None and name not in arrays:
                arrays[name] = cached_logits(teacher, x, temperature=temperature, dtype=student.dtype)
            for seed in seeds:
                job = dict(folder=folder, setting=setting, seed=seed, epochs=epochs, batch_size=batch_size)
                job |= dict(config=student.get_config(), optimizer=fresh_optimizer(optimizer), logits=name)
                jobs.append(job)
        for name, array in arrays.items():
            np.save(Path(folder) / f"{name}.npy", array)
        runs = _run_jobs(jobs, min(processes, len(jobs)))
    result = _summary(runs, settings, int((y_val >= 0).sum()))
    if untrained:
        result.notes.append(untrained)
    return result


def _run_jobs(jobs: list[dict], processes: int) -> list[dict]:
    if processes == 1:
        return [_one_run(job) for job in jobs]
    # Not fork: a forked child would inherit locks held by threads it does not have.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_one_thread) as pool:
            return list(pool.map(_one_run, jobs))
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process of the sweep ended early. A script must call distill_sweep under "
            'if __name__ == "__main__":, and from standard input only processes=1 works'
        ) from error


def _one_thread() -> None:
    from . import set_num_threads

    set_num_threads(1)


def _one_run(job: dict) -> dict:
    """Train and measure one student; runs in a process of its own, so it reads the arrays from files."""
    folder = Path(job["folder"])

    def load(name):
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    x, x_val, y_val = load("x"), load("x_val"), load("y_val")
    y = load("y") if (folder / "y.npy").exists() else None
    model = Sequential.from_config({**job["config"], "seed": job["seed"]})
    training = dict(epochs=job["epochs"], batch_size=job["batch_size"], verbose=0)
    if job["setting"] is None:
        train_on_labels(model, fresh_optimizer(job["optimizer"]), x, y, None, None, training)
    else:
        model.compile(optimizer=fresh_optimizer(job["optimizer"]), loss=job["setting"], metrics=["accuracy"])
        model.fit(x, y, target_model=load(job["logits"]), **training)
    figures = measure("student", model.predict_logits(x_val), y_val, load("teacher_val"))
    return {
        "setting": describe_loss(job["setting"]),
        "seed": job["seed"],
        "errors": figures.errors,
        "accuracy": figures.accuracy,
        "agreement": figures.agreement,
        "loss": figures.loss,
    }


def _summary(runs: list[dict], settings: list, count: int) -> Sweep:
    rows = []
    names = list(dict.fromkeys(run["setting"] for run in runs))
    losses_by_name = {describe_loss(setting): setting for setting in settings}
    for name in names:
        mine = [run for run in runs if run["setting"] == name]
        loss = losses_by_name[name]
        row = {"setting": name, "method": None if loss is None else type(loss).__name__, "runs": len(mine)}
        for key in ("temperature", "hard_weight", "soft_weight"):  # None too where it changes over the epochs
            has = loss is not None and key in loss.get_config() and not loss.is_scheduled(key)
            row[key] = getattr(loss, key) if has else None
        for key in ("errors", "accuracy", "agreement", "loss"):
            values = np.array([run[key] for run in mine], dtype=np.float64)
            row[f"{key}_mean"] = float(values.mean())
            row[f"{key}_std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        rows.append(row)
    note = f"errors among the {count} labelled samples of validation_data; the best setting is to be judged on others"
    return Sweep(rows, runs, [note])
