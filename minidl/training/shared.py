"""Steps that several processes take together: each runs the compiled loop on its own rows of every batch.

Between backward and update the loop calls `_exchange`, which adds up the gradients of all: one exchange a step, with
the number of rows appended. All else that a step reads (the optimizer's state, penalties, limits) is the same on all
ranks, and so are its parameters. Losses and metrics are added up once a slice.
"""

import numpy as np

from ..kernels import exchange, program, threads
from ..kernels.program import BATCH_NORMALIZATION, PLACE, ROWS, WHOLE
from ..kernels.reductions import ROWS as MEAN
from ..kernels.target import aligned_zeros
from ..metrics import FunctionMetric
from .compiled import CompiledSteps
from .interrupts import call_waiting_handlers
from .preparation import TrainingData
from .samples import as_rows


def check_shared(model, options, data: TrainingData) -> None:
    """Refuse by name what needs whole batches, or all samples at once."""
    loss, ranks, objective = data.loss, options.communicator, model.objective(data.loss)
    ops = model.ops(training=True, logits=objective.on_logits)
    functions = [metric.name for metric in data.tally.others if isinstance(metric, FunctionMetric)]
    reason = ""
    if loss.whole_batch or objective.kind < 0:
        reason = f"loss {loss.name} is computed of a whole batch"
    elif ops is None:
        own = [f"layer {layer.name!r}" for layer in model.layers if layer.ops() is None]
        part = own[0] if own else f"a constraint or method of {model.name}"
        reason = f"{part} is your own and may look at the other rows of a batch"
    elif of_batch := [model.layers[op.layer].name for op in ops if op.kind == BATCH_NORMALIZATION]:
        reason = f"layer {of_batch[0]!r} normalises by the moments of a whole batch"
    elif functions:
        reason = f"metric {functions[0]!r} is a function of yours, which is given whole batches"
    if reason:
        raise ValueError(f"communicator of {ranks.size} ranks: each has a part of a batch, but {reason}")
    if not ranks.has_shards:
        return
    whole = {
        "validation_split": options.validation_split,
        "class_weight='balanced'": isinstance(options.class_weight, str),
        f"loss {loss.name} with reduction={loss.reduction!r}": loss.divisor != MEAN,
    }
    for name, given in whole.items():
        if given:
            raise ValueError(f"{name} looks at the samples of all ranks, but with Shards each has its own")


class SharedSteps(CompiledSteps):
    """Runs the steps of a fit together with the other ranks, which all run as many at a time."""

    def __init__(self, model, data: TrainingData, batch_size: int, stepwise: bool, options):
        self._ranks, self._whole = options.communicator, batch_size
        self._message = aligned_zeros(model.params.size + 1, model.dtype)  # gradients, and the number of rows
        self._function = exchange.FUNCTION(self._exchange)
        self._exchange_address = exchange.address_of(self._function)
        self._weight = np.ones(len(data.samples.x)) if data.loss.divisor != MEAN else None
        self._teacher_asked = data.online_teacher
        self._is_taught = self._teacher_asked is not None
        self._error: BaseException | None = None
        self._in_steps = False
        ops = model.ops(training=True, logits=model.objective(data.loss).on_logits)
        rows = self._ranks.most_rows(data.count, batch_size)
        super().__init__(model, data, ops, rows, stepwise, options.verbose != 0)
        if self._is_taught:
            self.pace = self.most_steps = 1

    def _lay_out(self, ops):
        self._message[:] = 0  # what no longer learns has no gradient
        super()._lay_out(ops)
        self._part = self._batch_size  # the exchange ends a step, so it comes in one part

    def _threads_here(self):
        return min(threads.get_num_threads(), self._ranks.threads)

    def _gradients(self):
        return self._message[:-1]

    def _hear_signals(self):
        """Not now: the other ranks have begun the step."""

    def own_rows(self, order):
        return self._ranks.own_part(order, self._whole)[0]

    def run(self, order, first_step, metric_sums):
        """Train on consecutive batches of ``order``, which are those of all ranks; returns each step's loss."""
        rows, self._batches = self._ranks.own_part(order, self._whole)
        self._model.set_step(self._model.draw_epoch, first_step, int(self._batches[0, PLACE]))
        if self._weight is not None:
            samples = self._data_of(order)
            self._weight[order] = self._loss.batch_weights(*samples, len(order), self._whole)
        steps, sums = len(self._batches), np.zeros((1, metric_sums.size))
        self._row_losses = np.zeros(steps)
        try:
            losses = self._run(rows, self._batches, first_step, sums)
            total = np.concatenate((self._row_losses, sums[0]))
            self._ranks.sum(total)
        except BaseException as error:
            if self._in_steps:
                self._ranks.abort(error)
            raise
        finally:
            self._in_steps = False
        metric_sums += total[steps:]
        return losses + total[:steps]  # the first are penalties, the same on all ranks

    def _data_of(self, order):
        """Labels and weights of these rows, if there are any."""
        parts = self._samples.labels, self._samples.weight
        return [part[order] if part.size else part for part in parts]

    def _data(self, order, batches):
        data = super()._data(order, batches)
        if self._weight is not None:
            data = data._replace(sample_weight=self._weight, divisor=MEAN)
        if self._is_taught and len(order):
            data = self._taught(data, order)
        return data

    def _taught(self, data: program.Data, order) -> program.Data:
        """``data`` of one step with what the teacher says of its inputs as the first layers change them."""
        samples, model = self._samples.take(order), self._model
        x = model.augmented(np.ascontiguousarray(samples.x, dtype=model.dtype))
        logits = self._teacher_asked.logits(x, temperature=self._loss.temperature)
        weight = data.sample_weight[order] if data.sample_weight.size else data.sample_weight
        targets, teacher = as_rows(samples.targets, model.dtype), as_rows(logits, model.dtype)
        given = dict(labels=samples.labels, targets=targets, teacher=teacher, sample_weight=weight)
        return data._replace(order=np.arange(len(order)), **given)

    def _train(self, arguments, table, steps):
        call_waiting_handlers()
        self._ranks.agree()
        self._in_steps, self._table = True, table
        while table.progress[program.DONE] < steps and self._error is None:
            self._call(arguments, table.progress, steps)
        if self._error is not None:
            raise self._error

    def _add_up(self, sums, predictions, order, done):
        self._tally.add_batches(sums[0], predictions, self._samples, order, max(1, len(order)))

    def _exchange(self, step: int) -> None:
        """Called in the middle of step number ``step`` of a slice, when this rank's gradients are complete.

        An error waits, since a kernel has called this: it ends the slice.
        """
        try:
            losses, message = self._table.losses, self._message
            self._row_losses[step], losses[step] = losses[step], 0.0
            message[-1] = self._batches[step, ROWS]
            self._ranks.sum(message)
            whole = message.dtype.type(self._batches[step, WHOLE])
            if message[-1] != whole:
                raise RuntimeError(
                    f"the ranks are out of step: their rows are {message[-1]:g}, not {whole:g}"
                )
        except BaseException as error:
            self._error = error
            self._table.progress[program.END] = 0
