"""The model of `benchmarks/scaling.py`, and what it writes. No time is asserted."""

import math

import pytest

from benchmarks import scaling

NET = {"one thread": 4e-3, "all threads": 2e-3, "two ranks": 5e-3, "sum": 1e-3, "parameters": 250_000}
MEASURED = {"nets": {"a-b": NET}, "sums": {8: 1e-6, 8_000_000: 5e-3}, "adding": 4e9}


def test_two_hosts_by_hand():
    """A kilobyte goes whole each way: latency, transfer, addition. A megabyte goes in halves, twice."""
    assert scaling.seconds_of_sum(2, 1e3, 1e-5, 1e9, 4e9) == pytest.approx(1e-5 + 1e-6 + 0.25e-6)
    assert scaling.seconds_of_sum(2, 1e6, 1e-5, 1e9, 4e9) == pytest.approx(2e-5 + 1e-3 + 0.125e-3)
    assert scaling.seconds_of_sum(1, 1e6, 1e-5, 1e9, 4e9) == 0


def test_many_hosts_take_the_faster_algorithm():
    tiny, huge = (scaling.seconds_of_sum(64, size, 1e-5, 1e9, math.inf) for size in (8, 1e9))
    assert tiny == pytest.approx(6 * 1e-5, rel=1e-3)  # six rounds of latency alone
    assert huge == pytest.approx(
        2 * 63 / 64, rel=1e-3
    )  # nearly twice the bytes, whatever the number of hosts


def test_the_report_says_what_is_measured_and_what_is_not(tmp_path):
    results = {
        "suite": "scaling",
        "machine": {"processor": "P", "cores": 2, "date": "today"},
        "rounds": 1,
        "measured": MEASURED,
        "this_machine": scaling.fitted(MEASURED["sums"], MEASURED["adding"]),
        "modelled": scaling.modelled(MEASURED),
    }
    text = scaling.markdown(results)
    assert "| a-b | 250,000 | 4 ms | 2 ms | 5 ms | 4 ms | 1 ms | 0.80 |" in text
    assert "not measured" in text and all(network in text for network in scaling.NETWORKS)
    latency, bandwidth = results["this_machine"]
    assert latency == 1e-6 and bandwidth == pytest.approx(8e6 / (5e-3 - 2e-6 - 1e-3))
    assert scaling.seconds_of_sum(2, 8e6, latency, bandwidth, 4e9) == pytest.approx(5e-3)
    steps = results["modelled"]["a-b"]["10 Gbit/s Ethernet"]
    assert steps[0] == 2e-3 and steps == sorted(steps)
