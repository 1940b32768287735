"""scikit-learn's rule of when to stop, its learning rates and its order of samples."""

import math

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ...callbacks import Callback
from ...metrics import MeanSquaredError
from ...models import Sequential
from ...training.samples import Samples
from ...validation import warn

_LOWEST_RATE = 1e-6
_REDUCTION = 5.0
"""Of ``learning_rate="adaptive"``."""


class Orders:
    """The rows of each epoch, drawn by the estimator's ``random_state`` as scikit-learn draws them.

    ``rng`` None: always 0, 1, ... An epoch of which a slice has left steps undone is asked for again, so orders are
    kept until the model is beyond them.
    """

    def __init__(self, model: Sequential, count: int, rng: np.random.RandomState | None):
        self._model, self._next, self._rng, self._rows = model, model.draw_epoch, rng, np.arange(count)
        self._drawn: dict[int, np.ndarray] = {}

    def __call__(self, epoch: int) -> np.ndarray:
        if self._rng is None:
            return self._rows
        while self._next <= epoch:
            order = np.arange(len(self._rows))
            self._rng.shuffle(order)
            self._rows = self._drawn[self._next] = self._rows[
                order
            ]  # each epoch shuffles the last one's order
            self._next += 1
        for old in [old for old in self._drawn if old < self._model.draw_epoch]:
            del self._drawn[old]
        return self._drawn[epoch]


class StoppingRule(Callback):
    """Writes down each epoch in the estimator's attributes, and stops where scikit-learn does.

    That is where loss or validation score have not been better by ``tol`` for more than ``n_iter_no_change`` epochs.
    So many epochs may always run at once: the rule cannot end training in the middle of them.
    """

    wants_every_batch = False

    def __init__(self, estimator, count: int, held_out: Samples | None, incremental: bool):
        super().__init__()
        self._estimator, self._count = estimator, count
        self._held_out, self._incremental = held_out, incremental
        self._averaged_outputs = 1

    @property
    def epochs_at_once(self) -> float:
        mlp = self._estimator
        if self._held_out is not None or self._follows_schedule:
            return 1
        return mlp.n_iter_no_change + 1 - mlp._no_improvement_count

    @property
    def _follows_schedule(self) -> bool:
        return self._estimator.solver == "sgd" and self._estimator.learning_rate == "invscaling"

    def metrics(self, samples: Samples) -> list:
        """What is measured besides the loss: see `_loss`."""
        outputs = self._estimator.n_outputs_
        if self._estimator.out_activation_ != "identity" or outputs == 1 or samples.weight.size:
            return []
        self._averaged_outputs = outputs
        return [MeanSquaredError()]

    def _loss(self, logs: dict[str, float]) -> float:
        """Of several numbers scikit-learn learns by the sum of the halved squared errors, and tells their mean."""
        if self._averaged_outputs == 1:
            return logs["loss"]
        return logs["loss"] - (self._averaged_outputs - 1) / 2 * logs["mean_squared_error"]

    def on_epoch_end(self, epoch, logs=None):
        mlp = self._estimator
        mlp.loss_ = self._loss(logs)
        mlp.n_iter_ += 1
        mlp.t_ += self._count
        mlp.loss_curve_.append(mlp.loss_)
        if mlp.verbose:
            print(f"Iteration {mlp.n_iter_}, loss = {mlp.loss_:.8f}")
        if self._held_out is not None:
            self._judge_score()
        else:
            self._judge_loss()
        if self._follows_schedule:
            self.model.optimizer.learning_rate = mlp.learning_rate_init / (mlp.t_ + 1) ** mlp.power_t
        if not math.isfinite(mlp.loss_):
            self.model.stop_training = True
        elif mlp._no_improvement_count > mlp.n_iter_no_change:
            self._stop()
        elif mlp.n_iter_ == mlp.max_iter and not self._incremental:
            warn(
                f"Stochastic Optimizer: Maximum iterations ({mlp.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
            )

    def _judge_loss(self) -> None:
        mlp = self._estimator
        worse = mlp.loss_ > mlp.best_loss_ - mlp.tol
        mlp._no_improvement_count = mlp._no_improvement_count + 1 if worse else 0
        mlp.best_loss_ = min(mlp.best_loss_, mlp.loss_)

    def _judge_score(self) -> None:
        mlp = self._estimator
        score = mlp._score_of(self._held_out)
        mlp.validation_scores_.append(score)
        if mlp.verbose:
            print(f"Validation score: {score:f}")
        worse = score < mlp.best_validation_score_ + mlp.tol
        mlp._no_improvement_count = mlp._no_improvement_count + 1 if worse else 0
        if score > mlp.best_validation_score_:
            mlp.best_validation_score_, mlp._best_params = score, self.model.params.copy()

    def _stop(self) -> None:
        """Stop, or go on with a fifth of the learning rate."""
        mlp, optimizer = self._estimator, self.model.optimizer
        what = "Training loss" if self._held_out is None else "Validation score"
        text = (
            f"{what} did not improve more than tol={mlp.tol:f} for {mlp.n_iter_no_change} consecutive epochs."
        )
        adapts = mlp.solver == "sgd" and mlp.learning_rate == "adaptive"
        if adapts and optimizer.learning_rate > _LOWEST_RATE:
            optimizer.learning_rate /= _REDUCTION
            mlp._no_improvement_count = 0
            text += f" Setting learning rate to {optimizer.learning_rate:f}"
        else:
            self.model.stop_training = True
            text += " Learning rate too small. Stopping." if adapts else " Stopping."
        if mlp.verbose:
            print(text)
