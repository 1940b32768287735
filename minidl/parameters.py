"""The flat vectors: all parameters of a model in one array, all gradients in another, layers' weights as views.

So an optimizer is one loop over one array, a checkpoint is one array, a gradient check walks one array, and a
data-parallel step needs one reduction. ``lay_out`` gives each layer's parameters their place.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from .constraints import Constraint, MaxNorm
from .kernels.random import INITIALIZER
from .kernels.target import aligned_zeros
from .kernels.updates import add_regularizer
from .validation import check_array, describe


class FlatParameters:
    """The parameters of a list of layers, and their gradients: ``values`` and ``grads``, each on a cache line."""

    def __init__(self, dtype: np.dtype):
        self.values, self.grads = aligned_zeros(0, dtype), aligned_zeros(0, dtype)
        self.layers: Sequence = ()

    def lay_out(self, layers: Sequence, seed: int, initialize: bool = True) -> None:
        """Make new vectors for ``layers``. Parameters that had a place keep their values.

        The others get their initial values, drawn from ``seed``; without ``initialize`` they stay 0.
        """
        old, dtype = self.values, self.values.dtype
        size = sum(layer.count_params() for layer in layers)
        self.layers = layers
        self.values, self.grads = aligned_zeros(size, dtype), aligned_zeros(size, dtype)
        kept = min(size, old.size)  # layers are added and taken away at the end only
        self.values[:kept] = old[:kept]
        offset = 0
        for index, layer in enumerate(layers):
            is_new = layer.dtype is None
            offset = layer.attach(self.values, self.grads, offset)
            if initialize and is_new:
                for place, (parameter, view) in enumerate(zip(layer.parameters, layer.weights, strict=True)):
                    rng = np.random.default_rng([seed, INITIALIZER, index, place])
                    view[...] = parameter.initializer(parameter.shape, dtype, rng)

    @property
    def entries(self) -> list:
        """Every layer's ``Parameter``, in the order of the vectors."""
        return [parameter for layer in self.layers for parameter in layer.parameters]

    @property
    def views(self) -> list[np.ndarray]:
        """Each parameter's view of ``values``: weight, bias, weight, bias, ..."""
        return [view for layer in self.layers for view in layer.weights]

    @property
    def segments(self) -> np.ndarray:
        """int64 (n, 2): offset and size of each parameter."""
        return np.array([(p.offset, p.size) for p in self.entries], np.int64).reshape(-1, 2)

    @property
    def learning(self) -> list:
        """The entries that training changes: those of layers that are not frozen. All below is about them."""
        return [entry for entry in self.entries if entry.trainable]

    @property
    def learning_segments(self) -> np.ndarray:
        """int64 (n, 2): offset and size of each."""
        return self.segments[[entry.trainable for entry in self.entries]]

    @property
    def penalties(self) -> np.ndarray:
        """float64 (n, 2): l1 and l2 of each."""
        pairs = [(p.regularizer.l1, p.regularizer.l2) if p.regularizer else (0.0, 0.0) for p in self.learning]
        return np.array(pairs, np.float64).reshape(-1, 2)

    def penalty(self) -> float:
        """What the regularizers add to the loss."""
        return float(add_regularizer(self.values[:0], self.values, self.learning_segments, self.penalties))

    @property
    def max_norms(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 (n, 3) offset, rows, columns and float64 (n,) limits of the ``MaxNorm`` constraints."""
        bound = [p for p in self.learning if type(p.constraint) is MaxNorm]
        places = [MaxNorm.segment(p.offset, p.shape) for p in bound]
        return np.array(places, np.int64).reshape(-1, 3), np.array([p.constraint.max_value for p in bound])

    @property
    def own_constraints(self) -> list[tuple[Constraint, np.ndarray]]:
        """The constraints that only Python knows, of the user's own classes, each with its parameter's view."""
        pairs = [
            (p.constraint, view) for p, view in zip(self.entries, self.views, strict=True) if p.trainable
        ]
        return [(own, view) for own, view in pairs if own is not None and type(own) is not MaxNorm]


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
