"""Metrics: what is reported beside the loss. Each is a function of sums over the samples.

``means`` has the means of a kernel's value per sample, ``of_losses`` those of a loss, ``confusion`` and ``scores`` the
functions of several sums, ``of_functions`` what a plain function of the user's becomes.
"""

from collections.abc import Callable, Iterable

from ..kernels import metrics as kernel
from ..losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from ..registry import check_kind, function_config, own_function, refuse_overridden
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
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from .scores import F1Score, FBetaScore, R2Score

__all__ = [
    "AUC", "METRICS", "Accuracy", "BinaryAccuracy", "BinaryCrossentropy", "CategoricalAccuracy",
    "CategoricalCrossentropy", "CategoricalHinge", "CosineSimilarity", "F1Score", "FBetaScore",
    "FunctionMetric", "Hinge", "KLDivergence", "LogCoshError", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogarithmicError", "Metric", "Poisson",
    "Precision", "R2Score", "Recall", "RootMeanSquaredError", "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy", "SparseTopKCategoricalAccuracy", "SquaredHinge", "TopKCategoricalAccuracy",
    "binary_accuracy", "binary_crossentropy", "binary_focal_crossentropy", "categorical_accuracy",
    "categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge", "deserialize", "get",
    "get_all", "hinge", "huber", "kl_divergence", "log_cosh", "mean_absolute_error",
    "mean_absolute_percentage_error", "mean_squared_error", "mean_squared_logarithmic_error", "poisson",
    "serialize", "sparse_categorical_accuracy", "sparse_categorical_crossentropy",
    "sparse_top_k_categorical_accuracy", "squared_hinge", "top_k_categorical_accuracy",
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
    """``{"class_name", "config"}``; a function of the user's is in the config by its name, as of a loss."""
    saved = _serialize(metric)
    if isinstance(metric, FunctionMetric):
        saved["config"]["function"] = function_config(metric.function_name)
    return saved


def deserialize(config) -> Metric:
    """The inverse of ``serialize``; a function of the user's is found as `own_function` says."""
    if not isinstance(config, dict) or config.get("class_name") != FunctionMetric.__name__:
        return get(config)
    return FunctionMetric(own_function("metric", config.get("config")), config["config"].get("name"))


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
