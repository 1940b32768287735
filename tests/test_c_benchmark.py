"""The benchmark of exported C times right results only, and knows a size when it sees one."""

import importlib.util
import shutil

import numpy as np
import pytest
from c_nets import gcc

from benchmarks import c_export
from benchmarks.harness import Missing, Wrong

__all__ = ["gcc"]  # the fixture
CASE = c_export.CASES[0]


@pytest.mark.parametrize("name", ["minidl", "minidl-int8", "minidl-from-python", "minidl-predict"])
def test_our_peers_are_verified(name, gcc):
    peer = c_export.PEERS[name]()
    peer.load()
    peer.prepare(CASE.params)
    outputs = peer.outputs().copy()
    c_export.verify(CASE, type(peer), outputs)
    with pytest.raises(Wrong, match="the outputs differ"):
        c_export.verify(CASE, type(peer), np.roll(outputs, 1, axis=1))
    with pytest.raises(Wrong, match="the outputs differ"):  # int8 weights are others
        other = c_export.CFile if name == "minidl-int8" else c_export.Int8
        c_export.verify(CASE, other, outputs)
    peer.run(3)
    np.testing.assert_array_equal(peer.outputs(), outputs)


def test_sizes(gcc):
    if shutil.which("size") is None:
        pytest.skip("needs size of binutils")
    sizes = CASE.params["sizes"]
    whole, small = (c_export.size_of(writer, sizes) for writer in ("minidl", "minidl, int8"))
    weights = 4 * 16 + 16 * 3
    assert whole["small"][0] > 4 * (weights + 19) and whole["small"][1] == small["small"][1] == 0
    assert small["source"] < whole["source"]
    found = c_export.size_of("emlearn", sizes)
    if importlib.util.find_spec("emlearn"):
        assert found["small"][1] > 0
    else:
        assert "emlearn" in found["refused"]


def test_without_gcc_a_peer_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    source = c_export.minidl_source(c_export.initial_weights((2, 3)))
    with pytest.raises(Missing, match="gcc is not installed"):
        c_export.compile_source(source, str(tmp_path), c_export.SMALL)
