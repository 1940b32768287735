"""The base class of all callbacks."""

from __future__ import annotations

import os

from ..validation import describe

_TRAINING_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class Callback:
    """Base class: override the hooks you need. ``self.model`` is the model, ``self.params`` holds ``epochs``,
    ``steps`` and ``verbose``. Setting ``self.model.stop_training = True`` ends training after the epoch.
    """

    def __init__(self):
        self.params: dict = {}
        self.model = None

    def set_params(self, params: dict) -> None:
        self.params = params

    def set_model(self, model) -> None:
        self.model = model

    @property
    def wants_every_batch(self) -> bool:
        """Whether `fit` must call the batch hooks for every single batch, which makes small models slower.

        If no callback wants it, `fit` calls them once a slice of many batches. A class that overrides one of these
        hooks wants every batch, unless it says otherwise with ``wants_every_batch = False``.
        """
        return any(getattr(type(self), hook) is not getattr(Callback, hook) for hook in _TRAINING_BATCH_HOOKS)

    def on_train_begin(self, logs=None):
        """Before the first epoch."""

    def on_train_end(self, logs=None):
        """After the last epoch, with that epoch's ``logs``."""

    def on_epoch_begin(self, epoch, logs=None):
        """Before an epoch; ``epoch`` counts from 0."""

    def on_epoch_end(self, epoch, logs=None):
        """After an epoch and its validation. ``logs``: loss and metrics; validation's begin with ``val_``."""

    def on_train_batch_begin(self, batch, logs=None):
        """Before some batches of an epoch, the first of which is ``batch``."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        """After some batches of an epoch, the last of which is ``batch``."""
        self.on_batch_end(batch, logs=logs)

    def on_test_begin(self, logs=None):
        """Before an evaluation."""

    def on_test_end(self, logs=None):
        """After an evaluation."""

    def on_test_batch_begin(self, batch, logs=None):
        """Before some batches of an evaluation."""

    def on_test_batch_end(self, batch, logs=None):
        """After some batches of an evaluation."""

    def on_predict_begin(self, logs=None):
        """Before a prediction."""

    def on_predict_end(self, logs=None):
        """After a prediction."""

    def on_predict_batch_begin(self, batch, logs=None):
        """Before some batches of a prediction."""

    def on_predict_batch_end(self, batch, logs=None):
        """After some batches of a prediction."""

    def on_batch_begin(self, batch, logs=None):
        """The older name of ``on_train_batch_begin``."""

    def on_batch_end(self, batch, logs=None):
        """The older name of ``on_train_batch_end``."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def check_path(argument: str, value: object) -> str:
    """``value`` as a string, if it is a string or a path."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{argument} must be a string or a path, got {describe(value)}")
    return os.fspath(value)
