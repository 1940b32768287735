"""The training loop: epochs -> slices of steps -> callbacks. `Sequential.fit` hands over to ``fit``.

A model whose parts are all minidl's own runs in the compiled loop, in slices of about a tenth of a second. Steps run
layer by layer if a part is the user's own, if a row's loss depends on the other rows (`DIST`), or if the teacher must
be asked about each batch. The way of running changes no result.
"""

from ..callbacks import CallbackList, History
from ..validation import warn
from .compiled import CompiledSteps
from .epoch import EpochRunner, Unfinished
from .inference import evaluate_samples
from .interrupts import uninterrupted
from .layerwise import LayerwiseSteps
from .options import FitOptions
from .preparation import TrainingData, prepare
from .samples import loss_without_teacher
from .watch import Watch


def fit(model, options: FitOptions) -> History:
    """Train ``model``; the history of losses and metrics."""
    data = prepare(model, options)
    loss, batch_size = data.loss, min(options.batch_size, len(data.samples.x))
    steps = -(-data.count // batch_size)
    callbacks = CallbackList(
        options.callbacks,
        add_history=True,
        add_progbar=options.verbose != 0,
        model=model,
        epochs=options.epochs,
        steps=steps,
        verbose=options.verbose,
    )
    every_batch = callbacks.wants_every_batch
    watch = Watch(model, data.samples.x, options.epochs, steps, callbacks.callbacks)
    runner = _choose_runner(model, data, batch_size, stepwise=every_batch or watch.careful, options=options)
    epochs = EpochRunner(model, runner, data, batch_size, options.shuffle, watch, callbacks)

    model.stop_training = False
    logs: dict[str, float] = {}
    unfinished = _epoch_to_finish(model, options, batch_size, data.count)
    callbacks.on_train_begin()
    for epoch in range(options.initial_epoch, options.epochs):
        model.unfinished = unfinished if epoch == options.initial_epoch else None
        model.epoch = epoch
        loss.set_epoch(epoch)
        callbacks.on_epoch_begin(epoch)
        try:
            logs = epochs.run(every_batch)
        finally:
            with uninterrupted():
                runner.settle()
        watch.warn_of_parameters(epoch)
        if data.validation is not None and (epoch + 1) % options.validation_freq == 0:
            logs.update(_validate(model, data, callbacks))
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    callbacks.on_train_end(logs)
    return callbacks.history


def _choose_runner(model, data: TrainingData, batch_size: int, stepwise: bool, options: FitOptions):
    """The compiled loop where it knows all parts of model and loss, else steps layer by layer."""
    loss = data.loss
    # the compiled loop splits a batch between threads, which a loss of the whole batch does not allow
    compiled = data.online_teacher is None and not loss.whole_batch and model.ops(training=True) is not None
    if compiled and model.objective(loss).kind >= 0:  # negative: a loss of the user's own
        aloud = options.verbose != 0
        return CompiledSteps(model, loss, data.metrics, data.samples, batch_size, stepwise, aloud)
    return LayerwiseSteps(model, loss, data.metrics, data.samples, batch_size, data.online_teacher)


def _validate(model, data: TrainingData, callbacks: CallbackList) -> dict[str, float]:
    """Loss and metrics of the validation samples, their names with ``val_`` before."""
    callbacks.on_test_begin()
    y = data.validation.y
    values = evaluate_samples(
        model, loss_without_teacher(model, data.loss, y), model.metrics, data.validation
    )
    callbacks.on_test_end(values)
    return {f"val_{name}": value for name, value in values.items()}


def _epoch_to_finish(model, options: FitOptions, batch_size: int, count: int) -> Unfinished | None:
    """The epoch ``model`` was left in, if this ``fit`` begins there and has the same batches."""
    left = model.unfinished
    if left is None or options.initial_epoch != model.epoch:
        return None
    if (left.batch_size, left.samples, left.shuffle) == (batch_size, count, options.shuffle):
        return left
    warn(
        f"epoch {options.initial_epoch + 1} was left after {left.step} steps of batch_size {left.batch_size} on "
        f"{left.samples} samples with shuffle={left.shuffle}; with batch_size {batch_size}, {count} samples and "
        f"shuffle={options.shuffle} it cannot go on there and begins anew"
    )
    return None
