"""Losses: value and gradient together, on the network's logits.

A loss is called as in Keras, ``loss(y_true, y_pred)``; training asks for ``value_and_grad``. A value is the mean
over the batch, with ``sample_weight`` the weighted sum divided by B. See ``supervised`` for the losses that learn
from labels, and ``distillation`` for those that learn from a teacher.
"""

from ..kernels.losses import SETTINGS
from ..registry import check_kind
from ..registry import serialize as _serialize
from ..validation import describe, warn
from .base import LOSSES, Loss
from .distillation import *  # noqa: F403  (every loss, without a list of their names)
from .distillation import DistillationLoss, Ramp, Schedule
from .softmax import boltzmann, check_logits, log_softmax, softmax
from .supervised import *  # noqa: F403
from .supervised import CLASS_OF
from .tasks import *  # noqa: F403

__all__ = ["DistillationLoss", "Loss", "Ramp", "Schedule", "boltzmann", "check_logits", "deserialize", "get"]
__all__ += ["log_softmax", "serialize", "softmax", *LOSSES.classes, *(f.__name__ for f in CLASS_OF)]


def get(identifier) -> Loss | None:
    """The loss meant by a name ("mse", "CategoricalCrossentropy"), class, function of this module or config.

    None stays None. Raises ValueError for an unknown name, with the nearest known one, and TypeError for anything
    else.
    """
    if callable(identifier) and not isinstance(identifier, (Loss, type)):
        if identifier not in CLASS_OF:
            raise TypeError(
                f"loss must be a name, a config or a Loss (subclass it and write value_and_grad), "
                f"got {describe(identifier)}"
            )
        return CLASS_OF[identifier]()
    loss = LOSSES.get(identifier)
    for kind in () if loss is None else {loss.kind(True), loss.kind(False)} - {-1}:
        check_kind(loss, kind, SETTINGS)
    return loss


def serialize(loss: Loss | None) -> dict | None:
    """``{"class_name", "config"}``, all of it JSON. A schedule that is a plain function becomes its value now."""
    saved = _serialize(loss)
    if loss is None or saved is None:
        return None
    for setting, value in saved["config"].items():
        if callable(value):
            saved["config"][setting] = getattr(loss, setting)
            warn(
                f"{setting} of {loss.name} is a function and is saved as its value now, "
                f"{getattr(loss, setting)}; a minidl.losses.Ramp is saved whole"
            )
    return saved


deserialize = LOSSES.deserialize
