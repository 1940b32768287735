"""Optimizers: one pass over the flat parameter vector, by Keras 3's formulas (see ``kernels/updates.py``)."""

from ..kernels.updates import SETTINGS
from ..registry import check_kind, refuse_overridden, serialize
from . import schedules
from .base import OPTIMIZERS, Optimizer
from .rules import *  # noqa: F403  (every optimizer, without a list of their names)

__all__ = ["Optimizer", "deserialize", "get", "schedules", "serialize", *OPTIMIZERS.classes]


def get(identifier) -> Optimizer:
    """An optimizer from its name in any case (``"adam"``), a config, a class, or itself.

    Raises ValueError for an unknown name, with the nearest known one, and for None; TypeError for anything else.
    """
    if isinstance(identifier, str):
        identifier = identifier.lower()
    elif isinstance(identifier, dict) and str(identifier.get("class_name")).lower() in OPTIMIZERS.names:
        identifier = {**identifier, "class_name": identifier["class_name"].lower()}
    optimizer = OPTIMIZERS.get(identifier)
    if optimizer is None:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS.names)}, got None")
    ours = "step", "update", "apply_clipping", "learning_rate", "learning_rates", "build"
    refuse_overridden(optimizer, *ours, "update_step", "apply", "apply_gradients")  # the last are Keras's
    check_kind(optimizer, optimizer.kind, SETTINGS)
    return optimizer


deserialize = get
