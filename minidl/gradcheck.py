"""Is a backward pass right? Every entry of every gradient against central differences, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from . import losses
from .kernels.losses import Batch, loss_batch
from .validation import (
    check_bool,
    check_float,
    check_inputs,
    check_logits,
    check_rows,
    check_sample_weight,
    describe,
)


class GradientError(AssertionError):
    """A gradient differs from its central difference.

    Attributes name the worst entry of the wrong layer nearest to the output (an error there spreads to all
    layers before it): ``layer``, ``parameter``, ``index``, ``expected`` (the difference), ``got``.
    """

    def __init__(self, layer, parameter, index, expected, got, wrong=1, checked=1):
        self.layer, self.parameter, self.index = layer, parameter, index
        self.expected, self.got = expected, got
        where = ", ".join(str(i) for i in index)
        super().__init__(
            f"gradient of {layer}.{parameter}[{where}]: expected {expected:.10g} (central difference), "
            f"got {got:.10g}; {wrong} of {checked} entries differ, none in a layer nearer to the output"
        )


def check_gradients(
    model,
    x,
    y=None,
    loss=None,
    teacher_logits=None,
    sample_weight=None,
    *,
    training: bool = True,
    epsilon: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-7,
) -> float:
    """Check the loss's derivative by each parameter and each input entry; the largest error found.

    Each entry a is moved by h = epsilon * max(1, |a|) either way, and ``(L(a+h) - L(a-h)) / 2h`` must be
    within ``atol * max(1, |L|) + rtol * |difference|`` of what ``model.backward`` gave. An entry that fails
    is tried again with h/10 and h/100, for a kink (relu at 0) may lie within h; exactly at a kink, any value
    between the slopes on either side is right. Costs two forward passes an entry: use a small model.

    Parameters
    ----------
    model : Sequential, left as it was. A float32 model is checked as a float64 copy made from its config.
    x : samples (B, *input_shape).
    y : labels or targets, as the loss takes them.
    loss : a name or a loss object. Default: the one the model was compiled with. Regularizers are left out.
    teacher_logits : (B, C), for a distillation loss.
    sample_weight : (B,), optional.
    training : whether dropout and noise are on. They draw the same numbers in every pass.
    epsilon, rtol, atol : see above.

    Raises
    ------
    GradientError
        An AssertionError that names the layer, parameter and index of the worst entry, and both values.
    ValueError, TypeError
        For arguments that do not fit, or a model whose output changes from call to call.
    """
    from .models import Sequential

    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    training = check_bool("training", training)
    epsilon = check_float("epsilon", epsilon, above=0)
    rtol, atol = check_float("rtol", rtol, minimum=0), check_float("atol", atol, minimum=0)
    if not model.built:
        model.build(np.asarray(x).shape[1:])
    x = np.array(check_inputs(x, model.input_shape), dtype=np.float64, order="C")
    twin = model if model.dtype == np.float64 else _in_float64(model)
    loss = model.loss if loss is None else loss
    value_and_grad, logits = _loss_of(twin, loss, y, len(x), teacher_logits, sample_weight)

    def value() -> float:
        return value_and_grad(twin.forward(x, training=training, logits=logits))[0]

    kept_params, kept_grads = twin.params.copy(), twin.grads.copy()
    try:
        base, dout = value_and_grad(twin.forward(x, training=training, logits=logits))
        if not math.isfinite(base):
            raise ValueError(f"the loss must be finite to be differentiated, got {base}")
        twin.grads[...] = np.nan  # a gradient that is not written is not taken for zero
        dx = twin.backward(dout, logits=logits)
        if value() != base:
            raise ValueError("the model's output changes from call to call: a layer draws without layer.key")
        largest, wrong, checked, worst = 0.0, 0, 0, None
        for nearness, layer, parameter, array, gradient in _arrays(twin, x, dx):
            for index in np.ndindex(array.shape):
                got = float(gradient[index])
                expected, error, allowed = _difference(value, base, array, index, got, epsilon, rtol, atol)
                checked += 1
                largest = max(largest, error)
                if not error <= allowed:  # a NaN is not
                    wrong += 1
                    rank = nearness, math.inf if math.isnan(error) or allowed == 0 else error / allowed
                    if worst is None or rank > worst[0]:
                        worst = rank, (layer, parameter, index, expected, got)
    finally:
        twin.params[...], twin.grads[...] = kept_params, kept_grads
    if worst is not None:
        raise GradientError(*worst[1], wrong, checked)
    return float(largest)


def _loss_of(model, loss, y, rows, teacher_logits, sample_weight):
    """(out -> (loss, dout), whether out is the logits), with the loss applied where training applies it."""
    if loss is None:
        raise ValueError("loss must be given: the model was not compiled with one")
    loss = losses.get(loss)
    objective = model.objective(loss)
    labels, targets = model.check_y(y, rows, loss)
    targets = np.ascontiguousarray(targets, dtype=np.float64)
    y = labels if labels.size else targets if targets.size else None
    if sample_weight is not None:
        sample_weight = check_sample_weight(sample_weight, rows)
        check_rows("sample_weight", len(sample_weight), rows)
    if loss.distills:
        teacher_logits = check_logits(teacher_logits, rows, math.prod(model.output_shape))
        teacher_logits = np.ascontiguousarray(teacher_logits, dtype=np.float64)
    elif teacher_logits is not None:
        raise ValueError(f"teacher_logits must be None for loss {loss.name}, which has no teacher")
    on_probabilities = objective.kind == loss.kind(False) != loss.kind(True) and not objective.on_logits

    def value_and_grad(out):
        flat = out.reshape(rows, -1)
        if loss.distills:
            value, dout = loss.value_and_grad(flat, y, teacher_logits, sample_weight=sample_weight)
        elif not on_probabilities:
            value, dout = loss.value_and_grad(flat, y, sample_weight=sample_weight)
        else:  # the method takes logits; this model has none
            scale = (np.ones(rows) if sample_weight is None else sample_weight) / rows
            row_loss, dout = np.empty(rows), np.empty_like(flat)
            empty = np.empty((0, 0))
            batch = Batch(flat, labels, targets, empty, scale)
            loss_batch(objective.kind, row_loss, dout, batch, objective.hyper)
            value = float(row_loss.sum())
        return float(value), np.asarray(dout).reshape(out.shape)

    return value_and_grad, objective.on_logits


def _difference(value: Callable[[], float], base, array, index, got, epsilon, rtol, atol):
    """(expected, error, allowed) of one entry, which is moved and put back."""
    kept = array[index]
    for shrink in (1, 10, 100):
        h = epsilon * max(1.0, abs(kept)) / shrink
        high, low = kept + h, kept - h
        array[index] = high
        above = value()
        array[index] = low
        below = value()
        array[index] = kept
        expected = (above - below) / (high - low)
        error = abs(got - expected)
        allowed = atol * max(1.0, abs(base)) + rtol * abs(expected)
        if error <= allowed:
            return expected, error, allowed
    left, right = (base - below) / h, (above - base) / h
    smooth = 1e-4 * (abs(left) + abs(right)) + 1e-6 * max(1.0, abs(base))
    if abs(right - left) > smooth and min(left, right) - allowed <= got <= max(left, right) + allowed:
        return expected, 0.0, allowed
    return expected, error, allowed


def _arrays(model, x, dx) -> Iterator[tuple[int, str, str, np.ndarray, np.ndarray]]:
    """(nearness to the output, layer, parameter, values, gradient) of all that the loss depends on."""
    dx, grads = np.array(dx), model.grads.copy()
    if dx.shape != x.shape:
        raise ValueError(f"backward of the first layer must return dx of shape {x.shape}, got {dx.shape}")
    yield -1, "input", "x", x, dx
    for nearness, layer in enumerate(model.layers):
        for parameter, view in zip(layer.parameters, layer.weights, strict=True):
            place = slice(parameter.offset, parameter.offset + parameter.size)
            yield nearness, layer.name, parameter.name, view, grads[place].reshape(parameter.shape)


def _in_float64(model):
    """The same layers on the same parameters, in double precision."""
    from .models import Sequential

    layers = []
    for layer in model.layers:
        try:
            layers.append(type(layer).from_config(layer.get_config()))
        except Exception as error:
            raise ValueError(
                f"layer {layer.name} cannot be rebuilt in float64 from its get_config() ({error}): "
                "correct that, or check a Sequential(dtype='float64')"
            ) from error
    twin = Sequential(layers, name=model.name, dtype="float64", seed=model.seed)
    twin.build(model.input_shape)
    twin.params[...] = model.params
    for layer, original in zip(twin.layers, model.layers, strict=True):
        layer.key = original.key
    return twin
