"""Arrays and JSON in one ``.npz`` file, safely written and read without trust. It knows nothing of models.

A file is written beside its target, flushed to disk and renamed over it: a crash at any moment leaves the old file
or the new one whole. A file is read without pickles and without decompression, so a small file cannot grow.
Members and sizes are checked before anything is allocated. Whatever is wrong is a ValueError that names the file.
"""

import contextlib
import io
import json
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO

import numpy as np

from .validation import describe

VERSION = 1
_MAGIC = b"PK\x03\x04"
_LARGEST_CONFIG = 16 << 20
_HEADER_BYTES = 20_000  # of an array; ours take 128

READ_ERRORS = (
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
"""What reading hostile bytes can raise: zipfile and numpy.lib.format promise no one exception."""


def check_path(path, argument: str = "path") -> str:
    """The file's name as text."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{argument} must be a string or a path, got {describe(path)}") from None
    if not name or "\0" in name:
        raise ValueError(f"{argument} must name a file, got {name!r}")
    return name


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write in the place of ``path``, which it replaces at the end, or not at all if the block fails."""
    shown = check_path(path)
    target = os.path.realpath(shown)  # of a link, the file it points to is replaced
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
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


def write(path, config: dict, arrays: dict[str, np.ndarray], overwrite: bool = True) -> None:
    """Write ``config`` (plain data) and ``arrays`` to ``path``. Equal contents give equal bytes."""
    if not overwrite and os.path.lexists(check_path(path)):
        raise FileExistsError(f"{check_path(path)} exists, and overwrite is False")
    members = {"config": _to_json({"format": "minidl", "version": VERSION, **config}), **arrays}
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for member, array in members.items():
            info = zipfile.ZipInfo(f"{member}.npy")  # dated 1980
            with archive.open(info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _to_json(config: dict) -> np.ndarray:
    def plain(value):
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(
            f"a config must hold plain data (numbers, strings, lists, dicts), got {describe(value)}"
        )

    return np.frombuffer(json.dumps(config, default=plain).encode(), np.uint8)


def read(path, names: Collection[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """(config, arrays) of a file. Its arrays are vectors of one length, named in ``names``, the first of them there.

    They have the dtype that the config names.
    """
    shown = check_path(path)
    with open(shown, "rb") as file, naming(shown, READ_ERRORS):
        archive = _Archive(file, names)
        config = archive.config()
        if config.get("dtype") not in ("float32", "float64"):
            raise ValueError(f"its dtype must be float32 or float64, got {config.get('dtype')!r}")
        dtype = np.dtype(config["dtype"])
        arrays = {name: archive.vector(name, dtype) for name in names if name in archive}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"its arrays differ in length: {lengths}")
    return config, arrays


@contextlib.contextmanager
def naming(path: str, errors: tuple[type[BaseException], ...]) -> Iterator[None]:
    """Turns ``errors`` into a ValueError that names the file."""
    try:
        yield
    except errors as error:
        raise ValueError(f"cannot read {path}: {error or type(error).__name__}") from error


class _Archive:
    """A file's members, checked by name and size before they are read."""

    def __init__(self, file: BinaryIO, names: Collection[str]):
        size = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it is not a minidl file (or its beginning is lost)")
        self._zip = zipfile.ZipFile(file)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in ("config", *names) or info.filename != f"{name}.npy":
                raise ValueError(f"it holds {info.filename[:80]!r}, which a minidl file does not")
            if name in self._infos:
                raise ValueError(f"it holds {info.filename!r} twice")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"{info.filename!r} is compressed, which minidl never does")
            self._infos[name] = info
        if sum(info.file_size for info in self._infos.values()) > size:
            raise ValueError("its members are larger than the file")
        for name in ("config", next(iter(names))):
            if name not in self._infos:
                raise ValueError(f"it holds no {name!r}")

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def vector(self, name: str, dtype: np.dtype) -> np.ndarray:
        """The member ``name``, a vector of ``dtype``; its bytes are what the checksum says."""
        data = self._zip.read(self._infos[name])
        stream = io.BytesIO(data[:_HEADER_BYTES])
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name!r} has array format {version}, not (1, 0)")
        shape, _, found = np.lib.format.read_array_header_1_0(stream)
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
