"""Runs training steps in the compiled loop: model, loss, optimizer and data as the tables that it reads."""

import math
import time
from typing import NamedTuple

import numpy as np

from ..kernels import activations, network, program, threads
from ..kernels.batch import GATHER
from ..kernels.losses import UNITS as LOSSES
from ..kernels.metrics import UNITS as METRICS
from ..kernels.plan import plan, unit_names
from ..kernels.program import BATCH_NORMALIZATION, DENSE, BatchParts, Op, training_buffers
from ..kernels.restraints import AVERAGE, CONSTRAIN, PENALIZE
from ..kernels.target import aligned_zeros
from ..kernels.thread_choice import CALL_SECONDS, choice_for
from ..kernels.updates import SCALARS, UPDATES
from ..warmup import compile_before_fit
from .interrupts import call_waiting_handlers
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
_MOST_KEPT, _MOST_KEPT_BYTES = 8, 1 << 21
"""How much memory waits for further fits: so many fits', of so many bytes each at most."""


class _Layout(NamedTuple):
    """All that the memory of a fit depends on. `_kept` has the memory of a few earlier fits by it."""

    ops: tuple[Op, ...]
    settings: bytes  # of the operations: among numbers -0.0 would equal 0.0
    batch_size: int
    dtype: np.dtype
    threads: int
    input_copies: int
    parts: BatchParts
    units: tuple  # the codes of the other units that the fit calls: compiled, if they were for an earlier fit


class _Memory:
    """What a `_Layout` is in the compiled loop: its table of operations, and the arrays that a step writes to.

    ``panels``: parameters and slots while they are trained in panel order.
    """

    def __init__(self, layout: _Layout):
        ops, _, batch_size, dtype, *rest, _ = layout
        self.plan = plan(ops, batch_size, dtype)
        self.buffers = training_buffers(ops, self.plan.size, batch_size, dtype, *rest)
        self.panels = [aligned_zeros(0, dtype) for _ in range(4)]

    def is_small(self) -> bool:
        return sum(array.nbytes for array in (*self.buffers, *self.panels)) <= _MOST_KEPT_BYTES


_kept: dict[_Layout, _Memory] = {}
"""The memory of fits that are over: making it would take longer than a short fit. A fit takes it out while it runs, so
that no other has it at the same time."""


class CompiledSteps:
    """Runs the steps of a fit in the compiled loop.

    Where several threads share a small net, the parameters and the optimizer's slots are copied in panel order,
    trained there, and copied back after each slice. That is not so if slices are single steps (``stepwise``), or a
    step needs whole weights (`program.Restraints`).
    """

    _exchange_address = 0  # `kernels.exchange`: none
    _is_taught = False  # by a teacher that is asked about each batch

    def __init__(
        self, model, data: TrainingData, ops: list[Op], batch_size: int, stepwise: bool, aloud: bool
    ):
        samples = data.samples
        self._model, self._loss, self._tally, self._samples = model, data.loss, data.tally, samples
        self._batch_size, self._stepwise, self._aloud = batch_size, stepwise, aloud
        self._most_threads = self._threads_here()
        self._threads = choice_for(model.params.size, batch_size)
        self._lay_out(ops)
        self._reads_x_directly = is_native(samples.x)
        self._x = program.rows_of(samples.x) if self._reads_x_directly else None
        self._targets = as_rows(samples.targets, model.dtype)
        self._teacher = as_rows(samples.teacher_logits, model.dtype)
        self._step_flops = 6 * model.params.size * batch_size
        # the clock ends a slice whose steps are long
        self.pace = max(64, int(_FIRST_FLOPS / self._step_flops))
        self.most_steps = 10**9
        if not self._reads_x_directly:
            row_bytes = math.prod(model.input_shape) * model.dtype.itemsize
            self.most_steps = max(1, CHUNK_BYTES // (batch_size * row_bytes))
        if self._tally.others:
            output_bytes = math.prod(model.output_shape) * model.dtype.itemsize
            self.most_steps = min(self.most_steps, max(1, CHUNK_BYTES // (batch_size * output_bytes)))
        if self._part < batch_size:
            self.most_steps = 1

    def _lay_out(self, ops: list[Op]) -> None:
        """Describe the model as it is now, and find the memory for it."""
        model, samples, batch_size = self._model, self._samples, self._batch_size
        metrics, keeps_outputs = self._tally.by_kernel, bool(self._tally.others)
        dtype, objective = model.dtype, model.objective(self._loss)
        self._version, self._restraints = _version(model), _restraints(model, self._exchange_address)
        model.clear_gradients_of_what_does_not_learn()
        shared = self._most_threads > 1 and model.params.nbytes <= _MOST_IN_PANELS
        self._in_panels = shared and not (self._stepwise or self._restraints.active)
        self._part = max(_PART_ROWS, int(_PART_FLOPS / max(1, 4 * model.params.size)))
        if any(op.kind == BATCH_NORMALIZATION for op in ops):
            self._part = max(self._part, batch_size)  # its rows depend on each other
        batch_bytes = batch_size * ops[0].in_size * dtype.itemsize
        copied = self._in_panels and ops[0].kind == DENSE and batch_bytes <= _MOST_COPIED
        sparse, outputs = samples.targets is None, math.prod(model.output_shape)
        needs_output = objective.on_logits and any(
            metric.needs_output_for(outputs) for metric in self._tally.metrics
        )
        taught = samples.teacher_logits is not None or self._is_taught
        has_labels, has_buffer = samples.labels.size > 0, needs_output and not keeps_outputs
        parts = BatchParts(len(metrics), has_labels, not sparse, taught, has_buffer)
        kinds = [metric.kind_for(sparse, outputs) for metric in metrics]
        step_parts = program.Parts._fields if self._restraints.active else program.Parts._fields[:-1]
        of_losses = [metric.loss_kind for metric in self._tally.others if metric.loss_kind is not None]
        units = objective.kind, model.final_activation, model.optimizer.kind, self._restraints.active, *kinds
        n_threads, settings = self._most_threads, np.concatenate([op.f for op in ops]).tobytes()
        copies = n_threads if copied else 1
        self._layout = _Layout(
            tuple(ops), settings, batch_size, dtype, n_threads, copies, parts, (units, *of_losses)
        )
        memory = _kept.pop(self._layout, None)
        if memory is None:
            names = _unit_names(model, objective, ops, model.optimizer, kinds, step_parts)
            compile_before_fit(dtype.name, self._aloud, [*names, *map(LOSSES.name, of_losses)])
            memory = _Memory(self._layout)
        self._memory = memory
        self._metric_units = np.array([METRICS.address(kind, dtype) for kind in kinds], np.int64)
        self._metric_ks = np.array([metric.k for metric in metrics], np.int64)
        final = 0
        if needs_output:
            final = activations.FORWARD.address(activations.CODES[model.final_activation], dtype)
        trained = self._copy_panels(back=False)[0]
        addresses = program.Parts(*(network.PARTS.address(name, dtype) for name in step_parts))
        self._program = program.Program(
            *memory.plan[:2],
            trained,
            self._gradients(),
            self._in_panels,
            final,
            GATHER.address("rows", dtype),
            addresses,
        )

    def own_rows(self, order: np.ndarray) -> np.ndarray:
        """Those of these rows that this process trains on."""
        return order

    def _threads_here(self) -> int:
        return threads.most_threads()

    def _gradients(self) -> np.ndarray:
        return self._model.grads

    def keep_memory(self) -> None:
        """Leave the memory to the next fit of a model like this one."""
        if self._memory.is_small():
            if len(_kept) >= _MOST_KEPT:
                _kept.clear()
            _kept[self._layout] = self._memory

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray) -> np.ndarray:
        """Train on consecutive batches of ``order``; returns each step's loss and adds to ``metric_sums``.

        Of several epochs, ``order`` and ``metric_sums`` have a row each. Where that takes longer than a slice should,
        the last steps are left undone.
        """
        orders = np.atleast_2d(order)
        batches = program.consecutive_batches(*orders.shape, self._batch_size)
        return self._run(orders.ravel(), batches, first_step, np.atleast_2d(metric_sums))

    def _run(
        self, order: np.ndarray, batches: np.ndarray, first_step: int, metric_sums: np.ndarray
    ) -> np.ndarray:
        """`run` for a table of `program.Data`, in which ``metric_sums`` has a row for each epoch."""
        if _version(self._model) != self._version:  # a callback has frozen a layer, or set a rate or a limit
            ops = self._model.ops(training=True, logits=self._model.objective(self._loss).on_logits)
            if ops is None:
                raise ValueError("a constraint of your own cannot be set while fit runs in the compiled loop")
            self._lay_out(ops)
        optimizer, steps = self._model.optimizer, len(batches)
        losses = np.zeros(steps)
        kernel_sums = np.ascontiguousarray(metric_sums[:, : len(self._metric_units)])
        predictions = np.empty((0, 0), self._model.dtype)
        if self._tally.others:
            predictions = np.empty((order.size, math.prod(self._model.output_shape)), self._model.dtype)
        progress = np.zeros(3, np.int64)
        kind, hyper, _ = self._model.objective(self._loss)  # anew: a schedule may have moved the temperature
        loss = LOSSES.address(kind, self._model.dtype)
        table = program.LossTable(
            loss, hyper, self._metric_units, self._metric_ks, losses, kernel_sums, progress, predictions
        )
        rates = optimizer.learning_rates(optimizer.batches, steps)
        _, *slots = self._copy_panels(back=False)
        rule = [units.address(optimizer.kind, self._model.dtype) for units in (UPDATES, SCALARS)]
        state = program.UpdateState(
            *rule, optimizer.hyper, *slots, rates, optimizer.batches, self._restraints
        )
        moment = program.Moment(self._model.seed, self._model.draw_epoch, first_step)
        data = self._data(order, batches)
        self._train((self._program, self._memory.buffers, data, table, state, moment), table, steps)
        self._copy_panels(back=True)
        done = int(progress[program.DONE])
        optimizer.batches += done
        metric_sums[:, : len(self._metric_units)] = kernel_sums
        if self._tally.others:
            self._add_up(metric_sums, predictions, order, done)
        return losses[:done]

    def _train(self, arguments: tuple, table: program.LossTable, steps: int) -> None:
        """Take so many steps, or those that a slice has time for."""
        for _ in range(_MOST_CALLS):
            self._call(arguments, table.progress, steps)
            if table.progress[program.DONE] == steps:
                break

    def _add_up(self, sums: np.ndarray, predictions: np.ndarray, order: np.ndarray, done: int) -> None:
        """Add to the sums, a row for each epoch, what the other metrics make of the ``done`` steps' predictions."""
        rows, size = len(order) // len(sums), self._batch_size
        for epoch, order_of_epoch in enumerate(order.reshape(len(sums), rows)):
            last = min(rows, max(0, done - epoch * -(-rows // size)) * size)
            of_epoch = predictions[epoch * rows : (epoch + 1) * rows]
            self._tally.add_batches(sums[epoch], of_epoch, self._samples, order_of_epoch[:last], size)

    def _call(self, arguments, progress: np.ndarray, steps: int) -> None:
        """Go on for `CALL_SECONDS`, or for one step, which comes in several parts if it is a long one."""
        before, began = progress[program.DONE], time.perf_counter()
        most = min(self._most_threads, threads.get_num_threads())
        flops = float(steps - before) * self._step_flops
        is_short = flops < threads.SHORT_FLOPS  # over before a worker has come; its time would tell nothing
        count, seconds = (1, CALL_SECONDS) if is_short else self._threads.next(most)
        progress[1:] = steps, seconds * 1e9
        for first in range(0, self._batch_size, self._part):
            if not before:
                self._hear_signals()  # nothing has changed before the last part of the first step
            last = first + self._part
            part = program.Part(first, last, last >= self._batch_size)
            used = threads.run(network.train, *arguments, part, threads=count)
        done, elapsed = int(progress[program.DONE] - before), time.perf_counter() - began
        if not is_short:
            self._threads.record(used, done, elapsed)

    def _hear_signals(self) -> None:
        call_waiting_handlers()

    def _data(self, order: np.ndarray, batches: np.ndarray) -> program.Data:
        """What a slice on the rows ``order`` reads; inputs of a foreign dtype are converted now, and made dense."""
        samples, x, x_order = self._samples, self._x, order
        if not self._reads_x_directly:
            chunk = np.ascontiguousarray(samples.x[order], dtype=self._model.dtype)
            x = program.rows_of(chunk.reshape(len(order), -1))
            x_order = np.arange(len(order))
        loss = self._loss
        of_loss = loss.divisor, loss.ignored, loss.penalty_rows
        return program.Data(
            x, x_order, order, samples.labels, self._targets, self._teacher, samples.weight, batches, *of_loss
        )

    def _copy_panels(self, back: bool) -> list[np.ndarray]:
        """Copy parameters and slots to where they are trained, or ``back``; returns that place."""
        learned = [self._model.params, *self._model.optimizer.slots[:3]]
        if not self._in_panels:
            return learned
        panels = self._memory.panels
        for place, array in enumerate(learned):
            if array.size != panels[place].size:  # a new slot: a callback has set a momentum, say
                panels[place] = aligned_zeros(array.size, array.dtype)
            if array.size:
                program.panel_order(panels[place], array, self._memory.plan.ops, back)
        return panels


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
        *unit_names(ops, training=True),
        GATHER.name("rows"),
        activations.FORWARD.name(activations.CODES[model.final_activation]),
        LOSSES.name(objective.kind),
        *map(METRICS.name, metric_kinds),
        *map(network.PARTS.name, parts),
        *(units.name(optimizer.kind) for units in (UPDATES, SCALARS)),
    ]


def _version(model) -> tuple:
    """What the layout depends on and a callback may change."""
    settings = "clipvalue", "clipnorm", "global_clipnorm", "ema_momentum", "ema_overwrite_frequency"
    return model.version, *(getattr(model.optimizer, setting) for setting in settings)


def _restraints(model, exchange: int) -> program.Restraints:
    """Penalties, accumulation, clipping, averages, constraints and an ``exchange`` as data."""
    optimizer, penalties, (places, numbers) = model.optimizer, model.penalties, model.constraint_table
    clips = [
        float(limit or 0) for limit in (optimizer.clipvalue, optimizer.clipnorm, optimizer.global_clipnorm)
    ]
    average, accumulated = optimizer.slots[3:]
    restrained = penalties.any() or len(places) or any(clips) or average.size or accumulated.size
    active = bool(restrained or exchange)
    units = [0, 0, 0]
    if active:
        averages = AVERAGE.address("move_average", model.dtype) if average.size else 0
        penalize = PENALIZE.address("penalize_and_clip", model.dtype)
        units = [penalize, averages, CONSTRAIN.address("constrain", model.dtype)]
    rest = (
        optimizer.batches_to_an_update,
        accumulated,
        average,
        optimizer.averaging,
        places,
        numbers,
        exchange,
    )
    return program.Restraints(active, *units, model.learning_segments, penalties, np.array(clips), *rest)
