"""Does distillation pay? A teacher, labels alone, two fixed settings and ``temperature="auto"``, task by task.

    python -m benchmarks.does_it_pay [--quick] [--csv FILE --target COLUMN] [--data FOLDER]

All students of a task have the same initial weights (seed by seed), the same samples and the same number of steps. The
figures are errors on test samples that no training and no choice ever saw. Each seed draws its own samples, teacher
and initial weights. ``--csv``: any table of numbers with a column of classes, such as the letters of the UCI repository
(20,000 rows, the target first). ``--data``: a folder with the four IDX files of MNIST. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Dropout, Flatten, Input, RandomTranslation, Rescaling
from minidl.report import format_table
from minidl.teachers import cached_logits

from . import report
from .harness import ROOT

LABELS, SMOOTHED, ARGMAX, AUTO = "labels alone", "smoothed 0.1", "argmax", "auto"
SETTINGS = {
    LABELS: dict(temperature=2.0, hard_weight=1.0, soft_weight=0.0),
    SMOOTHED: dict(temperature=1.0, hard_weight=0.9, soft_weight=0.1),
    ARGMAX: dict(temperature=2.0, hard_weight=1.0, soft_weight=0.0),
    "T 4, 0.1/0.9": dict(temperature=4.0, hard_weight=0.1, soft_weight=0.9),
    "T 2, 0.5/0.5": dict(temperature=2.0, hard_weight=0.5, soft_weight=0.5),
    AUTO: {},
}
"""What each column trains its student with. Smoothed labels are what a teacher that says the same of all classes makes
of them; of ``ARGMAX`` the labels are the teacher's likeliest classes."""
NOISY = "of noisy labels"
BANDS = {"else at most 2/3": 2 / 3, "else 2/3 to 1": 1.0, "else more": math.inf}
"""What share of the errors of the best student without a teacher the teacher makes."""
FIXED = "T 4, 0.1/0.9"
"""The setting whose gain is told seed by seed beside auto's."""
SURE_AT = (1, 4)  # temperatures
SEEDS = 5


class Data(NamedTuple):
    """Training and test samples; a training label of -1 is none."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


class Task(NamedTuple):
    """What is to be learnt, by a student of which size, for how many steps."""

    name: str
    draw: Callable[[int], Data]  # by a seed
    units: tuple[int, ...]  # of the student's hidden layers
    epochs: int
    teachers: tuple[str, ...] = ("MLP", "forest", "boosting")
    few_labels: bool = False  # where a much better teacher must save errors
    batch_size: int = 32


# ---------------------------------------------------------------- the data


def digits(samples: int, labels: int | None = None) -> Callable[[int], Data]:
    """So many of the embedded digits, ``labels`` of them with a label, and the 2,000 test digits."""

    def draw(seed: int) -> Data:
        (x, y), (x_test, y_test) = mnist.load_subset()
        rows = np.random.default_rng(seed).permutation(len(x))[:samples]
        x, y = x[rows], y[rows].astype(int)
        if labels is not None:
            y[labels:] = -1
        return Data(x, y, x_test, y_test.astype(int))

    return draw


def split(x: np.ndarray, y: np.ndarray, test_share: float, seed: int) -> Data:
    """Columns brought to mean 0 and deviation 1 as the training samples have them."""
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [round(test_share * len(x))])
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    x = ((x - mean) / np.where(deviation > 0, deviation, 1.0)).astype(np.float32)
    return Data(x[train], y[train], x[test], y[test])


def of_sklearn(name: str) -> Callable[[int], Data]:
    """One of scikit-learn's small data sets; 40 % are test samples."""

    def draw(seed: int) -> Data:
        from sklearn import datasets

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return split(x, y, 0.4, seed)

    return draw


def of_csv(file: str, target: str | None) -> Callable[[int], Data]:
    """A table of numbers whose column ``target``, by default the first, holds the classes; 20 % are test samples."""
    with open(file, newline="", encoding="utf-8") as stream:
        head, *lines = csv.reader(stream)
    place = 0 if target is None else head.index(target)
    _, y = np.unique([line[place] for line in lines], return_inverse=True)
    x = np.array([line[:place] + line[place + 1 :] for line in lines], float)
    return lambda seed: split(x, y, 0.2, seed)


def of_mnist(folder: str) -> Callable[[int], Data]:
    def draw(seed: int) -> Data:
        (x, y), (x_test, y_test) = mnist.load_data(folder)
        return Data(x, y.astype(int), x_test, y_test.astype(int))

    return draw


def synthetic(label_noise: float = 0.0, rare: float = 0.5) -> Callable[[int], Data]:
    """Clouds of points in ten dimensions, 2,000 for training and 10,000 clean ones for the test.

    Four classes of three clouds each, whose best classifier errs on about 7 %; ``label_noise`` of the training labels
    are drawn anew. With ``rare`` < 0.5 two classes, of which the second has that share.
    """
    classes = 4 if rare == 0.5 else 2
    centres = np.random.default_rng(7).normal(size=(classes, 3, 10)) * 1.35
    shares = np.full(classes, 1 / classes) if rare == 0.5 else np.array([1 - rare, rare])

    def draw(seed: int) -> Data:
        random = np.random.default_rng(seed)

        def points(count: int) -> tuple[np.ndarray, np.ndarray]:
            y = random.choice(classes, count, p=shares)
            clouds = centres[y, random.integers(0, 3, count)]
            return (clouds + random.normal(size=clouds.shape)).astype(np.float32), y

        (x, y), (x_test, y_test) = points(2_000), points(10_000)
        drawn = random.random(len(y)) < label_noise
        return Data(x, np.where(drawn, random.integers(0, classes, len(y)), y), x_test, y_test)

    return draw


TASKS = (
    Task("digits, 1,000", digits(1_000), (64, 64), 40, ("MLP", "forest"), few_labels=True),
    Task("digits, 300 labels of 6,000", digits(6_000, 300), (64, 64), 20, ("MLP", "forest"), few_labels=True),
    Task("digits, 6,000", digits(6_000), (64, 64), 20, ("MLP", "forest")),
    Task("scikit-learn's digits", of_sklearn("digits"), (32,), 40),
    Task("wine", of_sklearn("wine"), (16,), 60),
    Task("breast cancer", of_sklearn("breast_cancer"), (16,), 60),
    Task("clouds, clean", synthetic(), (16,), 40),
    Task("clouds, 30 % label noise", synthetic(0.3), (16,), 40),
    Task("clouds, 1:50", synthetic(rare=1 / 51), (16,), 40),
)


# ---------------------------------------------------------------- teachers and students


def train_teacher(kind: str, data: Data, seed: int) -> object:
    """A fitted teacher; see `sklearn_teacher` for what small probabilities of trees are raised to."""
    known = data.y >= 0
    x, y = data.x[known], data.y[known]
    if kind == "MLP":
        return train_mlp(x, y, seed)
    from sklearn import ensemble

    from minidl.interop.sklearn import sklearn_teacher

    if kind == "forest":
        estimator = ensemble.RandomForestClassifier(100, random_state=seed)
    else:
        estimator = ensemble.HistGradientBoostingClassifier(max_iter=50, random_state=seed)
    return sklearn_teacher(estimator.fit(x.reshape(len(x), -1), y))


def train_mlp(x: np.ndarray, y: np.ndarray, seed: int) -> minidl.Sequential:
    """A large net with dropout. Images it sees shifted by up to 2 pixels, never twice the same."""
    images, classes = x.ndim == 3, int(y.max()) + 1
    first = [RandomTranslation(2 / 28, 2 / 28), Rescaling(1 / 255), Flatten()] if images else []
    layers = [Input(x.shape[1:]), *first]
    for _ in range(2):
        layers += [Dense(256, "relu"), Dropout(0.3)]
    model = minidl.Sequential([*layers, Dense(classes, "softmax")], seed=seed + 1_000)
    epochs = math.ceil((3_000 if images else 1_500) * 32 / len(x))
    steps = epochs * math.ceil(len(x) / 32)
    model.compile(minidl.Adam(minidl.CosineDecay(1e-3, steps)), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


def student(task: Task, data: Data, seed: int) -> minidl.Sequential:
    first = [Rescaling(1 / 255), Flatten()] if data.x.ndim == 3 else []
    hidden = [Dense(units, "relu") for units in task.units]
    classes = int(data.y_test.max()) + 1
    return minidl.Sequential([Input(data.x.shape[1:]), *first, *hidden, Dense(classes, "softmax")], seed=seed)


# ---------------------------------------------------------------- one row


class Job(NamedTuple):
    """One task, teacher and seed, as it is sent to the process that runs it."""

    task: int  # its place in the list that these options make
    kind: str
    seed: int
    csv: str | None = None
    target: str | None = None
    data: str | None = None


def tasks(csv_file: str | None = None, target: str | None = None, folder: str | None = None) -> list[Task]:
    """The tasks, with those of the user's files."""
    found = list(TASKS)
    if csv_file is not None:
        found.append(Task(Path(csv_file).stem, of_csv(csv_file, target), (64,), 20))
    if folder is not None:
        found.append(Task("MNIST", of_mnist(folder), (64, 64), 5, ("MLP", "forest")))
    return found


def run_job(job: Job) -> dict:
    """The test errors of the teacher and of each column's student, what auto chose, and how sure the teacher is."""
    minidl.set_num_threads(1)
    task = tasks(job.csv, job.target, job.data)[job.task]
    data = task.draw(job.seed)
    teacher = train_teacher(job.kind, data, job.seed)
    logits, test_logits = cached_logits(teacher, data.x), cached_logits(teacher, data.x_test)
    errors, chosen = {"teacher": int((test_logits.argmax(axis=1) != data.y_test).sum())}, ""
    for column, setting in SETTINGS.items():
        answers = np.zeros_like(logits) if column == SMOOTHED else logits
        given = data._replace(y=logits.argmax(axis=1)) if column == ARGMAX else data
        trained = distilled(task, given, answers, job.seed, setting, column in (LABELS, SMOOTHED))
        errors[column] = trained.student.errors
        if trained.tuning:
            chosen = trained.tuning.chosen
    known = data.y >= 0
    agrees = float((logits.argmax(axis=1) == data.y)[known].mean())
    sure = [float(minidl.softmax(logits.astype(float), T).max(axis=1).mean()) for T in SURE_AT]
    return {
        "task": task.name,
        "kind": job.kind,
        "seed": job.seed,
        "errors": errors,
        "chosen": chosen,
        "sure": [agrees, *sure],
    }


def distilled(task: Task, data: Data, logits: np.ndarray, seed: int, setting: dict, of_labels: bool = False):
    """The report of one student; where labels are few, one ``of_labels`` takes as many steps with them."""
    model = student(task, data, seed)
    known = data.y >= 0
    x, y = data.x, data.y
    if of_labels and not known.all():
        rows = np.resize(np.flatnonzero(known), len(y))
        x, y, logits = x[rows], y[rows], logits[rows]
    arguments = dict(epochs=task.epochs, batch_size=task.batch_size, optimizer="adam", verbose=0)
    return minidl.distill(logits, model, x, y, test_data=(data.x_test, data.y_test), **arguments, **setting)


def run(jobs: list[Job], processes: int) -> Iterator[dict]:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # of the boosting: threads of all processes would wait for each other
    if processes == 1:
        yield from map(run_job, jobs)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(run_job, jobs)


# ---------------------------------------------------------------- what it says


def summarize(found: list[dict], all_tasks: list[Task]) -> list[dict]:
    """A row for each task and teacher: every column's errors, seed by seed, and the targets."""
    few = {task.name for task in all_tasks if task.few_labels}
    rows: dict[tuple[str, str], dict] = {}
    for each in found:
        key = each["task"], each["kind"]
        row = rows.setdefault(
            key, {"task": key[0], "teacher": key[1], "seeds": [], "errors": {}, "chosen": [], "sure": []}
        )
        for name, entry in (("seeds", "seed"), ("chosen", "chosen"), ("sure", "sure")):
            row[name].append(each[entry])
        for column, count in each["errors"].items():
            row["errors"].setdefault(column, []).append(count)
    for row in rows.values():
        row["few_labels"] = row["task"] in few
        row |= judge(row)
    return list(rows.values())


def mean_and_error(values) -> tuple[float, float]:
    """The mean, and its standard error over the seeds."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))) if len(
        values
    ) > 1 else 0.0


def judge(row: dict) -> dict:
    """The targets, and differences seed by seed: students of a seed share samples, teacher and initial weights."""
    errors = {column: np.array(counts) for column, counts in row["errors"].items()}
    tried = [column for column in SETTINGS if column not in (AUTO, SMOOTHED, ARGMAX)]  # by auto, too
    best = min(tried, key=lambda column: errors[column].mean())
    behind, behind_error = mean_and_error(errors[AUTO] - errors[best])
    saved, saved_error = mean_and_error(errors[LABELS] - errors[AUTO])
    without = min(
        (LABELS, SMOOTHED), key=lambda column: errors[column].mean()
    )  # the best that needs no teacher
    fixed_saved = mean_and_error(errors[without] - errors[FIXED])
    alone = errors[LABELS].mean()
    much_better = bool(row["few_labels"] and errors["teacher"].mean() < 0.67 * alone)
    return {
        "best": best,
        "behind": [behind, behind_error],
        "within": bool(behind <= mean_and_error(errors[best])[1]),
        "saved": [saved, saved_error],
        "fixed_saved": list(fixed_saved),
        "must_pay": much_better,
        "pays": bool(saved > 2 * saved_error),
    }


def on_average(rows: list[dict]) -> dict[str, float]:
    """Each column's errors as a multiple of those of labels alone: the geometric mean over the rows."""
    found = {}
    for column in SETTINGS:
        ratios = [
            (np.mean(row["errors"][column]) + 0.5) / (np.mean(row["errors"][LABELS]) + 0.5) for row in rows
        ]
        found[column] = float(np.exp(np.mean(np.log(ratios))))
    return found


def band_of(row: dict) -> str:
    """The kind of row, by how many errors the teacher makes beside the best student without one."""
    if "noise" in row["task"]:
        return NOISY
    alone = min(np.mean(row["errors"][column]) for column in (LABELS, SMOOTHED))
    share = np.mean(row["errors"]["teacher"]) / alone
    return next(name for name, most in BANDS.items() if share <= most)


def bands(rows: list[dict]) -> str:
    """A table of how many rows T 4 pays in, beside the best student without a teacher, by the teacher's errors."""
    counts = {name: [0, 0, 0] for name in (NOISY, *BANDS)}
    for row in rows:
        saved, error = row["fixed_saved"]
        counts[band_of(row)][0 if saved > 2 * error else 2 if saved < -2 * error else 1] += 1
    cells = [[name, *map(str, (sum(count), *count))] for name, count in counts.items()]
    return format_table(["teacher's errors", "rows", "T 4 pays", "neither", "harms"], cells, markdown=True)


def markdown(results: dict) -> str:
    rows = results["rows"]
    columns = ["teacher", *SETTINGS]
    head = [
        "task",
        "taught by",
        "test samples",
        "seeds",
        *columns,
        "auto chose",
        "behind",
        "auto within",
        "saved",
        "T 4 saved",
        "says the label",
        "sure at T 1",
        "at T 4",
    ]
    cells = []
    for row in rows:
        figures = ["{:.1f} ± {:.1f}".format(*mean_and_error(row["errors"][column])) for column in columns]
        chose = "; ".join(f"{row['chosen'].count(each)} × {each}" for each in sorted(set(row["chosen"])))
        chose = chose.replace("temperature", "T").replace(" weights", "").replace(" and ", "/")
        behind, *saved = ("{:.1f} ± {:.1f}".format(*row[name]) for name in ("behind", "saved", "fixed_saved"))
        sure = [f"{value:.0%}" for value in np.mean(row["sure"], axis=0)]
        cells.append(
            [
                row["task"],
                row["teacher"],
                f"{results['test_samples'][row['task']]:,}",
                str(len(row["seeds"])),
                *figures,
            ]
            + [chose, behind, "yes" if row["within"] else "no", *saved, *sure]
        )
    average = on_average(rows)
    return "\n".join(
        [
            "# Does distillation pay?",
            "",
            NOTES,
            "",
            report.circumstances(results),
            "",
            format_table(head, cells, markdown=True),
            "",
            "## By the teacher's errors",
            "",
            "As a share of those of the better student without a teacher, from labels alone or smoothed. *Pays*, "
            "*harms*: beside that student, by more than two standard errors.",
            "",
            bands(rows),
            "",
            "## On average",
            "",
            "Errors as a multiple of those from labels alone, the geometric mean over the rows: "
            + ", ".join(f"{column} {value:.3f}" for column, value in average.items())
            + ".",
            "",
            "## Targets",
            "",
            *(f"- {line}" for line in verdicts(rows)),
            "",
        ]
    )


NOTES = (
    "Test errors, mean ± standard error over the seeds; a seed draws its samples, teacher and initial weights. "
    "All students of a row take the same steps with Adam at 0.001, in batches of 32. *auto within*: whether auto "
    "has at most the errors of the best column that it tries and one standard error of that column. *behind*: how "
    "many more it has. *saved*: how many fewer than labels alone; *T 4 saved*: how many fewer that column has "
    "than labels alone or smoothed, whichever have fewer. All are means of differences seed by seed. *says the "
    "label*: how often its likeliest class is the label that was given; *sure*: the teacher's largest probability "
    "at a temperature, on average over the training samples. The teachers learn from the same labels as the "
    "students; the MLP sees digits shifted by up to 2 pixels. Of trees the logarithm of their probabilities "
    "teaches; those of a forest of n trees and C classes are raised to 1 / (n + C) first, those of boosting to "
    "1e-7. Errors of the clouds are counted on clean labels."
)


def verdicts(rows: list[dict]) -> list[str]:
    """Which target is met, and which is missed where."""

    def named(chosen):
        return ", ".join(f"{row['task']} ({row['teacher']})" for row in chosen)

    missed = [row for row in rows if not row["within"]]
    wanted = [row for row in rows if row["must_pay"]]
    unpaid = [row for row in wanted if not row["pays"]]
    lines = [
        f"auto within one standard error of the best column: met in {len(rows) - len(missed)} of {len(rows)} rows"
        + (f"; missed in {named(missed)}" if missed else "")
    ]
    lines.append(
        "better than labels alone by more than two standard errors where labels are few and the teacher makes at most "
        f"two thirds of the errors: met in {len(wanted) - len(unpaid)} of {len(wanted)} rows"
        + (f"; missed in {named(unpaid)}" if unpaid else "")
    )
    return lines


def main(arguments: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.does_it_pay")
    command.add_argument(
        "--quick", action="store_true", help="small tasks, one seed; no result file is replaced"
    )
    command.add_argument(
        "--csv", help="a table of numbers, the first line its headings, with a column of classes"
    )
    command.add_argument("--target", help="that column (default: the first)")
    command.add_argument("--data", help="folder with the four MNIST IDX files")
    command.add_argument("--cases", nargs="+", help="only the tasks whose name contains one of these")
    command.add_argument("--seeds", type=int, help=f"default: {SEEDS}, with --quick 1")
    command.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    seeds = options.seeds or (1 if options.quick else SEEDS)
    all_tasks = tasks(options.csv, options.target, options.data)
    wanted = options.cases or (["wine", "breast"] if options.quick else [""])
    chosen = [i for i, task in enumerate(all_tasks) if any(part in task.name for part in wanted)]
    files = options.csv, options.target, options.data
    jobs = [
        Job(i, kind, seed, *files) for seed in range(seeds) for i in chosen for kind in all_tasks[i].teachers
    ]
    results = {"suite": "does_it_pay", "machine": report.machine(), "seeds": seeds}
    results["seconds_compiling"] = round(minidl.warmup(verbose=False), 1)
    began, found = time.perf_counter(), []
    for each in run(jobs, min(options.processes, len(jobs))):
        found.append(each)
        print(
            f"{len(found)}/{len(jobs)} {each['task']}, {each['kind']}, seed {each['seed']}: {each['errors']}",
            flush=True,
        )
    results["seconds"] = round(time.perf_counter() - began, 1)
    results["rows"] = summarize(found, all_tasks)
    results["average"] = on_average(results["rows"])
    results["test_samples"] = {all_tasks[i].name: len(all_tasks[i].draw(0).y_test) for i in chosen}
    text = markdown(results)
    print("\n" + text)
    complete = not options.quick and seeds >= SEEDS and len(chosen) == len(all_tasks)
    for path in report.write_files("does_it_pay", results, text, None, options.output, complete):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
