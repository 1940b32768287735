"""Arrays and JSON in one ``.npz`` file, safely written and read without trust. It knows nothing of models.

A file is written beside its target, flushed to disk and renamed over it: a crash at any moment leaves the old file
or the new one whole. A file is read without pickles and without decompression, so a small file cannot grow.
Members and sizes are checked before anything is allocated. Whatever is wrong is a ValueError that names the file.
"""

import contextlib
import errno
import functools
import json
import math
import os
import secrets
import stat
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from .validation import check_bool, describe, shorten, warn

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

VERSION = 1
_ON_WINDOWS = os.name == "nt"
_MAGIC = b"PK\x03\x04"
_LARGEST_TEXT = 16 << 20  # bytes
_LONGEST_REASON = 2000  # characters


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
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".minidl.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        mode = os.stat(target).st_mode if os.path.lexists(target) else None
        if mode is not None and not stat.S_ISREG(mode):  # a pipe, a device
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "it is not a regular file")
        try:
            with open(temporary, "xb") as file:
                if mode is not None and not _ON_WINDOWS:  # where all it knows is "read-only"
                    with contextlib.suppress(OSError):  # a file system without permissions
                        os.chmod(temporary, stat.S_IMODE(mode))
                yield file
                file.flush()
                _sync(file.fileno())
            _replace(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot save: {error.strerror}", shown) from error
    if not _ON_WINDOWS:  # where a folder cannot be opened
        _sync_folder(folder)


def _sync(handle: int) -> None:
    """Have the file's bytes on the disk itself. On macOS fsync leaves them in the drive's cache."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        with contextlib.suppress(OSError):  # not on every file system
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def _replace(temporary: str, target: str) -> None:
    """Windows refuses while a virus scanner or another process reads the old file, which is over in a moment."""
    for pause in (0.01, 0.03, 0.1, 0.3, 1.0, None):
        try:
            return os.replace(temporary, target)
        except PermissionError as error:
            if not _ON_WINDOWS:
                raise
            if pause is None:
                raise PermissionError(
                    error.errno, "another program has the file open, or it is read-only"
                ) from error
            time.sleep(pause)


@functools.cache  # says it once
def _warn_unsynced(folder: str, reason: str) -> None:
    warn(
        f"a file was saved, but its folder {folder} cannot be synced ({reason}): a power cut may undo the save"
    )


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:  # a folder without read permission, a network drive
        _warn_unsynced(folder, error.strerror)


def write(path, config: dict, arrays: dict[str, np.ndarray], overwrite: bool = True) -> None:
    """Write ``config`` (plain data) and ``arrays`` to ``path``. Equal contents give equal bytes."""
    if not check_bool("overwrite", overwrite) and os.path.lexists(check_path(path)):
        raise FileExistsError(f"{check_path(path)} exists, and overwrite is False")
    write_members(path, {"config": _to_json({"format": "minidl", "version": VERSION, **config}), **arrays})


def write_members(path, members: dict[str, np.ndarray]) -> None:
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for member, array in members.items():
            info = zipfile.ZipInfo(f"{member}.npy")  # dated 1980
            with archive.open(info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def json_number(value):
    """A number of NumPy's as JSON has it; a TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a config must hold plain data (numbers, strings, lists, dicts), got {describe(value)}")


def _to_json(config: dict) -> np.ndarray:
    return np.frombuffer(json.dumps(config, default=json_number).encode(), np.uint8)


def read(path, names: Sequence[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """(config, arrays) of a file. Its arrays are vectors of one length, named in ``names``, the first of them there.

    They have the dtype that the config names.
    """
    shown = check_path(path)
    with open(shown, "rb") as file, naming(shown):
        arrays = read_members(file, ("config", *names))
        config = _parse_config(arrays.pop("config"))
        dtype = config.get("dtype")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"its dtype must be float32 or float64, got {shorten(dtype)}")
        arrays = {name: _vector(name, array, dtype) for name, array in arrays.items()}
        if len(set(map(len, arrays.values()))) > 1:
            raise ValueError(f"its arrays differ in length: { {name: len(a) for name, a in arrays.items()} }")
    return config, arrays


@contextlib.contextmanager
def naming(
    path: str, errors: tuple[type[BaseException], ...] = (Exception,), message: str = "cannot read {}: {}"
) -> Iterator[None]:
    """Turns ``errors`` into a ValueError that names the file. Reading hostile bytes can raise almost anything.

    The middle of a long reason is left out: it may hold a name of megabytes from the file.
    """
    try:
        yield
    except errors as error:
        reason = str(error) or type(error).__name__
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[: _LONGEST_REASON // 2]} ... {reason[-_LONGEST_REASON // 2 :]}"
        raise ValueError(message.format(path, reason)) from error


def read_members(file: BinaryIO, names: Sequence[str]) -> dict[str, np.ndarray]:
    """A file's arrays by name. The first of ``names`` is a text; it and the second must be there.

    Names and sizes are checked before anything is read, so no more is allocated than the file has bytes.
    """
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is not a minidl file (or its beginning is lost)")
    archive, infos = zipfile.ZipFile(file), {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name not in names or info.filename != f"{name}.npy":
            raise ValueError(f"it holds {info.filename[:80]!r}, which a minidl file does not")
        if name in infos:
            raise ValueError(f"it holds {info.filename!r} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"{info.filename!r} is compressed, which minidl never does")
        if name == names[0] and info.file_size > _LARGEST_TEXT:
            raise ValueError(f"its {name} has more than {_LARGEST_TEXT >> 20} MB")
        infos[name] = info
    if sum(info.file_size for info in infos.values()) > os.fstat(file.fileno()).st_size:
        raise ValueError("its members are larger than the file")
    for name in names[:2]:
        if name not in infos:
            raise ValueError(f"it holds no {name!r}")
    return {name: _read_array(archive, info, name) for name, info in infos.items()}


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> np.ndarray:
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{name!r} has array format {version}, not (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.hasobject:
            raise ValueError(f"{name!r} holds pickled objects")
        if stream.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{name!r} has another length than its header says")
    with archive.open(info) as stream:  # from its first byte to its last, which checks its checksum
        return np.lib.format.read_array(stream, allow_pickle=False)


def _vector(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if array.ndim != 1 or array.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"{name!r} must be a vector of {dtype}, got shape {array.shape} of {array.dtype}")
    return array.astype(dtype, copy=False)


def _parse_config(text: np.ndarray) -> dict:
    config = json.loads(_vector("config", text, "uint8").tobytes().decode())
    if not isinstance(config, dict) or config.get("format") != "minidl":
        raise ValueError("it is not a minidl file")
    if (found := config.get("version")) != VERSION:
        raise ValueError(f"it has version {shorten(found)} of the format; version {VERSION} is known")
    return config
