"""What guards a training: interrupts that wait for a finished step, and numbers that are none."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import warnings

import numpy as np

from .callbacks import TerminateOnNaN


@contextlib.contextmanager
def uninterrupted(settle=None):
    """Ctrl-C waits until parameters, optimizer and counts agree again; a second one does not wait.

    ``settle()`` is called before an interrupt is handed on. Yields the list of those that wait.
    """
    handler, caught = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield caught
        return

    def remember(number, frame):
        caught.append((number, frame))
        if len(caught) > 1:
            handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield caught
    finally:
        if caught and settle is not None:
            settle()
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[0])


def _is_finite(array: np.ndarray) -> bool:
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


class _State:
    """A copy of all that a step changes, and of the metrics' sums before it."""

    def __init__(self, model, sums: np.ndarray):
        self._model = model
        self.sums = sums.copy()
        self._arrays = [model.params, *model.optimizer.slots]
        self._copies = [array.copy() for array in self._arrays]
        self._iterations = model.optimizer.iterations

    @property
    def params(self) -> np.ndarray:
        return self._copies[0]

    def restore(self) -> None:
        for array, copy in zip(self._arrays, self._copies, strict=True):
            array[...] = copy
        self._model.optimizer.iterations = self._iterations


def run_slice(
    model, runner, part, batch_size, first, sums, careful, interrupts
) -> tuple[np.ndarray, _State | None]:
    """The losses of a slice of steps and None, or, if ``careful``, up to the first step with a loss, or a
    parameter after it, that is not finite, and the state before that step. No losses: an interrupt came first.
    """
    if model.optimizer is not runner.optimizer or model.params is not runner.params:
        raise RuntimeError(
            f"{model.name} was compiled anew, or its layers were changed, by a callback: that has to wait until "
            "fit is over"
        )
    if not careful:
        return runner.run(part, first, sums, interrupts), None
    before = _State(model, sums)
    losses = runner.run(part, first, sums, interrupts)
    if _is_finite(losses) and _is_finite(model.params):
        return losses, None
    if len(losses) > 1:  # once more from the slice's beginning, step by step, to the same bits
        before.restore()
        sums[...] = before.sums
        kept: list[float] = []
        for start in range(0, len(part), batch_size):
            before = _State(model, sums)
            kept += list(runner.run(part[start : start + batch_size], first + len(kept), sums))
            if not (math.isfinite(kept[-1]) and _is_finite(model.params)):
                break
        losses = np.array(kept)
    return losses, before


def _first_nonfinite(model, x: np.ndarray, step: int, params: np.ndarray) -> str:
    """What in a step on the batch ``x`` is not finite first; ``params`` are those after the step."""
    model.set_step(model.epoch, step)
    out = np.ascontiguousarray(x, dtype=model.dtype)
    for layer in model.layers:
        out = layer.forward(out, training=True)
        if not _is_finite(out):
            return f"the output of layer {layer.name!r}"
    return _nonfinite_parameter(model, params) or "the loss"


def _nonfinite_parameter(model, params: np.ndarray) -> str:
    """The last layer's first: that is where the backward pass begins. "" if all are finite."""
    for layer in reversed(model.layers):
        for parameter in layer.parameters:
            if not _is_finite(params[parameter.offset : parameter.offset + parameter.size]):
                return f"{parameter.name} of layer {layer.name!r} after the update"
    return ""


class Watch:
    """Looks for losses that are not finite: warns once, or tells `TerminateOnNaN`, which stops there."""

    def __init__(self, model, x: np.ndarray, epochs: int, steps: int, callbacks):
        self._model, self._x, self._epochs, self._steps = model, x, epochs, steps
        self._terminators = [callback for callback in callbacks if isinstance(callback, TerminateOnNaN)]
        self._warned = False
        self.careful = bool(self._terminators)

    def _place(self, epoch: int, step: int) -> str:
        return f"epoch {epoch + 1} of {self._epochs}, step {step} of {self._steps}"

    def stop(self, before: _State, rows: np.ndarray, step: int) -> bool:
        """Step number ``step`` (from 1), on ``rows``, was found to be bad; whether it was undone."""
        model = self._model
        after = _State(model, before.sums)
        before.restore()
        what = _first_nonfinite(model, self._x[rows], step - 1, after.params)
        undone = any(callback.restore for callback in self._terminators)
        if not undone:
            after.restore()
        for callback in self._terminators:
            callback.found = f"{self._place(model.epoch, step)}: {what} is not finite"
        return undone

    def look(self, losses: np.ndarray, epoch: int, first: int) -> None:
        """Warn of the first loss that is not finite, if nobody stops there."""
        if self.careful or self._warned or _is_finite(losses):
            return
        step = int(np.argmax(~np.isfinite(losses)))
        self._warn(f"{self._place(epoch, first + step + 1)}: the loss is {losses[step]}", stacklevel=6)

    def look_at_the_end(self, epoch: int) -> None:
        """Warn of parameters that are not finite after the epoch's last step, which no loss has shown yet."""
        model = self._model
        if self.careful or self._warned or _is_finite(model.params):
            return
        step = self._steps if model.unfinished is None else model.unfinished.step
        what = _nonfinite_parameter(model, model.params)
        self._warn(f"{self._place(epoch, step)}: {what} is not finite", stacklevel=5)

    def _warn(self, found: str, stacklevel: int) -> None:
        self._warned = True
        advice = "The callback TerminateOnNaN() stops there and keeps the parameters from before"
        warnings.warn(f"{found}. {advice}", RuntimeWarning, stacklevel=stacklevel)
