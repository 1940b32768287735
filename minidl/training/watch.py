"""Watches a training for numbers that are not finite: NaN and infinity, in losses and in parameters."""

import math

import numpy as np

from ..callbacks import TerminateOnNaN
from ..validation import warn


def _is_finite(array: np.ndarray) -> bool:
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


class Snapshot:
    """A copy of all that a step changes: parameters, the optimizer's state, and the metrics' sums before it."""

    def __init__(self, model, metric_sums: np.ndarray):
        self._model = model
        self.metric_sums = metric_sums.copy()
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


class Watch:
    """Looks for losses that are not finite: warns once, or tells `TerminateOnNaN`, which stops there.

    ``careful``: whether each slice is run so that the first bad step can be found, and undone.
    """

    def __init__(self, model, x: np.ndarray, epochs: int, steps: int, callbacks):
        self._model, self._x, self._epochs, self._steps = model, x, epochs, steps
        self._terminators = [callback for callback in callbacks if isinstance(callback, TerminateOnNaN)]
        self._warned = False
        self.careful = bool(self._terminators)

    def run_slice(
        self, runner, order: np.ndarray, batch_size: int, first_step: int, metric_sums: np.ndarray, interrupts
    ) -> tuple[np.ndarray, Snapshot | None]:
        """Run the steps on ``order``; (losses, None), or none if an interrupt came before they were learned.

        If ``careful``: the losses up to the first step with a loss, or a parameter after it, that is not finite,
        and the state before that step.
        """
        model = self._model
        if model.optimizer is not runner.optimizer or model.params is not runner.params:
            raise RuntimeError(
                f"{model.name} was compiled anew, or its layers were changed, by a callback: that has to wait until "
                "fit is over"
            )
        if not self.careful:
            return runner.run(order, first_step, metric_sums, interrupts), None
        before = Snapshot(model, metric_sums)
        losses = runner.run(order, first_step, metric_sums, interrupts)
        if _is_finite(losses) and _is_finite(model.params):
            return losses, None
        if len(losses) > 1:  # once more from the slice's beginning, step by step, to the same bits
            before.restore()
            metric_sums[...] = before.metric_sums
            kept: list[float] = []
            for start in range(0, len(order), batch_size):
                before = Snapshot(model, metric_sums)
                batch = order[start : start + batch_size]
                kept += list(runner.run(batch, first_step + len(kept), metric_sums))
                if not (math.isfinite(kept[-1]) and _is_finite(model.params)):
                    break
            losses = np.array(kept)
        return losses, before

    def undo_bad_step(self, before: Snapshot, rows: np.ndarray, step: int) -> bool:
        """Report the bad step number ``step`` (from 1), on ``rows``, and undo it if that is wanted; whether it was."""
        model = self._model
        after = Snapshot(model, before.metric_sums)
        before.restore()
        what = self._first_nonfinite(self._x[rows], step - 1, after.params)
        undone = any(callback.restore for callback in self._terminators)
        if not undone:
            after.restore()
        for callback in self._terminators:
            callback.found = f"{self._place(model.epoch, step)}: {what} is not finite"
        return undone

    def warn_of_losses(self, losses: np.ndarray, epoch: int, first_step: int) -> None:
        """Warn of the first loss that is not finite, if no callback stops there."""
        if self.careful or self._warned or _is_finite(losses):
            return
        step = int(np.argmax(~np.isfinite(losses)))
        self._warn(f"{self._place(epoch, first_step + step + 1)}: the loss is {losses[step]}")

    def warn_of_parameters(self, epoch: int) -> None:
        """Warn of parameters that are not finite after the epoch's last step, which no loss has shown yet."""
        model = self._model
        if self.careful or self._warned or _is_finite(model.params):
            return
        step = self._steps if model.unfinished is None else model.unfinished.step
        self._warn(f"{self._place(epoch, step)}: {self._nonfinite_parameter(model.params)} is not finite")

    def _warn(self, found: str) -> None:
        self._warned = True
        advice = "The callback TerminateOnNaN() stops there and keeps the parameters from before"
        warn(f"{found}. {advice}", RuntimeWarning)

    def _place(self, epoch: int, step: int) -> str:
        return f"epoch {epoch + 1} of {self._epochs}, step {step} of {self._steps}"

    def _first_nonfinite(self, x: np.ndarray, step: int, params: np.ndarray) -> str:
        """What in a step on the batch ``x`` is not finite first; ``params`` are those after the step."""
        model = self._model
        model.set_step(model.epoch, step)
        out = np.ascontiguousarray(x, dtype=model.dtype)
        for layer in model.layers:
            out = layer.forward(out, training=True)
            if not _is_finite(out):
                return f"the output of layer {layer.name!r}"
        return self._nonfinite_parameter(params) or "the loss"

    def _nonfinite_parameter(self, params: np.ndarray) -> str:
        """The last layer's first, where the backward pass begins. "" if all are finite."""
        for layer in reversed(self._model.layers):
            for parameter in layer.parameters:
                if not _is_finite(params[parameter.offset : parameter.offset + parameter.size]):
                    return f"{parameter.name} of layer {layer.name!r} after the update"
        return ""
