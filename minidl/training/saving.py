"""What a file holds of a training: what ``compile`` was given, the optimizer's state, and where training was left."""

import functools

import numpy as np

from .. import losses, metrics, optimizers
from ..layers.base import given_name
from ..layers.configs import revive
from ..registry import is_minidls
from ..validation import check_bool, check_int, describe, known_names
from .tally import Unfinished

SLOTS = ("slot0", "slot1", "slot2", "average", "accumulated")
"""Names of the optimizer's arrays in a file, where it has them."""
_LARGEST_COUNT = 2**53


def _place(value) -> Unfinished | None:
    if not isinstance(value, (Unfinished, type(None))):
        raise TypeError(f"unfinished must be None or what another model's is, got {describe(value)}")
    return value


CHECKS = {
    "name": functools.partial(given_name, kind="sequential"),
    "seed": functools.partial(check_int, "seed", minimum=0, maximum=2**63 - 1),
    "epoch": functools.partial(check_int, "epoch", minimum=0, maximum=_LARGEST_COUNT),
    "draw_epoch": functools.partial(check_int, "draw_epoch", minimum=0, maximum=_LARGEST_COUNT),
    "unfinished": _place,
    "best_logs": lambda value: _numbers("best", value),
    "stop_training": functools.partial(check_bool, "stop_training"),
    "optimizer": lambda value: None if value is None else optimizers.get(value),
    "loss": losses.get_to_train,
    "metrics": lambda value: value if metrics.get_all(value) == value else metrics.get_all(value),
}
"""Attributes of a model, each with the function that checks it for constructor, setter and file."""


def check_attribute(model, name: str, value):
    """What ``model.<name>`` becomes where it is set to ``value``. A name that means nothing is refused."""
    if name in CHECKS:
        return CHECKS[name](value)
    if name == "dtype" and value != model.dtype:
        raise AttributeError(
            f"dtype of {model.name} is {model.dtype} and cannot become {value!r}: make a new model"
        )
    if is_minidls(type(model)) and not hasattr(model, name):
        known = known_names(name, (*CHECKS, "trainable"))
        raise AttributeError(f"{type(model).__name__} has no attribute {name!r} to set: {known}")
    return value


def training_config(model) -> dict:
    """The parts "compile" and "training" of a model's config, as plain data."""
    optimizer, left, compiled = model.optimizer, model.unfinished, None
    if optimizer is not None:
        compiled = {
            "optimizer": optimizers.serialize(optimizer),
            "loss": None if model.loss is None else losses.serialize(model.loss),
            "metrics": [metrics.serialize(metric) for metric in model.metrics],
        }
    training = {
        "epoch": model.epoch,
        "draw_epoch": model.draw_epoch,
        "iterations": 0 if optimizer is None else optimizer.batches,
        "unfinished": None if left is None else left._asdict(),
        "best_logs": model.best_logs,
    }
    return {"compile": compiled, "training": training}


def slot_arrays(model) -> dict[str, np.ndarray]:
    """The optimizer's arrays by the names they have in a file."""
    if model.optimizer is None:
        return {}
    return {name: slot for name, slot in zip(SLOTS, model.optimizer.slots, strict=False) if slot.size}


def restore_training(model, config: dict, arrays: dict[str, np.ndarray], custom: dict[str, type]) -> None:
    """Compile ``model`` as the file says, and give it the state it was saved with."""
    training, found = config["training"], [name for name in SLOTS if name in arrays]
    model.epoch = training["epoch"]
    if config["compile"] is not None:
        compiled = revive(config["compile"], custom)
        listed = [metrics.deserialize(metric) for metric in compiled["metrics"]]
        model.compile(compiled["optimizer"], compiled["loss"], listed)
        if found or training["iterations"]:
            model.prepare_optimizer()
            wanted = slot_arrays(model)
            if found != list(wanted):
                raise ValueError(f"optimizer {model.optimizer.name} needs {list(wanted)}, got {found}")
            for name, slot in wanted.items():
                slot[...] = arrays[name]
        model.optimizer.batches = training["iterations"]
    elif found:
        raise ValueError("it holds an optimizer's state, but no optimizer")
    model.draw_epoch = training.get("draw_epoch", model.epoch)  # files of 0.1.0 have none
    model.unfinished = _unfinished(training["unfinished"])
    model.best_logs = _numbers("best", training.get("best_logs", {}))


def _unfinished(node) -> Unfinished | None:
    """Where training was left, checked."""
    if node is None:
        return None
    found = Unfinished(**node)
    check_int("samples", found.samples, minimum=1, maximum=_LARGEST_COUNT)
    check_int("batch_size", found.batch_size, minimum=1, maximum=found.samples)
    check_int("step", found.step, minimum=1, maximum=-(-found.samples // found.batch_size) - 1)
    check_bool("shuffle", found.shuffle)
    sums = _numbers("sum", {"loss": found.loss_sum, **found.metric_sums}, lists=True)
    return found._replace(loss_sum=sums.pop("loss"), metric_sums=sums)


def _numbers(what: str, named: dict, lists: bool = False) -> dict:
    """``named`` with each value a float, which may be NaN, or a list of them where there may be ``lists``."""
    if not isinstance(named, dict):
        raise TypeError(f"the {what} of each log must be in a dict, got {describe(named)}")

    def number(name, value) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"the {what} of {name} must be a number, got {describe(value)}")
        return float(value)

    return {
        name: [number(name, each) for each in value]
        if lists and isinstance(value, list)
        else number(name, value)
        for name, value in named.items()
    }
