"""Runs training steps in the compiled loop: model, loss, optimizer and data as the tables that it reads."""

import math
import time

import numpy as np

from ..kernels import activations, network, program, threads
from ..kernels.losses import UNITS as LOSSES
from ..kernels.metrics import UNITS as METRICS
from ..kernels.program import DENSE, BatchParts, Op, training_buffers
from ..kernels.target import aligned_zeros
from ..kernels.thread_choice import choice_for
from ..kernels.updates import BOUND, PENALIZE, SCALARS, UPDATES
from ..warmup import compile_before_fit
from .interrupts import let_in
from .preparation import TrainingData
from .samples import CHUNK_BYTES, as_rows, is_native

_PART_FLOPS, _PART_ROWS = 4e9, 64
"""A longer step runs in parts, so that Ctrl-C is heard in between: the work of a part, forward and backward, and
the fewest rows of its batch."""
_MOST_CALLS = 6
"""Calls of the loop, of `CALL_SECONDS` each, after which a slice ends where it is."""
_FIRST_FLOPS = 1e7
"""Work of the first slice: some milliseconds on any processor."""
_MOST_IN_PANELS = 1 << 19
"""Bytes of parameters that are trained in panel order. With the optimizer's state they then stay in a core's own
cache, and panels save fetches from the other core. Larger ones leave the cache in any order, and are read in longer
stretches as they are."""
_MOST_COPIED = 1 << 18
"""Bytes of a batch that each thread reads whole for itself, so that it fetches no rows from the other core."""


class CompiledSteps:
    """Runs the steps of a fit in the compiled loop.

    Where several threads share a small net, the parameters and the optimizer's slots are copied in panel order,
    trained there, and copied back after each slice. That is not so if slices are single steps (``stepwise``), or a
    step needs whole weights (`program.Restraints`).
    """

    def __init__(
        self, model, data: TrainingData, ops: list[Op], batch_size: int, stepwise: bool, aloud: bool
    ):
        loss, metrics, samples = data.loss, data.metrics, data.samples
        dtype, objective = model.dtype, model.objective(loss)
        self._made_of, self._version = (data, batch_size, stepwise, aloud), model.version
        self._model, self._loss, self._samples, self._batch_size = model, loss, samples, batch_size
        n_threads = self._most_threads = threads.most_threads()
        self._threads = choice_for(model.params.size, batch_size)
        self._restraints = _restraints(model)
        shared = n_threads > 1 and model.params.nbytes <= _MOST_IN_PANELS
        self._in_panels = shared and not (stepwise or self._restraints.active)
        trained = [model.params, *model.optimizer.slots]
        if self._in_panels:
            trained = [aligned_zeros(array.size, dtype) for array in trained]
        self._panels = trained

        in_size, outputs = math.prod(model.input_shape), math.prod(model.output_shape)
        sparse, taught = samples.targets is None, samples.teacher_logits is not None
        kinds = [metric.kind_for(sparse, outputs) for metric in metrics]
        step_parts = program.Parts._fields if self._restraints.active else program.Parts._fields[:-1]
        compile_before_fit(
            dtype.name, aloud, _unit_names(model, objective, ops, model.optimizer, kinds, step_parts)
        )
        laid_out = program.plan(ops, batch_size, dtype)
        batch_bytes = batch_size * in_size * dtype.itemsize
        copied = self._in_panels and ops[0].kind == DENSE and batch_bytes <= _MOST_COPIED
        needs_output = objective.on_logits and any(metric.needs_output_for(outputs) for metric in metrics)
        final = 0
        if needs_output:
            final = activations.FORWARD.address(activations.CODES[model.final_activation], dtype)
        self._program = program.Program(
            laid_out.ops, laid_out.settings, trained[0], model.grads, self._in_panels, final,
            program.Parts(*(network.PARTS.address(name, dtype) for name in step_parts)),
        )  # fmt: skip
        parts = BatchParts(len(metrics), samples.labels.size > 0, not sparse, taught, needs_output)
        self._buffers = training_buffers(
            ops, laid_out.size, batch_size, dtype, n_threads, n_threads if copied else 1, parts
        )
        self._metric_units = np.array([METRICS.address(kind, dtype) for kind in kinds], np.int64)
        self._metric_ks = np.array([metric.k for metric in metrics], np.int64)
        self._reads_x_directly = is_native(samples.x)
        self._x = program.rows_of(samples.x) if self._reads_x_directly else None
        self._targets = as_rows(samples.targets, dtype)
        self._teacher = as_rows(samples.teacher_logits, dtype)
        self._part = max(_PART_ROWS, int(_PART_FLOPS / max(1, 4 * model.params.size)))
        # the clock ends a slice whose steps are long
        self.pace = max(64, int(_FIRST_FLOPS / (6 * model.params.size * batch_size)))
        self.most_steps = 10**9
        if not self._reads_x_directly:
            self.most_steps = max(1, CHUNK_BYTES // batch_bytes)
        if self._part < batch_size:
            self.most_steps = 1

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray) -> np.ndarray:
        """Train on consecutive batches of ``order``; returns each step's loss and adds to ``metric_sums``.

        Of several epochs, ``order`` and ``metric_sums`` have a row each. Where that takes longer than a slice should,
        the last steps are left undone.
        """
        if self._model.version != self._version:  # a callback has frozen a layer, or set a rate
            data, *rest = self._made_of
            ops = self._model.ops(training=True, logits=self._model.objective(self._loss).on_logits)
            if ops is None:
                raise ValueError("a constraint of your own cannot be set while fit runs in the compiled loop")
            self.__init__(self._model, data, ops, *rest)
        optimizer, orders = self._model.optimizer, np.atleast_2d(order)
        steps = len(orders) * -(-orders.shape[1] // self._batch_size)
        losses, metric_sums = np.zeros(steps), np.atleast_2d(metric_sums)
        progress = np.zeros(3, np.int64)
        kind, hyper, _ = self._model.objective(self._loss)  # anew: a schedule may have moved the temperature
        loss = LOSSES.address(kind, self._model.dtype)
        table = program.LossTable(
            loss, hyper, self._metric_units, self._metric_ks, losses, metric_sums, progress
        )
        rates = optimizer.learning_rates(optimizer.iterations, steps)
        _, *slots = self._copy_panels(back=False)
        rule = [units.address(optimizer.kind, self._model.dtype) for units in (UPDATES, SCALARS)]
        state = program.UpdateState(
            *rule, optimizer.hyper, *slots, rates, optimizer.iterations, self._restraints
        )
        moment = program.Moment(self._model.seed, self._model.draw_epoch, first_step)
        data = self._data(orders)
        arguments = self._program, self._buffers, data, table, state, moment
        for _ in range(_MOST_CALLS):
            self._call(arguments, progress, steps)
            if progress[program.DONE] == steps:
                break
        self._copy_panels(back=True)
        done = int(progress[program.DONE])
        optimizer.iterations += done
        return losses[:done]

    def _call(self, arguments, progress: np.ndarray, steps: int) -> None:
        """Go on for `CALL_SECONDS`, or for one step, which comes in several parts if it is a long one."""
        before, began = progress[program.DONE], time.perf_counter()
        count, seconds = self._threads.next(min(self._most_threads, threads.get_num_threads()))
        progress[1:] = steps, seconds * 1e9
        for first in range(0, self._batch_size, self._part):
            if not before:
                let_in()  # nothing has changed before the last part of the first step
            last = first + self._part
            part = program.Part(first, last, last >= self._batch_size)
            used = threads.run(network.train, *arguments, part, threads=count)
        self._threads.record(used, int(progress[program.DONE] - before), time.perf_counter() - began)

    def _data(self, orders: np.ndarray) -> program.Data:
        """What a slice on the rows ``orders`` reads; inputs of a foreign dtype are converted now."""
        samples, order = self._samples, orders.ravel()
        x, x_order = self._x, order
        if not self._reads_x_directly:
            chunk = samples.x[order].reshape(len(order), -1)
            x = program.rows_of(np.ascontiguousarray(chunk, dtype=self._model.dtype))
            x_order = np.arange(len(order))
        sizes = self._batch_size, orders.shape[1]
        return program.Data(
            x, x_order, order, samples.labels, self._targets, self._teacher, samples.weight, *sizes
        )

    def _copy_panels(self, back: bool) -> list[np.ndarray]:
        """Copy parameters and slots to where they are trained, or ``back``; returns that place."""
        learned = [self._model.params, *self._model.optimizer.slots]
        if not self._in_panels:
            return learned
        for place, array in enumerate(learned):
            if array.size != self._panels[place].size:  # a new slot: a callback has set a momentum, say
                self._panels[place] = aligned_zeros(array.size, array.dtype)
            if array.size:
                program.panel_order(self._panels[place], array, self._program.ops, back)
        return self._panels


def names_to_train(model, loss, optimizer, metric_kinds: list[int]) -> list[str]:
    """The units that a fit of ``model`` will ask for; none where it runs layer by layer."""
    objective = model.objective(loss)
    ops = model.ops(training=True, logits=objective.on_logits)
    if ops is None or objective.kind < 0 or loss.whole_batch:
        return []
    return _unit_names(model, objective, ops, optimizer, metric_kinds, program.Parts._fields[:-1])


def _unit_names(model, objective, ops, optimizer, metric_kinds: list[int], parts: tuple) -> list[str]:
    """What training and evaluating ``model`` needs."""
    return [
        *program.unit_names(ops, training=True),
        activations.FORWARD.name(activations.CODES[model.final_activation]),
        LOSSES.name(objective.kind),
        *map(METRICS.name, metric_kinds),
        *map(network.PARTS.name, parts),
        *(units.name(optimizer.kind) for units in (UPDATES, SCALARS)),
    ]


def _restraints(model) -> program.Restraints:
    """Penalties, clipping and constraints as data."""
    optimizer, penalties, (places, limits) = model.optimizer, model.penalties, model.max_norms
    clips = [
        float(limit or 0) for limit in (optimizer.clipvalue, optimizer.clipnorm, optimizer.global_clipnorm)
    ]
    active, units = bool(penalties.any() or limits.size or any(clips)), (0, 0)
    if active:
        units = PENALIZE.address("penalize_and_clip", model.dtype), BOUND.address("max_norm", model.dtype)
    segments = model.learning_segments
    return program.Restraints(active, *units, segments, penalties, np.array(clips), places, limits)
