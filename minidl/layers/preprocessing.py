"""Layers that bring inputs into a range: out = (x - center) * scale + offset, by fixed numbers that nothing trains.

One number serves all of a sample, or each of its numbers has one of its own. They are settings, so they are in the
config, and are saved and copied with the model.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..kernels.program import RESCALING, Op
from ..kernels.rowwise import rescale, rescale_columns, rescale_columns_backward
from ..registry import Unpack
from ..validation import blocks, check_array, check_bool, check_finite, check_float, check_int, describe
from .base import LAYERS, Layer, LayerOptions
from .rowwise import as_matrix

_SMALLEST_DEVIATION = 1e-7
"""Keras's ``epsilon()``."""


class _ByColumn(Layer):
    """Base of layers that have a center, a scale and an offset for each number of a sample, in ``_columns`` (3, D)."""

    _columns: np.ndarray | None = None

    def forward(self, x, training=False):
        x = self._checked_input(x)
        out = np.empty_like(x)
        rescale_columns(as_matrix(out), as_matrix(x), *self._columns)
        return out

    def backward(self, dout):
        dout = self._checked_batch("dout", dout, self.output_shape)
        dx = np.empty_like(dout)
        rescale_columns_backward(as_matrix(dx), as_matrix(dout), self._columns[1])
        return dx

    def ops(self):
        numbers = tuple(self._columns.ravel().tolist())
        return [Op(RESCALING, self._size, self._size, i=(self._size, 0, 0, 0, 0, 0, 0), f=numbers)]

    def affine(self) -> tuple[Any, Any, Any]:
        """Center, scale and offset, each a number or an array shaped as a sample."""
        return tuple(each.reshape(self.input_shape) for each in self._columns)

    def _lay_out(self, **numbers) -> None:
        """Fill ``_columns`` with the center, scale and offset, repeated as NumPy repeats what is broadcast."""
        for name, number in numbers.items():
            try:
                numbers[name] = np.broadcast_to(number, self.input_shape).ravel()
            except ValueError:
                raise ValueError(
                    f"{name} of layer {self.name} must fit samples of shape {self.input_shape}, got {describe(number)}"
                ) from None
        self._columns = np.array(list(numbers.values()), np.float64)


@LAYERS.register()
class Rescaling(_ByColumn):
    """out = x * scale + offset: ``Rescaling(1 / 255)`` takes bytes to [0, 1].

    Each is a number, or a list or array of them with one for each feature of the last axis; more axes are broadcast.
    """

    def __init__(self, scale: Any, offset: Any = 0.0, *common: Any, **options: Unpack[LayerOptions]):
        super().__init__(*common, **options)
        self.scale = _checked_numbers("scale", scale)
        self.offset = _checked_numbers("offset", offset)
        self._is_plain = isinstance(self.scale, float) and isinstance(self.offset, float)

    def build(self, input_shape):
        if not self._is_plain:
            self._lay_out(center=0.0, scale=self.scale, offset=self.offset)

    def forward(self, x, training=False):
        return self._rescaled(self._checked_input(x), self.offset) if self._is_plain else super().forward(x)

    def backward(self, dout):
        if not self._is_plain:
            return super().backward(dout)
        return self._rescaled(self._checked_batch("dout", dout, self.output_shape), 0.0)

    def _rescaled(self, array: np.ndarray, offset: float) -> np.ndarray:
        out = np.empty_like(array)
        rescale(as_matrix(out), as_matrix(array), self.scale, offset)
        return out

    def ops(self):
        plain = Op(RESCALING, self._size, self._size, f=(self.scale, self.offset))
        return [plain] if self._is_plain else super().ops()

    def affine(self):
        return (0.0, self.scale, self.offset) if self._is_plain else super().affine()

    def get_config(self):
        return super().get_config() | {"scale": _plain(self.scale), "offset": _plain(self.offset)}


@LAYERS.register()
class Normalization(_ByColumn):
    """out = (x - mean) / max(sqrt(variance), 1e-7): mean 0 and variance 1, by the numbers ``adapt`` has found.

    Parameters
    ----------
    axis : the axes, counted with the batch as axis 0, that keep a mean and a variance for each of their places:
        -1 for each feature, None for one pair of all. The batch itself cannot be among them.
    mean, variance : both or neither; numbers or arrays that fit the axes, the last to the last. Without them the layer
        must ``adapt`` before it is used: it is refused until then (Keras would pass the inputs on as they are).
    invert : out = x * max(sqrt(variance), 1e-7) + mean instead.

    Mean and variance are kept in float64, as settings: they are in the config, not among the weights. Files of ``save``
    and copies have them, those of ``save_weights`` do not.
    """

    def __init__(
        self,
        axis: int | tuple[int, ...] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        *common: Any,
        **options: Unpack[LayerOptions],
    ):
        super().__init__(*common, **options)
        axes = () if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
        self.axis = tuple(check_int("axis", each) for each in axes)
        if (mean is None) != (variance is None):
            missing, given = ("mean", "variance") if mean is None else ("variance", "mean")
            raise ValueError(
                f"give mean and variance, or neither and call adapt: got {given} without {missing}"
            )
        self.mean = None if mean is None else _checked_numbers("mean", mean)
        self.variance = None if variance is None else _checked_numbers("variance", variance)
        if np.shape(self.mean) != np.shape(self.variance):
            shapes = f"{np.shape(self.mean)} and {np.shape(self.variance)}"
            raise ValueError(f"mean and variance must have the same shape, got {shapes}")
        if np.ndim(self.mean) > len(self.axis):  # type: ignore[arg-type]
            wanted = f"at most {len(self.axis)} axes, as axis says"
            raise ValueError(f"mean must have {wanted}, got shape {np.shape(self.mean)}")
        if self.variance is not None and np.min(self.variance) < 0:
            raise ValueError(f"variance must be >= 0, got {np.min(self.variance)}")
        self.invert = check_bool("invert", invert)

    def build(self, input_shape):
        _kept_axes(self.axis, len(input_shape) + 1)
        if self.mean is not None:
            self._lay_out_statistics()

    def adapt(self, data: Any) -> None:
        """Find mean and variance of ``data``: samples (N, ...) as an array or a memory map, or an iterable of batches.

        A batch may be a tuple, whose first part is taken. Computed in float64, about 1 MB at a time. What was found or
        given before is replaced, in a model that was built or trained too: it follows with its next step or prediction.
        """
        moments = None
        for argument, batch in _batches(data):
            batch = check_array(argument, batch)
            batch = batch[:, None] if batch.ndim == 1 else batch
            check_finite(argument, batch)
            if moments is None:
                moments = _Moments(_kept_axes(self.axis, batch.ndim), batch.shape)
                self._check_shape(argument, batch.shape)
            moments.check(argument, batch.shape)
            for _, block in blocks(batch):
                moments.add(block)
        if moments is None:
            raise ValueError("data must hold samples, got an iterable without batches")
        found = {"mean": moments.mean, "variance": moments.squares / moments.count}
        self.__dict__.update({name: _checked_numbers(name, numbers) for name, numbers in found.items()})
        if self.built:
            self._lay_out_statistics()
            self._version += 1

    def _check_shape(self, argument: str, shape: tuple[int, ...]) -> None:
        if not self.built:
            return
        mine = (None, *self.input_shape)
        kept = _kept_axes(self.axis, len(mine))
        if len(shape) != len(mine) or any(shape[axis] != mine[axis] for axis in kept):
            raise ValueError(
                f"{argument} must be of the shape of layer {self.name}'s input, {mine}, got {shape}"
            )

    def _lay_out_statistics(self) -> None:
        kept = _kept_axes(self.axis, len(self.input_shape) + 1)
        shape = [1] * len(self.input_shape)
        for size, axis in zip(reversed(np.shape(self.mean)), reversed(kept), strict=False):
            shape[axis - 1] = size
        mean = np.reshape(self.mean, shape)
        deviation = np.maximum(np.sqrt(np.reshape(self.variance, shape)), _SMALLEST_DEVIATION)
        if self.invert:
            self._lay_out(center=0.0, scale=deviation, offset=mean)
        else:
            self._lay_out(mean=mean, scale=1.0 / deviation, offset=0.0)

    def forward(self, x, training=False):
        self._check_adapted()
        return super().forward(x)

    def ops(self):
        self._check_adapted()
        return super().ops()

    def affine(self):
        self._check_adapted()
        return super().affine()

    def _check_adapted(self) -> None:
        if self.mean is None:
            raise ValueError(
                f"layer {self.name} has no mean and variance yet: call its adapt(x_train) before the model is used, or "
                "make it with mean= and variance="
            )

    def get_config(self):
        config = {"axis": list(self.axis), "mean": _plain(self.mean), "variance": _plain(self.variance)}
        return super().get_config() | config


class _Moments:
    """Mean and sum of squared deviations of what was added, for each place of the axes that are kept."""

    def __init__(self, kept: tuple[int, ...], shape: tuple[int, ...]):
        self._kept, self._shape = kept, shape
        self._others = tuple(axis for axis in range(len(shape)) if axis not in kept)
        kept_shape = tuple(shape[axis] for axis in kept)
        self.count, self.mean, self.squares = 0, np.zeros(kept_shape), np.zeros(kept_shape)

    def check(self, argument: str, shape: tuple[int, ...]) -> None:
        """A ValueError unless ``shape`` fits the first batch's."""
        if len(shape) != len(self._shape) or any(shape[axis] != self._shape[axis] for axis in self._kept):
            raise ValueError(f"{argument} must be shaped as the first, {self._shape}, got {shape}")

    def add(self, block: np.ndarray) -> None:
        """By Chan, Golub and LeVeque (1979): no difference of large sums, so nothing cancels."""
        block = np.asarray(block, np.float64)
        count = math.prod(block.shape[axis] for axis in self._others)
        mean = block.mean(axis=self._others, keepdims=True)
        squares = np.square(block - mean).sum(axis=self._others)
        apart = mean.reshape(self.mean.shape) - self.mean
        total = self.count + count
        self.squares += squares + apart**2 * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total


def _batches(data: Any) -> Iterator[tuple[str, Any]]:
    """(name in errors, array) of each batch of ``data``, or of ``data`` itself."""
    if isinstance(data, (list, tuple)):
        is_array = not any(getattr(_inputs(part), "ndim", 1) > 1 for part in data[:1])
    else:
        is_array = hasattr(data, "__array__") or isinstance(data, str)
    if is_array or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        yield "data", data
        return
    if hasattr(data, "__iter__"):
        parts = iter(data)
    else:  # a keras.utils.Sequence
        parts = (data[place] for place in range(len(data)))
    for number, batch in enumerate(parts):
        yield f"batch {number} of data", _inputs(batch)


def _inputs(batch: Any) -> Any:
    """The x of a batch that is (x, y)."""
    return batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch


def _kept_axes(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """``axes`` of an array with ``ndim`` axes, the batch among them, counted from its beginning and sorted."""
    for axis in axes:
        if not -ndim < axis < ndim or axis == 0:
            raise ValueError(
                f"axis must name axes of a batch with {ndim} axes, of which 0 is the batch, got {axis}"
            )
    kept = tuple(sorted(axis % ndim for axis in axes))
    if len(set(kept)) < len(kept):
        raise ValueError(f"axis must name each axis once, got {axes}")
    return kept


def _checked_numbers(argument: str, value: object) -> Any:
    """A float, or a float64 array of one's own."""
    if np.ndim(value) == 0:  # type: ignore[arg-type]
        return check_float(argument, value)
    array = check_array(argument, value)
    check_finite(argument, array)
    return np.array(array, np.float64)


def _plain(numbers: Any) -> Any:
    """Numbers as a config holds them."""
    return numbers.tolist() if isinstance(numbers, np.ndarray) else numbers
