"""Objects rebuilt from a class name and a JSON-able config, and found by name as Keras finds them."""

from __future__ import annotations

import re
from collections.abc import Callable

from .validation import describe, unknown_name


def snake_case(name: str) -> str:
    """``GlorotUniform`` -> ``glorot_uniform``, ``L1L2`` -> ``l1_l2``, as Keras spells its string names."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


class Configurable:
    """``get_config()`` gives the constructor's arguments; ``from_config`` makes an equal object of them."""

    def get_config(self) -> dict:
        return {}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


def serialize(thing: Configurable | None) -> dict | None:
    """``{"class_name", "config"}``, all of it JSON."""
    return None if thing is None else {"class_name": type(thing).__name__, "config": thing.get_config()}


def resolve(argument: str, identifier, base: type, known: dict[str, Callable]):
    """The object meant by a name, a class, a ``{"class_name", "config"}`` or an object of type ``base``.

    ``known`` maps names to classes; only these are ever built from a name or a config.
    None stays None. Raises ValueError for an unknown name (with the nearest known one) or a malformed
    config, TypeError for anything else.
    """
    if identifier is None or isinstance(identifier, base):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, base):
        return identifier()
    if isinstance(identifier, str):
        if identifier not in known:
            raise unknown_name(argument, identifier, known)
        return known[identifier]()
    if isinstance(identifier, dict):
        name, config = identifier.get("class_name"), identifier.get("config", {})
        if not isinstance(name, str) or not isinstance(config, dict):
            raise ValueError(
                f"{argument} as a dict must have 'class_name' (string) and 'config' (dict), got {identifier}"
            )
        if name not in known:
            raise unknown_name(argument, name, known)
        return known[name].from_config(config)
    raise TypeError(f"{argument} must be a name, a config or {base.__name__}, got {describe(identifier)}")
