"""What a `fit` begins with: its loss, its data and its teacher, all checked before anything is trained."""

import math
from typing import NamedTuple

from ..losses import Loss
from ..metrics import Metric
from ..teachers import Teacher
from .options import FitOptions
from .samples import Samples, check_samples, labelled_only, with_class_weight
from .teaching import taught, training_loss

_WITHOUT_LABELS = "look at how far the student agrees with its teacher"


class TrainingData(NamedTuple):
    """What a fit trains on and is judged by."""

    loss: Loss
    samples: Samples  # the validation split's rows are the last, after ``count``
    count: int  # samples to train on
    validation: Samples | None
    metrics: list[Metric]  # those of training: none where no sample has a label
    online_teacher: (
        Teacher | None
    )  # asked about each batch; None: the samples hold its logits, or there is none

    @property
    def labelled(self):
        """bool (N,), where some samples have no label; None: all have one, or none has."""
        if not self.metrics or self.samples.targets is not None:
            return None
        return self.samples.labels >= 0


def prepare(model, options: FitOptions) -> TrainingData:
    """Check the data against model and loss, keep validation samples aside, ask the teacher."""
    loss = training_loss(model, options)
    samples = check_samples(model, loss, options.x, options.y, options.sample_weight)
    count, validation = _keep_validation_aside(model, loss, samples, options)
    outputs = math.prod(model.output_shape)
    if options.class_weight is not None:  # as in Keras it leaves the validation samples alone
        samples = with_class_weight(samples, options.class_weight, outputs)
    for metric in model.metrics:
        metric.kind_for(samples.targets is None, outputs)
    has_labels = samples.targets is not None or samples.labels[:count].max(initial=-1) >= 0
    if not has_labels and loss.needs_target:
        raise ValueError(f"y must hold labels, got -1 for all {count} samples: {loss.labels_missing()}")
    model.prepare_optimizer()
    online_teacher = None
    if options.target_model is not None:
        samples, online_teacher = taught(model, loss, samples, options)
        model.was_taught = True
    return TrainingData(
        loss, samples, count, validation, list(model.metrics) if has_labels else [], online_teacher
    )


def _keep_validation_aside(model, loss, samples: Samples, options: FitOptions) -> tuple[int, Samples | None]:
    """(samples left to train on, validation samples or None)."""
    count = len(samples.x)
    if options.validation_data is not None:
        x, y, *weight = options.validation_data
        if y is None:
            raise ValueError(
                "validation_data must be (x, y), got y=None: it is judged by labels. Without any, "
                f"{_WITHOUT_LABELS}, minidl.distill(..., test_data=(x_test, None))"
            )
        validation = check_samples(model, loss, x, y, *weight, argument="validation ")
        return count, labelled_only(validation, "validation y")
    if options.validation_split == 0:
        return count, None
    kept = math.floor(count * (1 - options.validation_split))
    if kept in (0, count):
        raise ValueError(
            f"validation_split must leave samples on both sides, got {options.validation_split} of {count}"
        )
    if options.y is None:
        raise ValueError(
            f"validation_split needs y, got y=None: without labels leave it out, and {_WITHOUT_LABELS} on other "
            "samples, minidl.distill(..., test_data=(x_test, None))"
        )
    validation = samples.take(slice(kept, count))
    name = f"the last {count - kept} of y, held out for validation,"
    return kept, labelled_only(validation, name)
