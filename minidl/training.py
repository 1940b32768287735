"""The training loop: epochs -> slices of steps -> callbacks. `Sequential.fit`, `evaluate`, `predict` end here.

A model whose parts are all built in runs in the compiled loop, in slices of about a tenth of a second, so that
Ctrl-C, the progress bar and callbacks work; any other model runs layer by layer. Neither the slices, nor
the number of threads, nor the way of running changes a result.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import warnings
from typing import NamedTuple

import numpy as np

from . import losses as loss_functions
from .callbacks import (
    Callback,
    CallbackList,
    History,
    LambdaCallback,
    ModelCheckpoint,
    ProgressBar,
    TerminateOnNaN,
    check_verbose,
)
from .kernels import network, threads
from .kernels.activations import CODES, LINEAR
from .kernels.losses import loss_batch
from .kernels.metrics import metric_rows
from .kernels.ops import DENSE
from .kernels.random import SHUFFLE, make_key, permutation
from .kernels.simd import ALIGNMENT, aligned_zeros
from .layers import GaussianNoise, RandomTranslation
from .runtime import compile_aloud
from .validation import (
    check_bool,
    check_class_weight,
    check_float,
    check_inputs,
    check_int,
    check_labels,
    check_rows,
    check_sample_weight,
    check_targets,
    describe,
)

_SLICE_SECONDS = 0.1
_CHUNK_BYTES = 8 << 20  # rows of a foreign dtype are converted, and predictions evaluated, so much at a time
_PREDICT_ROWS = 96
_SLICE_FLOPS = 2e9  # predictions come in calls of at most this much work, so that Ctrl-C is heard in between
_THREAD_FLOPS = 4e6  # a prediction of less work than this is over before a second thread has begun
_NO_LABELS = np.empty(0, np.int64)
_NO_WEIGHT = np.empty(0, np.float64)


class Samples(NamedTuple):
    """Checked inputs and what goes with each row of them."""

    x: np.ndarray
    labels: np.ndarray  # int64 (N,) or (0,)
    targets: np.ndarray | None  # (N, outputs) of any real dtype
    teacher_logits: np.ndarray | None
    weight: np.ndarray  # float64 (N,) or (0,)

    def slice(self, low: int, high: int) -> Samples:
        return Samples(
            self.x[low:high],
            self.labels[low:high],
            None if self.targets is None else self.targets[low:high],
            None if self.teacher_logits is None else self.teacher_logits[low:high],
            self.weight[low:high],
        )


def _uses_labels(loss, y: np.ndarray, outputs: int) -> bool:
    """Whether ``y`` holds class indices rather than rows of targets."""
    if loss.sparse is not None:
        return loss.sparse
    return outputs > 1 and (y.ndim == 1 or y.shape[1:] == (1,))


def check_samples(model, loss, x, y, sample_weight=None, class_weight=None, argument="") -> Samples:
    """The arguments of fit and evaluate, checked against the model and the loss; ``y`` None: no labels."""
    x = check_inputs(x, model.input_shape, model.dtype, argument + "x")
    outputs = math.prod(model.output_shape)
    labels, targets = _NO_LABELS, None
    if y is None:
        if loss.needs_labels:
            raise ValueError(
                f"{argument}y must be given, got None: only distillation with hard_weight=0 learns without labels"
            )
    else:
        y = np.asarray(y)
        if _uses_labels(loss, y, outputs):
            labels = check_labels(y, outputs, argument + "y", unlabelled=loss.distills)
            check_rows(argument + "y", len(labels), len(x), argument + "x")
        else:
            limits = (0.0, 1.0) if loss.fused_activation else None
            targets = check_targets(y, model.output_shape, model.dtype, argument + "y", limits=limits)
            check_rows(argument + "y", len(targets), len(x), argument + "x")
            targets = targets.reshape(len(targets), outputs)
    weight = _NO_WEIGHT
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, len(x), argument + "sample_weight", argument + "x")
    samples = Samples(x, labels, targets, None, weight)
    return samples if class_weight is None else _with_class_weight(samples, class_weight, outputs)


def _with_class_weight(samples: Samples, class_weight, outputs: int) -> Samples:
    """``samples``, each weighted by its class too; an unlabelled one keeps its weight."""
    by_class = check_class_weight(class_weight, max(outputs, 2))
    if samples.labels.size:
        classes = samples.labels
    elif samples.targets is None:
        raise ValueError("class_weight needs y, got y=None")
    elif outputs > 1:
        classes = np.argmax(samples.targets, axis=1)
    else:
        classes = (samples.targets[:, 0] > 0.5).astype(np.int64)
    chosen = np.where(classes >= 0, by_class[classes], 1.0)
    return samples._replace(weight=samples.weight * chosen if samples.weight.size else chosen)


# ---- running steps -----------------------------------------------------------------------------------------


def _is_native(array: np.ndarray) -> bool:
    """Whether the compiled loop can read rows of ``array`` where they are."""
    flags = array.flags
    return (
        array.dtype in network.CODES_OF_DTYPES
        and array.dtype.isnative
        and flags.c_contiguous
        and flags.aligned
    )


def _as_rows(array: np.ndarray | None, dtype: np.dtype) -> network.Rows:
    if array is None:
        return network.NO_ROWS
    array = array.reshape(len(array), -1)
    return network.rows_of(array if _is_native(array) else np.ascontiguousarray(array, dtype=dtype))


def _rules(model) -> network.Rules:
    """Penalties, clipping and constraints as data."""
    optimizer, penalties, (places, limits) = model.optimizer, model.penalties, model.max_norms
    clips = [
        float(limit or 0) for limit in (optimizer.clipvalue, optimizer.clipnorm, optimizer.global_clipnorm)
    ]
    active = bool(penalties.any() or limits.size or any(clips))
    return network.Rules(active, model.segments, penalties, *clips, places, limits)


class _CompiledSteps:
    """Runs steps in the compiled loop."""

    def __init__(self, model, loss, metrics, samples: Samples, batch_size: int):
        objective, dtype = model.objective(loss), model.dtype
        ops = model.ops(training=True, logits=objective.on_logits)
        final = CODES[model.final_activation] if objective.on_logits else LINEAR
        in_size, outputs = math.prod(model.input_shape), math.prod(model.output_shape)
        laid_out = network.plan(ops, in_size, batch_size)
        itemsize, n_threads = dtype.itemsize, threads.get_num_threads()
        needs_output = objective.on_logits and any(metric.needs_output_for(outputs) for metric in metrics)

        def matrix(wanted, columns=outputs):
            return np.zeros((batch_size, columns) if wanted else (0, 0), dtype)

        self._model, self._loss, self._samples, self._batch_size = model, loss, samples, batch_size
        self._rules = _rules(model)
        self._program = network.Program(
            laid_out.ops, laid_out.settings, model.params, model.grads, laid_out.out_at, outputs, final
        )
        self._buffers = network.Buffers(
            aligned_zeros(batch_size * in_size, dtype),
            aligned_zeros(laid_out.size, dtype),
            aligned_zeros(laid_out.size, dtype),
            _aligned_rows(n_threads, network.packing_size(ops, batch_size, itemsize), dtype),
            _aligned_rows(n_threads, network.tile_size(ops), dtype),
            np.zeros(batch_size),
            np.zeros(batch_size),
            np.zeros((len(metrics), batch_size)),
            np.zeros(batch_size if samples.labels.size else 0, np.int64),
            matrix(samples.targets is not None),
            matrix(samples.teacher_logits is not None),
            matrix(needs_output),
        )
        sparse = samples.targets is None
        self._metric_kinds = np.array([metric.kind_for(sparse, outputs) for metric in metrics], np.int64)
        self._metric_ks = np.array([metric.k for metric in metrics], np.int64)
        self._direct = _is_native(samples.x)
        self._x = network.rows_of(samples.x) if self._direct else None
        self._targets = _as_rows(samples.targets, dtype)
        self._teacher = _as_rows(samples.teacher_logits, dtype)
        self._threads = _ThreadChoice()
        row_bytes = in_size * itemsize
        self.most_steps = 10**9 if self._direct else max(1, _CHUNK_BYTES // (row_bytes * batch_size))
        self.pace = 1

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray) -> np.ndarray:
        """Train on consecutive batches of ``order``; returns each step's loss and adds to ``metric_sums``."""
        model, optimizer = self._model, self._model.optimizer
        steps = -(-len(order) // self._batch_size)
        x, x_order = self._x, order
        if not self._direct:
            chunk = self._samples.x[order].reshape(len(order), -1)
            x = network.rows_of(np.ascontiguousarray(chunk, dtype=model.dtype))
            x_order = np.arange(len(order))
        samples = self._samples
        losses = np.zeros(steps)
        data = network.Data(
            x, x_order, order, samples.labels, self._targets, self._teacher, samples.weight, self._batch_size
        )
        kind, hyper, _ = model.objective(self._loss)  # anew: a schedule may have moved the temperature
        objective = network.Objective(kind, hyper, self._metric_kinds, self._metric_ks, losses, metric_sums)
        rates = optimizer.learning_rates(optimizer.iterations, steps)
        state = network.Optimizer(
            optimizer.kind, optimizer.hyper, *optimizer.slots, rates, optimizer.iterations
        )
        moment = network.Moment(model.seed, model.epoch, first_step)
        with self._threads.timed(steps) as count:
            threads.run(
                network.train,
                self._program,
                self._buffers,
                data,
                objective,
                state,
                self._rules,
                moment,
                threads=count,
            )
        optimizer.iterations += steps
        return losses


class _ThreadChoice:
    """How many threads the next slice gets: whichever of one and all was faster a step when last tried.

    Threads meet several times a step, and on a busy machine a meeting waits for whoever was put to sleep. Only
    slices long enough to outweigh the threads' start are compared.
    """

    _RETRY = 64  # slices
    _LONG_ENOUGH = 0.01  # seconds

    def __init__(self):
        self._seconds: dict[int, float] = {}
        self._slices = 0

    def timed(self, steps: int):
        self._steps = steps
        return self

    def __enter__(self) -> int:
        most = threads.get_num_threads()
        self._slices += 1
        if self._slices % self._RETRY == 0:
            self._seconds.clear()
        untried = [count for count in (most, 1) if count not in self._seconds]
        self._count = untried[0] if untried else min(self._seconds, key=self._seconds.get)
        self._began = time.perf_counter()
        return self._count

    def __exit__(self, *error) -> None:
        seconds = time.perf_counter() - self._began
        if seconds > self._LONG_ENOUGH:
            self._seconds[self._count] = seconds / self._steps


class _LayerwiseSteps:
    """Runs steps layer by layer, in Python: for layers, losses and constraints of the user's own."""

    most_steps = pace = 1

    def __init__(self, model, loss, metrics, samples: Samples, batch_size: int, online_teacher=None):
        self._model, self._loss, self._metrics, self._samples = model, loss, metrics, samples
        self._batch_size, self._online_teacher = batch_size, online_teacher

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray) -> np.ndarray:
        model, samples = self._model, self._samples
        losses = []
        for step, start in enumerate(range(0, len(order), self._batch_size)):
            rows = order[start : start + self._batch_size]
            y = (
                samples.targets
                if samples.targets is not None
                else (samples.labels if samples.labels.size else None)
            )
            loss, values = model._layerwise_step(
                np.ascontiguousarray(samples.x[rows], dtype=model.dtype),
                None if y is None else y[rows],
                samples.weight[rows] if samples.weight.size else None,
                step=first_step + step,
                loss=self._loss,
                metrics=self._metrics,
                teacher_logits=None if samples.teacher_logits is None else samples.teacher_logits[rows],
                online_teacher=self._online_teacher,
            )
            losses.append(loss)
            metric_sums += values
        return np.array(losses)


# ---- interrupts, and numbers that are none ------------------------------------------------------------------


@contextlib.contextmanager
def _uninterrupted():
    """Ctrl-C waits until parameters, optimizer and counts agree again; a second one does not wait."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    caught = []

    def remember(number, frame):
        caught.append((number, frame))
        if len(caught) > 1:
            handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[0])


def _is_finite(array: np.ndarray) -> bool:
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


class _State:
    """A copy of all that a step changes."""

    def __init__(self, model):
        self._model = model
        self._arrays = [model.params, *model.optimizer.slots]
        self._copies = [array.copy() for array in self._arrays]
        self._iterations = model.optimizer.iterations

    @property
    def params(self) -> np.ndarray:
        return self._copies[0]

    def restore(self) -> None:
        for array, copy in zip(self._arrays, self._copies, strict=True):
            array[...] = copy
        self._model.optimizer.iterations = self._iterations


def _run_slice(model, runner, part, batch_size, first, sums, careful) -> tuple[np.ndarray, _State | None]:
    """The losses of a slice of steps and None, or, if ``careful``, up to the first step with a loss, or a
    parameter after it, that is not finite, and the state before that step.
    """
    if not careful:
        return runner.run(part, first, sums), None
    before, sums_before = _State(model), sums.copy()
    losses = runner.run(part, first, sums)
    if _is_finite(losses) and _is_finite(model.params):
        return losses, None
    if len(losses) > 1:  # once more from the slice's beginning, step by step, to the same bits
        before.restore()
        sums[...] = sums_before
        kept: list[float] = []
        for start in range(0, len(part), batch_size):
            before = _State(model)
            kept += list(runner.run(part[start : start + batch_size], first + len(kept), sums))
            if not (math.isfinite(kept[-1]) and _is_finite(model.params)):
                break
        losses = np.array(kept)
    return losses, before


def _first_nonfinite(model, x: np.ndarray, step: int, params: np.ndarray) -> str:
    """What in a step on the batch ``x`` is not finite first; ``params`` are those after the step."""
    model.set_step(model.epoch, step)
    out = np.ascontiguousarray(x, dtype=model.dtype)
    for layer in model.layers:
        out = layer.forward(out, training=True)
        if not _is_finite(out):
            return f"the output of layer {layer.name!r}"
    for layer in reversed(model.layers):
        for parameter in layer.parameters:
            if not _is_finite(params[parameter.offset : parameter.offset + parameter.size]):
                return f"{parameter.name} of layer {layer.name!r} after the update"
    return "the loss"


# ---- fit ---------------------------------------------------------------------------------------------------


def fit(
    model,
    x,
    y=None,
    batch_size: int = 32,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks=None,
    validation_split: float = 0.0,
    validation_data=None,
    shuffle: bool = True,
    class_weight=None,
    sample_weight=None,
    initial_epoch: int = 0,
    validation_batch_size: int | None = None,
    validation_freq: int = 1,
    target_model=None,
    temperature: float | None = None,
    hard_weight: float | None = None,
    soft_weight: float | None = None,
) -> History:
    """Train ``model``; the arguments are those of `Sequential.fit`."""
    model.require_compiled("fit")
    batch_size = check_int("batch_size", 32 if batch_size is None else batch_size, minimum=1)
    epochs = check_int("epochs", epochs, minimum=0)
    initial_epoch = check_int("initial_epoch", initial_epoch, minimum=0)
    validation_freq = check_int("validation_freq", validation_freq, minimum=1)
    if validation_batch_size is not None:
        check_int("validation_batch_size", validation_batch_size, minimum=1)
    validation_split = check_float("validation_split", validation_split, minimum=0, below=1)
    shuffle = check_bool("shuffle", shuffle)
    verbose = check_verbose(verbose)
    loss = _training_loss(model, target_model, temperature, hard_weight, soft_weight)
    samples = check_samples(model, loss, x, y, sample_weight)
    count = len(samples.x)
    batch_size = min(batch_size, count)
    validation = None
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise ValueError(
                f"validation_data must be (x, y) or (x, y, sample_weight), got {describe(validation_data)}"
            )
        validation = check_samples(
            model, _hard_loss(model, loss, validation_data[1]), *validation_data, argument="validation "
        )
    elif validation_split > 0:
        kept = int(math.floor(count * (1 - validation_split)))
        if kept == 0 or kept == count:
            raise ValueError(
                f"validation_split must leave samples on both sides, got {validation_split} of {count}"
            )
        if y is None:
            raise ValueError("validation_split needs y, got y=None")
        validation, count = samples.slice(kept, count), kept
    if class_weight is not None:  # as in Keras it leaves the validation samples alone
        samples = _with_class_weight(samples, class_weight, math.prod(model.output_shape))

    metrics = model.compiled_metrics
    for metric in metrics:
        metric.kind_for(samples.targets is None, math.prod(model.output_shape))
    model.prepare_optimizer()
    training_ops = model.ops(training=True)
    online_teacher = None
    if target_model is not None:
        samples, online_teacher = _with_teacher(model, target_model, samples, loss)
    # the compiled loop splits a batch between threads, which a loss of the whole batch does not allow
    compiled = training_ops is not None and online_teacher is None and not loss.whole_batch
    if compiled and model.objective(loss).kind >= 0:
        if verbose != 0:
            compile_aloud(model.dtype.name)
        runner = _CompiledSteps(model, loss, metrics, samples, batch_size)
    else:
        runner = _LayerwiseSteps(model, loss, metrics, samples, batch_size, online_teacher)

    steps = -(-count // batch_size)
    all_callbacks = CallbackList(
        callbacks,
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        epochs=epochs,
        steps=steps,
        verbose=verbose,
    )
    every_batch = any(_wants_every_batch(callback) for callback in all_callbacks.callbacks)
    watch = _Watch(model, samples.x, epochs, steps, all_callbacks.callbacks)
    model.stop_training = False
    logs: dict[str, float] = {}
    all_callbacks.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.epoch = epoch
        loss.set_epoch(epoch)
        all_callbacks.on_epoch_begin(epoch)
        logs = _run_epoch(
            model, runner, metrics, count, batch_size, shuffle, every_batch, watch, all_callbacks
        )
        if validation is not None and (epoch + 1) % validation_freq == 0:
            all_callbacks.on_test_begin()
            values = evaluate_samples(model, _hard_loss(model, loss, validation), metrics, validation)
            all_callbacks.on_test_end(values)
            logs.update((f"val_{name}", value) for name, value in values.items())
        all_callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    all_callbacks.on_train_end(logs)
    return all_callbacks.history


def _run_epoch(
    model, runner, metrics, count, batch_size, shuffle, every_batch, watch, callbacks
) -> dict[str, float]:
    """One pass over the samples in slices; returns the mean loss and metrics over its samples."""
    epoch, order = model.epoch, np.arange(count)
    if shuffle:
        permutation(order, np.uint64(make_key(model.seed, SHUFFLE, model.epoch, 0)))
    steps = -(-count // batch_size)
    sums, loss_sum = np.zeros(len(metrics)), 0.0
    done = 0
    logs: dict[str, float] = {}
    while done < steps:
        length = 1 if every_batch else min(runner.pace, runner.most_steps, steps - done)
        part = order[done * batch_size : (done + length) * batch_size]
        callbacks.on_train_batch_begin(done)
        began = time.perf_counter()
        with _uninterrupted():
            losses, before = _run_slice(model, runner, part, batch_size, done, sums, watch.careful)
            if before is not None:
                last = len(losses) - 1
                watch.stop(before, part[last * batch_size : (last + 1) * batch_size], done + last + 1)
            elif done + length == steps:
                model.epoch = epoch + 1
        seconds = time.perf_counter() - began
        length, part = len(losses), part[: len(losses) * batch_size]
        sizes = np.full(length, batch_size)
        sizes[-1] = len(part) - batch_size * (length - 1)
        loss_sum += float(losses @ sizes)
        done += length
        seen = min(done * batch_size, count)
        logs = {"loss": loss_sum / seen}
        logs.update((metric.name, float(total) / seen) for metric, total in zip(metrics, sums, strict=True))
        watch.look(losses, epoch, done - length)
        callbacks.on_train_batch_end(done - 1, logs)
        if model.stop_training:
            break
        # aim at slices of _SLICE_SECONDS, but grow by at most 8 a time: the first slice may hold the compiler
        wanted = length * _SLICE_SECONDS / max(seconds, 1e-9)
        if length == runner.pace or wanted < runner.pace:
            runner.pace = int(min(8 * length, max(1, wanted)))
    return logs


class _Watch:
    """Looks for losses that are not finite: warns once, or tells `TerminateOnNaN`, which stops there."""

    def __init__(self, model, x: np.ndarray, epochs: int, steps: int, callbacks):
        self._model, self._x, self._epochs, self._steps = model, x, epochs, steps
        self._terminators = [callback for callback in callbacks if isinstance(callback, TerminateOnNaN)]
        self._warned = False
        self.careful = bool(self._terminators)

    def _place(self, epoch: int, step: int) -> str:
        return f"epoch {epoch + 1} of {self._epochs}, step {step} of {self._steps}"

    def stop(self, before: _State, rows: np.ndarray, step: int) -> None:
        """Step number ``step`` (from 1), on ``rows``, was found to be bad."""
        model = self._model
        after = _State(model)
        before.restore()
        what = _first_nonfinite(model, self._x[rows], step - 1, after.params)
        if not any(callback.restore for callback in self._terminators):
            after.restore()
        for callback in self._terminators:
            callback.found = f"{self._place(model.epoch, step)}: {what} is not finite"

    def look(self, losses: np.ndarray, epoch: int, first: int) -> None:
        """Warn of the first loss that is not finite, if nobody stops there."""
        if self.careful or self._warned or _is_finite(losses):
            return
        self._warned = True
        step = int(np.argmax(~np.isfinite(losses)))
        warnings.warn(
            f"{self._place(epoch, first + step + 1)}: the loss is {losses[step]}. The callback TerminateOnNaN() "
            "stops there and keeps the parameters from before",
            RuntimeWarning,
            stacklevel=5,
        )


def _wants_every_batch(callback: Callback) -> bool:
    """Whether a callback looks at single batches: a user's own hook, or a checkpoint every so many."""
    if isinstance(callback, ModelCheckpoint):
        return callback.save_freq != "epoch"
    if isinstance(callback, LambdaCallback):
        return any(
            "batch" in name and "test" not in name for name in vars(callback) if name.startswith("on_")
        )
    if type(callback).__module__ == Callback.__module__ or isinstance(callback, (History, ProgressBar)):
        return False
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)


def _training_loss(model, target_model, temperature, hard_weight, soft_weight):
    """The compiled loss, or the distillation loss that target_model and its settings ask for."""
    loss = model.loss
    settings = {"temperature": temperature, "hard_weight": hard_weight, "soft_weight": soft_weight}
    settings = {name: value for name, value in settings.items() if value is not None}
    if target_model is None:
        if settings:
            name = next(iter(settings))
            raise ValueError(
                f"{name} belongs to distillation: it needs target_model, got {name}={settings[name]}"
            )
        if loss.distills:
            raise ValueError(f"loss {loss!r} learns from a teacher: pass target_model to fit")
        return loss
    if loss.distills and not settings:
        return loss
    return loss_functions.KnowledgeDistillation(**settings)


def _hard_loss(model, loss, y):
    """What a distilling loss is on labels alone: validation has no teacher."""
    if not loss.distills:
        return loss
    if isinstance(y, Samples):
        sparse = y.targets is None
    else:
        y = np.asarray(y)
        sparse = y.ndim == 1 or y.shape[1:] == (1,)
    kind = loss_functions.SparseCategoricalCrossentropy if sparse else loss_functions.CategoricalCrossentropy
    return kind(from_logits=model.final_activation != "softmax")


def _with_teacher(model, target_model, samples: Samples, loss):
    """The samples with the teacher's logits, computed once, or the teacher itself where inputs are augmented."""
    from . import teachers

    teacher = teachers.as_teacher(target_model, student=model)
    classes = math.prod(model.output_shape)
    if getattr(loss, "soft_weight", 1.0) == 0:  # the teacher is not asked
        zeros = np.zeros((len(samples.x), classes), model.dtype)
        return samples._replace(teacher_logits=zeros), None
    if teacher.softens and "temperature" in getattr(loss, "_schedules", {}):
        raise ValueError(
            "target_model is an arithmetic Ensemble, whose logits are made for one temperature, but the loss changes "
            'its temperature over the epochs: write Ensemble([...], mean="geometric") or keep the temperature'
        )
    augmenting = _augmenting_layer(model)
    if augmenting is not None:
        if teacher.samples is not None:
            raise ValueError(
                f"target_model is an array of logits, but the student's layer {augmenting.name!r} changes its inputs "
                "in every epoch, so they are not those the logits belong to: give the teacher itself, which is "
                "then asked about each changed batch, or leave that layer out"
            )
        return samples, teacher
    temperature = getattr(loss, "temperature", 1.0)
    logits = teachers.cached_logits(teacher, samples.x, 1024, temperature, model.dtype, classes)
    return samples._replace(teacher_logits=logits), None


def _augmenting_layer(model):
    """The layer that changes inputs at random before any parameter sees them, or None."""
    for layer in model.layers:
        if layer.parameters:
            return None
        if isinstance(layer, (GaussianNoise, RandomTranslation)):
            return layer
    return None


# ---- predict and evaluate ----------------------------------------------------------------------------------


class _Predictor:
    """A model laid out for inference: made once, until the model's layers or parameters change place."""

    def __init__(self, model, logits: bool):
        ops = model.ops(logits=logits)
        self._shape, self._dtype = model.input_shape, model.dtype
        self._in_size, self._outputs = math.prod(model.input_shape), math.prod(model.output_shape)
        self._flops = 2.0 * sum(op.in_size * op.out_size for op in ops if op.kind == DENSE)
        self._layouts = {rows: self._layout(model, ops, rows) for rows in (1, _PREDICT_ROWS)}
        self._buffers = threading.local()  # so that several threads may predict at once

    def _layout(self, model, ops, rows):
        laid_out = network.plan(ops, self._in_size, rows)
        program = network.Program(
            laid_out.ops, laid_out.settings, model.params, model.grads, laid_out.out_at, self._outputs, LINEAR
        )
        sizes = rows * self._in_size, laid_out.size, network.packing_size(ops, rows, model.dtype.itemsize)
        return program, sizes

    def _space(self, rows: int, n_threads: int):
        """What `network.infer` needs for chunks of ``rows``, allocated once a thread."""
        key = (rows, n_threads)
        found = self._buffers.__dict__.get(key)
        if found is None:
            program, sizes = self._layouts[rows]
            buffers = [_aligned_rows(n_threads, size, self._dtype) for size in sizes]
            found = self._buffers.__dict__[key] = (program, *buffers, np.zeros(n_threads, np.int64))
        return found

    def reads(self, x) -> bool:
        """Whether ``x`` can be predicted as it is, without a look at its values beforehand."""
        return type(x) is np.ndarray and x.shape[1:] == self._shape and len(x) > 0 and _is_native(x)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, bool]:
        """(outputs (N, C), whether all inputs were finite)."""
        count = len(x)
        out = np.empty((count, self._outputs), self._dtype)
        chunk = 1 if count == 1 else _PREDICT_ROWS
        n_threads = threads.get_num_threads() if self._flops * count > _THREAD_FLOPS else 1
        program, inputs, values, scratch, nonfinite = self._space(chunk, n_threads)
        buffers = program, inputs, values, scratch
        most = max(chunk, int(_SLICE_FLOPS / max(self._flops, 1.0)))
        if n_threads == 1 and count <= most and _is_native(x):  # the lean path: a single row takes microseconds
            network.infer(0, 1, threads.ALONE, *buffers, network.rows_of(x), out, chunk, nonfinite)
            return out, nonfinite[0] == 0
        finite = True
        step = count if _is_native(x) else max(1, _CHUNK_BYTES // (self._in_size * self._dtype.itemsize))
        step = min(step, most)
        for first in range(0, count, step):
            part = x[first : first + step]
            rows = network.rows_of(part if _is_native(part) else np.ascontiguousarray(part, dtype=self._dtype))
            target = out[first : first + step]
            threads.run(network.infer, *buffers, rows, target, chunk, nonfinite, threads=n_threads)
            finite = finite and not nonfinite.any()
        return out, finite


def _aligned_rows(rows: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, size or a little more), every row on a cache line."""
    size = -(-size * dtype.itemsize // ALIGNMENT) * ALIGNMENT // dtype.itemsize
    return aligned_zeros(rows * size, dtype).reshape(rows, size)


def predict(model, x, batch_size: int | None = None, logits: bool = False) -> np.ndarray:
    """The model's outputs for every row of ``x``, or what stands before its final softmax or sigmoid."""
    if batch_size is not None:
        check_int("batch_size", batch_size, minimum=1)
    predictor = model.predictors.get(logits)
    if predictor is not None and predictor.reads(x):
        outputs, finite = predictor(x)
        if not finite:
            check_inputs(x, model.input_shape, model.dtype)  # names the first that is not
    else:
        x = check_inputs(x, model.input_shape, model.dtype)
        outputs = predict_checked(model, x, logits)
    return outputs.reshape(len(x), *model.output_shape)


def predict_checked(model, x: np.ndarray, logits: bool) -> np.ndarray:
    """(N, outputs) for inputs that were checked before."""
    predictor = model.predictors.get(logits)
    if predictor is None and model.ops() is not None:
        predictor = model.predictors[logits] = _Predictor(model, logits)
    if predictor is not None:
        return predictor(x)[0]
    rows = max(1, _CHUNK_BYTES // (math.prod(model.input_shape) * model.dtype.itemsize))
    parts = [
        model.forward(x[first : first + rows], logits=logits)
        for first in range(0, len(x), rows)
    ]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])


def evaluate_samples(model, loss, metrics, samples: Samples) -> dict[str, float]:
    """Mean loss (penalties included) and metrics over ``samples``."""
    outputs = math.prod(model.output_shape)
    kind, hyper, on_logits = model.objective(loss)
    dtype, count = model.dtype, len(samples.x)
    empty = np.empty((0, 0), dtype)
    total, sums = 0.0, np.zeros(len(metrics))
    chunk = max(1, _CHUNK_BYTES // (max(outputs, math.prod(model.input_shape)) * dtype.itemsize))
    for first in range(0, count, chunk):
        part = samples.slice(first, min(first + chunk, count))
        rows = len(part.x)
        logits = predict_checked(model, part.x, logits=on_logits)
        targets = empty if part.targets is None else np.require(part.targets, dtype, "CAW")
        scale = part.weight / count if part.weight.size else np.full(rows, 1.0 / count)
        if kind >= 0:
            row_loss = np.zeros(rows)
            loss_batch(kind, row_loss, empty, logits, part.labels, targets, empty, scale, hyper)
            total += float(row_loss.sum())
        else:  # the user's own
            y = part.labels if part.targets is None else targets
            total += (
                loss.value_and_grad(logits, y, part.weight if part.weight.size else None)[0] * rows / count
            )
        predictions = logits
        if on_logits and any(metric.needs_output_for(outputs) for metric in metrics):
            predictions = predict_checked(model, part.x, logits=False)
        for index, metric in enumerate(metrics):
            values = np.zeros(rows)
            metric_kind = metric.kind_for(part.targets is None, outputs)
            metric_rows(metric_kind, values, predictions, part.labels, targets, metric.k)
            sums[index] += values.sum()
    total += model.penalty()
    logs = {"loss": total}
    logs.update((metric.name, float(value) / count) for metric, value in zip(metrics, sums, strict=True))
    return logs


def evaluate(
    model, x, y, batch_size: int | None = 32, verbose="auto", sample_weight=None, return_dict: bool = False
):
    """Loss and metrics; the arguments are those of `Sequential.evaluate`."""
    model.require_compiled("evaluate")
    batch_size = check_int("batch_size", 32 if batch_size is None else batch_size, minimum=1)
    verbose = check_verbose(verbose)
    loss = _hard_loss(model, model.loss, y)
    samples = check_samples(model, loss, x, y, sample_weight)
    steps = -(-len(samples.x) // batch_size)
    callbacks = CallbackList(add_progbar=verbose != 0, model=model, steps=steps, verbose=verbose)
    callbacks.on_test_begin()
    logs = evaluate_samples(model, loss, model.compiled_metrics, samples)
    callbacks.on_test_end(logs)
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
