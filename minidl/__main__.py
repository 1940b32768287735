"""``python -m minidl``: distil a student on real digits, look at a training step, time the matrix product.

python -m minidl [distill]   train a teacher, a plain student and a distilled one; one table
python -m minidl distill data.csv --target COLUMN   the same on your own data
python -m minidl explain     every number of a training step of a tiny net, as text or as a page
python -m minidl ladder      a fast matrix product, rung by rung, on this machine
python -m minidl matmul      minidl.matmul beside NumPy's
python -m minidl info        versions, processor, threads, folders; what the processor can do
python -m minidl warmup      compile ahead, so that the first training need not
"""

import argparse
import contextlib
import io
import math
import os
import subprocess
import sys
import time
from functools import partial

import numpy as np

from . import info, machine, runtime
from .distillation import main_job, own_data, own_job
from .explain import command as explain
from .ladder import command as ladder
from .report import count_of, format_table


def main(arguments: list[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "distill")
    options, output = _parser().parse_args(arguments), _Output(sys.stdout)
    try:
        with contextlib.redirect_stdout(output):
            options.run(options)
        return int(output.is_lost)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"minidl {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


class _Output(io.TextIOBase):
    """Standard output that cannot end a training: where nobody takes it, one line says so and the rest is dropped."""

    def __init__(self, stream):
        self._stream, self.is_lost = stream, False
        if hasattr(stream, "reconfigure"):  # a file's name may have characters that a C locale lacks
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self):
        return getattr(self._stream, "encoding", None)

    def isatty(self):
        return self._stream is not None and self._stream.isatty()

    def write(self, text):
        if self._stream is not None and not self.is_lost:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError) as error:  # a full disk, `| head`, a terminal that is gone
                self.is_lost = True
                with contextlib.suppress(OSError, ValueError):
                    print(f"minidl: standard output is lost ({error}); the work goes on", file=sys.stderr)
                    # what is left in its buffer would fail again at exit
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return len(text)


def _parser() -> argparse.ArgumentParser:
    as_written = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser("minidl", description=__doc__, formatter_class=as_written)
    commands = "{distill,explain,ladder,matmul,info,warmup}"
    subparsers = parser.add_subparsers(dest="command", required=True, metavar=commands)

    def command(name, run, help):
        added = subparsers.add_parser(name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        added.set_defaults(run=run)
        return added.add_argument

    def run_distill(options):
        if own_data.is_asked_for(options):
            return own_job.run(options)
        for name in own_data.OPTIONS:
            delattr(options, name)
        main_job.run(options)

    add = command("distill", run_distill, "the main job (default), on digits or on your own data")
    own_data.add_options(add)
    main_job.add_options(add)

    add = command("explain", explain.run, "a training step, every number")
    explain.add_options(add)

    add = command("ladder", ladder.run, "a fast matrix product, rung by rung")
    ladder.add_options(add)

    shape = partial(main_job.parse_numbers, separators="x", rule="must look like 128x784x1200", count=3)
    add = command("matmul", _matmul, "time the matrix product")
    add("sizes", nargs="*", type=shape, metavar="MxKxN", help="default: a few")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--threads", type=int, default=None, help="default: all processors")

    add = command("info", info.run, "versions, processor, threads, folders")
    add("--measure", action="store_true", help="what the processor can do at most, in about five seconds")

    def run_warmup(options):
        main_job.say_what_compiling_took(partial(runtime.warmup, options.dtype, verbose=False))

    add = command("warmup", run_warmup, "compile ahead")
    add("--dtype", choices=("float32", "float64"), default="float32")
    return parser


def _matmul(options: argparse.Namespace) -> None:
    """Check each product against NumPy's, then time both in turn and give the better of many runs."""
    if options.threads is not None:
        runtime.set_num_threads(options.threads)  # refuses what is no number of threads
        sizes = ["x".join(map(str, shape)) for shape in options.sizes]
        command = [sys.executable, "-m", "minidl", "matmul", *sizes, "--dtype", options.dtype]
        # in another process: NumPy's product takes its limit when NumPy is imported
        environment = machine.thread_environment(options.threads)
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        print(child.stdout, end="")
        return
    shapes = [(32, 784, 64), (32, 64, 64), (128, 784, 1200), (128, 1200, 1200), (1024, 1024, 1024)]
    rows = [_compare(shape, options.dtype) for shape in options.sizes or shapes]
    threads = count_of(runtime.get_num_threads(), "thread")
    limit = os.environ.get("OMP_NUM_THREADS", "its own choice")
    print(f"{options.dtype}, {threads} of minidl, {limit} of NumPy, GFLOP/s")
    print(format_table(("product", "minidl", "numpy", "ratio", "relative error"), rows))


def _compare(shape: tuple[int, ...], dtype: str) -> list[str]:
    """One row of the table: the speed of both products, their ratio and the error of minidl's."""
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=size).astype(dtype) for size in ((m, k), (k, n)))
    out = np.empty((m, n), dtype)
    runtime.matmul(a, b, out=out)
    expected = a.astype(np.float64) @ b
    error = float(np.abs(out - expected).max() / np.abs(expected).max())
    if not error < 10 * np.finfo(dtype).eps * math.sqrt(k):
        raise ValueError(f"{m}x{k}x{n}: wrong by {error:.1e}")
    best = {runtime.matmul: math.inf, np.matmul: math.inf}
    end = time.perf_counter() + 0.6
    while time.perf_counter() < end:  # they take turns, so that a busy moment slows both
        for product in best:
            started = time.perf_counter()
            product(a, b, out=out)
            best[product] = min(best[product], time.perf_counter() - started)
    ours, theirs = best.values()
    speeds = [2e-9 * m * k * n / seconds for seconds in (ours, theirs)]
    shown = [f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}" for speed in speeds]
    return [f"{m}x{k}x{n}", *shown, f"{theirs / ours:.2f}", f"{error:.0e}"]


if __name__ == "__main__":
    sys.exit(main())
