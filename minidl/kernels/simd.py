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
ROW_VECTORS = 4
"""Vectors of a tile of one row: a single row has registers to spare, and reads longer stretches of B at once."""
# A remainder of rows is made of these, largest first: 13 rows are 12 + 1, 22 are 12 + 8 + 1 + 1.
TILE_HEIGHTS = [TILE_ROWS] + [height for height in (8, 4, 1) if height < TILE_ROWS]

# How a product starts: from zero, from what the output holds, or from the bias row.
FROM_ZERO, FROM_OUTPUT, FROM_BIAS = 0, 1, 2

_GROUP_ROWS = 4
"""Rows of A read from one pointer: a load adds one, two or three strides to it by itself."""

_PREFETCH_ROWS = 24
"""How far ahead of its use a row of B is asked for: the rows of a strided B lie in as many pages."""

ALIGNMENT = 64
"""Bytes of a cache line and of the widest vector: one that straddles two lines costs twice."""


def aligned_zeros(size: int, dtype) -> np.ndarray:
    """Zeros that begin on a cache line."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)


_INT = ir.IntType(64)
_LLVM_FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_ELEMENTS = {**_LLVM_FLOATS, types.uint8: ir.IntType(8), types.int64: _INT}


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


def _prefetch(builder, address, locality):
    """Asks for a cache line that will be read; an address outside every array does no harm."""
    byte_pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    flags = [ir.Constant(word, flag) for flag in (0, locality, 1)]  # to read, into which cache, data
    builder.call(function, [builder.bitcast(address, byte_pointer), *flags])


_PANEL_ARGUMENTS = (
    "c", "c_stride", "a", "a_stride", "a_step", "b", "b_stride", "k", "m", "n", "init", "init_stride",
)  # fmt: skip
# What a panel product does besides: nothing, or one of these, with more arguments.
_PACKING_ARGUMENTS = ("panel",)
_ASKING_ARGUMENTS = ("coming", "order", "coming_stride", "coming_step")


class _VectorWriter:
    """Writes code on this processor's vectors of ``element``."""

    def __init__(self, builder, element):
        self.builder = builder
        self.element = element
        self.align = 4 if element == ir.FloatType() else 8
        self.lanes = VECTOR_BYTES // self.align
        self.vector = ir.VectorType(element, self.lanes)

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


class _TileWriter(_VectorWriter):
    """Writes one panel product: C (m, n) from A (m, k) and B (k, n), n at most two vectors, or four if m is 1.

    With a ``panel`` it writes one full tile that also copies B there, for the tiles below it to read:
    the stores hide behind the arithmetic, where a separate copy would cost a tenth of the product.

    With ``coming``, bytes that another A will be made of, each step of the k-loop asks for those of its column of A
    and the tile's rows, a cache line of them: where they are far away, so many can be asked for that none waits.
    """

    def __init__(self, builder, element, arguments, more=()):
        super().__init__(builder, element)
        self.panel = self.coming = None
        for name, value in zip(_PANEL_ARGUMENTS + more, arguments, strict=True):
            setattr(self, name, value)

    def opaque(self, pointer):
        """``pointer``, of which LLVM cannot tell where it is from.

        It would reach a tile's rows one from the other, in a chain of additions as long as the multiply-adds take.
        """
        kind = ir.FunctionType(pointer.type, [pointer.type])
        return self.builder.asm(kind, "", "=r,0", [pointer], False)

    def tile(self, row, rows, masks):
        """C[row:row+rows, :] for one vector of columns a mask (None: all lanes)."""
        builder = self.builder
        cells = [(i, j) for i in range(rows) for j in range(len(masks))]
        before = builder.block
        init, enter, loop, done = (
            builder.append_basic_block(name) for name in ("init", "enter", "k", "done")
        )

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

        if self.coming is not None:
            coming = builder.gep(
                self.coming, [builder.mul(row, self.coming_stride)], source_etype=ir.IntType(8)
            )
        a = self.address(self.a, builder.mul(row, self.a_stride))
        *strides, group_stride = [
            builder.mul(self.constant(i), self.a_stride) for i in range(_GROUP_ROWS + 1)
        ]
        c_rows = row_addresses(self.address(self.c, builder.mul(row, self.c_stride)), self.c_stride)
        c_cells = [address for c_row in c_rows for address in vector_addresses(c_row)]
        starts_from_zero = builder.icmp_signed("<", self.init_stride, self.constant(0))
        builder.cbranch(starts_from_zero, enter, init)

        builder.position_at_end(init)
        init_rows = row_addresses(
            self.address(self.init, builder.mul(row, self.init_stride)), self.init_stride
        )
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
        if self.panel is not None:
            ahead = self.address(
                self.b, builder.mul(builder.add(step, self.constant(_PREFETCH_ROWS)), self.b_stride)
            )
            for address in vector_addresses(ahead):
                _prefetch(builder, address, 3)
            packed = self.address(self.panel, builder.mul(step, self.constant(TILE_VECTORS * self.lanes)))
            for vector, address in zip(b_vectors, vector_addresses(packed), strict=True):
                self.store(vector, address)
        if self.coming is not None:
            column = builder.load(builder.gep(self.order, [step], source_etype=_INT), typ=_INT)
            offset = builder.mul(column, self.coming_step)
            _prefetch(builder, builder.gep(coming, [offset], source_etype=ir.IntType(8)), 2)
        groups = [self.opaque(self.address(a, builder.mul(step, self.a_step)))]
        while len(groups) * _GROUP_ROWS < rows:
            groups.append(self.opaque(self.address(groups[-1], group_stride)))
        a_addresses = [self.address(groups[i // _GROUP_ROWS], strides[i % _GROUP_ROWS]) for i in range(rows)]
        a_vectors = [
            self.splat(builder.load(address, align=self.align, typ=self.element)) for address in a_addresses
        ]
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
        if self.panel is not None:
            self.tile(self.constant(0), TILE_ROWS, masks)
            return
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
            builder.branch(check)
            builder.position_at_end(after)

    def write(self):
        """Chooses the number of vectors, and masks for the last one where it is not full."""
        builder = self.builder
        lanes = self.constant(self.lanes)
        whole = self.constant(TILE_VECTORS * self.lanes)
        if self.panel is None and self.coming is None:
            single = builder.icmp_signed("==", self.n, self.constant(ROW_VECTORS * self.lanes))
            with builder.if_then(single, likely=False):
                self.tile(self.constant(0), 1, [None] * ROW_VECTORS)
                builder.ret_void()
        with builder.if_else(builder.icmp_signed("==", self.n, whole)) as (full, partial):
            with full:
                self.all_rows([None] * TILE_VECTORS)
            with partial:
                with builder.if_else(builder.icmp_signed(">", self.n, lanes)) as (wide, narrow):
                    with wide:
                        self.all_rows([None, self.column_mask(builder.sub(self.n, lanes))])
                    with narrow:
                        self.all_rows([self.column_mask(self.n)])


def _function(module, name, kinds, write):
    """An LLVM function that exists once a module; ``write(builder, arguments)`` makes its body."""
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    write(builder, function.args)
    builder.ret_void()
    return function


def _panel_function(module, element, kinds, more):
    name = "_".join(["minidl_panel", *more[:1], _suffix(element)])
    return _function(
        module, name, kinds, lambda builder, arguments: _TileWriter(builder, element, arguments, more).write()
    )


def _transpose_function(module, element):
    """A square block as large as a vector, transposed in registers: log2(lanes) rounds of exchanges.

    Of a source with fewer rows or columns only those are read; the block is written whole.
    """

    def write(builder, arguments):
        out, out_stride, source, source_stride, rows, columns = arguments
        writer = _VectorWriter(builder, element)
        lanes = writer.lanes
        last = builder.sub(rows, writer.constant(1))

        def row(base, stride, index):
            return writer.address(base, builder.mul(stride, index))

        def exchange(a, b, picks):
            mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), picks)
            return builder.shuffle_vector(a, b, mask)

        whole = builder.and_(*(builder.icmp_signed(">=", size, writer.constant(lanes)) for size in (rows, columns)))
        indices = [writer.constant(i) for i in range(lanes)]
        with builder.if_else(whole) as (full, partial):
            with full:
                loaded = [writer.load(row(source, source_stride, i)) for i in indices]
                full_block = builder.block
            with partial:
                mask = writer.column_mask(columns)
                nearest = [builder.select(builder.icmp_signed("<", i, rows), i, last) for i in indices]
                masked = [writer.load(row(source, source_stride, i), mask) for i in nearest]
                partial_block = builder.block
        values = [builder.phi(writer.vector) for _ in indices]
        for value, *sources in zip(values, loaded, masked, strict=True):
            for source_value, block in zip(sources, (full_block, partial_block), strict=True):
                value.add_incoming(source_value, block)
        distance = 1
        while distance < lanes:
            upper = [i for i in range(lanes) if not i & distance]
            for i in upper:
                a, b = values[i], values[i + distance]
                # lane l of row i and lane l of row i + distance: the off-diagonal blocks change places
                values[i] = exchange(
                    a, b, [x if not x & distance else lanes + x - distance for x in range(lanes)]
                )
                values[i + distance] = exchange(
                    a, b, [x + distance if not x & distance else lanes + x for x in range(lanes)]
                )
            distance *= 2
        for i, value in enumerate(values):
            writer.store(value, row(out, out_stride, writer.constant(i)))

    kinds = [element.as_pointer(), _INT, element.as_pointer(), _INT, _INT, _INT]
    return _function(module, f"minidl_transpose_{_suffix(element)}", kinds, write)


if JIT_DISABLED:

    def fma(a, b, c):
        return a * b + c

    def read_float32(octets, at):
        return octets[at : at + 4].view(np.float32)[0]

    def read_float64(octets, at):
        return octets[at : at + 8].view(np.float64)[0]

    def reals_at(octets, at, like):
        return octets[at:].view(like.dtype)

    def _view(array, at, rows, columns, row_stride, column_stride):
        size = array.itemsize
        return np.lib.stride_tricks.as_strided(
            array.reshape(-1)[at:], (rows, columns), (row_stride * size, column_stride * size)
        )

    def matmul_panel(
        c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, m, n, start, bias, bias_at
    ):
        out = _view(c, c_at, m, n, c_stride, 1)
        product = _view(a, a_at, m, k, a_stride, a_step) @ _view(b, b_at, k, n, b_stride, 1)
        if start == FROM_OUTPUT:
            product += out
        elif start == FROM_BIAS:
            product += bias.reshape(-1)[bias_at : bias_at + n]
        out[...] = product

    def matmul_packing_tile(
        c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, n, start, bias, bias_at, panel
    ):
        width = PANEL_BYTES // c.itemsize
        packed = panel[: k * width].reshape(k, width)
        packed[:, :n] = _view(b, b_at, k, n, b_stride, 1)
        packed[:, n:] = 0
        matmul_panel(
            c,
            c_at,
            c_stride,
            a,
            a_at,
            a_stride,
            a_step,
            b,
            b_at,
            b_stride,
            k,
            TILE_ROWS,
            n,
            start,
            bias,
            bias_at,
        )

    def matmul_asking_panel(
        c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, m, n,
        coming, coming_at, coming_stride, coming_step, order, order_at,
    ):  # fmt: skip
        """There is no cache to speak of."""
        matmul_panel(
            c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, m, n, FROM_ZERO, c, 0
        )

    def transpose_block(out, out_at, out_stride, source, source_at, source_stride, rows, columns):
        block = _view(source, source_at, rows, columns, source_stride, 1)
        _view(out, out_at, columns, rows, out_stride, 1)[...] = block.T

else:

    @intrinsic
    def fma(typingctx, a, b, c):
        """a * b + c, rounded once. Scalar; a loop over it vectorises."""
        if not (isinstance(a, types.Float) and a == b == c):
            raise TypingError(f"fma needs three floats of one type, got {a}, {b}, {c}")
        return a(a, a, a), lambda context, builder, signature, args: _fma(builder, *args)

    def _reader(result):
        def read(typingctx, octets, at):
            def codegen(context, builder, signature, args):
                data = context.make_array(octets)(context, builder, args[0]).data
                kind = _LLVM_FLOATS[result]
                address = builder.gep(data, [args[1]], source_etype=ir.IntType(8))
                return builder.load(builder.bitcast(address, kind.as_pointer()), align=1, typ=kind)

            return result(octets, types.intp), codegen

        return read

    # The number stored in the bytes octets[at:], in this machine's order, at any alignment.
    read_float32 = intrinsic(_reader(types.float32))
    read_float64 = intrinsic(_reader(types.float64))

    @intrinsic
    def reals_at(typingctx, octets, at, like):
        """The bytes octets[at:] as a vector of ``like``'s dtype; they must be aligned and in this machine's order."""
        kind = types.Array(like.dtype, 1, "C")

        def codegen(context, builder, signature, args):
            from numba.np import arrayobj  # a fifth of the time to import minidl, for those who compile

            source = context.make_array(octets)(context, builder, args[0])
            size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
            data = builder.gep(source.data, [args[1]], source_etype=ir.IntType(8))
            count = builder.udiv(builder.sub(source.nitems, args[1]), ir.Constant(_INT, size))
            array = context.make_array(kind)(context, builder)
            itemsize = ir.Constant(_INT, size)
            arrayobj.populate_array(
                array,
                data=builder.bitcast(data, array.data.type),
                shape=[count],
                strides=[itemsize],
                itemsize=itemsize,
                meminfo=None,
            )
            return array._getvalue()

        return kind(octets, types.intp, like), codegen

    def _pointer(context, builder, kind, array, at):
        """The address of element ``at`` of a contiguous array, read as flat memory."""
        data = context.make_array(kind)(context, builder, array).data
        return builder.gep(data, [at], source_etype=_ELEMENTS[kind.dtype])

    def _init(builder, output, output_stride, bias_row, mode):
        """Where a product starts from, and its row stride: negative where it starts from zero."""
        from_output = builder.icmp_signed("==", mode, ir.Constant(_INT, FROM_OUTPUT))
        from_zero = builder.icmp_signed("==", mode, ir.Constant(_INT, FROM_ZERO))
        stride = builder.select(from_output, output_stride, ir.Constant(_INT, 0))
        stride = builder.select(from_zero, ir.Constant(_INT, -1), stride)
        return builder.select(from_output, output, bias_row), stride

    def _place(context, builder, signature, args, array):
        """The address of the element that the argument after ``array`` names."""
        return _pointer(context, builder, signature.args[array], args[array], args[array + 1])

    def _call_panel(context, builder, signature, args, rows, columns, init, more=(), *operands):
        """Calls the panel product for C, A, B and k, which are the first arguments of all its intrinsics."""
        c, a, b = (_place(context, builder, signature, args, array) for array in (0, 3, 7))
        given = [c, args[2], a, args[5], args[6], b, args[9], args[10], rows, columns, *init, *operands]
        element, kinds = _LLVM_FLOATS[signature.args[0].dtype], [operand.type for operand in given]
        builder.call(_panel_function(builder.module, element, kinds, more), given)
        return context.get_dummy_value()

    _INTEGER = types.intp

    @intrinsic
    def matmul_panel(
        typingctx,
        c,
        c_at,
        c_stride,
        a,
        a_at,
        a_stride,
        a_step,
        b,
        b_at,
        b_stride,
        k,
        m,
        n,
        start,
        bias,
        bias_at,
    ):
        """C[m, n] = start + A[m, k] B[k, n] for one panel of at most two vectors of columns; four if m is 1.

        Arrays are addressed as flat memory: element (i, j) of C is ``c[c_at + i*c_stride + j]``,
        of A ``a[a_at + i*a_stride + j*a_step]``, of B ``b[b_at + i*b_stride + j]``. Each output
        is one chain of fused multiply-adds over k, in order, whatever the tile it falls in.
        """
        signature = types.void(
            c, _INTEGER, _INTEGER, a, _INTEGER, _INTEGER, _INTEGER, b, _INTEGER, _INTEGER,
            _INTEGER, _INTEGER, _INTEGER, _INTEGER, bias, _INTEGER,
        )  # fmt: skip

        def codegen(context, builder, signature, args):
            output, bias_row = (_place(context, builder, signature, args, array) for array in (0, 14))
            init = _init(builder, output, args[2], bias_row, args[13])
            return _call_panel(context, builder, signature, args, args[11], args[12], init)

        return signature, codegen

    @intrinsic
    def matmul_packing_tile(
        typingctx,
        c,
        c_at,
        c_stride,
        a,
        a_at,
        a_stride,
        a_step,
        b,
        b_at,
        b_stride,
        k,
        n,
        start,
        bias,
        bias_at,
        panel,
    ):
        """`matmul_panel` for exactly TILE_ROWS rows, which also copies B into ``panel``, two vectors a row."""
        signature = types.void(
            c, _INTEGER, _INTEGER, a, _INTEGER, _INTEGER, _INTEGER, b, _INTEGER, _INTEGER,
            _INTEGER, _INTEGER, _INTEGER, bias, _INTEGER, panel,
        )  # fmt: skip

        def codegen(context, builder, signature, args):
            output, bias_row = (_place(context, builder, signature, args, array) for array in (0, 13))
            init = _init(builder, output, args[2], bias_row, args[12])
            panel = _pointer(context, builder, signature.args[15], args[15], ir.Constant(_INT, 0))
            rows = ir.Constant(_INT, TILE_ROWS)
            return _call_panel(
                context, builder, signature, args, rows, args[11], init, _PACKING_ARGUMENTS, panel
            )

        return signature, codegen

    @intrinsic
    def matmul_asking_panel(
        typingctx, c, c_at, c_stride, a, a_at, a_stride, a_step, b, b_at, b_stride, k, m, n,
        coming, coming_at, coming_stride, coming_step, order, order_at,
    ):  # fmt: skip
        """`matmul_panel` from zero, which also asks for ``coming``, bytes that the next A will be made of.

        Its column p lies at ``coming_at + order[order_at + p]*coming_step``, its rows ``coming_stride`` apart.
        """
        signature = types.void(
            c, _INTEGER, _INTEGER, a, _INTEGER, _INTEGER, _INTEGER, b, _INTEGER, _INTEGER, _INTEGER, _INTEGER,
            _INTEGER, coming, _INTEGER, _INTEGER, _INTEGER, order, _INTEGER,
        )  # fmt: skip

        def codegen(context, builder, signature, args):
            output, coming, order = (_place(context, builder, signature, args, array) for array in (0, 13, 17))
            init = output, ir.Constant(_INT, -1)
            return _call_panel(
                context, builder, signature, args, args[11], args[12], init, _ASKING_ARGUMENTS,
                coming, order, args[15], args[16],
            )  # fmt: skip

        return signature, codegen

    @intrinsic
    def transpose_block(typingctx, out, out_at, out_stride, source, source_at, source_stride, rows, columns):
        """out[i, j] = source[j, i] for a block of the source, rows and columns 1 to VECTOR_BYTES // itemsize.

        Of out so many of both are written, whatever the source has; what it does not have is undefined.
        """
        signature = types.void(out, _INTEGER, _INTEGER, source, _INTEGER, _INTEGER, _INTEGER, _INTEGER)

        def codegen(context, builder, signature, args):
            target = _pointer(context, builder, signature.args[0], args[0], args[1])
            origin = _pointer(context, builder, signature.args[3], args[3], args[4])
            function = _transpose_function(builder.module, _LLVM_FLOATS[signature.args[0].dtype])
            builder.call(function, [target, args[2], origin, *args[5:]])
            return context.get_dummy_value()

        return signature, codegen
