"""Compiling ahead: ``minidl.warmup()``, and what a first fit announces.

Kernels are compiled by calling them on tiny tables, without any model.
"""

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from .kernels import network
from .kernels.activations import Activation
from .kernels.jit import JIT_DISABLED
from .kernels.losses import Batch, Loss, loss_batch
from .kernels.metrics import Metric, metric_rows
from .kernels.ops import ACTIVATION, DENSE, Op
from .kernels.program import BatchParts, aligned_rows, training_buffers
from .kernels.random import LAYER, SHUFFLE, make_key, permutation
from .kernels.threads import get_num_threads, run
from .kernels.updates import Rule, add_regularizer
from .validation import check_bool, check_dtype

_SAID_ABOVE = 2.0
"""Seconds: loading from disk takes less, and is not worth a line."""
_HELPER_SECONDS = 120.0
_compiled: set[str] = set()
_under_way: dict[str, Future] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_under_way.clear)  # a child has no compiler thread to wait for


def warmup(dtype: str = "float32", verbose: bool = True) -> float:
    """Compile all that training and prediction need, or load it from the disk; returns the seconds.

    Without it the first ``fit`` does the same. With ``verbose`` a compilation says so, a load says nothing.
    After Ctrl-C the compilation goes on in the background; nothing is lost.
    """
    name, verbose = check_dtype(dtype).name, check_bool("verbose", verbose)
    began = time.perf_counter()
    if JIT_DISABLED:
        return time.perf_counter() - began
    if name not in _under_way:
        compiler = ThreadPoolExecutor(1, thread_name_prefix="minidl-compiler")
        _under_way[name] = compiler.submit(_compile_all, name)
        compiler.shutdown(wait=False)
    # In a thread of its own: the compiler would swallow an interrupt, and this thread listens for one as it waits.
    compiling = _under_way[name]
    while not wait([compiling], timeout=0.05).done:
        pass
    _under_way.pop(name, None)
    compiling.result()
    seconds = time.perf_counter() - began
    if verbose and seconds > _SAID_ABOVE:
        print(f"minidl: compiling for {name} took {seconds:.1f} s; the next process finds it on disk")
    return seconds


def compile_before_fit(dtype: str, aloud: bool) -> None:
    """Compile before the first epoch, so that compile time is announced and counted in no epoch."""
    if JIT_DISABLED or dtype in _compiled:
        return
    compiled = _is_compiled(dtype)
    if aloud and not compiled:
        print("minidl: compiling for this machine, once; it may take half a minute", flush=True)
    if aloud or not compiled:
        warmup(dtype, aloud)
    _compiled.add(dtype)


def _is_compiled(dtype: str) -> bool:
    """Whether the training loop is in memory or on disk for ``dtype``."""
    signatures = list(network.train.signatures) if not JIT_DISABLED else []
    cache_file = getattr(getattr(network.train, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        with contextlib.suppress(Exception):  # a damaged index is none
            signatures += [key[0] for key in cache_file._load_index()]
    single = dtype == "float32"  # a loop in double precision has no array of single
    return any(("array(float32" in str(signature)) == single for signature in signatures)


def _compile_all(dtype: str) -> None:
    helper = None if _is_compiled(dtype) else _start_helper(dtype)
    _compile_training(np.dtype(dtype))
    if helper is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(_HELPER_SECONDS)
        helper.kill()
    _compile_prediction(np.dtype(dtype))


def _start_helper(dtype: str) -> subprocess.Popen | None:
    """A second process that compiles what prediction needs, and leaves it on disk for this one to find.

    It saves a third of the time. Where it cannot run, or dies, this process compiles all itself.
    """
    if JIT_DISABLED or not sys.executable or getattr(sys, "frozen", False) or get_num_threads() == 1:
        return None
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; import numpy; from minidl.warmup import _compile_prediction; "
        f"_compile_prediction(numpy.dtype({dtype!r}))"
    )
    quiet = subprocess.DEVNULL
    try:
        return subprocess.Popen([sys.executable, "-c", code], stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError:
        return None


# -- a net 2-2-2 as tables, on two samples ---------------------------------------------------------

_OPS = [
    Op(DENSE, 2, 2, weight=0, bias=4),
    Op(ACTIVATION, 2, 2, activation=Activation.RELU),
    Op(DENSE, 2, 2, weight=6, bias=10),
]
_PARAMETERS, _ROWS = 12, 2
_NO_SEGMENTS = np.empty((0, 2), np.int64)
_NO_PENALTIES = np.empty((0, 2))


def _compile_training(dtype: np.dtype) -> None:
    """Call the kernels of `fit`, on arrays of the types that `training.compiled` gives them."""
    threads = get_num_threads()
    params, grads, slot0, slot1 = np.zeros((4, _PARAMETERS), dtype)
    plan = network.plan(_OPS, _ROWS)
    x, order = np.eye(2, dtype=dtype), np.arange(_ROWS)
    permutation(order, np.uint64(make_key(0, SHUFFLE, 0, 0)))
    program = network.Program(plan.ops, plan.settings, params, grads, False, Activation.SOFTMAX)
    buffers = training_buffers(_OPS, plan.size, _ROWS, dtype, threads, 1, BatchParts(metrics=1, labels=True))
    none, sizes = network.NO_ROWS, (_ROWS, _ROWS)
    data = network.Data(network.rows_of(x), order, order, np.arange(2), none, none, np.empty(0), *sizes)
    kinds = np.array([Metric.SPARSE_CATEGORICAL_ACCURACY], np.int64)
    table = network.LossTable(
        Loss.SPARSE_CATEGORICAL_CROSSENTROPY,
        np.zeros(8),
        kinds,
        np.ones(1, np.int64),
        np.zeros(1),
        np.zeros((1, 1)),
    )
    nothing = np.zeros(0, dtype)
    no_norms = np.empty((0, 3), np.int64), np.empty(0)
    restraints = network.Restraints(False, _NO_SEGMENTS, _NO_PENALTIES, 0.0, 0.0, 0.0, *no_norms)
    state = network.UpdateState(Rule.ADAM, np.zeros(8), slot0, slot1, nothing, np.zeros(1), 0, restraints)
    moment, part = network.Moment(0, 0, 0), network.Part(0, _ROWS, True)
    run(network.train, program, buffers, data, table, state, moment, part)
    network.panel_order(params, grads, plan.ops, False)


def _compile_prediction(dtype: np.dtype) -> None:
    """Call the kernels of `predict` and `evaluate`, on arrays of the types that `training.inference` gives them."""
    params, x, out = np.zeros(_PARAMETERS, dtype), np.eye(2, dtype=dtype), np.empty((_ROWS, 2), dtype)
    plan = network.plan(_OPS, _ROWS)
    model = network.Inference(plan.ops, plan.settings, params)
    values, scratch, inputs = (
        aligned_rows(1, size, dtype)
        for size in (plan.size, network.packing_size(_OPS, _ROWS, dtype.itemsize), 4)
    )
    network.infer_rows(*model, values[0], scratch[0], x.ravel(), _ROWS, out)
    counts = np.zeros(1, np.int64)
    space = network.Space(values, scratch, inputs, counts)
    run(network.infer, model, space, network.rows_of(x), _ROWS, out, threads=1)
    run(network.search_nonfinite, x.reshape(-1), counts, threads=1)
    labels, none = np.arange(2), np.empty((0, 0), dtype)
    row_values = np.zeros(_ROWS)
    batch = Batch(out, labels, none, none, np.ones(_ROWS))
    loss_batch(Loss.SPARSE_CATEGORICAL_CROSSENTROPY, row_values, none, batch, np.zeros(8))
    metric_rows(Metric.SPARSE_CATEGORICAL_ACCURACY, row_values, out, labels, none, 1)
    make_key(0, LAYER, 0, 0)
    add_regularizer(params[:0], params, _NO_SEGMENTS, _NO_PENALTIES)
