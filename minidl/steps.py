"""Runs training steps: many a call in the compiled loop, or one by one through the layers."""

from __future__ import annotations

import math
import time

import numpy as np

from .kernels import network, threads
from .kernels.activations import CODES, LINEAR
from .kernels.ops import DENSE
from .kernels.simd import aligned_zeros
from .samples import CHUNK_BYTES, Samples, aligned_rows, as_rows, is_native

_PART_FLOPS, _PART_ROWS = 4e9, 64
"""Work, forward and backward, of a longer step that is done at a time, and the fewest rows: then Ctrl-C is heard."""


def _restraints(model) -> network.Restraints:
    """Penalties, clipping and constraints as data."""
    optimizer, penalties, (places, limits) = model.optimizer, model.penalties, model.max_norms
    clips = [
        float(limit or 0) for limit in (optimizer.clipvalue, optimizer.clipnorm, optimizer.global_clipnorm)
    ]
    active = bool(penalties.any() or limits.size or any(clips))
    return network.Restraints(active, model.segments, penalties, *clips, places, limits)


class CompiledSteps:
    """Runs steps in the compiled loop.

    Where several threads share a small net, parameters and what the optimizer remembers of them are copied in
    panel order, trained there, and come back with `settle`; unless each step must be seen (``stepwise``) or
    needs whole weights (`network.Restraints`).
    """

    _MOST_IN_PANELS = 1 << 19
    """Bytes of parameters: with the optimizer's memory of them they then stay in a core's own cache, where panels
    save the other core's visits. Larger ones leave it in any order, and rows are read in longer stretches."""
    _MOST_COPIED = 1 << 18
    """Bytes of a batch of which each thread then reads all rows for itself, and fetches none from the other core."""

    def __init__(self, model, loss, metrics, samples: Samples, batch_size: int, stepwise: bool):
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
        self.optimizer, self.params = model.optimizer, model.params
        self._restraints = _restraints(model)
        shared = n_threads > 1 and model.params.nbytes <= self._MOST_IN_PANELS
        self._in_panels = shared and not (stepwise or self._restraints.active)
        copied = (
            self._in_panels and ops[0].kind == DENSE and batch_size * in_size * itemsize <= self._MOST_COPIED
        )
        self._settled = True
        self._learned = [model.params, *model.optimizer.slots]
        self._trained = self._learned
        if self._in_panels:
            self._trained = [aligned_zeros(array.size, dtype) for array in self._learned]
        self._program = network.Program(
            laid_out.ops, laid_out.settings, self._trained[0], model.grads, self._in_panels, laid_out.out_at,
            outputs, final,
        )  # fmt: skip
        self._buffers = network.Buffers(
            aligned_rows(n_threads if copied else 1, batch_size * in_size, dtype),
            aligned_zeros(laid_out.size, dtype),
            aligned_zeros(laid_out.size, dtype),
            aligned_rows(n_threads, network.packing_size(ops, batch_size, itemsize), dtype),
            aligned_rows(n_threads, network.tile_size(ops, itemsize), dtype),
            aligned_rows(n_threads, 8, np.dtype(np.float64)),
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
        self._direct = is_native(samples.x)
        self._x = network.rows_of(samples.x) if self._direct else None
        self._targets = as_rows(samples.targets, dtype)
        self._teacher = as_rows(samples.teacher_logits, dtype)
        self._threads = _ThreadChoice(n_threads)  # never more than there are buffers for
        row_bytes = in_size * itemsize
        self.most_steps = 10**9 if self._direct else max(1, CHUNK_BYTES // (row_bytes * batch_size))
        self._part = max(_PART_ROWS, int(_PART_FLOPS / max(1, 4 * model.params.size)))
        if self._part < batch_size:
            self.most_steps = 1
        self.pace = 1

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray, interrupts=()) -> np.ndarray:
        """Train on consecutive batches of ``order``; returns each step's loss and adds to ``metric_sums``.

        A long step is given up, and nothing returned, if there is one of ``interrupts`` before it learns.
        """
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
        table = network.LossTable(kind, hyper, self._metric_kinds, self._metric_ks, losses, metric_sums)
        rates = optimizer.learning_rates(optimizer.iterations, steps)
        self._keep_what_the_optimizer_keeps()
        self._unsettle()
        state = network.UpdateState(
            optimizer.kind, optimizer.hyper, *self._trained[1:], rates, optimizer.iterations, self._restraints
        )
        moment = network.Moment(model.seed, model.epoch, first_step)
        arguments = self._program, self._buffers, data, table, state, moment
        with self._threads.timed(steps) as count:
            for first in range(0, self._batch_size, self._part):
                if interrupts:
                    return losses[:0]
                last = first + self._part
                part = network.Part(first, last, last >= self._batch_size)
                threads.run(network.train, *arguments, part, threads=count)
        optimizer.iterations += steps
        return losses

    def _keep_what_the_optimizer_keeps(self) -> None:
        """A callback may have changed a setting, a momentum that was 0, say: then there is a new array of zeros."""
        for place, slot in enumerate(self._model.optimizer.slots, start=1):
            if slot is not self._learned[place]:
                self._learned[place] = slot
                self._trained[place] = aligned_zeros(slot.size, slot.dtype) if self._in_panels else slot

    def _unsettle(self) -> None:
        if self._in_panels and self._settled:
            self._exchange(back=False)

    def settle(self) -> None:
        """Model and optimizer hold what the steps so far have learned."""
        if not self._settled:
            self._exchange(back=True)

    def _exchange(self, back: bool) -> None:
        for trained, learned in zip(self._trained, self._learned, strict=True):
            if learned.size:
                network.panel_order(trained, learned, self._program.ops, back)
        self._settled = back


class _ThreadChoice:
    """How many threads the next slice gets: all, or one where that was found to be faster.

    Threads meet several times a step, and on a busy machine a meeting waits for whoever was put to sleep. So
    where steps are short, now and then a slice is run on one thread, to see: first the second, which is short.
    """

    _SHORT_STEP = 1e-3  # seconds; a longer one gains from threads whatever they wait
    _FIRST_TRIAL, _NEXT_TRIAL = 2, 64  # slices

    def __init__(self, most: int):
        self._most = most
        self._seconds: dict[int, float] = {}  # a step, by number of threads
        self._slices = 0

    def timed(self, steps: int):
        self._steps = steps
        return self

    def __enter__(self) -> int:
        most = min(self._most, threads.get_num_threads())
        self._slices += 1
        self._count = min(self._seconds, key=self._seconds.get, default=most)
        if self._slices == self._FIRST_TRIAL + 1:
            self._count = most  # the first slice woke the others, and tells nothing of them
        elif (
            self._slices % self._NEXT_TRIAL == self._FIRST_TRIAL
            and self._seconds.get(most, 1.0) < self._SHORT_STEP
        ):
            self._count = most if self._count == 1 else 1
        self._began = time.perf_counter()
        return self._count

    def __exit__(self, *error) -> None:
        self._seconds[self._count] = (time.perf_counter() - self._began) / self._steps


class LayerwiseSteps:
    """Runs steps layer by layer, in Python: for layers, losses and constraints of the user's own."""

    most_steps = pace = 1

    def __init__(self, model, loss, metrics, samples: Samples, batch_size: int, online_teacher=None):
        self._model, self._loss, self._metrics, self._samples = model, loss, metrics, samples
        self._batch_size, self._online_teacher = batch_size, online_teacher
        self.optimizer, self.params = model.optimizer, model.params

    def settle(self) -> None:
        """The layers are never behind."""

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray, interrupts=()) -> np.ndarray:
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
