"""What the machine itself can do: multiply-adds from registers, and bytes streamed from memory.

Both are measured as peers, in the rounds of the benchmark they judge. The unit of ``limit-fma`` is one
floating-point operation (float32, two to a multiply-add), that of ``limit-memory`` one byte moved by
``a = b + 3c`` over arrays far larger than the caches. `minidl.machine` has what is timed.
"""

from __future__ import annotations

from .harness import Peer

BYTES = 144_000_000  # of three arrays
ROUNDS = 4096  # of all chains in one run(1): some ten microseconds


class _Limit(Peer):
    rounds = 1

    def outputs(self) -> float:
        """Operations or bytes in ``run(1)``; 0 if the arithmetic came out wrong."""
        self.run(1)
        return self._work.units * self.rounds if self._work.is_right() else 0.0

    def run(self, count: int) -> None:
        self._work.run(count * self.rounds)


class Fma(_Limit):
    rounds = ROUNDS

    def prepare(self, case: dict) -> None:
        from minidl import machine

        self._work = machine.MultiplyAdds(self.threads)


class Memory(_Limit):
    def prepare(self, case: dict) -> None:
        from minidl import machine

        if not hasattr(self, "_work"):
            self._work = machine.Triad(BYTES, self.threads)


PEERS = {"limit-fma": Fma, "limit-memory": Memory}
