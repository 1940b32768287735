"""What passes through each layer on one batch, forward and backward: ``model.trace(x, y)``."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np

from .. import losses
from ..registry import overridden
from ..validation import check_bool
from .layerwise import check_batch
from .objective import reduced, score_rows


@dataclass(frozen=True)
class LayerTrace:
    """What one layer was given and what it gave. ``dname`` is the gradient of the loss by ``name``."""

    name: str
    input: np.ndarray
    output: np.ndarray
    doutput: np.ndarray
    dinput: np.ndarray
    weights: dict[str, np.ndarray]
    """The parameters by name."""
    gradients: dict[str, np.ndarray]
    """Theirs, by the same names; 0 where a parameter is frozen or an average."""


@dataclass(frozen=True)
class Trace:
    """One batch on its way through a model."""

    layers: list[LayerTrace]
    """From the input on. A loss that is fused with the final softmax or sigmoid meets the logits: the last layer is
    then without it, and so is the list, where it is a layer of its own."""
    output: np.ndarray
    """Of the whole model: probabilities, where it ends in softmax."""
    logits: np.ndarray
    """(B, outputs): what the loss is applied to."""
    dlogits: np.ndarray
    loss: float
    """The mean over the batch, or what else ``reduction`` says; without penalties of regularizers."""
    row_losses: np.ndarray
    """float64 (B,): what each sample adds to the loss."""


def trace(model, x, y, loss, teacher_logits, sample_weight, training: bool) -> Trace:
    """See `Sequential.trace`. It runs on a copy, so the model, its layers' memory included, stays as it is."""
    check_bool("training", training)
    loss = model.loss if loss is None else losses.get_to_train(loss)
    if loss is None:
        raise ValueError("loss must be given: the model was not compiled with one")
    method = overridden(model, "forward", "backward")
    if method is not None:
        raise ValueError(f"{model.name} cannot be traced layer by layer: its class has a {method} of its own")
    batch = check_batch(model, loss, x, y, sample_weight, None, teacher_logits)
    twin = copy.deepcopy(model)
    for layer, original in zip(twin.layers, model.layers, strict=True):
        layer.key = original.key  # random layers draw what the model's would
    objective = twin.objective(loss)
    out, passed = batch.x, []
    layers = twin._logits_layers if objective.on_logits else twin.layers
    for layer in layers:
        weights = {parameter.name: getattr(layer, parameter.name).copy() for parameter in layer.parameters}
        given = out.copy()
        out = layer.forward(out, training=training)
        passed.append((layer, given, out.copy(), weights))
    logits = np.require(out.reshape(len(out), -1), twin.dtype, "CAW")
    row_losses, dlogits = score_rows(
        loss, objective, logits, reduced(loss, objective, batch), len(out), with_gradient=True
    )
    twin.grads[...] = 0
    dout, found = dlogits.reshape(out.shape), []
    for layer, given, gave, weights in reversed(passed):
        dinput = layer.backward(dout.copy())
        gradients = {name: getattr(layer, f"d{name}").copy() for name in weights}
        found.append(LayerTrace(layer.name, given, gave, dout.copy(), dinput.copy(), weights, gradients))
        dout = dinput
    logits, dlogits = logits.copy(), dlogits.copy()
    output = twin.forward(batch.x, training=training)
    return Trace(found[::-1], output, logits, dlogits, float(row_losses.sum()), row_losses)
