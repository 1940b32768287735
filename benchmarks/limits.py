"""What the machine itself can do: multiply-adds from registers, and bytes streamed from memory.

Both are measured as peers, in the rounds of the benchmark they judge. The unit of ``limit-fma`` is one
floating-point operation (float32, two to a multiply-add), that of ``limit-memory`` one byte moved by
``a = b + s*c`` over arrays far larger than the caches (12 bytes an element, the usual STREAM count).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .harness import Peer

ELEMENTS = 12_000_000  # an array: 48 MB
ROUNDS = 4096  # of all chains in one run(1): some ten microseconds
CHAINS = (
    12  # independent sums, enough to hide the latency of two multiply-add units, few enough for 16 registers
)


def _lanes(features) -> int:
    return 16 if "avx512f" in features else 8 if "avx" in features else 4


def _compile():
    """(multiply_adds(out, rounds), triad(a, b, c), flops in a round)."""
    import numba
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    from minidl.kernels.target import FEATURES, HAS_FMA

    lanes = _lanes(FEATURES)
    vector = ir.VectorType(ir.FloatType(), lanes)
    index = ir.IntType(64)

    @intrinsic
    def chains(typingctx, out, rounds):
        """acc_i = acc_i * 0.5 + 1 for CHAINS vectors, `rounds` times, in registers; the sums go to out."""

        def codegen(context, builder, signature, arguments):
            array, rounds = arguments
            pointer = context.make_array(signature.args[0])(context, builder, array).data
            half, one = (ir.Constant(vector, [value] * lanes) for value in (0.5, 1.0))
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32"
            )
            entry, loop, done = (
                builder.block,
                builder.append_basic_block("k"),
                builder.append_basic_block("done"),
            )
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(index)
            sums = [builder.phi(vector) for _ in range(CHAINS)]
            stepped = [
                builder.call(fma, [s, half, one]) if HAS_FMA else builder.fadd(builder.fmul(s, half), one)
                for s in sums
            ]
            k_next = builder.add(k, ir.Constant(index, 1))
            k.add_incoming(ir.Constant(index, 0), entry)
            k.add_incoming(k_next, loop)
            for i, (s, after) in enumerate(zip(sums, stepped, strict=True)):
                # different starts, or LLVM sees one chain twelve times
                s.add_incoming(ir.Constant(vector, [float(i)] * lanes), entry)
                s.add_incoming(after, loop)
            builder.cbranch(builder.icmp_signed("<", k_next, rounds), loop, done)
            builder.position_at_end(done)
            for i, after in enumerate(stepped):
                where = builder.gep(pointer, [ir.Constant(index, i * lanes)])
                builder.store(after, builder.bitcast(where, vector.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(out, types.int64), codegen

    @numba.njit(nogil=True)
    def multiply_adds(out, rounds):
        chains(out, rounds)

    @numba.njit(nogil=True, error_model="numpy")
    def triad(a, b, c):
        for i in range(a.size):
            a[i] = b[i] + np.float32(3.0) * c[i]

    return multiply_adds, triad, 2 * lanes * CHAINS


class _Limit(Peer):
    def load(self) -> None:
        self._multiply_adds, self._triad, self.flops_per_round = _compile()
        self._pool = ThreadPoolExecutor(self.threads)

    def _on_every_thread(self, work) -> None:
        for done in [self._pool.submit(work, i) for i in range(self.threads)]:
            done.result()


class Fma(_Limit):
    def prepare(self, case: dict) -> None:
        self._out = np.zeros((self.threads, self.flops_per_round // 2), np.float32)

    def outputs(self) -> float:
        """Floating-point operations in ``run(1)``; 0 if the arithmetic came out wrong."""
        self.run(1)
        right = (self._out == 2.0).all()  # the fixed point of s = s/2 + 1
        return float(ROUNDS * self.flops_per_round * self.threads) if right else 0.0

    def run(self, count: int) -> None:
        self._on_every_thread(lambda i: self._multiply_adds(self._out[i], count * ROUNDS))


class Memory(_Limit):
    def prepare(self, case: dict) -> None:
        if not hasattr(self, "_a"):
            self._a, self._b, self._c = (np.full(ELEMENTS, v, np.float32) for v in (0.0, 1.0, 2.0))

    def outputs(self) -> float:
        """Bytes moved by ``run(1)``; 0 if the arithmetic came out wrong."""
        self.run(1)
        return 12.0 * ELEMENTS if (self._a == 7.0).all() else 0.0

    def run(self, count: int) -> None:
        edges = np.linspace(0, ELEMENTS, self.threads + 1).astype(int)

        def part(i):
            s = slice(edges[i], edges[i + 1])
            for _ in range(count):
                self._triad(self._a[s], self._b[s], self._c[s])

        self._on_every_thread(part)


PEERS = {"limit-fma": Fma, "limit-memory": Memory}
