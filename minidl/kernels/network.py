"""The compiled training loop: many steps in one call, no Python in between.

A step is gather -> forward -> loss -> backward -> update, and `train` below reads so. It calls the same kernels in
the same order as the layers do from Python: both end with the same bits. The model is data to it (`program`): a
table of operations, a flat parameter vector, and one buffer that holds every operation's output. So the loop and its
parts, each a unit, are compiled once for each dtype, whatever the architecture.

Threads share a step in two ways. Up to the loss's gradient and back through the layers, each takes its own rows of
the batch; at wide dense layers it takes its own columns of all rows (`passes`). The weight gradients sum over all rows,
so there each thread takes its own part of the weights, and updates it at once (`learning`). Between the two all
threads meet.
"""

from .activations import call_forward
from .barrier import meet, start_together
from .batch import Run, gather_batch, partition, step_arguments
from .jit import jit
from .learning import learn, restrain
from .losses import call_loss
from .metrics import call_metric
from .passes import backward, forward
from .processor import atomic_load, atomic_store, clock, flush_denormals, restore_denormals
from .program import DONE, END, NANOSECONDS, OUT, OUT_AT, Parts
from .reference import reference
from .simd import copy, part_of, rows_at
from .units import Units
from .vectors import stay_apart


@jit
def train(team, program, buffers, data, table, state, moment, part):
    """Train on consecutive batches of ``data.order``, of one or more epochs, from step ``DONE`` on.

    ``moment`` is that of step 0. ``part`` is all rows of each batch, or a part of one long step. On a busy machine a
    step may take a hundred times as long as the last, so the caller limits the time as well as the number of steps.
    """
    _train_together(
        team,
        reference(program),
        reference(buffers),
        reference(data),
        reference(table),
        reference(state),
        moment,
        part,
    )


@jit
def _train_together(team, program, buffers, data, table, state, moment, part):
    """`train` with references to its tuples: then the machine code that publishes the call is ten times shorter."""
    stay_apart()
    start_together(team)
    mode, call = flush_denormals(), program.parts
    run = reference(Run(reference(team), program, buffers, data, table, state))
    step, stop = table.progress[DONE], clock() + table.progress[NANOSECONDS]
    while step < atomic_load(table.progress, END):
        mine = reference(partition(run, part, step, moment))
        call_part(call.gather, run, mine)
        call_part(call.forward, run, mine)
        call_part(call.loss, run, mine)
        call_part(call.backward, run, mine)
        meet(team)  # until the gradients of all rows are complete
        if part.learns:
            call_part(call.learn, run, mine)
            if state.restraints.active:
                call_part(call.restrain, run, mine)
            if team.thread == 0 and clock() > stop:
                atomic_store(table.progress, END, step + 1)  # all threads see it after the barrier
            meet(team)  # until all parameters are updated
        step += 1
    restore_denormals(mode)
    if team.thread == 0 and part.learns:
        table.progress[DONE] = step
    meet(team)


def loss_and_metrics(run, mine):
    """Loss, its gradient and metrics of this thread's rows."""
    program, buffers, table = run.program, run.buffers, run.table
    low, high, count = mine.low, mine.high, mine.high - mine.low
    last = program.ops[program.ops.shape[0] - 1]
    logits = rows_at(buffers.values, last[OUT_AT], last[OUT], low, high)
    dlogits = rows_at(buffers.dvalues, last[OUT_AT], last[OUT], low, high)
    # rows of an empty buffer are empty
    labels = part_of(buffers.labels, low, count if buffers.labels.size else 0)
    targets = rows_at(buffers.targets, 0, buffers.targets.shape[1], low, high)
    teacher = rows_at(buffers.teacher, 0, buffers.teacher.shape[1], low, high)
    call_loss(
        table.loss,
        part_of(buffers.row_loss, low, count),
        dlogits,
        logits,
        labels,
        targets,
        teacher,
        part_of(buffers.row_scale, low, count),
        table.hyper,
    )
    if table.metric_units.size or table.predictions.size:
        predictions = logits
        if table.predictions.size:
            predictions = rows_at(table.predictions, mine.start * last[OUT], last[OUT], low, high)
        elif buffers.predictions.size:
            predictions = rows_at(buffers.predictions, 0, last[OUT], low, high)
        if program.final:
            call_forward(program.final, predictions, logits, 0.0)
        elif table.predictions.size:
            copy(predictions, logits)
        for m in range(table.metric_units.size):
            row_value = part_of(buffers.row_metric, m * buffers.row_metric.shape[1] + low, count)
            call_metric(table.metric_units[m], row_value, predictions, labels, targets, table.metric_ks[m])


_FUNCTIONS = (gather_batch, forward, loss_and_metrics, backward, learn, restrain)
PARTS = Units("step", dict(zip(Parts._fields, _FUNCTIONS, strict=True)), step_arguments)
call_part = PARTS.caller
