"""What a file holds of a training: what ``compile`` was given, the optimizer's state, and where training was left."""

import numpy as np

from .. import losses, metrics, optimizers
from ..layers.base import revive
from ..validation import check_bool, check_int, describe
from .fit import Unfinished

SLOTS = ("slot0", "slot1", "slot2")
"""Names of the optimizer's arrays in a file, where it has them."""
_LARGEST_COUNT = 2**53


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
        "iterations": 0 if optimizer is None else optimizer.iterations,
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
    model.epoch = check_int("epoch", training["epoch"], minimum=0, maximum=_LARGEST_COUNT)
    draw_epoch = training.get("draw_epoch", model.epoch)  # files of 0.1.0 have none
    if config["compile"] is not None:
        compiled = revive(config["compile"], custom)
        listed = [metrics.deserialize(metric) for metric in compiled["metrics"]]
        model.compile(compiled["optimizer"], compiled["loss"], listed)
        iterations = check_int("iterations", training["iterations"], minimum=0, maximum=_LARGEST_COUNT)
        if found or iterations:
            model.prepare_optimizer()
            wanted = slot_arrays(model)
            if found != list(wanted):
                raise ValueError(f"optimizer {model.optimizer.name} needs {list(wanted)}, got {found}")
            for name, slot in wanted.items():
                slot[...] = arrays[name]
        model.optimizer.iterations = iterations
    elif found:
        raise ValueError("it holds an optimizer's state, but no optimizer")
    model.draw_epoch = check_int("draw_epoch", draw_epoch, minimum=0, maximum=_LARGEST_COUNT)
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
    sums = _numbers("sum", {"loss": found.loss_sum, **found.metric_sums})
    return found._replace(loss_sum=sums.pop("loss"), metric_sums=sums)


def _numbers(what: str, named: dict) -> dict[str, float]:
    """``named`` with each value a float: NaN is among what it may be."""
    for name, number in named.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"the {what} of {name} must be a number, got {describe(number)}")
    return {name: float(number) for name, number in named.items()}
