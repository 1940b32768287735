"""The training loop: epochs -> slices of steps -> callbacks. `Sequential.fit` ends here.

A model whose parts are all built in runs in the compiled loop, in slices of about a tenth of a second, so that
Ctrl-C, the progress bar and callbacks work; any other model runs layer by layer. Neither the slices, nor
the number of threads, nor the way of running changes a result.
"""

from __future__ import annotations

import math
import time
import warnings
from typing import NamedTuple

import numpy as np

from . import losses as loss_functions
from .callbacks import CallbackList, History, check_verbose
from .inference import evaluate_samples
from .kernels.random import SHUFFLE, make_key, permutation
from .layers import GaussianNoise, RandomTranslation
from .runtime import compile_before_fit
from .samples import Samples, check_samples, hard_loss, labelled_only, with_class_weight
from .steps import CompiledSteps, LayerwiseSteps
from .validation import check_bool, check_float, check_int, describe
from .watch import Watch, run_slice, uninterrupted

_SLICE_SECONDS = 0.1
_AUGMENTING = (GaussianNoise, RandomTranslation)


class Unfinished(NamedTuple):
    """Where in an epoch a training was left: its draws and logs go on from there as if it had not been."""

    step: int  # the next one, from 0
    batch_size: int
    samples: int
    shuffle: bool
    loss_sum: float  # over the samples seen
    metric_sums: dict[str, float]


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
        x_val, y_val, *weight_val = validation_data
        if y_val is None:
            raise ValueError(
                "validation_data must be (x, y), got y=None: it is judged by labels. Without any, look at how far the "
                "student agrees with its teacher, minidl.distill(..., test_data=(x_test, None))"
            )
        validation = check_samples(model, loss, x_val, y_val, *weight_val, argument="validation ")
        validation = labelled_only(validation, "validation y")
    elif validation_split > 0:
        kept = int(math.floor(count * (1 - validation_split)))
        if kept == 0 or kept == count:
            raise ValueError(
                f"validation_split must leave samples on both sides, got {validation_split} of {count}"
            )
        if y is None:
            raise ValueError(
                "validation_split needs y, got y=None: without labels leave it out, and look at how far the student "
                "agrees with its teacher on other samples, minidl.distill(..., test_data=(x_test, None))"
            )
        validation, count = samples.slice(kept, count), kept
        validation = labelled_only(validation, f"the last {len(validation.x)} of y, held out for validation,")
    if class_weight is not None:  # as in Keras it leaves the validation samples alone
        samples = with_class_weight(samples, class_weight, math.prod(model.output_shape))

    metrics = model.compiled_metrics
    for metric in metrics:
        metric.kind_for(samples.targets is None, math.prod(model.output_shape))
    labelled = samples.targets is not None or samples.labels[:count].max(initial=-1) >= 0
    training_metrics = list(metrics) if labelled else []  # they compare with labels
    if not labelled and loss.needs_target:
        raise ValueError(f"y must hold labels, got -1 for all {count} samples: {loss.labels_missing()}")
    model.prepare_optimizer()
    training_ops = model.ops(training=True)
    online_teacher = None
    if target_model is not None:
        samples, online_teacher = _with_teacher(model, target_model, samples, loss, initial_epoch)
        model.was_taught = True
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
    has_label = samples.labels >= 0 if labelled and samples.targets is None else None
    every_batch = all_callbacks.wants_every_batch
    watch = Watch(model, samples.x, epochs, steps, all_callbacks.callbacks)
    # the compiled loop splits a batch between threads, which a loss of the whole batch does not allow
    compiled = training_ops is not None and online_teacher is None and not loss.whole_batch
    if compiled and model.objective(loss).kind >= 0:
        compile_before_fit(model.dtype.name, aloud=verbose != 0)
        runner = CompiledSteps(model, loss, training_metrics, samples, batch_size, every_batch or watch.careful)
    else:
        runner = LayerwiseSteps(model, loss, training_metrics, samples, batch_size, online_teacher)

    model.stop_training = False
    logs: dict[str, float] = {}
    begun = _begun(model, initial_epoch, batch_size, count, shuffle)
    all_callbacks.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.unfinished = begun if epoch == initial_epoch else None
        model.epoch = epoch
        loss.set_epoch(epoch)
        all_callbacks.on_epoch_begin(epoch)
        try:
            logs = _run_epoch(
                model,
                runner,
                training_metrics,
                has_label,
                count,
                batch_size,
                shuffle,
                every_batch,
                watch,
                all_callbacks,
            )
        finally:
            with uninterrupted():
                runner.settle()
        watch.look_at_the_end(epoch)
        if validation is not None and (epoch + 1) % validation_freq == 0:
            all_callbacks.on_test_begin()
            values = evaluate_samples(model, hard_loss(model, loss, validation), metrics, validation)
            all_callbacks.on_test_end(values)
            logs.update((f"val_{name}", value) for name, value in values.items())
        all_callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    all_callbacks.on_train_end(logs)
    return all_callbacks.history


def _begun(model, initial_epoch: int, batch_size: int, count: int, shuffle: bool) -> Unfinished | None:
    """The epoch ``model`` was left in, if that is where this ``fit`` begins, and with the same batches."""
    begun = model.unfinished
    if begun is None or initial_epoch != model.epoch:
        return None
    if (begun.batch_size, begun.samples, begun.shuffle) == (batch_size, count, shuffle):
        return begun
    warnings.warn(
        f"epoch {initial_epoch + 1} was left after {begun.step} steps of batch_size {begun.batch_size} on "
        f"{begun.samples} samples with shuffle={begun.shuffle}; with batch_size {batch_size}, {count} samples and "
        f"shuffle={shuffle} it cannot go on there and begins anew",
        stacklevel=4,
    )
    return None


def _run_epoch(
    model, runner, metrics, has_label, count, batch_size, shuffle, every_batch, watch, callbacks
) -> dict[str, float]:
    """One pass over the samples in slices; returns the mean loss, and the metrics' over those with labels."""
    epoch, order, begun = model.epoch, np.arange(count), model.unfinished
    if shuffle:
        with uninterrupted():  # where it is compiled or loaded first, an interrupt would be lost
            permutation(order, np.uint64(make_key(model.seed, SHUFFLE, model.epoch, 0)))
    steps = -(-count // batch_size)
    names = [metric.name for metric in metrics]
    sums, loss_sum, done, unknown = np.zeros(len(metrics)), 0.0, 0, 0
    if begun is not None:
        done = begun.step
        if list(begun.metric_sums) == names:
            loss_sum, sums[:] = begun.loss_sum, list(begun.metric_sums.values())
        else:  # compiled with other metrics since: the logs are of the samples that follow
            unknown = done * batch_size
    judged = _with_label(has_label, order[unknown : done * batch_size])
    logs: dict[str, float] = {}
    while done < steps:
        length = 1 if every_batch else min(runner.pace, runner.most_steps, steps - done)
        part = order[done * batch_size : (done + length) * batch_size]
        callbacks.on_train_batch_begin(done)
        began = time.perf_counter()
        with uninterrupted(runner.settle) as interrupts:
            losses, before = run_slice(
                model, runner, part, batch_size, done, sums, watch.careful, interrupts
            )
            if not len(losses):  # given up: the interrupt is raised on the way out
                continue
            seconds = time.perf_counter() - began
            length, part = len(losses), part[: len(losses) * batch_size]
            sizes = np.full(length, batch_size)
            sizes[-1] = len(part) - batch_size * (length - 1)
            # one after the other, so that the sum does not depend on where slices end
            loss_sums = np.cumsum(np.concatenate(([loss_sum], losses * sizes)))
            kept, kept_sums = length, sums
            if before is not None and watch.stop(before, part[-sizes[-1] :], done + length):
                kept, kept_sums = length - 1, before.sums
            if done + kept == steps:
                runner.settle()
                model.epoch, model.unfinished = epoch + 1, None
            elif done + kept:
                totals = dict(zip(names, kept_sums.tolist(), strict=True))
                model.unfinished = Unfinished(
                    done + kept, batch_size, count, shuffle, float(loss_sums[kept]), totals
                )
        loss_sum = float(loss_sums[-1])
        done += length
        seen = min(done * batch_size, count) - unknown
        judged += _with_label(has_label, part)
        logs = {"loss": loss_sum / seen}
        # a row without a label adds 0 to the sums
        logs.update((name, float(total) / max(judged, 1)) for name, total in zip(names, sums, strict=True))
        watch.look(losses, epoch, done - length)
        callbacks.on_train_batch_end(done - 1, logs)
        if model.stop_training:
            break
        # aim at slices of _SLICE_SECONDS, but grow by at most 8 a time: the first slice may hold the compiler
        wanted = length * _SLICE_SECONDS / max(seconds, 1e-9)
        if length == runner.pace or wanted < runner.pace:
            runner.pace = int(min(8 * length, max(1, wanted)))
    return logs


def _with_label(has_label: np.ndarray | None, rows: np.ndarray) -> int:
    """How many of these rows have a label; ``has_label`` None: all."""
    return len(rows) if has_label is None else int(np.count_nonzero(has_label[rows]))


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


def _with_teacher(model, target_model, samples: Samples, loss, initial_epoch: int):
    """The samples with the teacher's logits, computed once, or the teacher itself where inputs are augmented."""
    from . import teachers

    teacher = teachers.as_teacher(target_model, student=model)
    classes = math.prod(model.output_shape)
    if getattr(loss, "soft_weight", 1.0) == 0 and not loss.is_scheduled("soft_weight"):
        # the teacher is not asked
        zeros = np.zeros((len(samples.x), classes), model.dtype)
        return samples._replace(teacher_logits=zeros), None
    if said := teachers.say_if_untrained(teacher, model, resumed=initial_epoch > 0):
        warnings.warn(said + ": train it first", stacklevel=4)
    if teacher.softens and loss.is_scheduled("temperature"):
        raise ValueError(
            "target_model is an arithmetic Ensemble, whose logits are made for one temperature, but the loss changes "
            'its temperature over the epochs: write Ensemble([...], mean="geometric") or keep the temperature'
        )
    if teacher.softens and isinstance(loss, loss_functions.NormalizedKD) and loss.temperature != 1:
        raise ValueError(
            "target_model is an arithmetic Ensemble, whose logits are made for one temperature, but normalized_kd uses "
            f'them at 1 and at {loss.temperature:g}: write Ensemble([...], mean="geometric") or temperature=1'
        )
    augmenting = augmenting_layer(model)
    if augmenting is not None:
        if teacher.samples is not None:
            raise ValueError(
                f"target_model is an array of logits, but the student's layer {augmenting.name!r} changes its inputs "
                "in every epoch, so they are not those the logits belong to: give the teacher itself, which is "
                "then asked about each changed batch, or leave that layer out"
            )
        _check_order(model)
        return samples, teacher
    temperature = getattr(loss, "temperature", 1.0)
    logits = teachers.cached_logits(teacher, samples.x, 1024, temperature, model.dtype, classes)
    return samples._replace(teacher_logits=logits), None


def augmenting_layer(model):
    """The layer that changes inputs at random before any parameter sees them, or None."""
    for layer in model.layers:
        if layer.parameters:
            return None
        if isinstance(layer, _AUGMENTING):
            return layer
    return None


def _check_order(model) -> None:
    """Augmenting layers must come first: what they make of x itself is what a teacher can be shown."""
    changed = None
    for layer in model.layers:
        if layer.parameters:
            return
        if isinstance(layer, _AUGMENTING):
            if changed is not None:
                raise ValueError(
                    f"the student's layer {layer.name!r} augments what {changed.name!r} has made of x, so the "
                    f"teacher cannot be shown the same samples: put {layer.name!r} before {changed.name!r}"
                )
        else:
            changed = layer
