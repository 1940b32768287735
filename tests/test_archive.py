"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import socket
import stat
import warnings

import pytest

from minidl import archive
from minidl.archive import replacing


def save(path, data=b"new"):
    with replacing(path) as file:
        file.write(data)


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "a"
    for text in (b"old", b"new"):
        with replacing(path) as file:
            file.write(text)
            assert not path.exists() or path.read_bytes() == b"old"
        assert path.read_bytes() == text
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half of")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]
    # control: without it the old file is lost
    with pytest.raises(KeyboardInterrupt), open(path, "wb") as file:
        file.write(b"half of")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"half of"


def test_of_a_link_the_file_it_points_to_is_replaced(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "loop"])
def test_only_a_regular_file_is_replaced(tmp_path, monkeypatch, kind):
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":  # as good as a device, which a failing test would destroy
        with socket.socket(socket.AF_UNIX) as server, monkeypatch.context() as patch:
            patch.chdir(tmp_path)  # its name may have 107 bytes
            server.bind("a")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    before = os.lstat(path)
    with pytest.raises(OSError, match="cannot save: .*'.*a'"):
        save(path)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode) and os.listdir(tmp_path) == ["a"]
    save(tmp_path / "b")  # control: a name that is free is taken


@pytest.mark.parametrize("mode, umask", [(0o644, 0o077), (0o600, 0o022), (0o660, 0o022)])
def test_a_file_keeps_its_permissions(tmp_path, mode, umask):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    before = os.umask(umask)
    try:
        with replacing(path) as file:
            (temporary,) = (each for each in tmp_path.iterdir() if each != path)
            assert stat.S_IMODE(temporary.stat().st_mode) == mode, "nobody reads it meanwhile who may not"
            file.write(b"new")
        save(tmp_path / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o666 & ~umask


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("a" * 255, "\N{GREEK SMALL LETTER ALPHA}" * 127, "\N{HIRAGANA LETTER A}" * 81):
        save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize("refusals", [0, 3, 100])
def test_windows_is_asked_again_while_somebody_reads_the_file(tmp_path, monkeypatch, refusals):
    path, asked, replace = tmp_path / "a", [], os.replace
    path.write_bytes(b"old")

    def replace_unless_read(*names):
        asked.append(1)
        if len(asked) <= refusals:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(*names)

    monkeypatch.setattr(archive, "_ON_WINDOWS", True)
    monkeypatch.setattr(archive.os, "replace", replace_unless_read)
    monkeypatch.setattr(archive.time, "sleep", lambda seconds: None)
    if refusals < 100:
        save(path)
        assert path.read_bytes() == b"new" and len(asked) == refusals + 1
    else:
        with pytest.raises(PermissionError, match="cannot save: another program has the file open.*: '.*a'"):
            save(path)
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a"] and 1 < len(asked) < 100
    asked.clear()
    monkeypatch.setattr(archive, "_ON_WINDOWS", False)
    if refusals:
        with pytest.raises(PermissionError, match="Access is denied"):
            save(path)
        assert len(asked) == 1, "elsewhere it is a matter of rights, and asked once"


def test_a_folder_that_cannot_be_synced_is_warned_of_once(tmp_path, monkeypatch):
    fsync, open_ = os.fsync, os.open

    def refuse_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    def no_folders(name, flags, *mode):
        if os.path.isdir(name):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_(name, flags, *mode)

    for number, (function, broken) in enumerate({"fsync": refuse_folders, "open": no_folders}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(archive.os, function, broken)
            with pytest.warns(
                UserWarning, match=f"a file was saved, but its folder .*{number} cannot be synced"
            ):
                save(folder / "a")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                save(folder / "b", b"newer")
        assert (folder / "a").read_bytes() == b"new" and (folder / "b").read_bytes() == b"newer"


def test_macos_is_asked_for_the_disk_itself(tmp_path, monkeypatch):
    class Fcntl:
        F_FULLFSYNC = 51
        asked: list = []

        def fcntl(self, handle, command):
            self.asked.append(command)
            if len(self.asked) == 2:
                raise OSError(errno.ENOTSUP, "a file system that has none")

    synced, fsync = [], os.fsync
    monkeypatch.setattr(archive, "fcntl", Fcntl())
    monkeypatch.setattr(
        archive.os, "fsync", lambda handle: synced.append(os.fstat(handle).st_mode) or fsync(handle)
    )
    for count in (0, 1):
        save(tmp_path / "a")
        assert len([mode for mode in synced if stat.S_ISREG(mode)]) == count
    assert Fcntl.asked == [51, 51]


def test_a_reason_is_never_empty():
    for error in (MemoryError(), RecursionError(), ValueError("a reason")):
        with pytest.raises(ValueError, match=f"^cannot read x: {str(error) or type(error).__name__}$"):
            with archive.naming("x"):
                raise error
