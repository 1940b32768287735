"""Batch and layer normalisation."""

from typing import Any

import numpy as np

from .. import constraints, initializers, regularizers
from ..constraints import Constraint
from ..initializers import Initializer
from ..kernels.normalization import move_averages
from ..kernels.program import BATCH_NORMALIZATION, LAYER_NORMALIZATION, MOVING_NORMALIZATION
from ..registry import Unpack
from ..regularizers import Regularizer
from ..validation import check_bool, check_float, check_int, describe
from .base import LAYERS, Layer, LayerOptions
from .featurewise import FeaturewiseLayer, whole_of


class _Normalization(FeaturewiseLayer):
    """Base of both: ``gamma`` and ``beta`` of the features along the last axis."""

    changeable = Layer.changeable | {"beta_regularizer", "gamma_regularizer"}
    changeable |= {"beta_constraint", "gamma_constraint"}
    _names = "gamma", "beta"

    def _set(self, axis, epsilon, center, scale, **rules) -> None:
        """Keep the arguments that both have."""
        self.axis = axis
        self.epsilon = check_float("epsilon", epsilon, minimum=0)
        self.center, self.scale = check_bool("center", center), check_bool("scale", scale)
        for name, is_on in (("gamma", self.scale), ("beta", self.center)):
            if not is_on:
                setattr(self, name, None)  # as in Keras
        getters = {
            "initializer": initializers.get,
            "regularizer": regularizers.get,
            "constraint": constraints.get,
        }
        for argument, rule in rules.items():
            setattr(self, argument, getters[argument.rpartition("_")[2]](rule))

    def build(self, input_shape):
        if self.axis not in (-1, len(input_shape)):
            raise ValueError(
                f"axis of layer {self.name} must be -1, the last of its input (B, {str(input_shape)[1:]}, "
                f"got {self.axis}"
            )
        for name, is_on in (("gamma", self.scale), ("beta", self.center)):
            if is_on:
                rules = (
                    getattr(self, f"{name}_{rule}") for rule in ("initializer", "regularizer", "constraint")
                )
                self.add_weight(name, input_shape[-1:], *rules)

    def ops(self):
        # in the compiled loop a row is a whole sample
        return super().ops() if len(self.input_shape) == 1 else None

    def _matrix(self, array):
        return array.reshape(-1, self.input_shape[-1])


@LAYERS.register()
class BatchNormalization(_Normalization):
    """out = gamma * (x - mean) / sqrt(variance + epsilon) + beta, of each feature (Ioffe & Szegedy 2015).

    In training mean and (biased) variance are the batch's, and the moving averages follow them::

        moving_mean = moving_mean * momentum + mean * (1 - momentum)          # and moving_variance likewise

    In inference they are the moving averages, and so where the layer is frozen (``trainable=False``), which then
    updates nothing. Arguments, defaults and the order of the weights (gamma, beta, moving_mean, moving_variance) are
    those of Keras 3. ``axis`` must be the last; ``renorm`` and ``synchronized`` can only be False. The moving averages
    lie among the model's parameters, so they are saved and copied, but no gradient, penalty or weight decay moves
    them. Sample weights do not count in the moments. The rows of a step belong together: one long step is not
    interrupted.

    Backward, with s = sqrt(variance + epsilon), xhat = (x - mean) / s, g = gamma dout and means over the B rows::

        dbeta = sum dout,  dgamma = sum dout xhat
        dxhat = g, and out of row i depends on x of row k by xhat_i = (x_i - mean) / s:
            d mean / d x_k = 1/B,  d s / d x_k = xhat_k / B      (s^2 = mean of (x - mean)^2, + epsilon)
            d xhat_i / d x_k = ([i = k] - 1/B - xhat_i xhat_k / B) / s
        dx_k = sum_i g_i d xhat_i / d x_k = (g_k - mean(g) - xhat_k mean(g xhat)) / s

    With moving averages mean and s are constants: dx = g / s.
    """

    not_in_config = Layer.not_in_config | {"renorm", "renorm_clipping", "renorm_momentum", "synchronized"}
    _kind = BATCH_NORMALIZATION

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: str | Initializer = "zeros",
        gamma_initializer: str | Initializer = "ones",
        moving_mean_initializer: str | Initializer = "zeros",
        moving_variance_initializer: str | Initializer = "ones",
        beta_regularizer: str | Regularizer | None = None,
        gamma_regularizer: str | Regularizer | None = None,
        beta_constraint: str | Constraint | None = None,
        gamma_constraint: str | Constraint | None = None,
        renorm: bool = False,
        renorm_clipping: None = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        *common: Any,
        **options: Unpack[LayerOptions],
    ):
        super().__init__(*common, **options)
        for argument, value in (("renorm", renorm), ("synchronized", synchronized)):
            if check_bool(argument, value):
                raise ValueError(f"{argument} must be False, got True: minidl has no such normalisation")
        self._set(
            check_int("axis", axis),
            epsilon,
            center,
            scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self._numbers = self.epsilon, self.momentum

    def build(self, input_shape):
        super().build(input_shape)
        for name in ("moving_mean", "moving_variance"):
            initializer = getattr(self, f"{name}_initializer")
            self.add_weight(name, input_shape[-1:], initializer, trainable=False)

    def forward(self, x, training=False):
        out = super().forward(x, training)
        if self._used == BATCH_NORMALIZATION:
            averages = self._averages()
            move_averages(averages, self._kept, self._forward_numbers, whole_of(self._matrix(self._x)))
            self.moving_mean[...], self.moving_variance[...] = np.split(averages, 2)
        return out

    def ops(self):
        found, mean = super().ops(), self.parameters[-2]
        return found and [found[0]._replace(i=(mean.offset, 2 * mean.size, 0, 0, 0, 0, 0))]

    def _operation(self, training):
        return BATCH_NORMALIZATION if training and self.trainable else MOVING_NORMALIZATION

    def _begin_to_keep(self, rows):
        return super()._begin_to_keep(rows) if self._used == BATCH_NORMALIZATION else self._averages()

    def _averages(self) -> np.ndarray:
        """A copy of both, in one vector."""
        return np.concatenate((self.moving_mean, self.moving_variance))


@LAYERS.register()
class LayerNormalization(_Normalization):
    """out = gamma * (x - mean) / sqrt(variance + epsilon) + beta, with the moments of each row (Ba et al. 2016).

    Mean and (biased) variance are those of the last axis, in training and in inference. Arguments and defaults are
    those of Keras 3; ``axis`` must be the last, ``rms_scaling`` can only be False.

    Backward, with s = sqrt(variance + epsilon), xhat = (x - mean) / s, g = gamma dout and means over the row's n
    numbers: d xhat_i / d x_k = ([i = k] - 1/n - xhat_i xhat_k / n) / s as in `BatchNormalization`, so::

        dx = (g - mean(g) - xhat mean(g xhat)) / s
        dbeta = sum over the rows of dout,  dgamma = sum of dout xhat
    """

    not_in_config = Layer.not_in_config | {"rms_scaling"}
    _kind = LAYER_NORMALIZATION

    def __init__(
        self,
        axis: int | list[int] | tuple[int, ...] = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: str | Initializer = "zeros",
        gamma_initializer: str | Initializer = "ones",
        beta_regularizer: str | Regularizer | None = None,
        gamma_regularizer: str | Regularizer | None = None,
        beta_constraint: str | Constraint | None = None,
        gamma_constraint: str | Constraint | None = None,
        rms_scaling: bool = False,
        *common: Any,
        **options: Unpack[LayerOptions],
    ):
        super().__init__(*common, **options)
        if check_bool("rms_scaling", rms_scaling):
            raise ValueError("rms_scaling must be False, got True: minidl has no such normalisation")
        if isinstance(axis, (list, tuple)):
            if len(axis) != 1:
                raise ValueError(f"axis must be -1, the last, got {describe(axis)}")
            axis = axis[0]
        self._set(
            check_int("axis", axis),
            epsilon,
            center,
            scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )
        self._numbers = self.epsilon, 0.0
