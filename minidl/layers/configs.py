"""Layers as plain data, and from it: only minidl's own classes and those that the caller names are ever built."""

from collections.abc import Mapping

from ..registry import serialize
from ..validation import describe
from .base import LAYERS, Layer


def layer_config(layer: Layer) -> dict:
    """A layer's class and arguments; a class that is not minidl's is marked, whatever its name."""
    found = serialize(layer)
    if LAYERS.classes.get(type(layer).__name__) is not type(layer):
        found["custom"] = True
    return found


def check_custom_objects(custom_objects: object) -> dict[str, type]:
    """``custom_objects`` as a dict; None: an empty one."""
    if custom_objects is None:
        return {}
    if not isinstance(custom_objects, Mapping) or not all(
        isinstance(name, str) and callable(cls) for name, cls in custom_objects.items()
    ):
        raise TypeError(
            f"custom_objects must be a dict of name: class or function, got {describe(custom_objects)}"
        )
    return dict(custom_objects)


def revive(node, custom: dict[str, type]):
    """``node`` with every config of a class in ``custom`` replaced by an object of it, and a function by itself."""
    if isinstance(node, list):
        return [revive(item, custom) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: revive(value, custom) for key, value in node.items()}
    own, config = custom.get(str(node.get("class_name"))), node.get("config", {})
    if not isinstance(own, type):  # none, or a function, as a loss may be
        return node if own is None else own
    return own.from_config(config) if hasattr(own, "from_config") else own(**config)


def layers_from_configs(nodes: list, custom: dict[str, type]) -> list[Layer]:
    """The layers that `layer_config` described, new and unbuilt."""
    found = []
    for node in nodes:
        if not isinstance(node, dict) or not isinstance(node.get("class_name"), str):
            raise ValueError(f"a layer must have a class_name, got {describe(node)}")
        name, layer = node["class_name"], revive(node, custom)
        if name in custom and not isinstance(layer, Layer):
            received = describe(layer)
            raise TypeError(f"custom_objects[{name!r}] must make a minidl.layers.Layer, got {received}")
        if name not in custom and node.get("custom"):
            raise ValueError(f"layer class {name} is not minidl's: pass custom_objects={{{name!r}: {name}}}")
        found.append(LAYERS.get(layer))
    names = [layer.name for layer in found]
    if len(set(names)) < len(names):
        raise ValueError(f"layer names must be distinct, got {names}")
    return found
