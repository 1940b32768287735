"""Explicit-vector building blocks emitted as LLVM IR, each with a plain-Python twin.

LLVM vectorises simple loops by itself, and most kernels rely on that. The matrix multiply does
not: its accumulators must stay in registers over the whole k-loop, so its inner loop is spelled
out here, instruction by instruction, for the vectors this processor has.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .jit import JIT_DISABLED


def _target_features() -> frozenset[str]:
    """Instruction-set names of the processor kernels are compiled for (NUMBA_CPU_FEATURES is obeyed)."""
    if numba.config.CPU_FEATURES is not None:
        listed = numba.config.CPU_FEATURES.split(",")
        return frozenset(name[1:] for name in listed if name.startswith("+"))
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


FEATURES = _target_features()
IS_X86 = "sse2" in FEATURES or "avx2" in FEATURES
HAS_FMA = "fma" in FEATURES or "neon" in FEATURES

# (feature, bytes in a vector, rows of a tile): rows * 2 accumulators, 2 vectors of B and one
# broadcast element of A must fit the register file: 32 registers on AVX-512 and NEON, else 16.
_TARGETS = [("avx512f", 64, 12), ("avx2", 32, 6), ("neon", 16, 12)]
VECTOR_BYTES, TILE_ROWS = next(
    ((size, rows) for feature, size, rows in _TARGETS if feature in FEATURES), (16, 6)
)
TILE_VECTORS = 2
PANEL_BYTES = TILE_VECTORS * VECTOR_BYTES
# A remainder of rows is made of these, largest first: 11 rows are 8 + 2 + 1.
TILE_HEIGHTS = [TILE_ROWS] + [height for height in (8, 4, 2, 1) if height < TILE_ROWS]

# How a product starts: from zero, from what the output holds, or from the bias row.
FROM_ZERO, FROM_OUTPUT, FROM_BIAS = 0, 1, 2

_INT = ir.IntType(64)
_LLVM_FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def _fma(builder, a, b, c):
    """a * b + c on scalars or vectors, rounded once where the processor can."""
    if not HAS_FMA:  # llvm.fma would become a call into libm for every element
        return builder.fadd(builder.fmul(a, b), c)
    kind = a.type
    suffix = f"v{kind.count}{_suffix(kind.element)}" if isinstance(kind, ir.VectorType) else _suffix(kind)
    function_type = ir.FunctionType(kind, [kind] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, function_type, f"llvm.fma.{suffix}"), [a, b, c]
    )


def _suffix(kind) -> str:
    return "f32" if kind == ir.FloatType() else "f64"


class _TileWriter:
    """Writes the body of one panel product: C (m, n) from A (m, k) and B (k, n), n at most two vectors."""

    def __init__(self, builder, element, arguments):
        self.builder = builder
        self.element = element
        self.lanes = VECTOR_BYTES // (4 if element == ir.FloatType() else 8)
        self.vector = ir.VectorType(element, self.lanes)
        self.align = 4 if element == ir.FloatType() else 8
        names = ("c", "c_stride", "a", "a_stride", "a_step", "b", "b_stride", "k", "m", "n", "init", "init_stride")
        for name, value in zip(names, arguments, strict=True):
            setattr(self, name, value)

    def address(self, base, *offsets):
        for offset in offsets:
            base = self.builder.gep(base, [offset], source_etype=self.element)
        return base

    def constant(self, value):
        return ir.Constant(_INT, value)

    def load(self, address, mask=None):
        pointer = self.builder.bitcast(address, self.vector.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self.align, typ=self.vector)
        function_type = ir.FunctionType(
            self.vector, [self.vector.as_pointer(), ir.IntType(32), mask.type, self.vector]
        )
        name = f"llvm.masked.load.v{self.lanes}{_suffix(self.element)}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        arguments = [pointer, ir.Constant(ir.IntType(32), self.align), mask, ir.Constant(self.vector, None)]
        return self.builder.call(function, arguments)

    def store(self, value, address, mask=None):
        pointer = self.builder.bitcast(address, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self.align)
            return
        function_type = ir.FunctionType(
            ir.VoidType(), [self.vector, self.vector.as_pointer(), ir.IntType(32), mask.type]
        )
        name = f"llvm.masked.store.v{self.lanes}{_suffix(self.element)}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        self.builder.call(function, [value, pointer, ir.Constant(ir.IntType(32), self.align), mask])

    def splat(self, scalar):
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def column_mask(self, columns):
        """Lane i is on where i < columns: a masked-off lane is neither read nor written."""
        indices = ir.Constant(ir.VectorType(_INT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", indices, self.splat(columns))

    def tile(self, row, rows, masks):
        """C[row:row+rows, :] for one vector of columns a mask (None: all lanes)."""
        builder = self.builder
        cells = [(i, j) for i in range(rows) for j in range(len(masks))]
        before = builder.block
        init, enter, loop, done = (builder.append_basic_block(name) for name in ("init", "enter", "k", "done"))

        def row_addresses(base, stride):
            return [self.address(base, builder.mul(self.constant(i), stride)) for i in range(rows)]

        def vector_addresses(base):
            return [self.address(base, self.constant(j * self.lanes)) for j in range(len(masks))]

        def phis(*sources):  # sources: (values of all cells, block they come from)
            merged = [builder.phi(self.vector) for _ in cells]
            for values, block in sources:
                for phi, value in zip(merged, values, strict=True):
                    phi.add_incoming(value, block)
            return merged

        a = self.address(self.a, builder.mul(row, self.a_stride))
        c_rows = row_addresses(self.address(self.c, builder.mul(row, self.c_stride)), self.c_stride)
        c_cells = [address for c_row in c_rows for address in vector_addresses(c_row)]
        starts_from_zero = builder.icmp_signed("<", self.init_stride, self.constant(0))
        builder.cbranch(starts_from_zero, enter, init)

        builder.position_at_end(init)
        init_rows = row_addresses(self.address(self.init, builder.mul(row, self.init_stride)), self.init_stride)
        init_cells = [address for init_row in init_rows for address in vector_addresses(init_row)]
        loaded = [self.load(address, masks[j]) for address, (_, j) in zip(init_cells, cells, strict=True)]
        builder.branch(enter)

        builder.position_at_end(enter)
        zeros = [ir.Constant(self.vector, None)] * len(cells)
        starts = phis((zeros, before), (loaded, init))
        builder.cbranch(builder.icmp_signed(">", self.k, self.constant(0)), loop, done)

        builder.position_at_end(loop)
        step = builder.phi(_INT)
        step.add_incoming(self.constant(0), enter)
        sums = phis((starts, enter))
        b_addresses = vector_addresses(self.address(self.b, builder.mul(step, self.b_stride)))
        b_vectors = [self.load(address, mask) for address, mask in zip(b_addresses, masks, strict=True)]
        a_addresses = row_addresses(self.address(a, builder.mul(step, self.a_step)), self.a_stride)
        a_vectors = [self.splat(builder.load(address, align=self.align, typ=self.element)) for address in a_addresses]
        products = [_fma(builder, a_vectors[i], b_vectors[j], sums[i * len(masks) + j]) for i, j in cells]
        following = builder.add(step, self.constant(1))
        step.add_incoming(following, loop)
        for phi, value in zip(sums, products, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, self.k), loop, done)

        builder.position_at_end(done)
        results = phis((starts, enter), (products, loop))
        for value, address, (_, j) in zip(results, c_cells, cells, strict=True):
            self.store(value, address, masks[j])

    def all_rows(self, masks):
        """Tiles of full height while they fit, then the remainder in falling heights."""
        builder = self.builder
        row_slot = cgutils.alloca_once_value(builder, self.constant(0))
        for height in TILE_HEIGHTS:
            check = builder.append_basic_block(f"rows{height}")
            body = builder.append_basic_block(f"tile{height}")
            after = builder.append_basic_block(f"after{height}")
            builder.branch(check)
            builder.position_at_end(check)
            row = builder.load(row_slot)
            end = builder.add(row, self.constant(height))
            builder.cbranch(builder.icmp_signed("<=", end, self.m), body, after)
            builder.position_at_end(body)
            self.tile(row, height, masks)
            builder.store(end, row_slot)
            builder.branch(check if height == TILE_ROWS else after)
            builder.position_at_end(after)

    def panel(self):
        """Chooses the number of vectors, and masks for the last one where it is not full."""
        builder = self.builder
        lanes = self.constant(self.lanes)
        whole = self.constant(TILE_VECTORS * self.lanes)
        with builder.if_else(builder.icmp_signed("==", self.n, whole)) as (full, partial):
            with full:
                self.all_rows([None] * TILE_VECTORS)
            with partial:
                with builder.if_else(builder.icmp_signed(">", self.n, lanes)) as (wide, narrow):
                    with wide:
                        self.all_rows([None, self.column_mask(builder.sub(self.n, lanes))])
                    with narrow:
                        self.all_rows([self.column_mask(self.n)])


def _panel_function(module, element):
    """The panel product of one element type as an LLVM function, written once a module."""
    name = f"minidl_panel_{_suffix(element)}"
    if name in module.globals:
        return module.globals[name]
    pointer = element.as_pointer()
    kinds = [pointer, _INT, pointer, _INT, _INT, pointer, _INT, _INT, _INT, _INT, pointer, _INT]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    _TileWriter(builder, element, function.args).panel()
    builder.ret_void()
    return function


if JIT_DISABLED:

    def fma(a, b, c):
        return a * b + c

    def matmul_panel(
        c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, m, n, start, bias, bias_at
    ):
        def view(array, at, rows, columns, row_stride, column_stride):
            size = array.itemsize
            return np.lib.stride_tricks.as_strided(
                array.reshape(-1)[at:], (rows, columns), (row_stride * size, column_stride * size)
            )

        out = view(c, c_at, m, n, c_stride, 1)
        product = view(a, a_at, m, k, a_stride, a_step) @ view(b, b_at, k, n, b_stride, 1)
        if start == FROM_OUTPUT:
            product += out
        elif start == FROM_BIAS:
            product += bias.reshape(-1)[bias_at : bias_at + n]
        out[...] = product

else:

    @intrinsic
    def fma(typingctx, a, b, c):
        """a * b + c, rounded once. Scalar; a loop over it vectorises."""
        if not (isinstance(a, types.Float) and a == b == c):
            raise TypingError(f"fma needs three floats of one type, got {a}, {b}, {c}")
        return a(a, a, a), lambda context, builder, signature, args: _fma(builder, *args)

    @intrinsic
    def matmul_panel(
        typingctx, c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, m, n, start, bias, bias_at
    ):
        """C[m, n] = start + A[m, k] B[k, n] for one panel of at most two vectors of columns.

        Arrays are addressed as flat memory: element (i, j) of C is ``c[c_at + i*c_stride + j]``,
        of A ``a[a_at + i*a_stride + j*a_step]``, of B ``b[b_at + i*b_stride + j]``. Each output
        is one chain of fused multiply-adds over k, in order, whatever the tile it falls in.
        """
        integer = types.intp
        signature = types.void(
            c, integer, integer, a, integer, integer, integer, b, integer, integer,
            integer, integer, integer, integer, bias, integer,
        )  # fmt: skip

        def codegen(context, builder, signature, args):
            kinds = signature.args

            def pointer(array, at):
                data = context.make_array(kinds[array])(context, builder, args[array]).data
                return builder.gep(data, [args[at]], source_etype=_LLVM_FLOATS[kinds[array].dtype])

            output, bias_row, mode = pointer(0, 1), pointer(14, 15), args[13]
            from_output = builder.icmp_signed("==", mode, ir.Constant(_INT, FROM_OUTPUT))
            from_zero = builder.icmp_signed("==", mode, ir.Constant(_INT, FROM_ZERO))
            # A negative stride tells the panel that there is nothing to start from.
            init = builder.select(from_output, output, bias_row)
            stride = builder.select(from_output, args[2], ir.Constant(_INT, 0))
            stride = builder.select(from_zero, ir.Constant(_INT, -1), stride)
            function = _panel_function(builder.module, _LLVM_FLOATS[kinds[0].dtype])
            values = [output, args[2], pointer(3, 4), args[5], args[6], pointer(7, 8), args[9]]
            builder.call(function, [*values, args[10], args[11], args[12], init, stride])
            return context.get_dummy_value()

        return signature, codegen
