"""The flat vectors: all parameters of a model in one array, all gradients in another, layers' weights as views.

So an optimizer is one loop over one array, a checkpoint is one array, a gradient check walks one array, and a
data-parallel step needs one reduction. ``_lay_out`` gives each layer's parameters their place.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import constraints
from .kernels.random import INITIALIZER
from .kernels.restraints import add_regularizer
from .kernels.target import aligned_zeros
from .validation import check_array, describe


class FlatParameters:
    """The parameters of the layers ``_layers``, and their gradients: ``params`` and ``grads``, each on a cache line."""

    dtype: np.dtype
    seed: int
    built: bool
    _layers: list

    def _clear(self) -> None:
        """Forget all parameters."""
        self._params, self._grads = aligned_zeros(0, self.dtype), aligned_zeros(0, self.dtype)

    def _lay_out(self, initialize: bool) -> None:
        """Make new vectors. Parameters that had a place keep their values.

        The others get their initial values, drawn from ``seed``; without ``initialize`` they stay 0.
        """
        old, size = self._params, sum(layer.count_params() for layer in self._layers)
        self._params, self._grads = aligned_zeros(size, self.dtype), aligned_zeros(size, self.dtype)
        kept = min(size, old.size)  # layers are added and taken away at the end only
        self._params[:kept] = old[:kept]
        offset = 0
        for index, layer in enumerate(self._layers):
            is_new = layer.dtype is None
            offset = layer.attach(self._params, self._grads, offset)
            if initialize and is_new:
                for place, (parameter, view) in enumerate(zip(layer.parameters, layer.weights, strict=True)):
                    rng = np.random.default_rng([self.seed, INITIALIZER, index, place])
                    view[...] = parameter.initializer(parameter.shape, self.dtype, rng)

    @property
    def params(self) -> np.ndarray:
        return self._params

    @params.setter
    def params(self, value: np.ndarray) -> None:
        if value is not self._params:  # `model.params *= 2` assigns the vector itself
            raise AttributeError("layers view model.params: write model.params[...] = value")

    @property
    def grads(self) -> np.ndarray:
        return self._grads

    @grads.setter
    def grads(self, value: np.ndarray) -> None:
        if value is not self._grads:
            raise AttributeError("layers view model.grads: write model.grads[...] = value")

    @property
    def parameters(self) -> list:
        """Every layer's ``Parameter`` entries, in the order of the flat vector."""
        return [parameter for layer in self._layers for parameter in layer.parameters]

    @property
    def segments(self) -> np.ndarray:
        """int64 (n, 2): offset and size of each parameter in the flat vector."""
        return _segments(self.parameters)

    @property
    def weights(self) -> list[np.ndarray]:
        """Views of all parameters, as [weight, bias, weight, bias, ...]."""
        return [view for layer in self._layers for view in layer.weights] if self.built else []

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, as [weight, bias, weight, bias, ...]."""
        self.require_built("get_weights")
        return [view.copy() for view in self.weights]

    def set_weights(self, weights: Iterable) -> None:
        """Overwrite all parameters with arrays shaped as those of ``get_weights``, or change nothing."""
        self.require_built("set_weights")
        set_weights(self.weights, weights)

    def count_params(self) -> int:
        self.require_built("count_params")
        return self.params.size

    def require_built(self, what: str) -> None:
        """A ValueError unless the model is built; ``what`` is the method that needs it."""
        if not self.built:
            raise ValueError(
                f"{what} needs a built model: give the first layer an input_shape, or call build(input_shape)"
            )

    # -- what training changes -----------------------------------------------------------------------

    @property
    def trainable(self) -> bool:
        """Whether any layer is. Setting it sets every layer's."""
        return any(layer.trainable for layer in self._layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._layers:
            layer.trainable = value

    @property
    def trainable_weights(self) -> list[np.ndarray]:
        """Views of the parameters that training changes."""
        return [view for view, entry in self._views() if entry.trainable]

    @property
    def non_trainable_weights(self) -> list[np.ndarray]:
        """Views of the parameters of frozen layers, and of moving averages."""
        return [view for view, entry in self._views() if not entry.trainable]

    def _views(self) -> Iterable[tuple[np.ndarray, Any]]:
        return zip(self.weights, self.parameters, strict=True) if self.built else ()

    def learning(self, wanted: bool = True) -> list:
        """The `Parameter` entries that training changes, or the others. All below is about the first."""
        return [entry for entry in self.parameters if entry.trainable == wanted] if self.built else []

    @property
    def averages(self) -> list[np.ndarray]:
        """Views of what no gradient changes: moving averages."""
        return [view for view, entry in self._views() if not entry.learns]

    def clear_gradients_of_what_does_not_learn(self) -> None:
        """Set them to 0: clipping by the global norm reads all gradients."""
        for entry in self.learning(False):
            self.grads[entry.offset : entry.offset + entry.size] = 0

    @property
    def learning_segments(self) -> np.ndarray:
        """int64 (n, 2): offset and size of each."""
        return _segments(self.learning())

    @property
    def penalties(self) -> np.ndarray:
        """float64 (n, 2): l1 and l2 of each."""
        rules = [entry.regularizer for entry in self.learning()]
        return np.array([(r.l1, r.l2) if r else (0.0, 0.0) for r in rules], np.float64).reshape(-1, 2)

    def penalty(self) -> float:
        """What the regularizers add to the loss."""
        penalties = self.penalties
        if not penalties.any():
            return 0.0
        return float(add_regularizer(self.params[:0], self.params, self.learning_segments, penalties, 1.0))

    @property
    def constraint_table(self) -> tuple[np.ndarray, np.ndarray]:
        """The constraints that kernels know, as `kernels.restraints.constrain` reads them."""
        return constraints.table((p.constraint, p.offset, p.shape) for p in self.learning())

    @property
    def own_constraints(self) -> list[tuple[constraints.Constraint, np.ndarray]]:
        """The constraints that only Python knows, of the user's own classes, each with its parameter's view."""
        if all(constraints.has_kernel(entry.constraint) for entry in self.learning()):
            return []
        pairs = [(entry.constraint, view) for view, entry in self._views() if entry.trainable]
        return [(own, view) for own, view in pairs if not constraints.has_kernel(own)]


def _segments(entries: list) -> np.ndarray:
    return np.array([(entry.offset, entry.size) for entry in entries], np.int64).reshape(-1, 2)


def set_weights(views: list[np.ndarray], weights: Iterable) -> None:
    """Overwrite ``views`` with ``weights``, an array for each, or change nothing."""
    if isinstance(weights, np.ndarray) or not isinstance(weights, Iterable):
        raise TypeError(f"weights must be a list of arrays, got {describe(weights)}")
    arrays = list(weights)
    if len(arrays) != len(views):
        raise ValueError(f"weights must be {len(views)} arrays, got {len(arrays)}")
    for index, (view, value) in enumerate(zip(views, arrays, strict=True)):
        arrays[index] = check_array(f"weights[{index}]", value)
        if arrays[index].shape != view.shape:
            raise ValueError(f"weights[{index}] must have shape {view.shape}, got {arrays[index].shape}")
    for view, value in zip(views, arrays, strict=True):
        view[...] = value
