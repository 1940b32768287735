"""The sums that a run's metrics are results of: one vector, that slices of steps add to and that a file keeps.

A metric with a kernel has one number there, the sum of its rows' values: the compiled loop adds to it. The others are
plain NumPy. They are given each batch's predictions, in the order of the batches, once a slice of steps is over, so
that their bits do not depend on where slices end.
"""

import math
from typing import NamedTuple

import numpy as np

from .samples import Samples


class Unfinished(NamedTuple):
    """Where in an epoch a training was left. A later fit goes on there with the same draws and logs."""

    step: int  # the next one, from 0
    batch_size: int
    samples: int
    shuffle: bool
    loss_sum: float  # over the samples seen
    metric_sums: dict[str, float | list[float]]  # see `Tally.named`


class Tally:
    """Where the sums of ``metrics`` stand in a vector of ``size`` numbers, those with a kernel first.

    ``by_kernel`` and ``others`` are the metrics of both kinds. ``sparse``: whether y holds class indices. If
    the loss ``distills``, a label of -1 means that there is none, beside targets too.
    """

    def __init__(self, model, metrics, sparse: bool, distills: bool = False):
        outputs = math.prod(model.output_shape)
        self.metrics = list(metrics)
        self.by_kernel = [metric for metric in metrics if metric.has_kernel]
        self.others = [metric for metric in metrics if not metric.has_kernel]
        for metric in self.others:
            metric.check_fits(sparse, outputs)
            if len(model.output_shape) > 1:
                raise ValueError(
                    f"metric {metric.name} needs outputs of shape (B, C), got (B, *{model.output_shape}): add a Flatten"
                )
        self._places, self.size = {}, 0
        for metric in (*self.by_kernel, *self.others):
            first, self.size = self.size, self.size + (1 if metric.has_kernel else metric.sums_size(outputs))
            self._places[metric.name] = slice(first, self.size)
        self._distills = distills
        self._error: Exception | None = None

    def add(
        self, sums: np.ndarray, predictions: np.ndarray, labels: np.ndarray, targets, metrics=None
    ) -> None:
        """Add to ``sums`` what the others, or these of them, make of one batch; a row without a label is left out.

        If one raises, as a function of the user's may, its sums become NaN, and `raise_error` raises it later: the
        step is over, and the model must say so.
        """
        if self._distills and labels.size and labels.min() < 0:
            rows = np.flatnonzero(labels >= 0)
            predictions, labels = predictions[rows], labels[rows]
            targets = None if targets is None or not targets.size else targets[rows]
        if not len(predictions):
            return
        if targets is None:
            targets = np.empty((0, 0), predictions.dtype)
        else:
            labels = labels[:0]
        for metric in self.others if metrics is None else metrics:
            try:
                sums[self._places[metric.name]] += metric.sums(predictions, labels, targets)
            except Exception as error:
                sums[self._places[metric.name]] = np.nan
                self._error = self._error or error

    def add_batches(self, sums, predictions, samples: Samples, order: np.ndarray, batch_size: int) -> None:
        """`add` for consecutive batches of the rows ``order`` of the samples; predictions (len(order), C)."""
        labels = samples.labels[order] if samples.labels.size else samples.labels
        targets = None if samples.targets is None else samples.targets[order]
        self.add(sums, predictions, labels, targets, [metric for metric in self.others if metric.counts])
        by_batch = [metric for metric in self.others if not metric.counts]
        for first in range(0, len(order) if by_batch else 0, batch_size):
            rows = slice(first, first + batch_size)
            self.add(
                sums, predictions[rows], labels[rows], None if targets is None else targets[rows], by_batch
            )

    def raise_error(self) -> None:
        """Raise what a metric has raised in `add`, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def results(self, sums: np.ndarray, rows: int) -> dict:
        """Each metric's result by its name, for ``rows`` samples with a label."""
        found = {}
        for metric in self.metrics:
            part = sums[self._places[metric.name]]
            found[metric.name] = metric.result_of(np.array([part[0], rows]) if metric.has_kernel else part)
        return found

    def named(self, sums: np.ndarray) -> dict[str, float | list[float]]:
        """The sums by the metrics' names, as plain data: a number each, of the others a list."""
        named = {}
        for metric in self.metrics:
            part = sums[self._places[metric.name]].tolist()
            named[metric.name] = part[0] if metric.has_kernel else part
        return named

    def read(self, named: dict) -> np.ndarray | None:
        """The inverse of `named`; None if these are sums of other metrics."""
        if list(named) != [metric.name for metric in self.metrics]:
            return None
        sums = np.zeros(self.size)
        for metric in self.metrics:
            place = self._places[metric.name]
            part = named[metric.name] if isinstance(named[metric.name], list) else [named[metric.name]]
            if len(part) != sums[place].size:
                return None
            sums[place] = part
        return sums
