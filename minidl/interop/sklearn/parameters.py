"""What each parameter of the estimators may be: one table, checked when ``fit`` begins."""

import math
from collections.abc import Callable, Mapping

from sklearn.utils import check_random_state

from ...validation import check_bool, check_choice, check_float, check_int, describe
from .network import hidden_sizes


def _number(**limits) -> Callable:
    return lambda name, value: check_float(name, value, **limits)


def _one_of(*choices: str) -> Callable:
    return lambda name, value: check_choice(name, value, choices)


def _count_or(other: object) -> Callable:
    return lambda name, value: value if value == other else check_int(name, value, minimum=1)


def _count(name: str, value: object) -> int:
    return check_int(name, value, minimum=1)


def _random_state(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value < 2**32:  # else it is one: to make a generator takes a while
        check_random_state(value)


def _level(name: str, value: object) -> object:
    return check_int(name, value, minimum=0) if type(value) is int else check_bool(name, value)


def _temperature(name: str, value: object) -> None:
    if value == "auto":
        return
    if isinstance(value, str):
        raise ValueError(f'{name} must be a number > 0 or "auto", got {value!r}')
    check_float(name, value, above=0)


def _class_weight(name: str, value: object) -> None:
    if value is None or isinstance(value, str) and value == "balanced":
        return
    if not isinstance(value, Mapping):
        raise ValueError(
            f'{name} must be None, "balanced" or a dict of weights by class, got {describe(value)}'
        )
    for key, weight in value.items():
        check_float(f"{name}[{key!r}]", weight, minimum=0)
    if value and not any(value.values()):
        raise ValueError(f"{name} must not be zero for all classes, got {dict(value)}")


_CHECKS: dict[str, Callable] = {
    "hidden_layer_sizes": lambda name, value: hidden_sizes(value),
    "random_state": _random_state,
    "activation": _one_of("identity", "logistic", "tanh", "relu"),
    "solver": _one_of("lbfgs", "sgd", "adam"),
    "alpha": _number(minimum=0),
    "batch_size": _count_or("auto"),
    "learning_rate": _one_of("constant", "invscaling", "adaptive"),
    "learning_rate_init": _number(above=0),
    "power_t": _number(minimum=0),
    "max_iter": _count,
    "shuffle": check_bool,
    "tol": _number(minimum=0),
    "verbose": _level,
    "warm_start": check_bool,
    "momentum": _number(minimum=0, maximum=1),
    "nesterovs_momentum": check_bool,
    "early_stopping": check_bool,
    "validation_fraction": _number(minimum=0, below=1),
    "beta_1": _number(minimum=0, below=1),
    "beta_2": _number(minimum=0, below=1),
    "epsilon": _number(above=0),
    "n_iter_no_change": _count_or(math.inf),
    "max_fun": _count,
    "dropout": _number(minimum=0, below=1),
    "batch_normalization": check_bool,
    "loss": _one_of("squared_error", "poisson"),
    "class_weight": _class_weight,
    "temperature": _temperature,
    "hard_weight": _number(minimum=0),
    "soft_weight": _number(minimum=0),
}


def check_parameters(estimator) -> None:
    """A ValueError or TypeError that names the parameter, the rule and the value."""
    for name, check in _CHECKS.items():
        if hasattr(estimator, name):
            check(name, getattr(estimator, name))
    if estimator.solver == "lbfgs":
        for name in ("dropout", "batch_normalization"):
            if getattr(estimator, name):
                raise ValueError(
                    f"solver='lbfgs' works on all samples at once and takes no {name}, got {getattr(estimator, name)}: "
                    "use solver='adam'"
                )
