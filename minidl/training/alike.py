"""What must be the same on all ranks that train together, as digests to compare and texts to show."""

import json
import re
import zlib
from typing import Any, NamedTuple

import numpy as np

from ..layers.configs import layer_config
from ..optimizers import serialize
from .samples import CHUNK_BYTES, Samples

_ARGUMENTS = "epochs", "initial_epoch", "batch_size", "shuffle", "validation_freq", "validation_split"
_MEANT = (
    ". Each rank takes its own part of every batch, so all are given the same samples. Ranks that hold different ones "
    "pass communicator=minidl.interop.mpi.Shards(communicator)"
)


class Part(NamedTuple):
    """Something that the ranks compare."""

    name: str
    digest: int
    text: str
    advice: str = ""


def parts_of(model, options, data, has_shards: bool) -> list[Part]:
    """The arguments of fit, the parts of the model, and the samples; of shards only the form of the samples."""
    samples, validation = data.samples, data.validation
    parts = [_of_text(name, repr(getattr(options, name))) for name in _ARGUMENTS]
    layers = [_unnamed(layer_config(layer)) for layer in model.layers]
    form = model.dtype.name, model.input_shape, model.learning_segments.tolist()
    parts += [
        _of_text("the model's layers", json.dumps([layers, form], default=repr)),
        _of_text("the optimizer", json.dumps(_unnamed(serialize(model.optimizer)), default=repr)),
        _of_text("the loss", repr(data.loss)),
        _of_text("the metrics", repr([metric.name for metric in model.metrics])),
    ]
    columns = dict(zip(("x", "y", "sample_weight", "the teacher's answers"), _columns(samples), strict=True))
    parts += [_of_array(name, array, data.count, has_shards) for name, array in columns.items()]
    of_validation = (None,) * 4 if validation is None else _columns(validation)
    parts += [_of_array("validation_data", array, None, False) for array in of_validation[:3]]
    return parts


def _columns(samples: Samples) -> tuple:
    return samples.x, samples.y, samples.weight, samples.teacher_logits


def _unnamed(config: dict) -> dict:
    """A layer's or an optimizer's config without its name, which counts the layers a process has made."""
    inner = config.get("config")
    return {**config, "config": {k: v for k, v in inner.items() if k != "name"}} if inner else config


def _of_text(name: str, text: str) -> Part:
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", text)  # where an object lies in memory
    return Part(name, zlib.crc32(text.encode()), text)


def _of_array(name: str, array: Any, count: int | None, has_shards: bool) -> Part:
    """Of shards the contents may differ, and the number of rows."""
    if array is None or not array.size:
        return Part(name, 0, "none", _MEANT)
    form = f"{array.dtype} of shape (N, {', '.join(map(str, array.shape[1:]))})"
    if has_shards:
        return Part(name, zlib.crc32(form.encode()), form)
    text = f"{array.dtype} of shape {array.shape}"
    digest, rows = zlib.crc32(text.encode()), max(1, CHUNK_BYTES * len(array) // array.nbytes)
    for first in range(0, len(array), rows):
        digest = zlib.crc32(np.ascontiguousarray(array[first : first + rows]), digest)
    return Part(name, digest, f"{text} with digest {digest:08x}", _MEANT)
