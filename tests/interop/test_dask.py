"""Sweeps and searches whose runs Dask gives to its workers: the results are those of this process."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from extras import needs

needs("dask", "distributed", "sklearn", "joblib")

from dask.distributed import Client, LocalCluster  # noqa: E402

import minidl  # noqa: E402
from minidl.layers import Dense, Input  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
        yield made


def test_a_sweep_on_dask_is_the_sweep_here(cluster):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 8)).astype("float32")
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)
    teacher, student = (minidl.Sequential([Input((8,)), Dense(3, "softmax")], seed=seed) for seed in (0, 1))
    teacher.compile("adam", "sparse_categorical_crossentropy")
    teacher.fit(x, y, epochs=3, verbose=0)
    arguments = dict(temperatures=(2.0,), seeds=(0, 1), epochs=2, validation_data=(x[:40], y[:40]), verbose=0)
    here = minidl.distill_sweep(teacher, student, x, y, processes=1, **arguments)
    with Client(cluster) as client:
        for executor in (client, client.get_executor()):
            there = minidl.distill_sweep(teacher, student, x, y, executor=executor, **arguments)
            assert there.runs == here.runs and there.rows == here.rows


def test_the_example_runs(cluster, monkeypatch, capsys):
    example = runpy.run_path(str(ROOT / "examples" / "dask_search.py"))
    search, sweep = example["main"](digits=300, epochs=2, cluster=cluster)
    assert set(search.cv_results_["mean_test_score"]) and len(sweep.runs) == 6
    assert "of the test digits" in capsys.readouterr().out


def test_the_listing_of_the_page_runs(cluster, monkeypatch):
    text = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    (listing,) = re.findall(r"```python\n# dask\n(.*?)```", text, re.S)
    monkeypatch.setattr("dask.distributed.LocalCluster", lambda **arguments: Kept(cluster, arguments))
    (x, y), (x_test, y_test) = minidl.datasets.mnist.load_subset()
    x, x_test = (images[:300].reshape(-1, 784).astype("float32") / 255 for images in (x, x_test))
    model = minidl.Sequential([Input((784,)), Dense(10, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y[:300], epochs=1, verbose=0)
    given = dict(minidl=minidl, Dense=Dense, Input=Input, x=x, y=y[:300], x_test=x_test, y_test=y_test[:300])
    names = {"__name__": "__main__", "model": model, **given}
    exec(listing, names)
    assert len(names["sweep"].runs) == 4


class Kept:
    """In place of a `LocalCluster`: the one that runs, which stays."""

    def __init__(self, cluster, arguments):
        assert arguments["n_workers"] == 2
        self.cluster = cluster

    def __enter__(self):
        return self.cluster

    def __exit__(self, *error):
        return None
