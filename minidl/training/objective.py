"""How a loss meets a model's output: on its logits, fused with the final activation, or on what comes out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Objective(NamedTuple):
    """How a model is trained with a loss: the kernel's number and settings, and where the loss is applied."""

    kind: int  # negative: the user's own loss, which no kernel knows
    hyper: np.ndarray
    on_logits: bool
    """True: to what goes into the final softmax or sigmoid, which is then left out. False: to the output."""


def objective_of(model, loss) -> Objective:
    """How ``loss`` meets the output of ``model``, or a ValueError that says why it cannot."""
    model.require_built("a loss")
    final, wanted = model.final_activation, loss.fused_activation
    if wanted is None:
        return Objective(loss.kind(False), loss.hyper, False)
    if len(model.output_shape) != 1:
        raise ValueError(
            f"loss {loss.name} needs outputs of shape (B, C), got (B, *{model.output_shape}): add a Flatten"
        )
    if loss.distills and model.hides_a_softmax():
        raise ValueError(
            f"loss {loss.name} needs logits, but the model's are probabilities already: let softmax be its "
            "last layer, and there once"
        )
    if final == wanted and (loss.distills or not loss.from_logits):
        return Objective(loss.kind(True), loss.hyper, True)
    if loss.from_logits:
        if final in ("softmax", "sigmoid"):
            instead = "leave from_logits out" if final == wanted else "end with Dense(C)"
            raise ValueError(f"loss {loss.name} needs logits, but the model ends with {final}: {instead}")
        return Objective(loss.kind(True), loss.hyper, False)
    if final == "linear":
        raise ValueError(
            f"loss {loss.name} needs probabilities, but the model ends without an activation: end with "
            f"activation={wanted!r}, or make the loss with from_logits=True"
        )
    return Objective(loss.kind(False), loss.hyper, False)
