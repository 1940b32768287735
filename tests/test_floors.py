"""benchmarks/floors.py: the parts of a step make up the whole, and what is replaced for a measurement is put back."""

from __future__ import annotations

import minidl
from benchmarks import floors
from minidl import tiny
from minidl.kernels import network, updates


def test_the_parts_of_a_step_make_up_the_whole(monkeypatch, capsys):
    small = {"SIZES": (12, 8, 10), "ROWS": 4, "STEPS": 3, "EPOCHS": 1, "ROUNDS": 1}
    for name, value in small.items():
        monkeypatch.setattr(floors, name, value)
    monkeypatch.setattr(tiny, "BATCH_SIZE", tiny.BATCH_SIZE)  # main sets it
    before, forward = minidl.get_num_threads(), tiny.dense_forward
    try:
        assert floors.main() == 0
    finally:
        minidl.set_num_threads(before)
    assert tiny.dense_forward is forward
    assert "address" not in vars(network.PARTS) and "address" not in vars(updates.UPDATES)
    rows = [line.rsplit(maxsplit=5) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["tiny.train", "layer by layer", "compiled"]
    for _, whole, *parts in rows:
        assert abs(int(whole) - sum(map(int, parts))) <= len(parts)  # each is rounded


def test_time_in_the_calls_of_a_part_is_told_apart():
    class Work:
        def part(self):
            sum(range(20_000))

        def run(self):
            self.part()
            sum(range(20_000))

    whole, (part,) = floors.times_by_call(Work().run, [(Work, "part")])
    assert 0 < part < whole
    assert floors.times_by_call(Work().run, [(Work, "run")])[1] == [0.0]  # not called by itself
