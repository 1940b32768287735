"""The MNIST section of the paper that founded distillation, reproduced: its numbers and minidl's side by side.

    python -m benchmarks.hinton_mnist --data FOLDER [--seeds N] [--teachers OTHER] [--quick]

FOLDER holds the four IDX files of MNIST, gzipped or not; a run that is interrupted goes on from the teachers it
left in OTHER.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531), section 3.
The paper gives neither optimizer, nor epochs, nor the weights of the two terms of the loss: those of
``Protocol`` were chosen on 10,000 held-out training digits.
Training never sees the test digits, each model is tested on them once; the one choice made on them, because
the paper made it so, is in rows that say so. ``--quick`` runs the same on the 8,000 digits in the package.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Dropout, Flatten, Input, RandomTranslation, Rescaling
from minidl.report import format_table, measure

from . import pictures, report
from .harness import ROOT


@dataclass(frozen=True)
class Training:
    """Adam, its learning rate falling to 0 along half a cosine wave."""

    epochs: int
    learning_rate: float
    batch_size: int = 128


@dataclass(frozen=True)
class Protocol:
    """Everything that can be chosen."""

    teacher_units: tuple[int, ...] = (1200, 1200)
    input_dropout: float = 0.0  # .2 in arXiv 1207.0580; jitter takes its place
    hidden_dropout: float = 0.2  # .5 there, which wants many more epochs
    max_norm: float = 1.5  # 3.87, the square root of 15, there: with so few epochs no column grows so long
    jitter: int = 2  # pixels either way
    teacher: Training = Training(200, 1e-3)

    student_units: tuple[int, ...] = (800, 800)
    plain: Training = Training(15, 1e-3)
    temperature: float = 20.0
    hard_weight: float = 0.1
    soft_weight: float = 0.9
    distilled: Training = Training(30, 5e-3)

    held_out: int = 6000  # training digits kept back to choose a bias on
    without_threes: Training = Training(25, 3e-3)
    sevens_and_eights: Training = Training(40, 3e-3)
    largest_shift: float = 20.0  # of a bias, in steps of 0.1

    sweep_units: tuple[int, ...] = (30, 300)
    sweep_temperatures: tuple[float, ...] = (1.0, 2.5, 4.0, 10.0, 20.0)
    sweep: Training = Training(15, 3e-3)


FULL = Protocol()
QUICK = replace(FULL, teacher=Training(60, 1e-3), plain=Training(20, 1e-3, 64), held_out=1000)


@dataclass(frozen=True)
class Row:
    """A row of the table: what the paper says of its 10,000 test digits, and what our mean may be."""

    name: str
    paper: int  # errors
    target: tuple[int, int] | None = None  # errors, both ends included
    paper_threes: int | None = None  # wrong among the 1,010 threes
    paper_shift: float | None = None


AS_IN_THE_PAPER = "... the shift chosen on the test digits, as in the paper"
ROWS = {
    "teacher": Row("teacher 784-1200-1200-10: dropout, max-norm, jitter", 67, (0, 75)),
    "plain": Row("784-800-800-10, no regularisation", 146, (130, 160)),
    "distilled": Row("784-800-800-10, distilled at T = 20, no jitter", 74, (0, 85)),
    "no 3s": Row("distilled without 3s", 206, (0, 220), 133),
    "no 3s, shifted": Row("... the bias of class 3 raised", 109, (0, 120), 14, 3.5),
    "no 3s, shifted on test": Row(AS_IN_THE_PAPER, 109, None, 14, 3.5),
    "7s and 8s": Row("distilled with 7s and 8s alone", 4730),
    "7s and 8s, shifted": Row("... both biases lowered", 1320, None, None, -7.6),
    "7s and 8s, shifted on test": Row(AS_IN_THE_PAPER, 1320, None, None, -7.6),
}
SWEEP = "temperature sweep"


@dataclass
class Digits:
    """Images as they come, uint8 (N, 28, 28), and labels (N,)."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @classmethod
    def load(cls, folder: str | None) -> Digits:
        """From a folder of IDX files, or those embedded in the package."""
        (x, y), (x_test, y_test) = mnist.load_subset() if folder is None else mnist.load_data(folder)
        return cls(x, y, x_test, y_test)


@dataclass
class Taught:
    """Digits with a teacher's logits for them, computed once: row i belongs to digit i."""

    digits: Digits
    logits: np.ndarray
    test_logits: np.ndarray


# ---------------------------------------------------------------- the models


def teacher_net(protocol: Protocol, seed: int) -> minidl.Sequential:
    """A large net that never sees a digit twice in the same place, nor with the same units."""
    # augmentation first, as a student's must be: only then could a teacher be shown what its student sees
    jitter = RandomTranslation(protocol.jitter / 28, protocol.jitter / 28)
    layers = [Input((28, 28)), jitter, Rescaling(1 / 255), Flatten(), Dropout(protocol.input_dropout)]
    for units in protocol.teacher_units:
        constraint = minidl.MaxNorm(protocol.max_norm)
        layers += [Dense(units, "relu", kernel_constraint=constraint), Dropout(protocol.hidden_dropout)]
    return minidl.Sequential([*layers, Dense(10, "softmax")], seed=seed)


def student_net(units: Sequence[int], seed: int) -> minidl.Sequential:
    """A net with nothing to hold it back."""
    hidden = [Dense(n, "relu") for n in units]
    return minidl.Sequential(
        [Input((28, 28)), Rescaling(1 / 255), Flatten(), *hidden, Dense(10, "softmax")], seed=seed
    )


def adam(training: Training, samples: int) -> minidl.Adam:
    steps = training.epochs * math.ceil(samples / training.batch_size)
    return minidl.Adam(minidl.CosineDecay(training.learning_rate, steps))


def learn_labels(model: minidl.Sequential, digits: Digits, training: Training) -> None:
    model.compile(optimizer=adam(training, len(digits.x)), loss="sparse_categorical_crossentropy")
    model.fit(digits.x, digits.y, batch_size=training.batch_size, epochs=training.epochs, verbose=0)


def learn_from_teacher(
    model: minidl.Sequential,
    taught: Taught,
    training: Training,
    protocol: Protocol,
    temperature: float,
    rows: np.ndarray | None = None,
) -> dict:
    """Distil the cached logits into ``model``, on all training digits or on ``rows`` of them."""
    rows = np.arange(len(taught.digits.x)) if rows is None else rows
    distillation = minidl.distill(
        taught.logits[rows],
        model,
        taught.digits.x[rows],
        taught.digits.y[rows],
        loss=minidl.KnowledgeDistillation(temperature, protocol.hard_weight, protocol.soft_weight),
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimizer=adam(training, len(rows)),
        test_data=(taught.digits.x_test, taught.digits.y_test),
        test_teacher=taught.test_logits,
        verbose=0,
    )
    return outcome(distillation.student)


def outcome(figures) -> dict:
    """What is kept of a model tested on the test digits."""
    return {"errors": figures.errors, "class_errors": figures.class_errors}


def tested(model: minidl.Sequential, digits: Digits) -> dict:
    return outcome(measure("", model.predict_logits(digits.x_test), digits.y_test))


# ---------------------------------------------------------------- the rows of the table


def teacher(
    digits: Digits, protocol: Protocol, seed: int, folder: Path | None = None
) -> tuple[Taught, dict, float]:
    """1,200 and 1,200 rectified linear units, regularised by dropout, max-norm and jitter.

    Also the seconds it took to train if that was in an earlier run, with the same settings, which left it in
    ``folder``; else 0.
    """
    wanted = ("teacher_units", "input_dropout", "hidden_dropout", "max_norm", "jitter", "teacher")
    settings = json.dumps({name: asdict(protocol)[name] for name in wanted} | {"digits": len(digits.x)})
    kept, note = (
        (folder / f"teacher_{seed}.{suffix}" for suffix in ("npz", "json")) if folder else (None, None)
    )
    found = json.loads(note.read_text()) if note and note.exists() else {}
    earlier = found["seconds"] if found.get("settings") == settings else 0.0
    if earlier:
        model = minidl.load_model(kept)
    else:
        began = time.perf_counter()
        model = teacher_net(protocol, seed)
        learn_labels(model, digits, protocol.teacher)
        if folder:
            note.unlink(
                missing_ok=True
            )  # of other settings: killed in between, they would be told of this model
            model.save(kept)
            note.write_text(json.dumps({"settings": settings, "seconds": time.perf_counter() - began}))
    taught = Taught(digits, model.predict_logits(digits.x), model.predict_logits(digits.x_test))
    return taught, {"teacher": tested(model, digits)}, earlier


def plain(taught: Taught, protocol: Protocol, seed: int) -> dict:
    """The small net on labels alone."""
    model = student_net(protocol.student_units, seed)
    learn_labels(model, taught.digits, protocol.plain)
    return {"plain": tested(model, taught.digits)}


def distilled(taught: Taught, protocol: Protocol, seed: int) -> dict:
    """The same net, its only regularisation the task of matching the teacher's soft targets."""
    model = student_net(protocol.student_units, seed)
    return {
        "distilled": learn_from_teacher(model, taught, protocol.distilled, protocol, protocol.temperature)
    }


def without_threes(taught: Taught, protocol: Protocol, seed: int) -> dict:
    """The student never sees a 3, and knows 3s only from what the teacher says of other digits."""
    transfer = [c for c in range(10) if c != 3]
    return partial_transfer("no 3s", transfer, [3], +1, protocol.without_threes, taught, protocol, seed)


def sevens_and_eights(taught: Taught, protocol: Protocol, seed: int) -> dict:
    """The student sees 7s and 8s and nothing else."""
    training = protocol.sevens_and_eights
    return partial_transfer("7s and 8s", [7, 8], [7, 8], -1, training, taught, protocol, seed)


def partial_transfer(
    name: str,
    transfer: list[int],
    biased: list[int],
    sign: int,
    training: Training,
    taught: Taught,
    protocol: Protocol,
    seed: int,
) -> dict:
    """Distil on the digits of the classes ``transfer``; then shift the biases of the classes ``biased``.

    The shift that is best on training digits of all classes, held out from this student; beside it the one
    that is best on the test digits.
    """
    digits = taught.digits
    order = np.random.default_rng(seed).permutation(len(digits.x))
    held_out, others = order[: protocol.held_out], order[protocol.held_out :]
    rows = others[np.isin(digits.y[others], transfer)]
    model = student_net(protocol.student_units, seed)
    outcomes = {name: learn_from_teacher(model, taught, training, protocol, protocol.temperature, rows)}

    choices = {
        "shifted": (digits.x[held_out], digits.y[held_out]),
        "shifted on test": (digits.x_test, digits.y_test),
    }
    bias = model.layers[-1].bias
    for choice, (x, y) in choices.items():
        shift = best_shift(model.predict_logits(x), y, biased, sign, protocol.largest_shift)
        before = bias[biased]
        bias[biased] += shift
        outcomes[f"{name}, {choice}"] = {**tested(model, digits), "shift": shift}
        bias[biased] = before
    return outcomes


def best_shift(logits: np.ndarray, y: np.ndarray, classes: list[int], sign: int, largest: float) -> float:
    """What added to the logits of ``classes`` gives the fewest errors; of many the median."""
    shifts = sign * np.arange(0, round(10 * largest) + 1) / 10
    errors = []
    for shift in shifts:
        moved = logits.copy()
        moved[:, classes] += shift
        errors.append(int((moved.argmax(axis=1) != y).sum()))
    best = shifts[np.array(errors) == min(errors)]
    return float(best[len(best) // 2])


def temperature_sweep(taught: Taught, protocol: Protocol, seed: int) -> dict:
    """Smaller students, two layers of ``sweep_units`` each, at several temperatures."""
    outcomes = {}
    for units in protocol.sweep_units:
        for temperature in protocol.sweep_temperatures:
            model = student_net((units, units), seed)
            outcomes[sweep_key(units, temperature)] = learn_from_teacher(
                model, taught, protocol.sweep, protocol, temperature
            )
    return outcomes


def sweep_key(units: int, temperature: float) -> str:
    return f"{units} units, T = {temperature:g}"


STUDENTS = {
    "plain": plain,
    "distilled": distilled,
    "no 3s": without_threes,
    "7s and 8s": sevens_and_eights,
    SWEEP: temperature_sweep,
}


# ---------------------------------------------------------------- all of it


def run(digits: Digits, protocol: Protocol, seeds: int, teachers: Path | None = None) -> dict:
    """Every row from every seed: ``{"rows": {name: {"errors": [...], ...}}, "seconds_of": {...}}``."""
    rows: dict[str, dict[str, list]] = {}
    seconds: dict[str, list[float]] = {}

    def keep(name: str, outcomes: dict, began: float) -> None:
        seconds.setdefault(name, []).append(round(time.perf_counter() - began, 2))
        for row, figures in outcomes.items():
            for key, value in figures.items():
                rows.setdefault(row, {}).setdefault(key, []).append(value)
        listed = ", ".join(f"{row} {figures['errors']}" for row, figures in outcomes.items())
        print(f"seed {seed}, {seconds[name][-1]:.1f} s, errors: {listed}", flush=True)

    for seed in range(seeds):
        began = time.perf_counter()
        taught, outcomes, earlier = teacher(digits, protocol, seed, teachers)
        keep("teacher", outcomes, began - earlier)
        for name, student in STUDENTS.items():
            began = time.perf_counter()
            keep(name, student(taught, protocol, seed), began)
    return {"rows": rows, "seconds_of": seconds}


def judge(rows: dict) -> list[dict]:
    """Each target: the mean of a row's errors, and whether it is within the bounds."""
    verdicts = []
    for name, row in ROWS.items():
        if row.target is not None:
            errors = float(np.mean(rows[name]["errors"]))
            met = row.target[0] <= errors <= row.target[1]
            verdicts.append({"row": name, "bounds": list(row.target), "errors": errors, "met": met})
    return verdicts


# ---------------------------------------------------------------- tables and a picture


def spread(values: list[float], form: str = ",.1f") -> str:
    """Mean and standard deviation, 146.0 ± 3.2."""
    mean = format(float(np.mean(values)), form)
    return f"{mean} ± {np.std(values, ddof=1):{form.lstrip('+')}}" if len(values) > 1 else mean


def main_table(results: dict) -> str:
    """Paper and minidl side by side. On fewer test digits than the paper's the errors are shares."""
    count, threes = results["test_digits"], results["test_threes"]
    lines = []
    for name, row in ROWS.items():
        ours = results["rows"][name]
        if count == 10_000:
            line = [row.name, f"{row.paper:,.0f}", spread(ours["errors"])]
        else:
            shares = [100 * errors / count for errors in ours["errors"]]
            line = [row.name, f"{row.paper / 100:.2f} %", spread(shares, ".2f") + " %"]
        line += [f"{row.paper_shift:+g}" if row.paper_shift else ""]
        line += [spread(ours["shift"], "+.1f") if "shift" in ours else ""]
        missing = name.startswith("no 3s")
        line += [f"{row.paper_threes} of 1,010" if row.paper_threes else ""]
        line += [f"{spread([c[3] for c in ours['class_errors']])} of {threes:,}" if missing else ""]
        seconds = results["seconds_of"].get(name)
        lines.append([*line, f"{np.mean(seconds):,.0f} s" if seconds else ""])
    head = ["errors of 10,000" if count == 10_000 else "test errors", "paper", "minidl", "shift, paper"]
    head += ["shift, minidl", "3s wrong, paper", "3s wrong, minidl", "a run took"]
    return format_table(head, lines, markdown=True)


def sweep_table(results: dict) -> str:
    protocol, rows = results["protocol"], results["rows"]
    lines = [
        [f"{t:g}", *(spread(rows[sweep_key(n, t)]["errors"]) for n in protocol["sweep_units"])]
        for t in protocol["sweep_temperatures"]
    ]
    head = ["temperature", *(f"784-{n}-{n}-10" for n in protocol["sweep_units"])]
    return format_table(head, lines, markdown=True)


JITTER_NOTE = (
    "As in the paper, only the teacher sees jittered digits: its students have no jitter either. So what a student "
    "gains from it is partly the teacher's jitter, which a student can have without a teacher, and smoothed labels are "
    "not among its rivals: `python -m minidl distill --labels all` has both."
)


def markdown(results: dict) -> str:
    lines = [f"# {results['title']}", "", results["notes"], "", report.circumstances(results), ""]
    lines += [
        main_table(results),
        "",
        "![errors of the paper and of minidl](hinton_mnist.png)",
        "",
        JITTER_NOTE,
        "",
    ]
    if results["targets"]:
        verdicts = [
            [
                ROWS[t["row"]].name,
                f"≤ {t['bounds'][1]:g}"
                if not t["bounds"][0]
                else f"{t['bounds'][0]:g} to {t['bounds'][1]:g}",
                f"{t['errors']:.1f}",
                "yes" if t["met"] else "no",
            ]
            for t in results["targets"]
        ]
        lines += [
            "## Targets",
            "",
            format_table(["errors", "target", "mean", "met"], verdicts, markdown=True),
        ]
        lines += [""]
    lines += ["## Temperatures", "", sweep_note(results), "", sweep_table(results), ""]
    lines += ["![errors over the temperature](hinton_mnist_temperature.png)", ""]
    lines += ["## Settings", "", settings(results["protocol"]), ""]
    return "\n".join(lines)


def sweep_note(results: dict) -> str:
    """What the paper says of the temperature, and what was found."""
    found = []
    for units in results["protocol"]["sweep_units"]:
        means = {
            t: float(np.mean(results["rows"][sweep_key(units, t)]["errors"]))
            for t in results["protocol"]["sweep_temperatures"]
        }
        high = [mean for t, mean in means.items() if t > 8]
        best = min(means, key=means.get)
        found.append(
            f"{units} units: fewest errors at T = {best:g} ({means[best]:.1f})"
            + (f", {min(high):.1f} to {max(high):.1f} at T above 8" if high else "")
        )
    return (
        "Test errors of smaller students, two hidden layers each. The paper: with 300 units or more all "
        "temperatures above 8 gave fairly similar results, with 30 units 2.5 to 4 worked significantly better "
        f"than higher or lower ones. Here, {'; '.join(found)}. "
        "A likely reason why 30 units do better at T = 1 than at T = 20: at a high temperature a student matches all "
        "logits, the very negative ones too, which say little of the digit, and 30 units have no room for that; at "
        "T = 1 the loss sees little but the classes in question. "
        f"A sweep took {np.mean(results['seconds_of'][SWEEP]):,.0f} s."
    )


def settings(protocol: dict) -> str:
    lines = []
    for name, value in protocol.items():
        if isinstance(value, dict):
            value = "{epochs} epochs, batches of {batch_size}, Adam from {learning_rate:g} to 0".format(
                **value
            )
        elif isinstance(value, (list, tuple)):
            value = ", ".join(f"{v:g}" for v in value)
        lines.append(f"- {name.replace('_', ' ')}: {value}")
    return "\n".join(lines)


def draw(results: dict) -> dict[str, bytes]:
    """The table as bars, paper beside minidl; the errors of the sweep over the temperature."""
    rows, protocol = results["rows"], results["protocol"]
    cases = {}
    for name, row in ROWS.items():
        if not name.startswith("7s"):
            mean = 10_000 * float(np.mean(rows[name]["errors"])) / results["test_digits"]
            heading = row.name if row.name[0] != "." else f"{ROWS['no 3s'].name}, {row.name.strip('. ')}"
            cases[heading] = {"minidl": mean, "the paper": row.paper}
    temperatures, lines, deviations = protocol["sweep_temperatures"], {}, {}
    for units in protocol["sweep_units"]:
        name, errors = f"784-{units}-{units}-10", [rows[sweep_key(units, t)]["errors"] for t in temperatures]
        lines[name] = temperatures, [float(np.mean(each)) for each in errors]
        deviations[name] = [float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in errors]
    note = f"{results['seeds']} seeds. {pictures.machine_note(results)}"
    drawn = {
        "hinton_mnist": pictures.bars(
            "Hinton et al. 2015, section 3: errors in 10,000 test digits",
            cases,
            "{:.1f}".format,
            f"Means of {note}",
            one_scale=True,
        ),
        "hinton_mnist_temperature": pictures.curves(
            "Small students and the temperature",
            lines,
            "temperature",
            f"errors in {results['test_digits']:,} test digits: less is better",
            f"Means and standard deviations of {note}",
            deviations=deviations,
        ),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


# ---------------------------------------------------------------- command line


def main(arguments: list[str] | None = None, protocol: Protocol | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.hinton_mnist")
    command.add_argument("--data", help="folder with the four MNIST IDX files")
    command.add_argument(
        "--quick", action="store_true", help="on the embedded digits, in minutes; no result file is replaced"
    )
    command.add_argument("--seeds", type=int, help="runs of every row (default: 3, with --quick 1)")
    command.add_argument(
        "--teachers", type=Path, help="folder where teachers are kept, and found by a later run"
    )
    command.add_argument("--threads", type=int, help="default: all processors")
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    if options.data is None and not options.quick:
        command.error("--data FOLDER is needed, the one with the four MNIST IDX files, or --quick")
    seeds = options.seeds if options.seeds is not None else 1 if options.quick else 3
    if seeds < 1:
        command.error(f"--seeds must be 1 or more, got {seeds}")
    try:
        digits = Digits.load(None if options.quick else options.data)
    except FileNotFoundError as error:
        command.error(str(error))
    if options.threads is not None:
        minidl.set_num_threads(options.threads)
    protocol = protocol or (QUICK if options.quick else FULL)

    results = {
        "suite": "hinton_mnist",
        "title": "Hinton, Vinyals and Dean 2015, section 3"
        + (", the quick version" if options.quick else ""),
        "notes": describe(digits, seeds, options.quick),
        "machine": report.machine(),
        "threads": minidl.get_num_threads(),
        "protocol": asdict(protocol),
        "training_digits": len(digits.x),
        "test_digits": len(digits.x_test),
        "test_threes": int((digits.y_test == 3).sum()),
        "seeds": seeds,
    }
    results["seconds_compiling"] = round(minidl.warmup(verbose=False), 1)
    if options.teachers is not None:
        options.teachers.mkdir(parents=True, exist_ok=True)
    results |= run(digits, protocol, seeds, options.teachers)
    results["targets"] = judge(results["rows"]) if len(digits.x_test) == 10_000 else []
    results["seconds"] = round(sum(map(sum, results["seconds_of"].values())), 1)  # a kept teacher's too
    text = markdown(results)
    print("\n" + text)
    complete = not options.quick and seeds >= 3 and protocol == FULL and len(digits.x) == 60_000
    for path in report.write_files(
        "hinton_mnist", results, text, draw(results), options.output, complete=complete
    ):
        print(f"wrote {path}")
    return 0


def describe(digits: Digits, seeds: int, quick: bool) -> str:
    less = (
        "The quick version, on the digits embedded in the package: its errors are not the paper's, which are of "
        "ten times the training digits. "
        if quick
        else ""
    )
    return (
        f"{less}{len(digits.x):,} training and {len(digits.x_test):,} test digits; mean and standard deviation of "
        f"{seeds} seed{'s' * (seeds > 1)}, each with a teacher of its own. All settings were chosen on 10,000 "
        "held-out training digits. A shift is what is added to the biases of the classes named; it is chosen on "
        "training digits of all classes, held out from that student, and in the rows that say so on the test "
        "digits, as in the paper."
    )


if __name__ == "__main__":
    sys.exit(main())
