"""What bridges put together: a model of layers and arrays that another library gave, and a teacher of its function."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ..layers import Layer
from ..models import Sequential
from ..teachers import Teacher, as_teacher
from ..validation import check_bool, describe


def check_model(model: object, what: str) -> None:
    """A TypeError unless ``model`` is a minidl model, a ValueError unless it is built; ``what`` needs it."""
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a minidl.Sequential, got {describe(model)}")
    model.require_built(what)


class Place(NamedTuple):
    """A layer of a model that is to be made, with its arrays by their names in minidl."""

    called: str
    """What error messages call it: its name where it comes from."""
    layer: Layer
    arrays: dict[str, np.ndarray]


def assemble(
    places: Iterable[Place], input_shape: tuple[int, ...], dtype: str, name: str | None = None
) -> Sequential:
    """A model of these layers with these arrays. All shapes are checked before any memory is taken.

    Raises ValueError, naming the place and both sides, if arrays do not fit; if one holds NaN or infinity; and if two
    layers have one name.
    """
    places, shape, names = list(places), input_shape, set()
    for place in places:
        if place.layer.name in names:
            raise ValueError(
                f"{place.called} has the name of another layer: a minidl model has each name once"
            )
        names.add(place.layer.name)
        try:
            place.layer.build(shape)
        except ValueError as error:
            raise ValueError(f"{place.called}: {error}") from error
        wanted = {parameter.name: parameter.shape for parameter in place.layer.parameters}
        found = {key: np.shape(array) for key, array in place.arrays.items()}
        if wanted != found:
            raise ValueError(
                f"{place.called} has arrays of shapes {found}, and a {type(place.layer).__name__} whose input has "
                f"shape {shape} needs {wanted}"
            )
        for key, array in place.arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{place.called} has NaN or infinity in its {key}")
        shape = place.layer.output_shape
    model = Sequential(name=name, dtype=dtype)
    size = sum(math.prod(np.shape(array)) for place in places for array in place.arrays.values())
    model.fill([place.layer for place in places], input_shape, size)
    for place in places:
        for key, array in place.arrays.items():
            getattr(place.layer, key)[...] = array
    return model


def teacher_of(
    function: Callable[[np.ndarray], np.ndarray], called: str, ending: str | None, from_probs: bool
) -> Teacher:
    """``function`` as a teacher. ``ending`` is the activation that it is known to end with, None where it is not known.

    After a softmax or sigmoid it gives probabilities, and is refused unless ``from_probs`` says so: then their
    logarithms (or log-odds) teach. Where the ending is not known, what looks like probabilities is refused when it is
    asked.
    """
    if ending not in ("softmax", "sigmoid"):
        return as_teacher(function, from_probs=from_probs)
    if not check_bool("from_probs", from_probs):
        raise ValueError(
            f"{called} ends in {ending}, so it gives probabilities, and logits are wanted: give it without its "
            f"{ending}, or say from_probs=True"
        )
    return as_teacher(function, from_probs=True, activation=ending)
