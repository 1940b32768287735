"""``solver="lbfgs"``: SciPy's L-BFGS-B on the flat vector of all parameters, all samples in each step.

scikit-learn runs the same code on the same function, so both end in the same place. SciPy is there wherever
scikit-learn is.
"""

from typing import Any

import numpy as np
import scipy.optimize

from ...kernels.restraints import add_regularizer
from ...losses import Loss
from ...models import Sequential
from ...training.objective import reduced, score_rows
from ...training.samples import CHUNK_BYTES, Samples


class Objective:
    """The loss of all samples and its gradient, as a function of the parameters."""

    def __init__(self, model: Sequential, loss: Loss, samples: Samples):
        self._model, self._loss, self._objective = model, loss, model.objective(loss)
        self._penalty_factor = loss.penalty_factor(samples.labels, samples.weight, len(samples.x))
        self._samples = reduced(loss, self._objective, samples)
        widest = max(layer.output_shape[0] for layer in model.layers)
        row_bytes = model.dtype.itemsize * max(samples.x.shape[1], widest)
        self._rows = max(1, CHUNK_BYTES // row_bytes)
        if self._objective.kind < 0:  # a loss that divides by the weights of all it is given
            self._rows = len(samples.x)

    def __call__(self, params: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, its gradient); the model keeps ``params``."""
        model, total = self._model, 0.0
        model.params[...] = params
        gradient = np.zeros(model.params.size)
        for first in range(0, len(self._samples.x), self._rows):
            total += self._add_rows(self._samples.take(slice(first, first + self._rows)))
            gradient += model.grads
        factor = self._penalty_factor
        total += add_regularizer(gradient, model.params, model.learning_segments, model.penalties, factor)
        return total, gradient

    def _add_rows(self, batch: Samples) -> float:
        """What these rows add to the loss; their gradient is left in the model's ``grads``."""
        model, objective = self._model, self._objective
        x = np.ascontiguousarray(batch.x, dtype=model.dtype)
        out = model.forward(x, training=True, logits=objective.on_logits)
        count = len(self._samples.x)
        row_loss, dout = score_rows(self._loss, objective, out, batch, count, with_gradient=True)
        model.backward_to_learn(dout, logits=objective.on_logits)
        return float(row_loss.sum())


def minimize(estimator, model: Sequential, loss: Loss, samples: Samples) -> Any:
    """Train ``model`` to the end, or as far as the estimator's limits go; returns SciPy's result."""
    iteration = 0

    def say(intermediate_result):
        nonlocal iteration
        iteration += 1
        print(f"Iteration {iteration}, loss = {intermediate_result.fun:.8f}")

    options = {"maxiter": estimator.max_iter, "maxfun": estimator.max_fun, "gtol": estimator.tol}
    result = scipy.optimize.minimize(
        Objective(model, loss, samples),
        model.params.astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        options=options,
        callback=say if estimator.verbose else None,
    )
    model.params[...] = result.x
    return result
