"""What a file holds of a training: what ``compile`` was given, the optimizer's state, and where training was left."""

import numpy as np

from .. import losses, metrics, optimizers
from ..layers.base import revive
from ..validation import check_bool, check_int, describe
from .epoch import Unfinished

SLOTS = ("slot0", "slot1", "slot2")
"""Names of the optimizer's arrays in a file, where it has them."""
_LARGEST_COUNT = 2**53


def training_config(model) -> dict:
    """The parts "compile" and "training" of a model's config, as plain data."""
    optimizer, left = model.optimizer, model.unfinished
    training = {
        "epoch": model.epoch,
        "iterations": 0 if optimizer is None else optimizer.iterations,
        "unfinished": None if left is None else left._asdict(),
    }
    if optimizer is None:
        return {"compile": None, "training": training}
    compiled = {
        "optimizer": optimizers.serialize(optimizer),
        "loss": None if model.loss is None else losses.serialize(model.loss),
        "metrics": [metrics.serialize(metric) for metric in model.metrics],
    }
    return {"compile": compiled, "training": training}


def slot_arrays(model) -> dict[str, np.ndarray]:
    """The optimizer's arrays by the names they have in a file."""
    if model.optimizer is None:
        return {}
    return {name: slot for name, slot in zip(SLOTS, model.optimizer.slots, strict=False) if slot.size}


def restore_training(model, config: dict, arrays: dict[str, np.ndarray], custom: dict[str, type]) -> None:
    """Compile ``model`` as the file says, and give it the state it was saved with."""
    training = config["training"]
    model.epoch = check_int("epoch", training["epoch"], minimum=0, maximum=_LARGEST_COUNT)
    if config["compile"] is not None:
        _compile(model, revive(config["compile"], custom))
        iterations = check_int("iterations", training["iterations"], minimum=0, maximum=_LARGEST_COUNT)
        _restore_optimizer(model, iterations, arrays)
    elif any(name in arrays for name in SLOTS):
        raise ValueError("it holds an optimizer's state, but no optimizer")
    model.unfinished = _unfinished(training["unfinished"])


def _compile(model, compiled: dict) -> None:
    listed = [metrics.deserialize(metric) for metric in compiled["metrics"]]
    model.compile(compiled["optimizer"], compiled["loss"], listed)


def _restore_optimizer(model, iterations: int, arrays: dict[str, np.ndarray]) -> None:
    optimizer, found = model.optimizer, [name for name in SLOTS if name in arrays]
    if found or iterations:
        model.prepare_optimizer()
        wanted = [name for name, slot in zip(SLOTS, optimizer.slots, strict=True) if slot.size]
        if found != wanted:
            raise ValueError(f"optimizer {optimizer.name} needs {wanted}, got {found}")
        for name, slot in zip(SLOTS, optimizer.slots, strict=True):
            if slot.size:
                slot[...] = arrays[name]
    optimizer.iterations = iterations


def _unfinished(node) -> Unfinished | None:
    """Where training was left, checked: NaN is among what a sum may be."""
    if node is None:
        return None
    found = Unfinished(**node)
    check_int("samples", found.samples, minimum=1, maximum=_LARGEST_COUNT)
    check_int("batch_size", found.batch_size, minimum=1, maximum=found.samples)
    check_int("step", found.step, minimum=1, maximum=-(-found.samples // found.batch_size) - 1)
    check_bool("shuffle", found.shuffle)
    sums = {"loss": found.loss_sum, **found.metric_sums}
    for name, total in sums.items():
        if isinstance(total, bool) or not isinstance(total, (int, float)):
            raise TypeError(f"the sum of {name} must be a number, got {describe(total)}")
        sums[name] = float(total)
    return found._replace(loss_sum=sums.pop("loss"), metric_sums=sums)
