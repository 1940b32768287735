"""Losses: value and gradient together, on the network's logits.

A loss is called as in Keras, ``loss(y_true, y_pred)``; training asks for ``value_and_grad``. A value is the mean
over the batch, with ``sample_weight`` the weighted sum divided by B, unless ``reduction`` says otherwise. See
``supervised``, ``errors`` and ``focal`` for the losses that learn from labels, ``distillation`` for those that learn
from a teacher, and ``function`` for one of your own.
"""

from ..kernels.losses import SETTINGS
from ..registry import Sealed, check_kind, function_config, own_function
from ..registry import serialize as _serialize
from ..validation import warn
from .base import LOSSES, Loss
from .distillation import *  # noqa: F403  (every loss, without a list of their names)
from .distillation import DistillationLoss, Ramp, Schedule
from .errors import *  # noqa: F403
from .focal import *  # noqa: F403
from .function import FunctionLoss
from .softmax import boltzmann, check_logits, log_softmax, softmax
from .supervised import *  # noqa: F403
from .supervised import CLASS_OF
from .tasks import *  # noqa: F403

__all__ = ["DistillationLoss", "Loss", "Ramp", "Schedule", "boltzmann", "check_logits", "deserialize", "get"]
__all__ += ["log_softmax", "serialize", "softmax", *LOSSES.classes, *(f.__name__ for f in CLASS_OF)]


def get(identifier) -> Loss | None:
    """The loss meant by a name ("mse", "CategoricalCrossentropy"), class, function of this module or config.

    A function of your own, ``(y_true, y_pred) -> (value, gradient)``, becomes a `function.FunctionLoss`. None stays
    None. Raises ValueError for an unknown name, with the nearest known one, and TypeError for anything else.
    """
    if callable(identifier) and not isinstance(identifier, (Sealed, type)):
        of = next((cls for function, cls in CLASS_OF.items() if function is identifier), None)
        return FunctionLoss(identifier) if of is None else of()
    if isinstance(identifier, dict) and identifier.get("class_name") == FunctionLoss.__name__:
        return FunctionLoss(own_function("loss", identifier.get("config")))
    loss = LOSSES.get(identifier)
    for kind in () if loss is None else {loss.kind(True), loss.kind(False)} - {-1}:
        check_kind(loss, kind, SETTINGS)
    return loss


def get_to_train(identifier) -> Loss | None:
    """As `get`, for `compile`: a loss that is no single number raises a ValueError."""
    loss = get(identifier)
    if loss is not None:
        loss.check_reduced()
    return loss


def serialize(loss: Loss | None) -> dict | None:
    """``{"class_name", "config"}``, all of it JSON. A schedule that is a plain function becomes its value now.

    A loss that is a function of your own is saved by its name; a lambda, which has none, raises a TypeError.
    """
    if isinstance(loss, FunctionLoss):
        if not loss.name.isidentifier():
            raise TypeError(
                f"loss {loss.name} cannot be saved: it is found again by its name, so give it one with def"
            )
        return {"class_name": FunctionLoss.__name__, "config": {"function": function_config(loss.name)}}
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


deserialize = get
