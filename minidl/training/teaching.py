"""Who teaches in a `fit`: ``target_model`` becomes logits by sample, or a teacher who is asked about each batch."""

import math

import numpy as np

from .. import teachers
from ..layers.stack import AUGMENTING
from ..losses import KnowledgeDistillation, Loss, NormalizedKD
from ..validation import warn
from .options import FitOptions
from .samples import Samples

_ASKED_AT_A_TIME = 1024  # samples


def training_loss(model, options: FitOptions) -> Loss:
    """The compiled loss, or the distillation loss that target_model and its settings ask for."""
    loss, settings = model.loss, options.distillation_settings
    if options.target_model is None:
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(f"{name} belongs to distillation: it needs target_model, got {name}={value}")
        if loss.distills:
            raise ValueError(f"loss {loss!r} learns from a teacher: pass target_model to fit")
        return loss
    if loss is not None and loss.distills and not settings:
        return loss
    return KnowledgeDistillation(**settings)


def taught(model, loss, samples: Samples, options: FitOptions) -> tuple[Samples, teachers.Teacher | None]:
    """The samples with the teacher's logits, computed once, or the teacher itself where inputs are augmented."""
    teacher = teachers.as_teacher(options.target_model, student=model)
    classes = math.prod(model.output_shape)
    if getattr(loss, "soft_weight", 1.0) == 0 and not loss.is_scheduled("soft_weight"):
        # the teacher is not asked
        return samples._replace(teacher_logits=np.zeros((len(samples.x), classes), model.dtype)), None
    if note := teachers.untrained_note(teacher, model, resumed=options.initial_epoch > 0):
        warn(note + ": train it first")
    if teacher.softens:
        _check_temperatures(loss)
    augmenting = model.augmenting_layer()
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
