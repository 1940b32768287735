"""Files that are written whole or not at all."""

from __future__ import annotations

import os

import pytest

from minidl.archive import replacing


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
