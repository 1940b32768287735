"""Models as files: one ``.npz`` that ``numpy.load`` reads too, holding

- ``config``: JSON as bytes. The architecture, what ``compile`` was given, and the training state: epochs
  finished, optimizer steps done, and where in an epoch it was left.
- ``params``: the flat vector. ``slot0 .. slot2``: the optimizer's, where it has them.

Written to a temporary file beside the target, flushed to disk and renamed over it: a crash at any moment
leaves the old file or the new one whole. Read without trust: no pickles, nothing compressed (so a small file
cannot grow), members and sizes checked before anything is allocated, and only minidl's own classes and those
the caller names are ever built. Whatever is wrong with a file is a ValueError that names it.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from . import layers, losses, metrics, optimizers
from .registry import serialize
from .training import Unfinished
from .validation import check_bool, check_int, check_shape, describe, unknown_name

VERSION = 1

_SLOTS = ("slot0", "slot1", "slot2")
_MEMBERS = ("config", "params", *_SLOTS)
_MAGIC = b"PK\x03\x04"
_LARGEST_CONFIG = 16 << 20

_LAYERS = layers.LAYERS.classes

# What a reader of hostile bytes can raise: zipfile and numpy.lib.format promise no one exception.
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,  # NotImplementedError and RecursionError too
    SyntaxError,
    TypeError,
    ValueError,
)
_CONFIG_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_LARGEST_COUNT = 2**53


# -- configs ---------------------------------------------------------------------------------------


def layer_config(layer: layers.Layer) -> dict:
    """A layer's class and arguments; a class that is not minidl's is marked, whatever its name."""
    found = serialize(layer)
    if _LAYERS.get(type(layer).__name__) is not type(layer):
        found["custom"] = True
    return found


def check_custom_objects(custom_objects: object) -> dict[str, type]:
    if custom_objects is None:
        return {}
    if not isinstance(custom_objects, Mapping) or not all(
        isinstance(name, str) and isinstance(cls, type) for name, cls in custom_objects.items()
    ):
        raise TypeError(f"custom_objects must be a dict of name: class, got {describe(custom_objects)}")
    return dict(custom_objects)


def _revive(node, custom: dict[str, type]):
    """``node`` with every config of a class in ``custom`` replaced by an object of it."""
    if isinstance(node, list):
        return [_revive(item, custom) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _revive(value, custom) for key, value in node.items()}
    name = node.get("class_name")
    if isinstance(name, str) and name in custom:
        cls, config = custom[name], node.get("config", {})
        return cls.from_config(config) if hasattr(cls, "from_config") else cls(**config)
    return node


def _layer(node, custom: dict[str, type]) -> layers.Layer:
    if not isinstance(node, dict) or not isinstance(node.get("class_name"), str):
        raise ValueError(f"a layer must have a class_name, got {describe(node)}")
    name = node["class_name"]
    if name in custom:
        layer = _revive(node, custom)
        if not isinstance(layer, layers.Layer):
            raise TypeError(
                f"custom_objects[{name!r}] must make a minidl.layers.Layer, got {describe(layer)}"
            )
        return layer
    if node.get("custom"):
        raise ValueError(f"layer class {name} is not minidl's: pass custom_objects={{{name!r}: {name}}}")
    if name not in _LAYERS:
        raise unknown_name("layer class", name, _LAYERS)
    return _LAYERS[name].from_config(_revive(node["config"], custom))


def model_from_config(config: dict, custom_objects: dict[str, type] | None = None, size: int | None = None):
    """A ``Sequential`` from ``Sequential.get_config()``. With ``size``, refused before anything is allocated
    unless it has that many parameters, which are then left uninitialized.
    """
    from .models import Sequential

    custom = check_custom_objects(custom_objects)
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise ValueError(f"config must be what Sequential.get_config gives, got {describe(config)}")
    model = Sequential(name=config.get("name"), dtype=config.get("dtype", "float32"), seed=config.get("seed"))
    stack = [_layer(node, custom) for node in config["layers"]]
    names = [layer.name for layer in stack]
    if len(set(names)) < len(names):
        raise ValueError(f"layer names must be distinct, got {names}")
    shape = config.get("input_shape")
    model._stack(stack, None if shape is None else check_shape("input_shape", shape), size)
    return model


def _to_json(config: dict) -> np.ndarray:
    def plain(value):
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(
            f"a config must hold plain data (numbers, strings, lists, dicts), got {describe(value)}"
        )

    return np.frombuffer(json.dumps(config, default=plain).encode(), np.uint8)


# -- writing ---------------------------------------------------------------------------------------


def _check_path(path) -> str:
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path must be a string or a path, got {describe(path)}") from None
    if not name or "\0" in name:
        raise ValueError(f"path must name a file, got {name!r}")
    return name


def _write(path, arrays: dict[str, np.ndarray], overwrite: bool) -> None:
    shown = _check_path(path)
    if not overwrite and os.path.lexists(shown):
        raise FileExistsError(f"{shown} exists, and overwrite is False")
    target = os.path.realpath(shown)  # of a link, the file it points to is replaced
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for member, array in arrays.items():
                        info = zipfile.ZipInfo(f"{member}.npy")  # dated 1980: equal models, equal bytes
                        with archive.open(info, "w", force_zip64=True) as stream:
                            np.lib.format.write_array(stream, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise OSError(error.errno, f"cannot save: {error.strerror}", shown) from error


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable, where the system lets a folder be opened (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _header(model, kind: str) -> dict:
    return {
        "format": "minidl",
        "version": VERSION,
        "kind": kind,
        "dtype": model.dtype.name,
        "shapes": [list(parameter.shape) for parameter in model.parameters],
    }


def save_model(model, path, overwrite: bool = True) -> None:
    """See ``Sequential.save``."""
    model._require_built("save")
    optimizer = model.optimizer
    config = {
        **_header(model, "model"),
        "model": model.get_config(),
        "compile": None,
        "training": {
            "epoch": model.epoch,
            "iterations": 0,
            "unfinished": None if model.unfinished is None else model.unfinished._asdict(),
        },
    }
    arrays = {"config": None, "params": model.params}
    if optimizer is not None:
        config["compile"] = {
            "optimizer": optimizers.serialize(optimizer),
            "loss": None if model.loss is None else losses.serialize(model.loss),
            "metrics": [metrics.serialize(metric) for metric in model.metrics],
        }
        config["training"]["iterations"] = optimizer.iterations
        arrays.update((name, slot) for name, slot in zip(_SLOTS, optimizer.slots, strict=False) if slot.size)
    arrays["config"] = _to_json(config)
    _write(path, arrays, overwrite)


def save_weights(model, path, overwrite: bool = True) -> None:
    """See ``Sequential.save_weights``."""
    model._require_built("save_weights")
    _write(path, {"config": _to_json(_header(model, "weights")), "params": model.params}, overwrite)


# -- reading ---------------------------------------------------------------------------------------


class _Archive:
    """A file's members, checked by name and size before they are read."""

    def __init__(self, file, path: str):
        size = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is not a minidl file (or its beginning is lost)")
        self._zip = zipfile.ZipFile(file)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in _MEMBERS or info.filename != f"{name}.npy":
                raise ValueError(f"it holds {info.filename[:80]!r}, which a minidl file does not")
            if name in self._infos:
                raise ValueError(f"it holds {info.filename!r} twice")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename!r} is compressed, which minidl never does")
            self._infos[name] = info
        if sum(info.file_size for info in self._infos.values()) > size:
            raise ValueError("its members are larger than the file")
        for name in ("config", "params"):
            if name not in self._infos:
                raise ValueError(f"it holds no {name!r}")

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def vector(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The member ``name``, a vector of ``dtype``; its bytes are what the checksum says."""
        info = self._infos[name]
        data = self._zip.read(info)
        stream = io.BytesIO(data[:20_000])  # a header of ours is 128 bytes
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name!r} has array format {version}, not (1, 0)")
        shape, fortran_order, found = np.lib.format.read_array_header_1_0(stream)
        if found.hasobject:
            raise ValueError(f"{name!r} holds pickled objects")
        if found.newbyteorder("=") != dtype or len(shape) != 1:
            raise ValueError(f"{name!r} must be a vector of {dtype}, got shape {shape} of {found}")
        if stream.tell() + shape[0] * found.itemsize != len(data):
            raise ValueError(f"{name!r} has another length than its header says")
        return np.frombuffer(data, found, offset=stream.tell()).astype(dtype)

    def config(self) -> dict:
        if self._infos["config"].file_size > _LARGEST_CONFIG:
            raise ValueError(f"its config has more than {_LARGEST_CONFIG >> 20} MB")
        config = json.loads(self.vector("config", np.dtype(np.uint8)).tobytes().decode())
        if not isinstance(config, dict) or config.get("format") != "minidl":
            raise ValueError("it is not a minidl file")
        if config.get("version") != VERSION:
            raise ValueError(
                f"it has version {config.get('version')!r} of the format; version {VERSION} is known"
            )
        return config


def _read(path) -> tuple[dict, dict[str, np.ndarray]]:
    """(config, arrays) of a file; every array has the config's dtype and all have one length."""
    shown = _check_path(path)
    with open(shown, "rb") as file:
        try:
            archive = _Archive(file, shown)
            config = archive.config()
            if config.get("dtype") not in ("float32", "float64"):
                raise ValueError(f"its dtype must be float32 or float64, got {config.get('dtype')!r}")
            dtype = np.dtype(config["dtype"])
            arrays = {name: archive.vector(name, dtype) for name in ("params", *_SLOTS) if name in archive}
            lengths = {name: len(array) for name, array in arrays.items()}
            if len(set(lengths.values())) > 1:
                raise ValueError(f"its arrays differ in length: {lengths}")
        except _READ_ERRORS as error:
            raise ValueError(f"cannot read {shown}: {error or type(error).__name__}") from error
    return config, arrays


def load_model(path, custom_objects: dict[str, type] | None = None):
    """See ``minidl.models.load_model``."""
    custom = check_custom_objects(custom_objects)
    config, arrays = _read(path)
    shown = _check_path(path)
    if config.get("kind") == "weights":
        raise ValueError(f"{shown} holds weights only: make the model and call its load_weights")
    try:
        params = arrays["params"]
        model = model_from_config(config["model"], custom, size=len(params))
        if model.dtype != params.dtype:
            raise ValueError(f"the model is {model.dtype}, its parameters are {params.dtype}")
        if not model.built:
            raise ValueError("the model has no input_shape")
        model.params[...] = params
        training = config["training"]
        model.epoch = check_int("epoch", training["epoch"], minimum=0, maximum=_LARGEST_COUNT)
        _restore_compilation(model, config["compile"], arrays, training, custom)
        model.unfinished = _unfinished(training["unfinished"])
    except _CONFIG_ERRORS as error:
        raise ValueError(f"cannot read {shown}: {error or type(error).__name__}") from error
    return model


def _restore_compilation(model, compiled, arrays, training, custom) -> None:
    if compiled is None:
        if any(name in arrays for name in _SLOTS):
            raise ValueError("it holds an optimizer's state, but no optimizer")
        return
    compiled = _revive(compiled, custom)
    metric_list = [metrics.deserialize(node) for node in compiled["metrics"]]
    model.compile(compiled["optimizer"], compiled["loss"], metric_list)
    optimizer = model.optimizer
    iterations = check_int("iterations", training["iterations"], minimum=0, maximum=_LARGEST_COUNT)
    found = [name for name in _SLOTS if name in arrays]
    if found or iterations:
        model.prepare_optimizer()
        wanted = [name for name, slot in zip(_SLOTS, optimizer.slots, strict=True) if slot.size]
        if found != wanted:
            raise ValueError(f"optimizer {optimizer.name} needs {wanted}, got {found}")
        for name, slot in zip(_SLOTS, optimizer.slots, strict=True):
            if slot.size:
                slot[...] = arrays[name]
    optimizer.iterations = iterations


def _unfinished(node) -> Unfinished | None:
    if node is None:
        return None
    found = Unfinished(**node)
    check_int("samples", found.samples, minimum=1, maximum=_LARGEST_COUNT)
    check_int("batch_size", found.batch_size, minimum=1, maximum=found.samples)
    check_int("step", found.step, minimum=1, maximum=-(-found.samples // found.batch_size) - 1)
    check_bool("shuffle", found.shuffle)
    sums = {"loss": found.loss_sum, **found.metric_sums}
    for name, total in sums.items():  # NaN is among what a sum may be
        if isinstance(total, bool) or not isinstance(total, (int, float)):
            raise TypeError(f"the sum of {name} must be a number, got {describe(total)}")
        sums[name] = float(total)
    return found._replace(loss_sum=sums.pop("loss"), metric_sums=sums)


def load_weights(model, path) -> None:
    """See ``Sequential.load_weights``."""
    model._require_built("load_weights")
    config, arrays = _read(path)
    shown = _check_path(path)
    shapes = config.get("shapes")
    wanted = [list(parameter.shape) for parameter in model.parameters]
    if shapes != wanted:
        raise ValueError(f"{shown} holds weights of shapes {describe(shapes)}, the model has {wanted}")
    found, size = len(arrays["params"]), model.params.size
    if found != size:
        raise ValueError(f"cannot read {shown}: it holds {found} parameters, the model has {size}")
    model.params[...] = arrays["params"]
    model.unfinished = None
