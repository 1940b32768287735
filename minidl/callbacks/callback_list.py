"""Several callbacks called as one."""

import math
from collections.abc import Callable, Iterable

from ..validation import describe
from .base import HOOKS, Callback
from .display import History, ProgressBar


class CallbackList(Callback):
    """Several callbacks called as one, in order.

    ``add_history`` and ``add_progbar`` append a ``History`` and a ``ProgressBar`` unless there is one already. Without
    ``is_first_rank`` those that are ``first_rank_only`` are left out.
    Raises TypeError for anything without a callback's hooks, and for a class in place of an instance.
    """

    def __init__(
        self, callbacks=None, add_history=False, add_progbar=False, model=None, is_first_rank=True, **params
    ):
        super().__init__()
        if callbacks is None:
            callbacks = []
        elif isinstance(callbacks, CallbackList):
            callbacks = callbacks.callbacks
        elif isinstance(callbacks, Callback):
            callbacks = [callbacks]
        elif isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
            raise TypeError(
                f"callbacks must be a list of minidl.callbacks.Callback, got {describe(callbacks)}"
            )
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if isinstance(callback, type):
                name = callback.__name__
                raise TypeError(f"callbacks must be instances, got the class {name}: write {name}()")
            if not all(callable(getattr(callback, hook, None)) for hook in HOOKS):
                raise TypeError(f"callbacks must be minidl.callbacks.Callback, got {describe(callback)}")
        if not is_first_rank:
            self.callbacks = [c for c in self.callbacks if not getattr(c, "first_rank_only", False)]
        self.history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if self.history is None and add_history:
            self.history = History()
            self.callbacks.append(self.history)
        if add_progbar and not any(isinstance(c, ProgressBar) for c in self.callbacks):
            self.callbacks.append(ProgressBar())
        if params:
            self.set_params(params)
        if model is not None:
            self.set_model(model)

    @property
    def wants_every_batch(self) -> bool:
        """Whether one of the callbacks wants it; one that is not derived from ``Callback`` does."""
        return any(getattr(callback, "wants_every_batch", True) for callback in self.callbacks)

    @property
    def epochs_at_once(self) -> float:
        """The fewest that one of the callbacks allows; one that is not derived from ``Callback`` allows 1."""
        return min((getattr(callback, "epochs_at_once", 1) for callback in self.callbacks), default=math.inf)

    def append(self, callback: Callback) -> None:
        self.callbacks.append(callback)

    def set_params(self, params: dict) -> None:
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model) -> None:
        self.model = model
        for callback in self.callbacks:
            callback.set_model(model)


def titled(callbacks: object, verbose: int | str, title: str) -> list[Callback]:
    """``callbacks`` with a `ProgressBar` of that title, unless there is one already or nothing is to be shown."""
    listed = CallbackList(callbacks).callbacks
    if verbose != 0 and not any(isinstance(callback, ProgressBar) for callback in listed):
        listed.append(ProgressBar(title=title))
    return listed


def _call_each(hook: str) -> Callable:
    positional = 2 if "epoch" in hook or "batch" in hook else 1  # index and logs, or logs

    def call(self, *args, logs=None):
        *index, logs = (*args, {} if logs is None else logs)[:positional]
        for callback in self.callbacks:
            getattr(callback, hook)(*index, {} if logs is None else logs)

    return call


for _hook in HOOKS:
    setattr(CallbackList, _hook, _call_each(_hook))
