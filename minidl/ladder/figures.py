"""What is measured for the ladder: what the machine can do, and what each rung does."""

from __future__ import annotations

from dataclasses import dataclass

from .. import machine
from ..kernels import limits, threads

NEAR_BYTES = 16 * 2**10
"""What every first-level cache holds."""


@dataclass(frozen=True)
class Machine:
    """Rates in operations or bytes a second, times in seconds; ``threads`` is how many the ladder uses at most."""

    name: str
    caches: tuple[machine.Cache, ...]
    shares_cores: bool  # whether some of its processors are hyper-threads of one core
    threads: int
    ceiling: float  # multiply-adds of one thread, two operations each
    ceiling_together: float  # of all threads
    share: float  # of its processor that one thread got while that was measured
    share_together: float
    latency: float
    clock: float
    near_bytes: float  # a second, from the first-level cache
    lanes: int = limits.LANES

    @property
    def sums_needed(self) -> float:
        """Vectors of sums that must be under way at any time to reach the ceiling."""
        return self.ceiling * self.latency / (2 * self.lanes)

    @property
    def adds_a_cycle(self) -> float:
        return self.ceiling / (2 * self.lanes * self.clock)

    @property
    def line(self) -> int:
        """Bytes of a cache line."""
        return self.caches[0].line if self.caches else 64


@dataclass(frozen=True)
class Figures:
    """One rung on square matrices of ``size``."""

    size: int
    rows: int  # of c that were computed
    rate: float
    near: float  # the same code on data in the first-level cache; 0: not measured
    threads: int
    share: float  # of its processors that it got
    machine: Machine
    alone: float = 0.0  # the rate of one thread, where there are several

    @property
    def ceiling(self) -> float:
        return self.machine.ceiling if self.threads == 1 else self.machine.ceiling_together

    @property
    def of_ceiling(self) -> float:
        return self.rate / self.ceiling

    @property
    def is_crowded(self) -> bool:
        """Whether other processes kept some of its threads waiting. One thread is timed only while it runs."""
        return self.threads > 1 and self.share < 0.8

    @property
    def term(self) -> float:
        """Seconds of one multiply-add."""
        return 2 / self.rate


def measure_machine(seconds: float = 0.3) -> Machine:
    """``seconds`` for each of the two ceilings, which are measured in turn; less for the rest."""
    count = threads.most_threads()
    one = machine.MultiplyAdds()
    all_of_them = machine.MultiplyAdds(count) if count > 1 else one
    rates = [[machine.rate(work, seconds / 3) for work in (one, all_of_them)] for _ in range(3)]
    ceiling, together = (max(column) for column in zip(*rates, strict=True))
    return Machine(
        name=machine.processor(),
        caches=tuple(machine.caches()),
        shares_cores=machine.shares_cores(),
        threads=count,
        ceiling=ceiling,
        ceiling_together=together,
        share=one.together.share,
        share_together=all_of_them.together.share,
        latency=machine.latency(seconds / 6),
        clock=machine.clock(seconds / 6),
        near_bytes=machine.rate(machine.Triad(NEAR_BYTES), seconds / 6),
    )
