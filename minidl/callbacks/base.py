"""The base class of all callbacks, and a callback made of functions."""

from collections.abc import Callable

from ..registry import Sealed, is_minidls
from ..validation import describe

_TRAINING_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class Callback:
    """Base class: override the hooks you need. ``self.model`` is the model, ``self.params`` holds ``epochs``,
    ``steps`` and ``verbose``. Setting ``self.model.stop_training = True`` ends training after the epoch.

    =====================================  ===================================================================
    ``on_train_begin``, ``on_train_end``   around a ``fit``; at its end with the last epoch's ``logs``
    ``on_epoch_begin``, ``on_epoch_end``   around an epoch, its validation included; ``epoch`` counts from 0
    ``on_train_batch_begin``, ``..._end``  around some batches; ``batch`` is the first of them, then the last
    ``on_batch_begin``, ``on_batch_end``   older names of these two
    ``on_test_begin``, ``on_test_end``     around a validation, and ``on_test_batch_...`` around some of its batches
    ``on_predict_...``                     of Keras; never called, because ``predict`` takes no callbacks
    =====================================  ===================================================================

    ``logs``: loss and metrics by name; validation's begin with ``val_``.
    """

    first_rank_only = False
    """Of several processes that train together, whether only the first has it, as for what writes files."""

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

    @property
    def epochs_at_once(self) -> float:
        """How many epochs `fit` may run before it calls ``on_epoch_end`` for each of them, one after the other: 1.

        A small model trains faster with more. Only a callback may say so that has no other hook and will change
        nothing before the last of them.
        """
        return 1

    def on_train_begin(self, logs=None): ...
    def on_train_end(self, logs=None): ...
    def on_epoch_begin(self, epoch, logs=None): ...
    def on_epoch_end(self, epoch, logs=None): ...

    def on_train_batch_begin(self, batch, logs=None):
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        self.on_batch_end(batch, logs=logs)

    def on_test_begin(self, logs=None): ...
    def on_test_end(self, logs=None): ...
    def on_test_batch_begin(self, batch, logs=None): ...
    def on_test_batch_end(self, batch, logs=None): ...
    def on_predict_begin(self, logs=None): ...
    def on_predict_end(self, logs=None): ...
    def on_predict_batch_begin(self, batch, logs=None): ...
    def on_predict_batch_end(self, batch, logs=None): ...
    def on_batch_begin(self, batch, logs=None): ...
    def on_batch_end(self, batch, logs=None): ...


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class BuiltIn(Sealed, Callback):
    """Base of minidl's own, which refuse a misspelt attribute. A subclass of the user's takes any."""

    def _checked(self, name, value):
        if hasattr(type(self), name) or not is_minidls(type(self)):
            return value
        return super()._checked(name, value)


class LambdaCallback(BuiltIn):
    """Hooks from functions: ``LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))``.

    Any hook of ``Callback`` but ``on_predict_...`` can be given by keyword. A hook that is called at training batches
    is called for every single batch.
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
        named = {name: function for name, function in locals().items() if name in HOOKS}
        super().__init__()
        for name, function in {**hooks, **named}.items():
            if name not in HOOKS:
                raise TypeError(f"LambdaCallback takes {', '.join(HOOKS)}; got {name}")
            if function is None:
                continue
            if "predict" in name:
                raise TypeError(f"{name} is never called: predict takes no callbacks")
            if not callable(function):
                raise TypeError(f"{name} must be a function, got {describe(function)}")
            setattr(self, name, function)

    @property
    def wants_every_batch(self) -> bool:
        return any("batch" in name and "test" not in name for name in vars(self) if name.startswith("on_"))
