"""Reader of the IDX format, in which MNIST and its relatives are published.

A file is: two zero bytes, one byte for the element type, one for the number of dimensions,
a big-endian uint32 for each dimension, then the elements, big-endian, in C order.
"""

import gzip
import math
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_BYTES = 1 << 31


def read_idx(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, plain or gzipped (recognized by its content, not its name).

    A header that announces more than ``max_bytes`` is refused. Memory never grows beyond what the file really
    holds, whatever its header says. The array is a new one, in native byte order.

    Raises ValueError, naming the file: not IDX, unknown element type, more or fewer bytes than the header announces,
    or damaged gzip data; OSError if the file cannot be opened.
    """
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if is_packed else open(path, "rb") as stream:
            return _parse(stream, path, max_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip data ({error})") from error


def _parse(stream: BinaryIO | gzip.GzipFile, path: str | os.PathLike, max_bytes: int) -> np.ndarray:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in DTYPES or head[3] == 0:
        raise ValueError(f"{path}: not an IDX file, it starts with {head!r}")
    dtype, ndim = np.dtype(DTYPES[head[2]]), head[3]
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"{path}: ends within its header of {ndim} dimensions")
    shape = struct.unpack(f">{ndim}I", sizes)
    count = math.prod(shape) * dtype.itemsize
    if count > max_bytes:
        raise ValueError(f"{path}: announces shape {shape}, {count} bytes; at most {max_bytes} are read")
    data = bytearray()
    # ask for one byte more than announced, so that a longer file is noticed
    while len(data) <= count and (chunk := stream.read(min(1 << 20, count + 1 - len(data)))):
        data += chunk
    if len(data) != count:
        found = "more" if len(data) > count else f"only {len(data)}"
        raise ValueError(f"{path}: announces shape {shape}, {count} bytes of data, but holds {found}")
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # more dimensions than NumPy has
        raise ValueError(f"{path}: shape {shape} is not possible ({error})") from error
    return array.astype(dtype.newbyteorder("="))
