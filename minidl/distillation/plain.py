"""The plain student: the same model, trained on labels alone, which distillation is compared with."""

import numpy as np

from .. import callbacks, optimizers
from ..figures import as_labels, has_label, holds_rows
from ..models import Sequential
from ..report import count_of
from ..training.samples import loss_without_teacher, split_rows
from ..training.tasks import TASKS, Task
from ..validation import check_array
from .checks import Job


def fresh_optimizer(optimizer: object) -> object:
    """The same kind of optimizer, without state."""
    if isinstance(optimizer, (str, dict, type)):
        return optimizer
    optimizer = optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


def train_on_labels(
    model: Sequential,
    optimizer: object,
    fit_arguments: dict,
    task: Task = TASKS["softmax"],
    as_many_steps: bool = False,
) -> callbacks.History:
    """Fit ``model`` to the samples that have labels; the samples held out for validation are the distilled one's.

    ``as_many_steps``: as with all samples. Those that have labels are repeated within an epoch, so that what counts
    epochs, such as the patience of a callback, means the same.
    """
    arguments = dict(fit_arguments)
    x, y, weight = (arguments.get(name) for name in ("x", "y", "sample_weight"))
    loss, known = loss_without_teacher(model, task.loss(), y), has_label(y, task.name)
    if not known.all():
        seen, held_out = split_rows(len(x), arguments.pop("validation_split", 0.0))
        if held_out is not None:
            arguments["validation_data"] = x[held_out], y[held_out]
        if not known[seen].any():
            count = len(y[seen])
            raise ValueError(f"y must hold labels to learn from without a teacher, got -1 for all {count}")
        weight = None if weight is None else check_array("sample_weight", weight)[seen]
        given = _labelled(task, x[seen], y[seen], weight)
        if as_many_steps:
            again = np.arange(len(x[seen])) % len(given[0])
            given = tuple(part if part is None else part[again] for part in given)
        arguments |= zip(("x", "y", "sample_weight"), given, strict=True)
    if arguments.get("validation_data") is not None:
        x_val, y_val, *weight = _labelled(task, *arguments["validation_data"])
        if task.name == "classification" and holds_rows(y_val) == loss.sparse:
            y_val = as_labels(y_val) if loss.sparse else np.eye(y.shape[1])[as_labels(y_val)]
        arguments["validation_data"] = (x_val, y_val, *weight)
    model.compile(optimizer=optimizer, loss=loss, metrics=task.metrics(model))
    return model.fit(**arguments)


def notes_on_plain(job: Job) -> list[str]:
    """What a reader of the plain student's figures must know."""
    seen, _ = split_rows(len(job.fit_arguments["x"]), job.fit_arguments["validation_split"])
    known = has_label(job.fit_arguments["y"][seen], job.task.name)
    if known.all():
        return []
    labelled = count_of(int(known.sum()), "labelled sample")
    return [
        f"the plain student took as many steps as the distilled one: its {labelled} came "
        f"{len(known) / known.sum():.1f} times an epoch"
    ]


def _labelled(task: Task, x: np.ndarray, y: np.ndarray, *weight: np.ndarray | None) -> tuple:
    """The samples that have a label (not -1), with what else belongs to them."""
    y = check_array("y", y)
    known = has_label(y, task.name)
    rows = slice(None) if known.all() else known
    parts = [None if part is None else check_array("x", part, may_be_sparse=True) for part in (x, y, *weight)]
    return tuple(None if part is None else part[rows] for part in parts)
