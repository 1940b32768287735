"""Datasets: the IDX reader, downloads against a hostile server, and the digits in the package."""

from __future__ import annotations

import configparser
import gzip
import hashlib
import http.server
import importlib
import re
import runpy
import struct
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl.datasets import mnist, read_idx
from minidl.datasets.mnist import download

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    code = CODES[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("dtype", sorted(CODES))
def test_reads_every_element_type(tmp_path, dtype, pack):
    expected = np.arange(24).reshape(2, 3, 4).astype(dtype)
    file = tmp_path / "a.idx"
    file.write_bytes(pack(idx_bytes(expected)))
    array = read_idx(file)
    assert array.dtype == np.dtype(dtype) and array.dtype.isnative and array.flags.writeable
    np.testing.assert_array_equal(array, expected)


def test_reads_an_empty_array(tmp_path):
    (tmp_path / "a").write_bytes(idx_bytes(np.zeros((0, 28, 28), "u1")))
    assert read_idx(tmp_path / "a").shape == (0, 28, 28)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_refuses_every_other_length(tmp_path, pack):
    whole = idx_bytes(np.arange(12, dtype="u1").reshape(3, 4))
    file = tmp_path / "a.idx"
    for length in range(len(whole)):
        file.write_bytes(pack(whole[:length]))
        with pytest.raises(ValueError, match="a.idx"):
            read_idx(file)
    file.write_bytes(pack(whole + b"\0"))
    with pytest.raises(ValueError, match="holds more"):
        read_idx(file)
    file.write_bytes(pack(whole))
    assert read_idx(file).shape == (3, 4)


def test_refuses_damaged_gzip(tmp_path):
    whole = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (20, 28), dtype=np.uint8)))
    file = tmp_path / "a.gz"
    for length in range(2, len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="a.gz"):
            read_idx(file)
    for position in range(40, len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="a.gz"):
            read_idx(file)


@pytest.mark.parametrize(
    "head", [b"\1\0\x08\1", b"\0\1\x08\1", b"\0\0\x07\1", b"\0\0\x08\0", b"PK\3\4", b"\x93NUMPY", b""]
)
def test_refuses_other_magic_numbers(tmp_path, head):
    (tmp_path / "a").write_bytes(head + bytes(20))
    with pytest.raises(ValueError):
        read_idx(tmp_path / "a")


def test_a_lying_header_costs_no_memory(tmp_path):
    (tmp_path / "huge").write_bytes(b"\0\0\x08\3" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1))
    with pytest.raises(ValueError, match="at most"):
        read_idx(tmp_path / "huge")
    (tmp_path / "long").write_bytes(b"\0\0\x08\1" + struct.pack(">I", 2**31 - 1))
    with pytest.raises(ValueError, match="only 0"):
        read_idx(tmp_path / "long")
    (tmp_path / "deep").write_bytes(b"\0\0\x08\xff" + struct.pack(">255I", *[1] * 255) + b"\0")
    with pytest.raises(ValueError, match="not possible"):
        read_idx(tmp_path / "deep")


def test_a_gzip_bomb_is_cut_off(tmp_path):
    bomb = idx_bytes(np.zeros(10, "u1")) + bytes(50_000_000)
    (tmp_path / "bomb").write_bytes(gzip.compress(bomb, 1))
    with pytest.raises(ValueError, match="holds more"):
        read_idx(tmp_path / "bomb")


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_read(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "random"
    for head in (b"", b"\0\0\x08\1", b"\x1f\x8b\x08"):
        file.write_bytes(head + data)
        try:
            read_idx(file)
        except ValueError as error:
            assert "random" in str(error)


# ---------------------------------------------------------------- MNIST from a folder


def write_folder(folder, pack=gzip.compress, suffix=".gz"):
    """A data set of MNIST's form: 1,000 + 300 images in which the first pixel is the label."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 1000), ("t10k", 300)):
        y = (np.arange(count) * 7 % 10).astype("u1")
        x = np.zeros((count, 28, 28), "u1")
        x[:, 0, 0] = y
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(x)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(y)))
    return folder


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    monkeypatch.delenv("MINIDL_DATA", raising=False)


@pytest.mark.parametrize("pack, suffix", [(gzip.compress, ".gz"), (bytes, "")])
def test_load_data_from_a_folder(tmp_path, monkeypatch, no_network, pack, suffix):
    folder = write_folder(tmp_path / "d", pack, suffix)
    monkeypatch.setenv("MINIDL_DATA", str(folder))
    for data in (mnist.load_data(folder), mnist.load_data(str(folder)), mnist.load_data()):
        (x_train, y_train), (x_test, y_test) = data
        assert x_train.shape == (1000, 28, 28) and x_test.shape == (300, 28, 28)
        assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype("u1")}
        np.testing.assert_array_equal(x_train[:, 0, 0], y_train)


def test_load_data_names_what_is_wrong(tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match="path .*train-images-idx3-ubyte"):
        mnist.load_data(tmp_path)
    folder = write_folder(tmp_path / "d")
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(299, "u1"))))
    with pytest.raises(ValueError, match="299 labels for the 300 images"):
        mnist.load_data(folder)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((300, 1), "u1"))))
    with pytest.raises(ValueError, match="t10k-labels.*1 dimension"):
        mnist.load_data(folder)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(idx_bytes(np.zeros((300, 28, 28), "f4")))
    with pytest.raises(ValueError, match="t10k-images.*uint8"):
        mnist.load_data(folder)


def test_the_embedded_digits():
    (x_train, y_train), (x_test, y_test) = mnist.load_subset()
    assert x_train.shape == (6000, 28, 28) and x_test.shape == (2000, 28, 28)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype("u1")}
    np.testing.assert_array_equal(np.bincount(y_train), [600] * 10)
    np.testing.assert_array_equal(np.bincount(y_test), [200] * 10)
    digest = hashlib.sha256(x_train.tobytes() + y_train.tobytes() + x_test.tobytes() + y_test.tobytes())
    assert digest.hexdigest() == "03c58c3417ddbd6fd3968762170d8cba366239bd3950e5989289b52045327598"
    everything = np.concatenate([x_train, x_test]).reshape(8000, 784)
    assert len(np.unique(everything, axis=0)) == 8000, "no digit twice, none in both parts"


def test_the_embedded_digits_are_small():
    folder = mnist.resources.files("minidl.datasets")
    assert len(folder.joinpath("mnist_subset.npz").read_bytes()) < 1_600_000
    assert "Attribution-ShareAlike" in folder.joinpath("LICENSE-MNIST.txt").read_text()


def test_the_subset_is_made(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "d")
    with pytest.raises(ValueError, match="class 0 has 100 samples, 600 are wanted"):
        mnist.make_subset(folder, tmp_path / "s.npz")
    labels = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(mnist._evenly_spaced(labels, 2), [0, 1, 3, 6])
    embedded = mnist.load_subset()
    monkeypatch.setattr(mnist, "load_data", lambda folder: embedded)
    mnist.make_subset(folder, tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as made:
        assert sorted(made) == ["x_test", "x_train", "y_test", "y_train"]
        for part, (x, y) in zip(("train", "test"), embedded, strict=True):
            np.testing.assert_array_equal(made[f"x_{part}"], x)
            np.testing.assert_array_equal(made[f"y_{part}"], y)


# ---------------------------------------------------------------- downloads


class Handler(http.server.BaseHTTPRequestHandler):
    """Paths say how to misbehave: /good/name, /wrong/name, /cut/name, /endless/name, ..."""

    content: dict[str, bytes] = {}
    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        _, manner, name = self.path.split("/", 2)
        body = self.content[name]
        if manner == "missing":
            return self.send_error(404)
        if manner in ("to-file", "to-ftp", "to-good", "loop"):
            self.send_response(302)
            targets = {"to-file": "file:///etc/hostname", "to-ftp": "ftp://127.0.0.1/x", "loop": self.path}
            self.send_header("Location", targets.get(manner, f"/good/{name}"))
            return self.end_headers()
        self.send_response(200)
        if manner in ("good", "wrong"):
            self.send_header("Content-Length", str(len(body)))
        elif manner == "cut":
            self.send_header("Content-Length", str(len(body)))
            body = body[: len(body) // 2]
        elif manner == "short":
            body = body[:-1]
        self.end_headers()
        if manner == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        try:
            if manner == "silent":
                self.server.is_over.wait()
            elif manner == "trickle":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)
            elif manner == "endless":
                while True:
                    self.wfile.write(bytes(65536))
            else:
                self.wfile.write(body)
        except OSError:
            pass  # the client has had enough

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        http_server.daemon_threads = True
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        Handler.content = {"f": bytes(range(256)) * 40}
        Handler.asked = []
        http_server.is_over = threading.Event()
        yield f"http://127.0.0.1:{http_server.server_address[1]}"
        http_server.is_over.set()
        http_server.shutdown()
        thread.join()


def get(server, folder, *manners, **options):
    body = Handler.content["f"]
    urls = [f"{server}/{manner}/f" for manner in manners]
    return download(urls, folder / "f", len(body), hashlib.sha256(body).hexdigest(), **options)


@pytest.mark.parametrize("manner", ["good", "to-good"])
def test_a_good_download(server, tmp_path, manner):
    path = get(server, tmp_path / "new" / "folder", manner)
    assert path.read_bytes() == Handler.content["f"]
    assert [p.name for p in path.parent.iterdir()] == ["f"]


BAD = {
    "missing": "404",
    "wrong": "SHA-256",
    "cut": "5120",
    "short": "10239 of 10240",
    "endless": "more than the 10240",
    "to-file": "file:///etc/hostname",
    "to-ftp": "ftp://",
    "loop": "infinite loop",
    "silent": "timed out",
    "trickle": "longer than 0.3 seconds",
}


LIMITS = {"silent": {"timeout": 0.1}, "trickle": {"patience": 0.3}}  # the others are refused however slow


@pytest.mark.parametrize("manner", sorted(BAD))
def test_a_bad_download_is_refused_and_leaves_nothing(server, tmp_path, manner):
    with pytest.raises(OSError, match=BAD[manner]):
        get(server, tmp_path, manner, **LIMITS.get(manner, {}))
    assert list(tmp_path.iterdir()) == []


def test_the_next_mirror_is_tried(server, tmp_path):
    manners = ["missing", "wrong", "cut", "endless", "to-file", "good"]
    path = get(server, tmp_path, *manners, "missing")
    assert path.read_bytes() == Handler.content["f"]
    assert Handler.asked == [f"/{manner}/f" for manner in manners], "each once, none after the good one"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failed_download_keeps_the_old_file(server, tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(OSError):
        get(server, tmp_path, "wrong")
    assert (tmp_path / "f").read_bytes() == b"old"


def test_only_web_addresses(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.raises(ValueError, match="urls must be http"):
        download([(tmp_path / "secret").as_uri()], tmp_path / "f", 1, hashlib.sha256(b"x").hexdigest())


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """The loopback server as MNIST's mirrors, with a small data set as what is published."""
    folder = write_folder(tmp_path / "published")
    Handler.content = {file.name: file.read_bytes() for file in folder.iterdir()}
    files = {n[:-3]: (len(b), hashlib.sha256(b).hexdigest()) for n, b in Handler.content.items()}
    monkeypatch.setattr(mnist, "FILES", {name: files[name] for name in mnist.FILES})
    monkeypatch.setattr(mnist, "MIRRORS", (f"{server}/wrong/", f"{server}/good/"))
    monkeypatch.setattr(mnist, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("MINIDL_DATA", raising=False)
    return tmp_path


def test_load_data_downloads_once(published):
    (x, y), _ = mnist.load_data()
    np.testing.assert_array_equal(x[:, 0, 0], y)
    assert len(Handler.asked) == 8 and len(list((published / "cache").iterdir())) == 4
    mnist.load_data()
    assert len(Handler.asked) == 8


def test_a_damaged_file_in_the_cache_is_fetched_again(published):
    mnist.load_data()
    damaged = published / "cache" / "train-images-idx3-ubyte.gz"
    whole = damaged.read_bytes()
    for bad in (whole[:-10], whole[:-1] + bytes([whole[-1] ^ 1])):
        damaged.write_bytes(bad)
        mnist.load_data()
        assert damaged.read_bytes() == whole


def test_load_data_downloads_to_the_chosen_folder(published, monkeypatch):
    monkeypatch.setenv("MINIDL_DATA", str(published / "mine"))
    mnist.load_data()
    assert len(list((published / "mine").iterdir())) == 4 and not (published / "cache").exists()


def test_without_a_network_the_error_says_what_to_do(published, monkeypatch, no_network):
    with pytest.raises(OSError, match=r"(?s)could not download train-images.*MINIDL_DATA.*load_subset"):
        mnist.load_data()
    assert list((published / "cache").iterdir()) == []


def test_where_data_cannot_be_kept_the_error_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "file" / "data"))
    monkeypatch.setattr(mnist, "cache_folder", lambda: tmp_path / "cache")
    with pytest.raises(OSError, match="no data can be kept there. Name a folder in MINIDL_DATA"):
        mnist.load_data()


def test_without_a_home_folder_the_error_says_what_to_set(tmp_path, monkeypatch, homeless):
    for call in (mnist.cache_folder, mnist.load_data):
        with pytest.raises(OSError, match="no home folder .*MINIDL_DATA"):
            call()
    folder = write_folder(tmp_path / "mine")
    monkeypatch.setenv("MINIDL_DATA", str(folder))
    assert len(mnist.load_data()[0][0]) == len(mnist.load_data(folder)[0][0])


def test_a_frozen_app_is_given_the_embedded_digits(monkeypatch):
    """setup.cfg names the folder of PyInstaller's hook, and the hook collects the package's data."""
    setup = configparser.ConfigParser()
    setup.read(Path(minidl.__file__).parents[1] / "setup.cfg")
    module, function = re.search(
        r"hook-dirs = (\S+):(\S+)", setup["options.entry_points"]["pyinstaller40"]
    ).groups()
    (folder,) = getattr(importlib.import_module(module), function)()
    hooks = types.ModuleType("PyInstaller.utils.hooks")
    hooks.collect_data_files = lambda package: [(package, "collected")]
    monkeypatch.setitem(sys.modules, "PyInstaller.utils.hooks", hooks)
    for name in ("PyInstaller", "PyInstaller.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert runpy.run_path(str(Path(folder) / "hook-minidl.py"))["datas"] == [("minidl", "collected")]
