"""Callbacks made of a user's functions."""

import inspect
from collections.abc import Callable

from ..validation import check_float, describe
from .base import HOOKS, Callback


class LearningRateScheduler(Callback):
    """Set the learning rate to ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, before each epoch.

    ``epoch`` counts from 0. An epoch resumed in the middle keeps the rate it started with.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of epoch and learning rate, got {describe(schedule)}"
            )
        self.schedule = schedule
        self.verbose = verbose

    def _scheduled(self, epoch: int, rate: float) -> float:
        try:
            inspect.signature(self.schedule).bind(epoch, rate)
        except TypeError:  # Keras takes schedule(epoch) too
            return self.schedule(epoch)
        except ValueError:  # a built-in without a signature
            pass
        return self.schedule(epoch, rate)

    def on_epoch_begin(self, epoch, logs=None):
        if getattr(self.model, "unfinished", None):
            return
        optimizer = self.model.optimizer
        rate = self._scheduled(epoch, float(optimizer.learning_rate))
        optimizer.learning_rate = check_float("the value schedule returned", rate, minimum=0)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class LambdaCallback(Callback):
    """Hooks from functions: ``LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))``.

    Any hook of ``Callback`` can be given by keyword. A hook that is called at training batches is called for every
    single batch.
    """

    def __init__(
        self,
        on_epoch_begin: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_begin: Callable | None = None,
        on_train_end: Callable | None = None,
        on_train_batch_begin: Callable | None = None,
        on_train_batch_end: Callable | None = None,
        **hooks: Callable | None,
    ):
        super().__init__()
        hooks.update(
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=on_epoch_end,
            on_train_begin=on_train_begin,
            on_train_end=on_train_end,
            on_train_batch_begin=on_train_batch_begin,
            on_train_batch_end=on_train_batch_end,
        )
        for name, function in hooks.items():
            if name not in HOOKS:
                raise TypeError(f"LambdaCallback takes {', '.join(HOOKS)}; got {name}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{name} must be a function, got {describe(function)}")
            setattr(self, name, function)

    @property
    def wants_every_batch(self) -> bool:
        return any("batch" in name and "test" not in name for name in vars(self) if name.startswith("on_"))
