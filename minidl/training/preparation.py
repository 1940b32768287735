"""Prepares a `fit`: its loss, its data and its teacher are checked before anything is trained."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from .. import teachers
from ..callbacks import say
from ..kernels.metrics import BINARY_ACCURACY
from ..layers.stack import AUGMENTING
from ..losses import Loss, NormalizedKD
from ..metrics import FunctionMetric
from ..validation import warn
from .inference import predict_checked
from .options import FitOptions
from .samples import Samples, check_labels_left, check_samples, labelled_only, split_rows, with_class_weight
from .streams import Stream, everything, is_stream
from .tally import Tally
from .tasks import choose_task

_ASKED_AT_A_TIME = 1024  # samples

_WITHOUT_LABELS = "look at how far the student agrees with its teacher"


class TrainingData(NamedTuple):
    """What a fit trains on and is judged by."""

    loss: Loss
    samples: Samples  # the validation split's rows are the last, after ``count``
    count: int  # samples to train on
    validation: Samples | Stream | None
    tally: Tally  # of the metrics of training: none where no sample has a label
    online_teacher: teachers.Teacher | None
    """Asked about each batch; None: the samples hold its logits, or there is none."""


def prepare(model, options: FitOptions, loss: Loss | None = None, tally: Tally | None = None) -> TrainingData:
    """Check the data against model and loss, keep validation samples aside, ask the teacher.

    ``loss``: in the place of what the options ask for. ``tally``: that of samples which were prepared before these.
    """
    loss = loss or _training_loss(model, options)
    samples = check_samples(model, loss, options.x, options.y, options.sample_weight)
    count, validation = _keep_validation_aside(model, loss, samples, options)
    outputs = math.prod(model.output_shape)
    if options.class_weight is not None:  # as in Keras it leaves the validation samples alone
        samples = with_class_weight(samples, options.class_weight, outputs, count)
        loss.check_on(model, samples)
    sparse, judged = samples.targets is None, [] if samples.y is None else model.metrics
    for metric in judged:
        metric.check_fits(sparse, outputs)
    labels = samples.labels[: count if loss.distills else 0]  # another loss has no rows without a label
    without = int(np.count_nonzero(labels < 0))
    has_labels = without < len(labels) or (samples.targets is not None and not without) or not loss.distills
    if not has_labels and loss.needs_target:
        raise ValueError(f"y must hold labels, got -1 for all {count} samples: {loss.labels_missing()}")
    check_labels_left(samples, outputs, slice(count if loss.distills else 0))
    compares = [m.name for m in judged if m.has_kernel and m.kernel_for(sparse, outputs) != BINARY_ACCURACY]
    if without and not sparse and compares:
        raise ValueError(
            "metrics must be binary_accuracy, AUC and the like where rows of y are -1, no label, got "
            f"{compares}: others would compare with the -1"
        )
    if without and options.verbose:
        say(f"y is -1, no label, for {without} of {count} samples: they learn from the teacher alone\n")
    online_teacher = None
    if options.target_model is not None:
        samples, online_teacher = _taught(model, loss, samples, options)
        model.was_taught = True
    if tally is None:
        tally = Tally(model, model.metrics if has_labels else [], sparse, loss.distills)
        _try_functions(model, tally, samples, min(options.batch_size, count))
    return TrainingData(loss, samples, count, validation, tally, online_teacher)


def _try_functions(model, tally: Tally, samples: Samples, rows: int) -> None:
    """Call metrics that are functions of the user's once, so that one that is wrong is refused before any step."""
    if any(isinstance(metric, FunctionMetric) for metric in tally.others):
        first = samples.take(slice(0, rows))
        tally.add(np.zeros(tally.size), predict_checked(model, first.x, False), first.labels, first.targets)
        tally.raise_error()


def read_validation(model, data: TrainingData, options: FitOptions) -> Samples | None:
    """The samples of the next validation: of a stream its next epoch, joined."""
    if not isinstance(data.validation, Stream):
        return data.validation
    found = everything(data.validation)
    if found is None:
        return None
    given = dataclasses.replace(options, validation_data=found, validation_steps=None)
    return _keep_validation_aside(model, data.loss, data.samples, given)[1]  # type: ignore[return-value]


def _keep_validation_aside(
    model, loss, samples: Samples, options: FitOptions
) -> tuple[int, Samples | Stream | None]:
    """(samples left to train on, validation samples or None)."""
    count = len(samples.x)
    if is_stream(options.validation_data):
        stream = Stream(
            "validation_data", options.validation_data, options.validation_steps, "validation_steps"
        )
        x, y, weight, _ = stream.first()
        check_samples(model, loss, x, y, weight, argument="validation ")
        return count, stream
    if options.validation_data is not None:
        x, y, *weight = options.validation_data
        if y is None:
            raise ValueError(
                "validation_data must be (x, y), got y=None: it is judged by labels. Without any, "
                f"{_WITHOUT_LABELS}, minidl.distill(..., test_data=(x_test, None))"
            )
        validation = check_samples(model, loss, x, y, *weight, argument="validation ")
        return count, labelled_only(model, loss, validation, "validation y")
    seen, held_out = split_rows(count, options.validation_split)
    if held_out is None:
        return count, None
    kept = seen.stop
    if kept in (0, count):
        raise ValueError(
            f"validation_split must leave samples on both sides, got {options.validation_split} of {count}"
        )
    if options.y is None:
        raise ValueError(
            f"validation_split needs y, got y=None: without labels leave it out, and {_WITHOUT_LABELS} on other "
            "samples, minidl.distill(..., test_data=(x_test, None))"
        )
    validation = samples.take(held_out)
    name = f"the last {count - kept} of y, held out for validation,"
    return kept, labelled_only(model, loss, validation, name)


def _training_loss(model, options: FitOptions) -> Loss:
    """The compiled loss, or the distillation loss that target_model and its settings ask for."""
    loss, names = model.loss, ("temperature", "hard_weight", "soft_weight")
    settings = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.target_model is None:
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(f"{name} belongs to distillation: it needs target_model, got {name}={value}")
        if loss.distills:
            raise ValueError(f"loss {loss!r} learns from a teacher: pass target_model to fit")
        return loss
    if loss is not None and loss.distills and not settings:
        return loss
    return choose_task(model, options.y).loss_of(settings)


def _taught(model, loss, samples: Samples, options: FitOptions) -> tuple[Samples, teachers.Teacher | None]:
    teacher = teachers.as_teacher(options.target_model, model, activation=loss.fused_activation)
    if not is_of_labels_alone(loss):
        if note := teachers.untrained_note(teacher, model, resumed=options.initial_epoch > 0):
            warn(note + ": train it first")
    return ask_teacher(model, loss, samples, teacher)


def is_of_labels_alone(loss) -> bool:
    """Whether a distillation loss never reads the teacher's answers."""
    return getattr(loss, "soft_weight", 1.0) == 0 and not loss.is_scheduled("soft_weight")


def ask_teacher(
    model, loss, samples: Samples, teacher: teachers.Teacher
) -> tuple[Samples, teachers.Teacher | None]:
    """The samples with the teacher's logits, computed once, or the teacher itself where inputs are augmented."""
    classes = math.prod(model.output_shape)
    if is_of_labels_alone(loss):  # the teacher is not asked
        return samples._replace(teacher_logits=np.zeros((len(samples.x), classes), model.dtype)), None
    if teacher.softens:
        _check_temperatures(loss)
    augmenting = model.augmenting_layer()
    if augmenting is not None:
        if teacher.samples is not None:
            asked = isinstance(teacher, teachers.InputsTeacher)
            known = "has inputs of its own" if asked else "is an array of logits"
            raise ValueError(
                f"target_model {known}, but the student's layer {augmenting.name!r} changes its inputs "
                "in every epoch, so they are not those the logits belong to: give the teacher itself, which is "
                "then asked about each changed batch, or leave that layer out"
            )
        _check_order(model)
        return samples, teacher
    temperature = getattr(loss, "temperature", 1.0)
    logits = teachers.cached_logits(teacher, samples.x, _ASKED_AT_A_TIME, temperature, model.dtype, classes)
    return samples._replace(teacher_logits=logits), None


def _check_temperatures(loss) -> None:
    """An arithmetic ensemble's logits are made for one temperature: the loss must use them at that one."""
    target = "target_model is an arithmetic Ensemble, whose logits are made for one temperature, but "
    if loss.is_scheduled("temperature"):
        raise ValueError(
            f"{target}the loss changes its temperature over the epochs: write Ensemble([...], "
            'mean="geometric") or keep the temperature'
        )
    if isinstance(loss, NormalizedKD) and loss.temperature != 1:
        raise ValueError(
            f"{target}normalized_kd uses them at 1 and at {loss.temperature:g}: write "
            'Ensemble([...], mean="geometric") or temperature=1'
        )


def _check_order(model) -> None:
    """Augmenting layers must come first: what they make of x itself is what a teacher can be shown.

    So `Stack.augmented` may stop at the first layer that does not augment.
    """
    changed = None
    for layer in model.layers:
        if layer.parameters:
            return
        if not isinstance(layer, AUGMENTING):
            changed = layer
        elif changed is not None:
            raise ValueError(
                f"the student's layer {layer.name!r} augments what {changed.name!r} has made of x, so the "
                f"teacher cannot be shown the same samples: put {layer.name!r} before {changed.name!r}"
            )
