"""How a step scales over processes: one and two ranks measured, 8 and 64 hosts by a stated model.

``python -m benchmarks.scaling`` needs mpi4py and mpich. Three nets, batches of 256 rows a host, float32, Adam:

- one process on one thread and on all, two ranks on one thread each, in turn, round after round: medians. Of a step of
  two ranks how long the sum of gradients takes, waiting included, and how long the rest;
- the sum alone, over messages of 8 bytes to 32 MB: its latency and its bandwidth on this machine;
- a model of the sum on other networks, ``seconds_of_sum``, held against the two ranks that were measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from . import report
from .harness import ROOT, thread_environment

NETS = {"784-64-64-10": (64, 64), "784-512-512-10": (512, 512), "784-2048-2048-10": (2048, 2048)}
BATCH = 256
"""Rows of each host's part of a batch."""
SIZES = [8 * 4**k for k in range(12)]
"""Bytes of the messages whose sum is timed alone."""
NETWORKS = {
    "10 Gbit/s Ethernet": (30e-6, 1.1e9),
    "100 Gbit/s InfiniBand": (2e-6, 11e9),
}
"""Latency of a message in seconds, bandwidth in bytes a second: what such networks usually give."""
HOSTS = (1, 2, 4, 8, 16, 32, 64)


def seconds_of_sum(hosts: int, size: float, latency: float, bandwidth: float, adding: float) -> float:
    """The time of an Allreduce of ``size`` bytes, by the fastest of two algorithms that MPI libraries choose from.

    Recursive doubling: log2(p) rounds, each of the whole message: ``log2(p) (a + n/b + n/c)``. Reduce-scatter and
    allgather (ring or halving): 1/p of the message at a time, ``2 log2(p) a + 2 (p-1)/p n/b + (p-1)/p n/c``. Here p is
    the number of hosts, a latency, b bandwidth, and c the bytes a second at which a host adds two vectors.
    """
    if hosts == 1:
        return 0.0
    rounds, part = math.ceil(math.log2(hosts)), (hosts - 1) / hosts
    doubling = rounds * (latency + size / bandwidth + size / adding)
    scattered = 2 * rounds * latency + 2 * part * size / bandwidth + part * size / adding
    return min(doubling, scattered)


# ---------------------------------------------------------------- a child: one rank


class Timed:
    """A communicator of mpi4py that counts the seconds of the sums of gradients, waiting included."""

    def __init__(self, communicator):
        self.communicator = communicator
        self.rank, self.size, self.seconds = communicator.rank, communicator.size, 0.0

    def sum_in_place(self, array):
        began = time.perf_counter()
        self.communicator.Allreduce(None, array)
        if array.dtype == np.float32:
            self.seconds += time.perf_counter() - began

    def broadcast(self, array):
        self.communicator.Bcast(array)


def time_net(units, communicator, seconds: float) -> dict:
    """Seconds a step, and of them the sum's."""
    import minidl
    from minidl.layers import Dense, Input

    layers = [Input((784,)), *(Dense(size, "relu") for size in units), Dense(10, "softmax")]
    model = minidl.Sequential(layers, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    rows = BATCH * communicator.size
    rng = np.random.default_rng(0)
    x, y = rng.random((4 * rows, 784), np.float32), rng.integers(0, 10, 4 * rows)
    timed = Timed(communicator) if communicator.size > 1 else None

    def run(epochs):
        before, began = timed.seconds if timed else 0.0, time.perf_counter()
        model.fit(x, y, batch_size=rows, epochs=epochs, verbose=0, communicator=timed)
        return time.perf_counter() - began, (timed.seconds if timed else 0.0) - before

    run(2)
    epochs = np.array([max(1, int(seconds / (run(2)[0] / 2)))])
    communicator.Bcast(epochs)
    steps = 4 * int(epochs[0])
    whole, summing = run(int(epochs[0]))
    return {"parameters": model.count_params(), "step": whole / steps, "sum": summing / steps}


def time_sums(communicator, seconds: float) -> dict[int, float]:
    """Seconds of a sum alone by its message's bytes."""
    found = {}
    for size in SIZES:
        array = np.zeros(size // 4, np.float32)

        def run(count, array=array):
            times = []
            for _ in range(count):
                communicator.Barrier()
                began = time.perf_counter()
                communicator.Allreduce(None, array)
                times.append(time.perf_counter() - began)
            return statistics.median(times)

        count = communicator.bcast(int(min(2000, max(5, seconds / run(5)))))  # rank 0's
        found[size] = run(count)
    return found


def time_adding() -> float:
    """Bytes a second at which one vector is added to another."""
    a, b = np.zeros(1 << 22, np.float32), np.ones(1 << 22, np.float32)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        a += b
        times.append(time.perf_counter() - began)
    return a.nbytes / statistics.median(times)


def child(threads: int, seconds: float) -> None:
    """What each rank runs; rank 0 prints its times as JSON."""
    from mpi4py import MPI

    import minidl

    communicator = MPI.COMM_WORLD
    minidl.set_num_threads(threads)
    found = {"nets": {name: time_net(units, communicator, seconds) for name, units in NETS.items()}}
    if communicator.size > 1:
        found["sums"] = time_sums(communicator, seconds / 20)
    found["adding"] = time_adding()
    if communicator.rank == 0:
        print(json.dumps(found), flush=True)


# ---------------------------------------------------------------- the parent


def run_child(ranks: int, threads: int, seconds: float) -> dict:
    beside = Path(sys.executable).parent / "mpiexec"
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise SystemExit("needs mpiexec: pip install mpi4py mpich")
    command = [launcher, "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "benchmarks.scaling"]
    command += ["--child", str(threads), "--seconds", str(seconds)]
    environment = {**os.environ, **thread_environment(threads), "PYTHONPATH": str(ROOT)}
    limits = dict(check=True, timeout=900)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, **limits)
    return json.loads(done.stdout.splitlines()[-1])


def measure(rounds: int, seconds: float, cores: int) -> dict:
    """The medians of all children: of each net by kind, of each message's sum, of adding."""
    kinds = {"one thread": (1, 1), "all threads": (1, cores), "two ranks": (2, 1)}
    taken: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind, (ranks, threads) in kinds.items():
            taken[kind].append(run_child(ranks, threads, seconds))
        print(f"round {number + 1} of {rounds}", flush=True)

    def median(kind, *path):
        values = []
        for found in taken[kind]:
            for name in path:
                found = found[name]
            values.append(found)
        return statistics.median(values)

    nets = {}
    for name in NETS:
        nets[name] = {kind: median(kind, "nets", name, "step") for kind in kinds}
        nets[name]["sum"] = median("two ranks", "nets", name, "sum")
        nets[name]["parameters"] = taken["two ranks"][0]["nets"][name]["parameters"]
    sums = {size: median("two ranks", "sums", str(size)) for size in SIZES}
    return {"nets": nets, "sums": sums, "adding": median("one thread", "adding")}


def modelled(measured: dict) -> dict:
    """By net and network the seconds of a step on each number of hosts, each with `BATCH` rows.

    Assumed: hosts like this one, a batch that grows with them, no overlap of sum and compute, nobody waits.
    """
    found: dict[str, dict] = {}
    for name, net in measured["nets"].items():
        size = 4 * (net["parameters"] + 1)
        found[name] = {
            network: [
                net["all threads"] + seconds_of_sum(p, size, *numbers, measured["adding"]) for p in HOSTS
            ]
            for network, numbers in NETWORKS.items()
        }
    return found


def fitted(sums: dict[int, float], adding: float) -> tuple[float, float]:
    """Latency and bandwidth of a sum over two ranks: from the smallest message, and, in halves, the largest."""
    latency, size = sums[min(sums)], max(sums)
    rest = sums[size] - 2 * latency - size / adding / 2
    return latency, size / max(rest, 0.1 * sums[size])


def markdown(results: dict) -> str:
    measured, machine = results["measured"], results["machine"]
    latency, bandwidth = results["this_machine"]
    duration = report.duration
    lines = [
        "# Several processes",
        "",
        f"Adam, float32, {BATCH} rows of each batch a rank. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['date']}. {results['rounds']} rounds of children in turn, medians.",
        "",
        "## Measured: one process, and two ranks on this machine",
        "",
        "Two ranks take twice the rows a step. Compute: a step of two ranks without its sum of gradients, whose time "
        "includes the wait for the slower rank. Two threads of one process share caches and weights, and update each "
        "gradient while it is in the cache; two ranks each store all gradients and update all weights. Rows/s: of two "
        "ranks, beside one process on all threads.",
        "",
    ]
    header = [
        "net",
        "parameters",
        "1 thread",
        "all threads",
        "2 ranks",
        "of it compute",
        "of it sum",
        "rows/s",
    ]
    rows = []
    for name, net in measured["nets"].items():
        times = [duration(net[kind]) for kind in ("one thread", "all threads", "two ranks")]
        apart = [duration(net["two ranks"] - net["sum"]), duration(net["sum"])]
        ratio = 2 * net["all threads"] / net["two ranks"]
        rows.append([name, f"{net['parameters']:,}", *times, *apart, f"{ratio:.2f}"])
    lines += table(header, rows)
    lines += ["## The sum alone, two ranks", ""]
    lines += table(
        ["bytes", "seconds"], [[f"{size:,}", duration(took)] for size, took in measured["sums"].items()]
    )
    lines += [
        f"So here a message costs {duration(latency)} and its bytes {bandwidth / 1e9:.1f} GB/s; one vector is added to "
        f"another at {measured['adding'] / 1e9:.1f} GB/s. The model below gives with these numbers, for two ranks:",
        "",
    ]
    rows = []
    for name, net in measured["nets"].items():
        said = seconds_of_sum(2, 4 * (net["parameters"] + 1), latency, bandwidth, measured["adding"])
        rows.append([name, duration(said), duration(net["sum"])])
    lines += table(["net", "the model's sum", "measured in training"], rows)
    lines += [
        "## A model of more hosts: not measured",
        "",
        "A step takes the time of one process on all threads of this machine, plus that of the sum of its gradients:",
        "",
        "    min( log2(p) (a + n/b + n/c),   2 log2(p) a + 2 (p-1)/p n/b + (p-1)/p n/c )",
        "",
        "with p hosts, n = 4 bytes a parameter, a and b of the network, and "
        f"c = {measured['adding'] / 1e9:.1f} GB/s. Assumed: hosts like this one, {BATCH} rows on each, so that a batch "
        "grows with their number; the sum waits for the backward "
        "pass and does not overlap with it; no host is slower than another; the network carries all messages at once. "
        "Efficiency: rows a second and host, beside one host alone.",
        "",
    ]
    rows = []
    for network, (a, b) in NETWORKS.items():
        for name, by_network in results["modelled"].items():
            times = dict(zip(HOSTS, by_network[network], strict=True))
            cells = [f"{duration(times[p])} ({times[1] / times[p]:.0%})" for p in (8, 64)]
            rows.append([f"{network}: {duration(a)}, {b / 1e9:g} GB/s", name, duration(times[1]), *cells])
    lines += table(["network", "net", "1 host", "8 hosts (efficiency)", "64 hosts (efficiency)"], rows)
    lines += ["![efficiency by the number of hosts](scaling.png)", ""]
    return "\n".join(lines)


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return [*("| " + " | ".join(cells) + " |" for cells in lines), ""]


def plot(results: dict) -> bytes | None:
    """Efficiency against the number of hosts: a curve a net and network."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return None
    matplotlib.use("Agg")
    import io

    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.2))
    for style, network in zip(("--", "-"), NETWORKS, strict=True):
        for number, (name, by_network) in enumerate(results["modelled"].items()):
            times = by_network[network]
            share = [100 * times[0] / each for each in times]
            axis.plot(
                HOSTS, share, style, color=f"C{number}", marker="o", markersize=3, label=f"{name}, {network}"
            )
    axis.set_xscale("log", base=2)
    axis.set_xticks(HOSTS, [str(hosts) for hosts in HOSTS])
    axis.set_ylim(0, 105)
    axis.set_xlabel(f"hosts, each with {BATCH} rows of a batch")
    axis.set_ylabel("% of the rows a second of one host alone")
    axis.set_title("Efficiency of a training step, by the model")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return stream.getvalue()


def main(arguments: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    command.add_argument("--quick", action="store_true", help="one short round; no result file is replaced")
    command.add_argument("--child", type=int, metavar="THREADS", help="be one rank (mpiexec starts it)")
    command.add_argument(
        "--seconds", type=float, default=1.0, help="how long each net is timed in each round"
    )
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    if options.child:
        child(options.child, options.seconds)
        return 0
    rounds, seconds = (1, 0.1) if options.quick else (5, options.seconds)
    results = {"suite": "scaling", "machine": report.machine(), "rounds": rounds}
    results["measured"] = measure(rounds, seconds, min(2, os.cpu_count() or 1))
    results["this_machine"] = fitted(results["measured"]["sums"], results["measured"]["adding"])
    results["modelled"] = modelled(results["measured"])
    text = markdown(results)
    print(text)
    for path in report.write_files(
        "scaling", results, text, plot(results), options.output, not options.quick
    ):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
