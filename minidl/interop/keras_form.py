"""Keras's configs as layers, and its files. It needs no Keras; a file needs h5py.

A ``.keras`` file is a zip of ``config.json``, ``metadata.json`` and ``model.weights.h5``. The weights lie under the
layers' classes, counted in order, ``layers/dense_1/vars/0``, not under their names.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..archive import naming
from ..constraints import CONSTRAINTS
from ..initializers import INITIALIZERS
from ..layers import LAYERS, BatchNormalization, Dense, Layer, LayerNormalization, Normalization, PReLU, ReLU
from ..models import Sequential
from ..registry import constructor_arguments, snake_case
from ..regularizers import REGULARIZERS
from ..validation import describe, shorten, warn
from . import import_extra
from .assembly import Place, assemble

CLASSES = (
    "Activation BatchNormalization Dense Dropout ELU Flatten GaussianNoise LayerNormalization LeakyReLU Normalization "
    "PReLU ReLU Rescaling Softmax"
).split()
"""Layers that both have, by the same names and arguments."""
MODELS = ("Sequential", "Functional")
GELU_TANH = "minidl>gelu_tanh"
"""The registered name of the function that `to_keras` writes for that activation, as Keras has no name for it."""
_FUNCTIONS = {"relu6": ReLU(max_value=6.0)}
"""Activations by Keras's names that are layers here."""
_ACTIVATION_LAYERS = ("ELU", "LeakyReLU", "ReLU", "Softmax")
_ONE_PATH = "a minidl model is one path from one input to one output"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LARGEST_TEXT = 16 << 20  # bytes


class Entry(NamedTuple):
    """A layer in a Keras model's config: where its weights lie, its class, its arguments, and the layer if it lives."""

    location: tuple[str, ...]
    kind: str
    config: dict[str, Any]
    live: Any = None

    @property
    def called(self) -> str:
        return f"layer {self.config.get('name')!r} ({self.kind})"


# ---- one path of layers


def entries_of(node: dict, live: Any = None, location: tuple[str, ...] = ()) -> Iterator[Entry]:
    """The layers of a Sequential or of a functional chain in order, nested models unfolded, inputs among them."""
    config = node["config"]
    children = {} if live is None else {layer.name: layer for layer in live.layers}
    places = _places_of_weights(node)
    for child in _in_a_row(config) if node["class_name"] == "Functional" else config["layers"]:
        kind, settings = child["class_name"], {**child["config"]}
        if config.get("trainable") is False:
            settings["trainable"] = False
        place, inner = (*location, "layers", places.get(id(child), "")), children.get(settings.get("name"))
        if kind in MODELS:
            yield from entries_of({**child, "config": settings}, inner, place)
        else:
            _refuse_unknown(child)
            yield Entry(place, kind, settings, inner)


def _places_of_weights(node: dict) -> dict[int, str]:
    """The name under which Keras stores each layer, by the id of its config: its class, and how many came before."""
    found, count = {}, Counter()
    for child in node["config"]["layers"]:
        if node["class_name"] == "Functional" or child["class_name"] != "InputLayer":
            name = snake_case(child["class_name"])
            found[id(child)] = f"{name}_{count[name]}" if count[name] else name
            count[name] += 1
    return found


def _refuse_unknown(node: dict) -> None:
    kind = node["class_name"]
    called = f"layer {shorten(node['config'].get('name'))} ({str(kind)[:80]})"
    if node.get("module") != "keras.layers" or node.get("registered_name") is not None:
        raise ValueError(f"{called} is a class of your own, which minidl cannot know")
    if kind not in (*CLASSES, "InputLayer", "Identity"):
        raise ValueError(f"{called} has no counterpart in minidl")


def _in_a_row(config: dict) -> list[dict]:
    """The layers of a functional model from its input to its output; refused unless it is one path."""
    by_name = {node["config"]["name"]: node for node in config["layers"]}
    ends = [_one_end(config[key], key) for key in ("input_layers", "output_layers")]
    row, name = [], ends[1]
    while True:
        node = by_name.pop(name, None)
        if node is None:
            raise ValueError(f"layer {name!r} is not in the model or used twice: {_ONE_PATH}")
        row.insert(0, node)
        if name == ends[0]:
            break
        name = _input_of(name, node["inbound_nodes"])
    if by_name:
        raise ValueError(f"layer {next(iter(by_name))!r} is on no path from input to output: {_ONE_PATH}")
    return row


def _one_end(ends: list, key: str) -> str:
    """The one layer of ``input_layers`` or ``output_layers``: [name, 0, 0], or a list of such."""
    ends = ends if isinstance(ends[0], list) else [ends]
    if len(ends) != 1:
        raise ValueError(f"{key} are {[end[0] for end in ends]}: {_ONE_PATH}")
    return ends[0][0]


def _input_of(name: str, nodes: list) -> str:
    """The layer whose output the layer ``name`` takes."""
    if len(nodes) != 1:
        raise ValueError(f"layer {name!r} is used {len(nodes)} times: {_ONE_PATH}")
    for key, value in nodes[0].get("kwargs", {}).items():
        if value is not None:  # such as training=True
            raise ValueError(f"layer {name!r} is called with {key}={shorten(value)}, which minidl has not")
    tensors = nodes[0]["args"]
    if (
        len(tensors) != 1
        or not isinstance(tensors[0], dict)
        or tensors[0].get("class_name") != "__keras_tensor__"
    ):
        raise ValueError(f"layer {name!r} takes more than one input: {_ONE_PATH}")
    return tensors[0]["config"]["keras_history"][0]


# ---- layers


def model_of(node: dict, arrays_of: Callable[[Entry], list[np.ndarray]], live: Any = None) -> Sequential:
    """The model of a config, with the arrays that ``arrays_of`` gives for each layer."""
    if node.get("class_name") not in MODELS or node.get("registered_name") not in (
        None,
        "Functional",
        "Sequential",
    ):
        raise ValueError(
            f"model must be a Sequential or a functional chain, got {shorten(node.get('class_name'))}"
        )
    entries = list(entries_of(node, live))
    shape = _input_shape(entries, node)
    entries = [entry for entry in entries if entry.kind not in ("InputLayer", "Identity")]
    dtype = _dtype_of(entries)
    layers = [_layers_of(entry) for entry in entries]
    places = []
    for entry, (layer, *following) in zip(entries, layers, strict=True):
        arrays = arrays_of(entry)
        if isinstance(layer, Normalization):
            layer, arrays = _with_statistics(entry, layer, arrays), []
        names = _array_names(layer)
        if len(arrays) != len(names):
            raise ValueError(
                f"{entry.called} has {len(arrays)} arrays, and minidl's has {len(names)}, {names}"
            )
        for array in arrays:
            if array.dtype.name != dtype:
                raise ValueError(
                    f"{entry.called} has an array of {array.dtype}, and the layer computes in {dtype}"
                )
        places.append(Place(entry.called, layer, dict(zip(names, arrays, strict=True))))
        places += [Place(f"the activation of {entry.called}", other, {}) for other in following]
    return assemble(places, shape, dtype, node["config"].get("name"))


def _input_shape(entries: list[Entry], node: dict) -> tuple[int, ...]:
    first = next((entry for entry in entries if entry.kind == "InputLayer"), None)
    shape = node["config"].get("build_input_shape") if first is None else first.config.get("batch_shape")
    if not shape or None in shape[1:]:
        raise ValueError(
            f"the model's input must have a shape that is known, got {shape}: build the model first"
        )
    if first is not None and first.config.get("dtype") not in (
        "float32",
        "float64",
        "uint8",
        "int32",
        "int64",
    ):
        raise ValueError(f"{first.called} takes {first.config.get('dtype')}, which minidl has not")
    return tuple(shape[1:])


def _dtype_of(entries: list[Entry]) -> str:
    """The dtype in which all layers compute."""
    found: dict[str, str] = {}
    for entry in entries:
        dtype = entry.config.get("dtype", "float32")
        name = dtype.get("config", {}).get("name") if isinstance(dtype, dict) else dtype
        if name not in ("float32", "float64"):
            raise ValueError(f"{entry.called} computes in {shorten(name)}: minidl has float32 and float64")
        found.setdefault(name, entry.called)
    if len(found) != 1:
        raise ValueError(f"all layers must compute in one dtype, got {found or 'no layers'}")
    return next(iter(found))


def _layers_of(entry: Entry) -> list[Layer]:
    """The layer, and one that is its activation where that has no name here."""
    cls, settings, following = LAYERS.classes[entry.kind], {}, []
    known = constructor_arguments(cls).keys()
    for key, value in entry.config.items():
        if key == "dtype":
            continue
        if key == "activation":
            settings[key], following = _activation(entry, value)
        elif key in known:
            settings[key] = _setting(entry, key, value)
        elif value is not None and value is not False:  # what is off is no loss
            raise ValueError(f"{entry.called} has {key}={shorten(value)}, which minidl has not")
    try:
        return [cls(**settings), *following]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{entry.called}: {error}") from error


def _activation(entry: Entry, value: Any) -> tuple[str, list[Layer]]:
    """The name of the activation, and the layer that it is instead."""
    name = f"{entry.config.get('name')}_activation"
    if isinstance(value, dict):
        if value.get("config") == GELU_TANH:
            return "gelu_tanh", []
        if value.get("class_name") not in _ACTIVATION_LAYERS:
            raise ValueError(
                f"{entry.called} has the activation {shorten(value.get('config'))}, which minidl has not"
            )
        _refuse_unknown(value)
        return "linear", _layers_of(Entry((), value["class_name"], {**value["config"], "name": name}))
    if value in _FUNCTIONS:
        like = _FUNCTIONS[value]
        return "linear", [type(like).from_config({**like.get_config(), "name": name})]
    return value, []


RULES = {"initializer": INITIALIZERS, "regularizer": REGULARIZERS, "constraint": CONSTRAINTS}


def _setting(entry: Entry, key: str, value: Any) -> Any:
    """A constructor's argument, of what Keras writes."""
    registry = RULES.get(key.rpartition("_")[2])
    if registry is None:
        is_array = isinstance(value, dict) and value.get("class_name") in ("__tensor__", "__numpy__")
        return value["config"]["value"] if is_array else value
    try:
        if not isinstance(value, dict):
            return registry.get(value)
        own = value.get("registered_name") is not None
        config = {name: given for name, given in value.get("config", {}).items() if given is not None}
        return registry.get(
            {"class_name": f"own {value['class_name']}" if own else value["class_name"], "config": config}
        )
    except (TypeError, ValueError) as error:
        called = f"{key} {shorten(value.get('class_name') if isinstance(value, dict) else value)} of {entry.called}"
        if registry is not INITIALIZERS:
            raise ValueError(f"{called} has no counterpart in minidl: {error}") from error
        warn(
            f"{called} has no counterpart in minidl and is left out: the weights are there, new ones would differ"
        )
        return "zeros" if key != "kernel_initializer" else "glorot_uniform"


def _array_names(layer: Layer) -> list[str]:
    """A layer's arrays by minidl's names, in Keras's order."""
    if isinstance(layer, Dense):
        return ["weight", "bias"] if layer.use_bias else ["weight"]
    if isinstance(layer, PReLU):
        return ["alpha"]
    if isinstance(layer, (BatchNormalization, LayerNormalization)):
        names = ["gamma"] * layer.scale + ["beta"] * layer.center
        return names + ["moving_mean", "moving_variance"] * isinstance(layer, BatchNormalization)
    return []


def _with_statistics(entry: Entry, layer: Normalization, arrays: list[np.ndarray]) -> Normalization:
    """The layer with the mean and variance that it was given, or else has among its weights."""
    if layer.mean is not None:
        return layer
    if len(arrays) != 3:  # mean, variance, count
        raise ValueError(f"{entry.called} has {len(arrays)} arrays, and 3 are wanted: mean, variance, count")
    return Normalization(**{**layer.get_config(), "mean": arrays[0], "variance": arrays[1]})


# ---- files


def model_of_file(path: str | os.PathLike) -> Sequential:
    """The model in a ``.keras`` file of Keras 3."""
    h5py = import_extra("h5py", "keras", "h5py")
    with open(path, "rb") as file, naming(os.fspath(path)):
        if file.read(len(_HDF5)) == _HDF5:
            raise ValueError(
                "it is an HDF5 file. Of a whole model write keras.models.load_model(path).save('model.keras') and read "
                "that; weights alone, as in .weights.h5, are no model"
            )
        members = _members(file)
        version = json.loads(members["metadata.json"]).get("keras_version", "")
        if not str(version).startswith("3."):
            raise ValueError(
                f"it is of Keras {shorten(version)}, and Keras 3 is known: save it again with Keras 3"
            )
        node = json.loads(members["config.json"])
        with h5py.File(io.BytesIO(members["model.weights.h5"]), "r") as weights:
            return model_of(node, lambda entry: _stored_arrays(h5py, weights, entry))


def _members(file: Any) -> dict[str, bytes]:
    """The three files in a ``.keras`` file."""
    archive = zipfile.ZipFile(file)
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    names = ("metadata.json", "config.json", "model.weights.h5")
    if missing := [name for name in names if name not in sizes]:
        raise ValueError(
            f"it holds no {missing[0]}, so it is no .keras file of one piece: it holds {list(sizes)[:5]}"
        )
    if max(sizes[name] for name in names[:2]) > _LARGEST_TEXT:
        raise ValueError(f"its config has more than {_LARGEST_TEXT >> 20} MB")
    if sizes[names[2]] > os.fstat(file.fileno()).st_size:
        raise ValueError("its weights are compressed, which Keras never does")
    return {name: archive.read(name) for name in names}


def _stored_arrays(h5py: Any, weights: Any, entry: Entry) -> list[np.ndarray]:
    """The arrays of a layer, in order. Only what the file itself holds is read: no links, no more than is stored."""
    group = weights
    for part in (*entry.location, "vars"):
        if part not in group:
            return []
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{entry.called}: {part!r} is a link, which Keras never writes")
        group = group[part]
    if (name := group.attrs.get("name", entry.config.get("name"))) != entry.config.get("name"):
        raise ValueError(
            f"{entry.called} has its weights under {'/'.join(entry.location)}, which are those of {name!r}"
        )
    found = []
    for number in range(len(group)):
        if not isinstance(group.get(str(number), getlink=True), h5py.HardLink):
            raise ValueError(f"{entry.called} has {list(group)}, where arrays by number are wanted")
        data = group[str(number)]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise ValueError(f"{entry.called}: array {number} is {describe(data)}, which Keras never writes")
        if data.id.get_storage_size() < data.nbytes:
            raise ValueError(
                f"{entry.called}: array {number} of shape {data.shape} is larger than what is stored of it"
            )
        found.append(data[()] if data.shape else np.array(data[()]))
    return found
