"""`Sequential.predict` and `Sequential.evaluate` on the compiled loop."""

import math
import threading

import numpy as np

from ..callbacks import CallbackList, check_verbose
from ..kernels import batch, infer, program, threads
from ..kernels.plan import plan, unit_names
from ..kernels.program import DENSE, aligned_rows
from ..layers import Normalization
from ..validation import check_inputs, check_int
from ..warmup import compile_before_predict
from .objective import metric_values, predictions_for, reduced, score_rows
from .samples import CHUNK_BYTES, Samples, check_samples, is_native, loss_without_teacher
from .tally import Tally

_CHUNK = 96  # rows whose activations stay in the cache
_SLICE_FLOPS = 2e9  # work of one kernel call at most: between two calls Ctrl-C is heard


class Predictor:
    """A model laid out for inference: made once, until layers or parameters change place or a layer adapts."""

    def __init__(self, model, logits: bool, rows: int):
        """``rows``: how many are to be predicted first."""
        ops = model.ops(logits=logits)
        names = [*unit_names(ops, training=False), *["infer"] * (rows > _CHUNK)]
        compile_before_predict(model.dtype.name, names)
        self._shape, self._dtype = model.input_shape, model.dtype
        self._adapting = [(each, each._version) for each in model.layers if isinstance(each, Normalization)]
        self._in_size, self._outputs = math.prod(model.input_shape), math.prod(model.output_shape)
        self._flops = 2.0 * sum(op.in_size * op.out_size for op in ops if op.kind == DENSE)
        laid_out = plan(ops, _CHUNK, model.dtype, training=False)
        self._arrays = laid_out.ops, laid_out.settings, model.params
        self._model = program.Inference(*self._arrays, infer.ROWS.address("rows", model.dtype))
        packing = program.packing_size(ops, _CHUNK, model.dtype.itemsize)
        self._sizes = laid_out.size, packing, _CHUNK * self._in_size
        self._buffers = threading.local()  # so that several threads may predict at once

    def _space(self, n_threads: int):
        """`program.Space`, allocated once for each thread."""
        found = self._buffers.__dict__.get(n_threads)
        if found is None:
            buffers = [aligned_rows(n_threads, size, self._dtype) for size in self._sizes]
            found = self._buffers.__dict__[n_threads] = program.Space(*buffers, np.zeros(n_threads, np.int64))
            self._buffers.alone = found[0][0], found[1][0]
        return found

    def is_current(self) -> bool:
        """Whether no layer has adapted since."""
        return all(layer._version == version for layer, version in self._adapting)

    def reads(self, x) -> bool:
        """Whether ``x`` can be predicted as it is, without a look at its values beforehand."""
        fits = type(x) is np.ndarray and x.shape[1:] == self._shape and len(x) > 0 and is_native(x)
        return fits and (not self._adapting or self.is_current())

    def __call__(self, x: np.ndarray, native: bool) -> tuple[np.ndarray, bool]:
        """(outputs (N, C), whether all inputs were finite); ``native``: what `is_native` says of x."""
        count = len(x)
        out = np.empty((count, self._outputs), self._dtype)
        n_threads = threads.count_for(self._flops * count)
        space = self._space(n_threads)
        if native and n_threads == 1 and count <= _CHUNK and x.dtype == self._dtype and x.flags.carray:
            return out, infer.infer_rows(*self._arrays, *self._buffers.alone, x.ravel(), count, out)
        if native and x.dtype != self._dtype and not self._model.gather:
            self._model = self._model._replace(gather=batch.GATHER.address("rows", self._dtype))
        finite, step = True, count
        if not native:
            step = max(1, CHUNK_BYTES // (self._in_size * self._dtype.itemsize))
        if self._flops * step > _SLICE_FLOPS:
            step = max(_CHUNK, int(_SLICE_FLOPS / self._flops))
        for first in range(0, count, step):
            part, target = (x, out) if step >= count else (x[first : first + step], out[first : first + step])
            rows = program.rows_of(part if native else np.ascontiguousarray(part, dtype=self._dtype))
            arguments, flops = (self._model, space, rows, _CHUNK, target), self._flops * len(target)
            used = threads.run_measured(infer.infer, *arguments, threads=n_threads, flops=flops)
            finite = finite and not any(space.nonfinite[:used].tolist())
        return out, finite


def predict(model, x, logits: bool = False) -> np.ndarray:
    """The model's outputs for every row of ``x``, or what stands before its final softmax or sigmoid."""
    predictor = model.predictors.get(logits)
    if predictor is not None and predictor.reads(x):
        outputs, finite = predictor(x, native=True)
        if not finite:
            check_inputs(x, model.input_shape, model.dtype)  # names the first that is not
    else:
        x = check_inputs(x, model.input_shape, model.dtype)
        outputs = predict_checked(model, x, logits)
    return outputs if outputs.ndim > len(model.output_shape) else outputs.reshape(len(x), *model.output_shape)


def predict_checked(model, x: np.ndarray, logits: bool) -> np.ndarray:
    """(N, outputs) for inputs that were checked before."""
    predictor = model.predictors.get(logits)
    if predictor is not None and not predictor.is_current():
        predictor = None
    if predictor is None and model.ops() is not None:
        predictor = model.predictors[logits] = Predictor(model, logits, len(x))
    if predictor is not None:
        return predictor(x, is_native(x))[0]
    rows = max(1, CHUNK_BYTES // (math.prod(model.input_shape) * model.dtype.itemsize))
    slices = [x[first : first + rows] for first in range(0, len(x), rows)]
    parts = [model.forward(np.asarray(part), logits=logits) for part in slices]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])


def evaluate_samples(
    model, loss, metrics, samples: Samples, batch_size: int, callbacks: CallbackList
) -> dict[str, float]:
    """Mean loss (penalties included) and metrics over ``samples``. Callbacks are called around some batches."""
    objective, count = model.objective(loss), len(samples.x)
    tally, total = Tally(model, metrics, samples.targets is None), 0.0
    sums, kernels = np.zeros(tally.size), len(tally.by_kernel)
    widest = max(math.prod(model.output_shape), math.prod(model.input_shape))
    chunk = max(1, CHUNK_BYTES // (widest * model.dtype.itemsize))
    if tally.others:  # they see whole batches, and a function one batch at a time
        chunk = max(batch_size, chunk // batch_size * batch_size)
    samples = reduced(loss, objective, samples, batch_size)
    callbacks.on_test_begin()
    for first in range(0, count, chunk):
        callbacks.on_test_batch_begin(first // batch_size)
        part = samples.take(slice(first, first + chunk))
        logits = predict_checked(model, part.x, logits=objective.on_logits)
        row_loss, _ = score_rows(loss, objective, logits, part, count, with_gradient=False)
        total += float(row_loss.sum())
        predictions = predictions_for(model, metrics, objective, logits)
        sums[:kernels] += [
            values.sum() for values in metric_values(model, tally.by_kernel, predictions, part)
        ]
        if tally.others:
            tally.add_batches(sums, predictions, part, np.arange(len(part.x)), batch_size)
            tally.raise_error()
        seen = first + len(part.x)
        logs = {"loss": total * count / seen + model.penalty()}
        logs.update(tally.results(sums, seen))
        callbacks.on_test_batch_end((seen - 1) // batch_size, logs)
    logs["loss"] = total + model.penalty()
    callbacks.on_test_end(logs)
    return logs


def evaluate(model, x, y, batch_size: int | None, verbose, sample_weight) -> dict[str, float]:
    """Loss and metrics by name; the arguments are those of `Sequential.evaluate`."""
    batch_size = check_int("batch_size", 32 if batch_size is None else batch_size, minimum=1)
    verbose = check_verbose(verbose)
    loss = loss_without_teacher(model, model.loss, y)
    samples = check_samples(model, loss, x, y, sample_weight)
    steps = -(-len(samples.x) // batch_size)
    callbacks = CallbackList(add_progbar=verbose != 0, model=model, steps=steps, verbose=verbose)
    return evaluate_samples(model, loss, model.metrics, samples, batch_size, callbacks)
