"""Watches a training for numbers that are not finite: NaN and infinity, in losses and in parameters."""

import math

import numpy as np

from ..callbacks import TerminateOnNaN
from ..validation import warn


def _is_finite(array: np.ndarray) -> bool:
    return array.size == 0 or (math.isfinite(array.min()) and math.isfinite(array.max()))


class Snapshot:
    """A copy of all that a step changes: parameters, the optimizer's state, and the metrics' sums before it."""

    def __init__(self, model, metric_sums: np.ndarray):
        self._optimizer, self._batches = model.optimizer, model.optimizer.batches
        self._arrays = [model.params, *model.optimizer.slots]
        self.params, *_ = self._copies = [array.copy() for array in self._arrays]
        self.metric_sums = metric_sums.copy()

    def restore(self) -> None:
        for array, copy in zip(self._arrays, self._copies, strict=True):
            array[...] = copy
        self._optimizer.batches = self._batches


class Watch:
    """Looks for losses that are not finite: warns once, or tells `TerminateOnNaN`, which stops there.

    ``careful``: whether each slice is run so that the first bad step can be found, and undone. ``stepwise``: whether
    slices must be single steps, because the last one has a bad step.
    """

    def __init__(self, model, x: np.ndarray, epochs: int, steps: int | None, callbacks):
        self._model, self._x, self._epochs, self._steps = model, x, epochs, steps
        self._optimizer, self._params = model.optimizer, model.params
        self._terminators = [callback for callback in callbacks if isinstance(callback, TerminateOnNaN)]
        self._warned = self.stepwise = False
        self.careful = bool(self._terminators)

    def follow(self, x: np.ndarray, steps: int | None) -> None:
        """Go on with other rows, in epochs of so many steps, if that is known."""
        self._x, self._steps = x, steps

    def run_slice(
        self, stepper, order: np.ndarray, first_step: int, metric_sums: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Run the steps on ``order`` and return (losses, None).

        If ``careful``, and a loss or a parameter afterwards is not finite, the slice is undone, ``stepwise`` is set,
        and no losses are returned: the caller runs the same steps one by one. If the bad step is then undone, its loss
        is returned with the metrics' sums before it.
        """
        model = self._model
        if model.optimizer is not self._optimizer or model.params is not self._params:
            raise RuntimeError(
                f"{model.name} was compiled anew, or its layers were changed, by a callback: that has to wait until "
                "fit is over"
            )
        before = Snapshot(model, metric_sums) if self.careful else None
        losses = stepper.run(order, first_step, metric_sums)
        if before is None or (_is_finite(losses) and _is_finite(model.params)):
            return losses, None
        if len(losses) > 1:  # the same steps one by one give the same bits
            before.restore()
            metric_sums[...] = before.metric_sums
            self.stepwise = True
            return losses[:0], None
        undone = self._report(before, stepper.own_rows(order), first_step + 1)
        return losses, before.metric_sums if undone else None

    def _report(self, before: Snapshot, rows: np.ndarray, step: int) -> bool:
        """Report the bad step number ``step`` (from 1), on ``rows``, and undo it if that is wanted; whether it was."""
        model = self._model
        after = Snapshot(model, before.metric_sums)
        before.restore()
        model.set_step(model.draw_epoch, step - 1)
        out, what = np.ascontiguousarray(self._x[rows], dtype=model.dtype), ""
        for layer in model.layers if len(rows) else ():
            out = layer.forward(out, training=True)
            if not _is_finite(out):
                what = f"the output of layer {layer.name!r}"
                break
        what = what or self._nonfinite_parameter(after.params) or "the loss"
        undone = any(callback.restore for callback in self._terminators)
        (before if undone else after).restore()  # the forward passes have moved averages
        for callback in self._terminators:
            callback.found = f"{self._place(model.epoch, step)}: {what} is not finite"
        return undone

    def warn(self, losses: np.ndarray, epoch: int, first_step: int) -> None:
        """Warn, once, of the first loss that is not finite, or of parameters after the last step, which no loss has
        shown yet. Not if a callback stops there."""
        if self.careful or self._warned:
            return
        found, done = "", first_step + len(losses)
        if not _is_finite(losses):
            index = int(np.argmax(~np.isfinite(losses)))
            found = f"{self._place(epoch, first_step + index + 1)}: the loss is {losses[index]}"
        elif (done == self._steps or self._model.stop_training) and not _is_finite(self._params):
            found = f"{self._place(epoch, done)}: {self._nonfinite_parameter(self._params)} is not finite"
        if found:
            self._warned = True
            advice = "The callback TerminateOnNaN() stops there and keeps the parameters from before"
            warn(f"{found}. {advice}", RuntimeWarning)

    def _place(self, epoch: int, step: int) -> str:
        of_steps = "" if self._steps is None else f" of {self._steps}"
        return f"epoch {epoch + 1} of {self._epochs}, step {step}{of_steps}"

    def _nonfinite_parameter(self, params: np.ndarray) -> str:
        """The last layer's first, where the backward pass begins. "" if all are finite."""
        for layer in reversed(self._model.layers):
            for parameter in layer.parameters:
                if not _is_finite(params[parameter.offset : parameter.offset + parameter.size]):
                    return f"{parameter.name} of layer {layer.name!r} after the update"
        return ""
