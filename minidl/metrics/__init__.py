"""Metrics: what is reported beside the loss. Each is a function of sums over the samples.

``means`` has the means of a kernel's value per sample, ``of_losses`` those of a loss, ``confusion`` and ``scores`` the
functions of several sums, ``of_functions`` what a plain function of the user's becomes.
"""

from collections.abc import Callable, Iterable, Mapping

from ..kernels import metrics as kernel
from ..losses import (
    binary_crossentropy,
    categorical_crossentropy,
    huber,
    kl_divergence,
    mean_absolute_error,
    mean_squared_error,
    sparse_categorical_crossentropy,
)
from ..registry import check_kind, refuse_overridden
from ..registry import serialize as _serialize
from .base import METRICS, Metric
from .confusion import AUC, Precision, Recall
from .means import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from .of_functions import FunctionMetric
from .of_losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CosineSimilarity,
    KLDivergence,
    MeanAbsolutePercentageError,
    SparseCategoricalCrossentropy,
    mean_absolute_percentage_error,
)
from .scores import F1Score, FBetaScore, R2Score

__all__ = [
    "AUC", "METRICS", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy",
    "CategoricalCrossentropy", "CosineSimilarity", "F1Score", "FBetaScore", "FunctionMetric", "KLDivergence",
    "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError", "Metric", "Precision", "R2Score",
    "Recall", "RootMeanSquaredError", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy", "TopKCategoricalAccuracy", "binary_accuracy", "binary_crossentropy",
    "categorical_accuracy", "categorical_crossentropy", "deserialize", "get", "get_all", "huber", "kl_divergence",
    "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error", "serialize",
    "sparse_categorical_accuracy", "sparse_categorical_crossentropy", "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
]  # fmt: skip


def get(identifier: str | type[Metric] | dict | Metric | Callable) -> Metric:
    """A metric from its name, class, config or instance, or from a function of ``(y_true, y_pred)``.

    A name is kept as the key in logs, as in Keras.
    """
    if isinstance(identifier, str) and identifier in METRICS.names:
        return METRICS.names[identifier](name=identifier)
    if callable(identifier) and not isinstance(identifier, (Metric, type)):
        return _of_function(identifier)
    metric = METRICS.get(identifier)
    if metric is None:
        raise TypeError("metric must be a name, a config or a Metric, got None")
    if metric.has_kernel:
        refuse_overridden(
            metric, "rows", "values", "sums", "update_state", "reset_state", "result", "__call__"
        )
        if type(metric).kind_for is Metric.kind_for:  # else the form follows from y
            check_kind(metric, getattr(metric, "kind", None), kernel.Metric)
    else:
        refuse_overridden(metric, "update_state", "reset_state", "result", "__call__")
    return metric


def _of_function(function: Callable) -> Metric:
    """This module's own function is the metric of its name, any other a `FunctionMetric`."""
    name = getattr(function, "__name__", "")
    is_ours = name in METRICS.names and globals().get(name) is function
    return METRICS.names[name](name=name) if is_ours else FunctionMetric(function)


def serialize(metric: Metric) -> dict | None:
    """``{"class_name", "config"}``; of a function of the user's ``{"function", "name"}``, its name and the log's."""
    if isinstance(metric, FunctionMetric):
        return {"function": metric.function_name, "name": metric.name}
    return _serialize(metric)


def deserialize(config, custom_objects: Mapping[str, Callable] | None = None) -> Metric:
    """The inverse of ``serialize``; ``custom_objects``: the user's functions by their names."""
    if not isinstance(config, dict) or "function" not in config:
        return get(config)
    name = config["function"]
    if name not in (custom_objects or {}):
        raise ValueError(
            f"metric {name!r} is a function, which no file holds: pass custom_objects={{{name!r}: {name}}}"
        )
    return FunctionMetric(custom_objects[name], config.get("name"))


def get_all(metrics: str | Metric | Callable | Iterable | None) -> list[Metric]:
    """What ``compile(metrics=...)`` takes: None, one metric or several. Their names must be distinct."""
    if metrics is None:
        return []
    if isinstance(metrics, (str, Metric)) or not isinstance(metrics, Iterable):
        metrics = [metrics]
    found = [get(metric) for metric in metrics]
    names = [metric.name for metric in found]
    for name in names:
        if name == "loss" or names.count(name) > 1:
            raise ValueError(f"metrics must have distinct names other than 'loss', got {names}")
    return found
