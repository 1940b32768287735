"""``[x]`` for x: Keras takes a list of arrays for the inputs of a model, and here a model has one."""

from __future__ import annotations

from typing import Any


def one_input(argument: str, x: Any, input_shape: tuple[int, ...] | None) -> Any:
    """The array in a list of one array of samples; anything else as it is. A list of several raises a ValueError.

    A list of single samples, or of numbers, is data itself. Before ``input_shape`` is known, an array of two axes or
    more is taken for samples.
    """
    if not isinstance(x, (list, tuple)) or not x:
        return x
    axes = {len(getattr(part, "shape", ())) for part in x}
    if len(axes) > 1 or (axes != {len(input_shape) + 1} if input_shape else len(x) > 1 or max(axes) < 2):
        return x
    if len(x) > 1:
        raise ValueError(f"{argument} must be one array, got a list of {len(x)}: a model has one input")
    return x[0]
