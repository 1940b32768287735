"""Is a backward pass right? Every entry of every gradient against central differences, in float64."""

import copy
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

from . import losses
from .differences import difference
from .models import Sequential
from .training.objective import Objective, objective_of, score_rows
from .training.samples import Samples
from .validation import (
    check_bool,
    check_float,
    check_inputs,
    check_rows,
    check_sample_weight,
    check_targets,
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
    """Check the loss's derivative by each trainable parameter and each input entry; the largest error found.

    Each entry a is moved by h = epsilon * max(1, |a|) either way, and ``(L(a+h) - L(a-h)) / 2h`` must be
    within ``atol * max(1, |L|) + rtol * |difference|`` of what ``model.backward`` gave. An entry that fails
    is tried again with h/10 and h/100, for a kink (relu at 0) may lie within h; exactly at a kink, any value
    between the slopes on either side is right. Costs two forward passes an entry: use a small model.

    Parameters
    ----------
    model : Sequential, left as it was. A float32 model is checked as a float64 copy.
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
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    training = check_bool("training", training)
    epsilon = check_float("epsilon", epsilon, above=0)
    tolerance = epsilon, check_float("rtol", rtol, minimum=0), check_float("atol", atol, minimum=0)
    if not model.built:
        model.build((None, *np.shape(x)[1:]))
    x = np.array(check_inputs(x, model.input_shape), dtype=np.float64, order="C")
    loss = model.loss if loss is None else losses.get_to_train(loss)
    if loss is None:
        raise ValueError("loss must be given: the model was not compiled with one")
    twin = model if model.dtype == np.float64 else in_float64(model)
    objective = objective_of(twin, loss)  # refuses a loss that does not fit the model
    batch = _batch(twin, loss, x, y, teacher_logits, sample_weight)
    score = functools.partial(_score, twin, loss, objective, batch, training)
    kept_params, kept_grads = twin.params.copy(), twin.grads.copy()
    try:
        return _compare_all(twin, score, objective.on_logits, x, tolerance)
    finally:
        twin.params[...], twin.grads[...] = kept_params, kept_grads


def _batch(model, loss, x, y, teacher_logits, sample_weight) -> Samples:
    """The data checked against model and loss, in float64."""
    labels, targets = loss.check_y(y, model.output_shape, len(x), model.dtype)
    weight = np.empty(0) if sample_weight is None else check_sample_weight(sample_weight, len(x))
    if loss.distills:
        teacher_logits = check_targets(teacher_logits, model.output_shape, argument="teacher_logits")
        check_rows("teacher_logits", len(teacher_logits), len(x))
        loss.check_teacher("teacher_logits", teacher_logits)  # and no probabilities
    elif teacher_logits is not None:
        raise ValueError(f"teacher_logits must be None for loss {loss.name}, which has no teacher")
    weight = loss.batch_weights(labels, weight, len(x))
    return Samples(x, labels, targets, teacher_logits, weight)


def _score(model, loss, objective: Objective, batch: Samples, training: bool) -> tuple[float, np.ndarray]:
    """The loss, applied where training applies it, and its gradient by what ``forward`` returned."""
    out = model.forward(batch.x, training=training, logits=objective.on_logits)
    row_loss, dout = score_rows(loss, objective, out.reshape(len(out), -1), batch, len(out), True)
    return float(row_loss.sum()), dout.reshape(out.shape)


def _compare_all(model, score: Callable, on_logits: bool, x: np.ndarray, tolerance: tuple) -> float:
    """The largest error of all entries, or the GradientError of the worst. ``tolerance``: (epsilon, rtol, atol)."""
    base, dout = score()
    if not math.isfinite(base):
        raise ValueError(f"the loss must be finite to be differentiated, got {base}")
    arrays = list(_arrays(model, x, model.backward(dout, logits=on_logits)))
    if score()[0] != base:
        raise ValueError("the model's output changes from call to call: a layer draws without layer.key")
    largest, wrong = 0.0, []
    for nearness, layer, parameter, array, gradient in arrays:
        for index in np.ndindex(array.shape):
            got = float(gradient[index])
            expected, error, allowed = difference(lambda: score()[0], base, array, index, got, tolerance)
            largest = max(largest, error)
            if not error <= allowed:  # a NaN is not
                severity = math.inf if math.isnan(error) or allowed == 0 else error / allowed
                wrong.append((nearness, severity, layer, parameter, index, expected, got))
    if wrong:
        worst = max(wrong, key=lambda entry: entry[:2])
        raise GradientError(*worst[2:], len(wrong), sum(array.size for *_, array, _ in arrays))
    return float(largest)


def _arrays(model, x, dx) -> Iterator[tuple[int, str, str, np.ndarray, np.ndarray]]:
    """(nearness to the output, layer, parameter, values, gradient) of all that the loss depends on."""
    dx, grads = np.array(dx), model.grads.copy()
    if dx.shape != x.shape:
        raise ValueError(f"backward of the first layer must return dx of shape {x.shape}, got {dx.shape}")
    yield -1, "input", "x", x, dx
    for nearness, layer in enumerate(model.layers):
        for parameter, view in zip(layer.parameters, layer.weights, strict=True):
            if not parameter.trainable:
                continue
            place = slice(parameter.offset, parameter.offset + parameter.size)
            yield nearness, layer.name, parameter.name, view, grads[place].reshape(parameter.shape)


def in_float64(model) -> Sequential:
    """A copy in double precision, whose random layers draw as those of ``model``."""
    twin = copy.deepcopy(model)
    vars(twin).update(dtype=np.dtype(np.float64), _params=model.params.astype(np.float64))
    twin._attach()
    for layer, original in zip(twin.layers, model.layers, strict=True):
        layer.key = original.key
    return twin
