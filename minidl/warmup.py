"""Compiling ahead: ``minidl.warmup()``, and what a first `fit` or `predict` does.

What is compiled are jobs, a kernel or unit with the types of its arguments. Two processes share them, and this one
finds on disk what the other has compiled.
"""

import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait

import numba
import numpy as np
from numba.core import types

from .callbacks import say
from .kernels import cache, program, units
from .kernels.barrier import ALONE, all_ready, prepare, release, work
from .kernels.infer import infer, search_nonfinite
from .kernels.jit import JIT_DISABLED
from .kernels.network import train
from .kernels.random import permutation
from .kernels.restraints import add_regularizer
from .kernels.threads import get_num_threads
from .validation import check_bool, check_dtype

_SAID_ABOVE = 2.0
"""Seconds: loading from disk takes less, and is not worth a line."""
_ANNOUNCEMENT = "minidl: compiling for this machine, once; it may take ten seconds"
_PYTHON = re.compile(r"(python|pypy)w?[\d.]*(_?[dt]|-dbg)*(\.exe)?", re.IGNORECASE)
"""The name of an interpreter. Where Python is embedded, `sys.executable` may be the host: QGIS, uWSGI, a game."""
_SECONDS = {"loss.KNOWLEDGE_DISTILLATION": 3.0, "loss.DECOUPLED_KD": 2.0, "matmul.product": 1.5}
_SECONDS |= {"step.learn": 1.7, "train": 1.4, "infer.rows": 1.1, "infer": 0.9, "step.gather": 0.8}
_SECONDS |= {f"loss.{kind}CATEGORICAL_CROSSENTROPY": 1.5 for kind in ("", "SPARSE_")}
_SECONDS |= {f"forward.{name}": 0.7 for name in ("SOFTMAX", "LOG_SOFTMAX")}
_SECONDS |= dict.fromkeys(("step.forward", "step.backward", "step.loss", "panel_order"), 0.6)
"""What the longest jobs take."""
_THREADS = ("work", "prepare", "all_ready", "release")
_FIT = ("train", "permutation", "panel_order", "infer", "search_nonfinite", *_THREADS)
_PREDICT = ("infer.rows",)
_MORE = ("add_regularizer",)
_ready: dict[str, set[str]] = {}
"""The jobs of each dtype that are in memory."""
_compiling = threading.RLock()
"""One thread compiles at a time. Its caller may have been interrupted; then it goes on by itself."""


def _after_fork() -> None:
    """A forked child has no compiler thread, and perhaps the lock that one held."""
    global _compiling
    _compiling = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def warmup(dtype: str = "float32", verbose: bool = True) -> float:
    """Compile all that training and prediction need, or load it from the disk; returns the seconds.

    Without it the first ``fit`` does the same, for its own model. With ``verbose`` a compilation says so, a load says
    nothing. After Ctrl-C the compilation goes on in the background; nothing is lost.
    """
    name, verbose = check_dtype(dtype).name, check_bool("verbose", verbose)
    return compile_ahead({*_FIT, *_PREDICT, *_MORE, *units.ALL}, name, verbose)


def compile_ahead(names: set[str], dtype: str, aloud: bool | None) -> float:
    """Load jobs, or compile what is not on disk; returns the seconds.

    ``aloud`` says so: at once, never, or (None) on the error stream if it takes long.
    """
    began, ready = time.perf_counter(), _ready.setdefault(dtype, set())
    if JIT_DISABLED or ready.issuperset(names):
        return time.perf_counter() - began
    known = _jobs(np.dtype(dtype))
    jobs = {name: known[name] for name in sorted(names)}
    new = [name for name, job in jobs.items() if not _is_on_disk(*job)]
    if not new:
        _compile(jobs.values())
        ready.update(names)
        return time.perf_counter() - began
    stream = sys.stderr if aloud is None else sys.stdout
    if stream is None:  # a windowed Windows program has none
        aloud = False
    start = "\r" if stream is not None and stream.isatty() else ""  # of a line that is written over
    is_long = sum(map(_expected_seconds, new)) > _SAID_ABOVE
    if aloud and is_long:
        say(f"{_ANNOUNCEMENT}\n", stream)
    # In a thread of its own: the compiler would swallow an interrupt, and this thread listens for one as it waits.
    compiling: Future = Future()
    try:
        threading.Thread(None, _fulfil, "minidl-compiler", (compiling, jobs, dtype)).start()
    except RuntimeError:  # the system gives no more threads, or the interpreter is about to end
        _fulfil(compiling, jobs, dtype)
    while not wait([compiling], timeout=0.05).done:
        seconds = time.perf_counter() - began
        if aloud is None and seconds > _SAID_ABOVE:
            aloud = True
            say(f"{_ANNOUNCEMENT}\n", stream)
        if aloud and is_long and start:
            done = sum(_is_on_disk(*jobs[name]) for name in new)
            say(f"{start}minidl: {done} of {len(new)} parts, {seconds:.0f} s ", stream)
    compiling.result()
    ready.update(names)
    seconds = time.perf_counter() - began
    if aloud and seconds > _SAID_ABOVE:
        place = cache.folder()
        kept = f"kept in {place}" if place else f"not kept; {cache.ADVICE}"
        say(f"{start}minidl: compiling for {dtype} took {seconds:.1f} s; {kept}\n", stream)
    return seconds


def _fulfil(compiling: Future, jobs: dict, dtype: str) -> None:
    """Compile what no other thread has compiled meanwhile, and load the rest."""
    try:
        with _compiling:
            new = [name for name, job in jobs.items() if not _is_on_disk(*job)]
            if new:
                _compile_in_two_processes(jobs, new, dtype)
            else:
                _compile(jobs.values())
        compiling.set_result(None)
    except BaseException as error:
        compiling.set_exception(error)


def _compile_in_two_processes(jobs: dict, new: list[str], dtype: str) -> None:
    """This process begins with the longest job of ``new``, the other with the next longest; then this one takes the
    rest from the shortest on. Where they meet, all is done, however slow or dead the other is."""
    first, *others = sorted(new, key=_expected_seconds, reverse=True)
    helper = _start_helper(others, dtype) if others else None
    try:
        _compile(jobs[name] for name in [first, *reversed(others), *jobs])
    finally:
        if helper is not None:
            helper.kill()
            helper.wait()  # else it stays a zombie, and Python warns of it


def _expected_seconds(name: str) -> float:
    return _SECONDS.get(name, 0.3)


def _compile(jobs: Iterable) -> None:
    collects = gc.isenabled()
    gc.disable()  # the compiler makes millions of objects that live to its end: a tenth of the time
    try:
        for kernel, *wanted in jobs:
            kernel.make(*wanted)
    finally:
        if collects:
            gc.enable()


def _is_on_disk(kernel, kinds: tuple, has_entry: bool) -> bool:
    return kernel.is_made(kinds, has_entry)


def compile_jobs(names: list[str], dtype: str) -> None:
    """What a helper process does."""
    jobs = _jobs(np.dtype(dtype))
    _compile(jobs[name] for name in names)


def _start_helper(names: list[str], dtype: str) -> subprocess.Popen | None:
    """A second process that compiles ``names`` and leaves them on disk; None where there can be none.

    Where it cannot run, or dies, this process compiles all itself.
    """
    if get_num_threads() == 1 or cache.folder() is None or hasattr(sys, "frozen"):
        return None
    if not _PYTHON.fullmatch(os.path.basename(sys.executable or "")):
        return None
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from minidl.warmup import compile_jobs; "
        f"compile_jobs({names!r}, {dtype!r})"
    )
    quiet = subprocess.DEVNULL
    try:
        return subprocess.Popen([sys.executable, "-c", code], stdin=quiet, stdout=quiet, stderr=quiet)
    except (OSError, RuntimeError):  # RuntimeError: the interpreter is about to end
        return None


def _jobs(dtype: np.dtype) -> dict[str, tuple]:
    """All jobs by name: kernel, the types of the arguments that training and prediction give it, and whether Python
    calls it."""
    real = types.float32 if dtype.itemsize == 4 else types.float64
    jobs = {name: (kernel, kinds(real), has_entry) for name, (kernel, kinds, has_entry) in units.ALL.items()}
    vector, matrix = np.zeros(1, dtype), np.zeros((1, 1), dtype)
    table, numbers, integers = np.zeros((1, 1), np.int64), np.zeros((1, 1)), np.zeros(1, np.int64)
    rows, space = program.rows_of(matrix), program.Space(matrix, matrix, matrix, integers)
    calls = {
        "train": (train, *program.sample_arguments(dtype)),
        "permutation": (permutation, integers, np.uint64(0)),
        "panel_order": (program.panel_order, vector, vector, table, False),
        "work": (work, 0, integers),
        "prepare": (prepare, integers),
        "all_ready": (all_ready, integers, 1, 0.0),
        "release": (release, integers, 0),
        "infer": (infer, ALONE, program.Inference(table, numbers, vector, 0), space, rows, 1, matrix),
        "search_nonfinite": (search_nonfinite, ALONE, vector, integers),
        "add_regularizer": (add_regularizer, vector, vector, table, numbers, 1.0),
    }
    return jobs | {
        name: (kernel, tuple(map(numba.typeof, args)), True) for name, (kernel, *args) in calls.items()
    }


def compile_before_fit(dtype: str, aloud: bool, names: Iterable[str] = ()) -> float:
    """Compile before the first epoch, so that compile time is announced and counted in no epoch; the seconds."""
    return compile_ahead({*_FIT, *_PREDICT, *names}, dtype, aloud)


def compile_before_predict(dtype: str, names: Iterable[str]) -> None:
    """Compile what a first `predict` of a few rows needs; if that takes long, the error stream says why."""
    compile_ahead({*_PREDICT, *names}, dtype, None)
