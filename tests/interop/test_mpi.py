"""`fit` and `distill` on several processes that mpiexec starts: equal to one, killed, interrupted, gone on with."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from extras import needs

needs("mpi4py")

import mpi_job  # noqa: E402

ROOT = Path(__file__).parents[2]
LIMIT = 240
"""Seconds until a run has ended, or hangs: far more than one takes."""


def mpiexec() -> str:
    """The one of mpi4py's own Python, as the wheel mpich installs it, or that of the system."""
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("needs mpiexec: pip install mpich")
    return found


def start(ranks, *arguments, folder):
    command = [mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpi4py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def finish(process, limit=LIMIT):
    """(exit code, standard output, standard error); a run that takes too long is ended, and the test fails."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"the ranks hang: {process.communicate()}")
    return process.returncode, out, err


def run(ranks, job, folder):
    return finish(start(ranks, mpi_job.__file__, job, folder, folder=folder))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_equal_one_process(ranks, tmp_path, capsys, monkeypatch):
    jobs = "train", "distil", "shards"
    code, out, err = run(ranks, ",".join([*jobs, "threaded"]), tmp_path)
    assert code == 0, err
    assert out.count("Epoch 1/3") == 2, "only rank 0 prints"
    for name in jobs:
        expected = mpi_job.JOBS[name](None)
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, 1e-9, 1e-12, err_msg=name)
    for thing, name in (mpi_job.threads, "SHORT_FLOPS"), (mpi_job.ThreadChoice, "next"):
        monkeypatch.setattr(thing, name, getattr(thing, name))  # as it was, afterwards
    monkeypatch.setattr(mpi_job.ranks, "usable_processors", None)
    expected = mpi_job.threaded(None)
    np.testing.assert_allclose(np.load(tmp_path / "threaded.npy"), expected, 1e-4, 1e-6)
    capsys.readouterr()
    other = mpi_job.train(None) + 1e-8
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(np.load(tmp_path / "train.npy"), other, 1e-9, 1e-12)


def test_a_killed_rank_ends_all_and_its_checkpoint_goes_on_with_another_number(tmp_path):
    code, _, err = run(2, "killed", tmp_path)
    assert code != 0 and not (tmp_path / "killed.npy").exists(), err
    code, _, err = run(3, "resumed", tmp_path)
    assert code == 0, err
    whole = mpi_job.new_model()
    mpi_job.fit(whole, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "resumed.npy"), whole.params, 1e-9, 1e-12)


def test_an_exception_on_one_rank_ends_all_by_name(tmp_path):
    code, _, err = run(2, "failing", tmp_path)
    assert code != 0 and not (tmp_path / "failing.npy").exists()
    assert "KeyError: 'on purpose'" in err and re.search("rank 1 of 2 has failed: KeyError", err), err


def test_a_key_ends_all(tmp_path):
    """Ctrl-C goes to mpiexec, and to all ranks."""
    process = start(2, mpi_job.__file__, "endless", tmp_path, folder=tmp_path)
    for line in process.stdout:
        if line.startswith("Epoch 3/"):
            break
    os.killpg(process.pid, signal.SIGINT)
    code, _, _ = finish(process, limit=60)
    assert code != 0
    assert wait_until_gone(tmp_path), "a rank outlives mpiexec"


def wait_until_gone(folder, seconds=30.0):
    """Whether no process has ``folder`` among its arguments any more."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in read(path)]
        if not left:
            return True
        time.sleep(0.1)
    return False


def read(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def test_the_example_trains(tmp_path):
    small = "import runpy; f = runpy.run_path({!r}); f['main'](digits=500, epochs=1)"
    script = tmp_path / "small.py"
    script.write_text(small.format(str(ROOT / "examples" / "mpi_training.py")))
    code, out, err = finish(start(2, script, folder=tmp_path))
    assert code == 0 and out.count("2 processes: ") == 1, err
    assert (tmp_path / "mpi_training.npz").exists()


def test_the_listings_of_the_page_run(tmp_path):
    text = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    listings = [
        each for each in re.findall(r"```python\n(.*?)```", text, re.S) if not each.startswith("# dask")
    ]
    assert len(listings) == 3
    script = tmp_path / "train.py"
    script.write_text("\n".join(listings))
    code, out, err = finish(start(2, script, folder=tmp_path))
    assert code == 0 and out.count("Epoch 1/2") == 1 and "Epoch 3/3" in out, err
