"""``python -m minidl``: distil a student on real digits, look at a training step, time the matrix product.

python -m minidl [distill]   train a teacher, a plain student and a distilled one; one table
python -m minidl explain     every number of one training step of a tiny net
python -m minidl matmul      minidl.matmul beside NumPy's
python -m minidl info        versions, processor, threads, folders
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .report import format_table

_COMMANDS = ("distill", "explain", "matmul", "info")


def main(arguments: list[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "distill")
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (ValueError, OSError) as error:
        print(f"minidl {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        "minidl", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(_COMMANDS) + "}")

    job = commands.add_parser("distill", help="the main job (default)", formatter_class=formatter)
    job.set_defaults(run=run_distill)
    add = job.add_argument
    add(
        "--data",
        metavar="FOLDER",
        help="folder with MNIST's four IDX files; without it the 8,000 embedded digits",
    )
    add("--teacher", type=_sizes, default="512-512", metavar="SIZES", help="the teacher's hidden layers")
    add("--student", type=_sizes, default="64-64", metavar="SIZES", help="the student's hidden layers")
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

    text = commands.add_parser("explain", help="one training step, every number", formatter_class=formatter)
    text.set_defaults(run=run_explain)
    text.add_argument(
        "--temperature", type=float, default=None, help="distil from a teacher at this temperature"
    )
    text.add_argument("--learning-rate", type=float, default=0.1)

    product = commands.add_parser("matmul", help="time the matrix product", formatter_class=formatter)
    product.set_defaults(run=run_matmul)
    product.add_argument("sizes", nargs="*", type=_shape, metavar="MxKxN", help="default: a few")
    product.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    product.add_argument("--threads", type=int, default=None, help="default: all processors")

    info = commands.add_parser("info", help="versions, processor, threads, folders")
    info.set_defaults(run=run_info)
    return parser


def _numbers(text: str, separators: str, what: str) -> tuple[int, ...]:
    for separator in separators:
        text = text.replace(separator, " ")
    try:
        numbers = tuple(int(part) for part in text.split())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{what}, got {text!r}")
    return numbers


def _sizes(text: str) -> tuple[int, ...]:
    return _numbers(text, "-,", "hidden layer sizes must look like 64-64")


def _shape(text: str) -> tuple[int, ...]:
    numbers = _numbers(text, "x", "a product must look like 128x784x1200")
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"a product must look like 128x784x1200, got {text!r}")
    return numbers


# ---------------------------------------------------------------- distill


def run_distill(options: argparse.Namespace) -> int:
    """Teacher, plain students, distilled students; the table. Everything the README shows comes from here."""
    from . import set_num_threads, warmup
    from .losses import KnowledgeDistillation, SparseCategoricalCrossentropy
    from .report import measure
    from .teachers import cached_logits

    began = time.perf_counter()
    if options.seeds < 1:
        raise ValueError(f"--seeds must be >= 1, got {options.seeds}")
    if options.threads is not None:
        set_num_threads(options.threads)
    loss = KnowledgeDistillation(options.temperature, options.hard_weight, options.soft_weight)
    (x, y), (x_test, y_test), source = _digits(options.data)
    print(f"{len(x):,} training and {len(x_test):,} test digits {source}")

    print("kernels: ", end="", flush=True)
    compiling = warmup(verbose=False)
    print(f"{compiling:.1f} s to {'compile, and kept on disk' if compiling > 2 else 'load from disk'}")

    small = len(x) <= 10_000
    epochs = options.epochs or (40 if small else 20)
    teacher_epochs = options.teacher_epochs or (50 if small else 15)
    seeds = range(options.seed, options.seed + options.seeds)
    shape, classes = x.shape[1:], int(y.max()) + 1

    def train(name, model, rate, batch_size, epochs, loss, **fit_arguments):
        steps = epochs * math.ceil(len(x) / batch_size)
        _compile(model, rate, steps, loss)
        bar = _bar(f"{name:<22} {_layers_of(model):<18}", epochs)
        model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[bar], **fit_arguments)
        return model

    labels_only = SparseCategoricalCrossentropy()
    teacher = train(
        "teacher",
        make_teacher(shape, options.teacher, classes, options.seed),
        options.teacher_learning_rate,
        2 * options.batch_size,
        teacher_epochs,
        labels_only,
    )
    # Asked once: every student learns from the same answers, matched to the digits by index.
    teacher_logits = cached_logits(teacher, x)
    plain, distilled = [], []
    for seed in seeds:
        rate, size = options.learning_rate, options.batch_size
        model = make_student(shape, options.student, classes, seed)
        plain.append(train(f"plain student {seed}", model, rate, size, epochs, labels_only))
        model = make_student(shape, options.student, classes, seed)
        arguments = dict(target_model=teacher_logits)
        distilled.append(train(f"distilled student {seed}", model, rate, size, epochs, loss, **arguments))

    answers = teacher.predict_logits(x_test)
    groups = {"teacher": [teacher], "plain student": plain, "distilled student": distilled}
    rows = []
    for name, models in groups.items():
        figures = []
        for model in models:
            timed = x_test if model is models[0] else None
            figures.append(measure(name, model.predict_logits(x_test), y_test, answers, model, timed))
        rows.append(_row(name, models[0], figures))
    print()
    print(format_table(_HEAD, [_row_text(row, len(x_test)) for row in rows]))
    verdict = _verdict(rows[1], rows[2], loss)
    seconds = time.perf_counter() - began
    print(f"\n{verdict}\n{seconds:.0f} seconds in all, {compiling:.1f} of them for the kernels.")
    if options.output:
        _write_result(options.output, rows, verdict, seconds, compiling, options, len(x), len(x_test))
    if options.save:
        distilled[-1].save(options.save)
    return 0


def make_teacher(shape, sizes, classes, seed):
    """A large net that sees each digit shifted a little and with pixels missing, never twice the same."""
    from .layers import Dense, Dropout, Flatten, Input, RandomTranslation, Rescaling
    from .models import Sequential

    layers = [
        Input(shape),
        Rescaling(1 / 255),
        RandomTranslation(2 / shape[0], 2 / shape[1]),
        Flatten(),
        Dropout(0.1),
    ]
    for units in sizes:
        layers += [Dense(units, activation="relu"), Dropout(0.3)]
    return Sequential([*layers, Dense(classes, activation="softmax")], name="teacher", seed=seed)


def make_student(shape, sizes, classes, seed):
    """A small net, with nothing to hold it back: plain and distilled students begin alike."""
    from .layers import Dense, Flatten, Input, Rescaling
    from .models import Sequential

    layers = [
        Input(shape),
        Rescaling(1 / 255),
        Flatten(),
        *[Dense(units, activation="relu") for units in sizes],
    ]
    return Sequential([*layers, Dense(classes, activation="softmax")], name="student", seed=seed)


def _compile(model, rate, steps, loss) -> None:
    from .optimizers import Adam
    from .optimizers.schedules import CosineDecay

    model.compile(optimizer=Adam(CosineDecay(rate, steps)), loss=loss, metrics=["accuracy"])


def _digits(folder: str | None):
    from .datasets import mnist

    if folder is None:
        return *mnist.load_subset(), "from MNIST, embedded in the package"
    return *mnist.load_data(folder), f"from {folder}"


def _bar(title: str, epochs: int):
    """One line a training: a bar that fills up on a terminal, elsewhere a line when it is done."""
    from .callbacks import Callback

    class Bar(Callback):
        def on_train_begin(self, logs=None):
            self.began, self.live = time.perf_counter(), sys.stdout.isatty()
            self.show(0, {})

        def on_epoch_end(self, epoch, logs=None):
            self.show(epoch + 1, logs or {})

        def show(self, done, logs):
            if not self.live and done < epochs:
                return
            filled = 20 * done // max(1, epochs)
            values = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            seconds = time.perf_counter() - self.began
            bar = f"[{'=' * filled}{' ' * (20 - filled)}]"
            line = f"{title} {bar} {done:>3}/{epochs}  {seconds:5.1f} s  {values}"
            start, end = ("\r", "\n" if done == epochs else "") if self.live else ("", "\n")
            print(f"{start}{line}", end=end, flush=True)

    return Bar()


_HEAD = (
    *("model", "layers", "parameters", "size on disk", "test errors", "accuracy"),
    *("agrees with teacher", "us an image"),
)


def _layers_of(model) -> str:
    from .report import describe_layers

    return describe_layers(model)


def _row(name, model, figures) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        model.save_weights(path)
        size = path.stat().st_size
    row = {
        "model": name,
        "layers": figures[0].layers,
        "parameters": figures[0].parameters,
        "bytes_on_disk": size,
    }
    row |= {"runs": len(figures), "latency_us": figures[0].latency}
    for key in ("errors", "accuracy", "agreement", "loss", "teacher_kl"):
        values = [getattr(f, key) for f in figures]
        row[key] = values
        row[f"{key}_mean"] = float(np.mean(values))
        row[f"{key}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return row


def _row_text(row: dict, tested: int) -> list[str]:
    errors = f"{row['errors_mean']:.0f}"
    if row["runs"] > 1:
        errors = f"{row['errors_mean']:.1f} +- {row['errors_std']:.1f}"
    agreement = "" if row["model"] == "teacher" else f"{row['agreement_mean']:.2%}"
    cells = [row["model"], row["layers"], f"{row['parameters']:,}", f"{row['bytes_on_disk'] / 1000:,.0f} kB"]
    return [*cells, errors, f"{row['accuracy_mean']:.2%}", agreement, f"{row['latency_us']:.1f}"]


def _verdict(plain: dict, distilled: dict, loss) -> str:
    """What the table says, in a sentence, with the spread over seeds."""
    gains = np.array(plain["errors"], dtype=float) - np.array(distilled["errors"])
    runs = f"over {len(gains)} seeds" if len(gains) > 1 else "with one seed, which says little"
    setting = f"temperature {loss.temperature:g}, weights {loss.hard_weight:g} and {loss.soft_weight:g}"
    if gains.mean() <= 0:
        return (
            f"Distilling did not help here: {-gains.mean():.1f} errors more on average, {runs} ({setting})."
        )
    wins = int((gains > 0).sum())
    share = gains.mean() / max(plain["errors_mean"], 1e-9)
    spread = f" +- {gains.std(ddof=1):.1f}" if len(gains) > 1 else ""
    return (
        f"Distilling saved {gains.mean():.1f}{spread} of {plain['errors_mean']:.1f} errors ({share:.0%}) "
        f"{runs}; it won {wins} of {len(gains)} ({setting})."
    )


def _write_result(path, rows, verdict, seconds, compiling, options, trained, tested) -> None:
    path = Path(path)
    settings = {k: v for k, v in vars(options).items() if k not in ("run", "command", "output", "save")}
    if path.suffix == ".md":
        table = format_table(_HEAD, [_row_text(row, tested) for row in rows], markdown=True)
        figures = f"{trained} training digits, {tested} test digits, {seconds:.0f} seconds."
        text = f"{table}\n\n{verdict}\n\n{figures}\n"
    else:
        result = {"models": rows, "verdict": verdict, "seconds": seconds, "seconds_compiling": compiling}
        result |= {"settings": settings, "training_digits": trained, "test_digits": tested}
        text = json.dumps(result, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}")


# ---------------------------------------------------------------- explain, matmul, info


def run_explain(options: argparse.Namespace) -> int:
    from .explain import explain

    print(explain(options.temperature, options.learning_rate), end="")
    return 0


def run_matmul(options: argparse.Namespace) -> int:
    """Check each product against NumPy's, then time both in turn and give the better of many runs."""
    from . import get_num_threads, matmul, set_num_threads

    if options.threads is not None:
        set_num_threads(options.threads)
    shapes = options.sizes or [
        (32, 784, 64),
        (32, 64, 64),
        (128, 784, 1200),
        (128, 1200, 1200),
        (1024, 1024, 1024),
    ]
    rng = np.random.default_rng(0)
    rows = []
    for m, k, n in shapes:
        a, b = (rng.normal(size=size).astype(options.dtype) for size in ((m, k), (k, n)))
        out = np.empty((m, n), options.dtype)
        matmul(a, b, out=out)
        expected = a.astype(np.float64) @ b
        error = float(np.abs(out - expected).max() / np.abs(expected).max())
        if not error < 10 * np.finfo(options.dtype).eps * math.sqrt(k):
            raise ValueError(f"{m}x{k}x{n}: wrong by {error:.1e}")
        ours, theirs = _fastest(lambda: matmul(a, b, out=out), lambda: np.matmul(a, b, out=out))  # noqa: B023
        work = 2e-9 * m * k * n
        rows.append(
            [
                f"{m}x{k}x{n}",
                f"{work / ours:.0f}",
                f"{work / theirs:.0f}",
                f"{theirs / ours:.2f}",
                f"{error:.0e}",
            ]
        )
    print(f"{options.dtype}, {get_num_threads()} threads, GFLOP/s")
    print(format_table(("product", "minidl", "numpy", "ratio", "relative error"), rows))
    return 0


def _fastest(*functions, seconds: float = 0.3) -> list[float]:
    """Each function's shortest time, the functions taking turns so that a busy moment hits all."""
    best = [math.inf] * len(functions)
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            began = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - began)
    return best


def run_info(options: argparse.Namespace) -> int:
    import numba

    from . import get_num_threads
    from .datasets import mnist
    from .kernels import simd
    from .kernels.jit import JIT_DISABLED

    rows = [
        ["minidl", _version()],
        ["python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"],
        ["numpy, numba", f"{np.__version__}, {numba.__version__}"],
        ["vectors", f"{8 * simd.VECTOR_BYTES} bits, fused multiply-add: {'yes' if simd.HAS_FMA else 'no'}"],
        ["threads", str(get_num_threads())],
        [
            "compiled code",
            "off (NUMBA_DISABLE_JIT)" if JIT_DISABLED else str(Path(simd.__file__).parent / "__pycache__"),
        ],
        ["data folder", f"{mnist.cache_folder()} (or MINIDL_DATA)"],
    ]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return 0


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("minidl")
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
