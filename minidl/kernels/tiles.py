"""The inner loop of the matrix product and a transposition, written in LLVM instructions.

LLVM vectorises simple loops by itself, and most kernels rely on that. The product cannot: its sums must stay in
registers over the whole loop over k. So the loop is written here, instruction by instruction, for the vectors
that this processor has. `simd` makes it callable from kernels.
"""

import functools
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from . import emit
from .target import ROW_VECTORS, TILE_HEIGHTS, TILE_ROWS, TILE_VECTORS, VECTOR_BYTES

_GROUP_ROWS = 4
"""Rows of A addressed from one pointer: a load can add up to three strides to it without an instruction."""

_PREFETCH_ROWS = 24
"""Rows of B between the one in use and the one prefetched: the rows of a strided B lie in as many pages."""


class Operands(NamedTuple):
    """The LLVM arguments of one panel product: addresses, and strides in elements."""

    c: ir.Value
    c_row: ir.Value
    a: ir.Value
    a_row: ir.Value
    a_column: ir.Value
    b: ir.Value
    b_row: ir.Value
    k: ir.Value
    m: ir.Value
    n: ir.Value
    start: ir.Value  # what the sums start from
    start_row: ir.Value  # its row stride; negative: they start from zero


class Packing(NamedTuple):
    """A panel that the product also copies B into, for the tiles below to read.

    The stores hide behind the arithmetic, where a separate copy would cost a tenth of the product.
    """

    panel: ir.Value


class Prefetching(NamedTuple):
    """Bytes that a later A will be made of. While the product computes, it prefetches them.

    For the tile that begins at row i, step p of the loop over k prefetches the cache line at
    ``data + order[p]*column_stride + i*row_stride``.
    """

    data: ir.Value
    order: ir.Value
    row_stride: ir.Value
    column_stride: ir.Value


class _VectorWriter:
    """Writes code on this processor's vectors of ``element``."""

    def __init__(self, builder, element):
        self.builder = builder
        self.element = element
        self.align = 4 if element == ir.FloatType() else 8
        self.lanes = VECTOR_BYTES // self.align
        self.vector = ir.VectorType(element, self.lanes)
        self.zeros = ir.Constant(self.vector, None)

    def address(self, base, *offsets):
        for offset in offsets:
            base = self.builder.gep(base, [offset], source_etype=self.element)
        return base

    def row(self, base, index, stride):
        return self.address(base, self.builder.mul(index, stride))

    def load(self, address, mask=None):
        return emit.load(self.builder, address, self.vector, self.align, mask)

    def store(self, value, address, mask=None):
        emit.store(self.builder, value, address, self.align, mask)

    def column_mask(self, columns):
        return emit.lane_mask(self.builder, columns, self.lanes)

    def phis(self, *sources):
        """One phi node for each of several vectors; a source is (vectors, the block they come from)."""
        cells = zip(*([(value, block) for value in values] for values, block in sources), strict=True)
        return [emit.merge(self.builder, *cell) for cell in cells]


class _PanelWriter(_VectorWriter):
    """Writes one panel product: C (m, n) from A (m, k) and B (k, n), n at most two vectors, or four if m is 1."""

    def __init__(self, builder, element, operands: Operands, besides: Packing | Prefetching | None):
        super().__init__(builder, element)
        self.operands = operands
        self.packing = besides if isinstance(besides, Packing) else None
        self.prefetching = besides if isinstance(besides, Prefetching) else None

    def write(self):
        """Choose the number of vectors, and a mask for the last one where it is not full."""
        builder, n = self.builder, self.operands.n
        lanes = emit.constant(self.lanes)
        if self.packing is None and self.prefetching is None:
            single = builder.icmp_signed("==", n, emit.constant(ROW_VECTORS * self.lanes))
            with builder.if_then(single, likely=False):
                self._tile(emit.constant(0), 1, [None] * ROW_VECTORS)
                builder.ret_void()
        is_full = builder.icmp_signed("==", n, emit.constant(TILE_VECTORS * self.lanes))
        with builder.if_else(is_full) as (full, partial):
            with full:
                self._all_rows([None] * TILE_VECTORS)
            with partial:
                with builder.if_else(builder.icmp_signed(">", n, lanes)) as (wide, narrow):
                    with wide:
                        self._all_rows([None, self.column_mask(builder.sub(n, lanes))])
                    with narrow:
                        self._all_rows([self.column_mask(n)])

    def _all_rows(self, masks):
        """Tiles of full height while they fit, then lower ones. Packing writes a single full tile."""
        builder = self.builder
        if self.packing is not None:
            self._tile(emit.constant(0), TILE_ROWS, masks)
            return
        row_slot = cgutils.alloca_once_value(builder, emit.constant(0))
        for height in TILE_HEIGHTS:
            check = builder.append_basic_block(f"rows{height}")
            body = builder.append_basic_block(f"tile{height}")
            after = builder.append_basic_block(f"after{height}")
            builder.branch(check)
            builder.position_at_end(check)
            row = builder.load(row_slot)
            end = builder.add(row, emit.constant(height))
            builder.cbranch(builder.icmp_signed("<=", end, self.operands.m), body, after)
            builder.position_at_end(body)
            self._tile(row, height, masks)
            builder.store(end, row_slot)
            builder.branch(check)
            builder.position_at_end(after)

    def _tile(self, row, rows, masks):
        """C[row:row+rows, :] in registers: ``masks`` has one entry for each vector of columns (None: all lanes)."""
        builder, given = self.builder, self.operands
        before = builder.block
        init, enter, loop, done = map(builder.append_basic_block, ("init", "enter", "k", "done"))
        a_tile = self.row(given.a, row, given.a_row)
        offsets = [builder.mul(emit.constant(i), given.a_row) for i in range(_GROUP_ROWS + 1)]
        c_cells = self._cells(self.row(given.c, row, given.c_row), given.c_row, rows, masks)
        starts_from_zero = builder.icmp_signed("<", given.start_row, emit.constant(0))
        builder.cbranch(starts_from_zero, enter, init)

        builder.position_at_end(init)
        start_cells = self._cells(self.row(given.start, row, given.start_row), given.start_row, rows, masks)
        loaded = [self.load(address, mask) for address, mask in start_cells]
        builder.branch(enter)

        builder.position_at_end(enter)
        starts = self.phis(([self.zeros] * len(c_cells), before), (loaded, init))
        builder.cbranch(builder.icmp_signed(">", given.k, emit.constant(0)), loop, done)

        builder.position_at_end(loop)
        step = emit.merge(builder, (emit.constant(0), enter))
        sums = self.phis((starts, enter))
        b_vectors = self._row_of_b(step, masks)
        self._prefetch(row, step)
        a_vectors = self._column_of_a(a_tile, offsets, step, rows)
        products = [
            emit.fma(builder, a_vector, b_vector, sums[i * len(masks) + j])
            for i, a_vector in enumerate(a_vectors)
            for j, b_vector in enumerate(b_vectors)
        ]
        following = builder.add(step, emit.constant(1))
        step.add_incoming(following, loop)
        for phi, value in zip(sums, products, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, given.k), loop, done)

        builder.position_at_end(done)
        results = self.phis((starts, enter), (products, loop))
        for value, (address, mask) in zip(results, c_cells, strict=True):
            self.store(value, address, mask)

    def _vectors(self, base, masks):
        """(address, mask) of the vectors of one row."""
        return [(self.address(base, emit.constant(j * self.lanes)), mask) for j, mask in enumerate(masks)]

    def _cells(self, base, stride, rows, masks):
        """(address, mask) of all vectors of a tile, row by row."""
        row_addresses = [self.row(base, emit.constant(i), stride) for i in range(rows)]
        return [cell for address in row_addresses for cell in self._vectors(address, masks)]

    def _row_of_b(self, step, masks):
        """Row ``step`` of B, copied into the packed panel on the way if there is one."""
        given = self.operands
        vectors = [self.load(*cell) for cell in self._vectors(self.row(given.b, step, given.b_row), masks)]
        if self.packing is not None:
            later = self.builder.add(step, emit.constant(_PREFETCH_ROWS))
            for address, _ in self._vectors(self.row(given.b, later, given.b_row), masks):
                emit.prefetch(self.builder, address, 3)
            packed = self.row(self.packing.panel, step, emit.constant(TILE_VECTORS * self.lanes))
            for vector, (address, _) in zip(vectors, self._vectors(packed, masks), strict=True):
                self.store(vector, address)
        return vectors

    def _column_of_a(self, a_tile, offsets, step, rows):
        """Column ``step`` of the tile's rows of A, each element in all lanes of a vector."""
        groups = [self._opaque(self.row(a_tile, step, self.operands.a_column))]
        while len(groups) * _GROUP_ROWS < rows:
            groups.append(self._opaque(self.address(groups[-1], offsets[-1])))
        addresses = [self.address(groups[i // _GROUP_ROWS], offsets[i % _GROUP_ROWS]) for i in range(rows)]
        elements = [self.builder.load(address, align=self.align, typ=self.element) for address in addresses]
        return [emit.splat(self.builder, element, self.lanes) for element in elements]

    def _opaque(self, pointer):
        """``pointer``, with its origin hidden from LLVM.

        LLVM would address each row from the row before it: a chain of additions that takes as long as the
        multiply-adds.
        """
        kind = ir.FunctionType(pointer.type, [pointer.type])
        return self.builder.asm(kind, "", "=r,0", [pointer], False)

    def _prefetch(self, row, step):
        """Prefetch one cache line of what column ``step`` of a later A will be made of, for the tile at ``row``.

        Those lines are far away. One at each step keeps many under way, and the product waits for none.
        """
        if self.prefetching is None:
            return
        builder, (address, order, row_stride, column_stride) = self.builder, self.prefetching
        place = builder.load(builder.gep(order, [step], source_etype=emit.INT), typ=emit.INT)
        for offset in (builder.mul(row, row_stride), builder.mul(place, column_stride)):
            address = builder.gep(address, [offset], source_etype=emit.BYTE)
        emit.prefetch(builder, address, 2)


def _call(builder, name, values, write) -> None:
    """Call an LLVM function, whose body ``write(builder, *arguments)`` makes once in each module."""
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(emit.VOID, [value.type for value in values])
        function = ir.Function(builder.module, kind, name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        write(inner, *function.args)
        inner.ret_void()
    builder.call(function, values)


def call_panel(builder, element, operands: Operands, besides: Packing | Prefetching | None = None) -> None:
    """Call the panel product."""
    count, variant = len(operands), "" if besides is None else f"_{type(besides).__name__.lower()}"

    def write(inner, *arguments):
        more = None if besides is None else type(besides)(*arguments[count:])
        _PanelWriter(inner, element, Operands(*arguments[:count]), more).write()

    _call(builder, f"minidl_panel{variant}_{emit.suffix(element)}", [*operands, *(besides or ())], write)


def call_transposition(builder, element, *given) -> None:
    """Call the transposition of a square block with a vector's length as its side.

    ``given``: out and source as addresses with row strides, then the source's rows and columns. Where these are fewer
    than a block's only they are read; the block is written whole.
    """
    write = functools.partial(_write_transposition, element)
    _call(builder, f"minidl_transpose_{emit.suffix(element)}", given, write)


def _write_transposition(element, builder, out, out_row, source, source_row, rows, columns) -> None:
    """Load the rows, exchange halves, quarters, ... between them in registers, and store them as columns."""
    writer = _VectorWriter(builder, element)
    lanes = writer.lanes
    indices = [emit.constant(i) for i in range(lanes)]
    is_full = builder.and_(
        *(builder.icmp_signed(">=", size, emit.constant(lanes)) for size in (rows, columns))
    )
    last = builder.sub(rows, emit.constant(1))
    with builder.if_else(is_full) as (full, partial):
        with full:
            loaded = [writer.load(writer.row(source, i, source_row)) for i in indices]
            full_block = builder.block
        with partial:
            mask = writer.column_mask(columns)
            nearest = [builder.select(builder.icmp_signed("<", i, rows), i, last) for i in indices]
            masked = [writer.load(writer.row(source, i, source_row), mask) for i in nearest]
            partial_block = builder.block
    values = writer.phis((loaded, full_block), (masked, partial_block))
    distance = 1
    while distance < lanes:
        # lane l of row i and lane l of row i + distance: the off-diagonal blocks change places
        lower = [x if not x & distance else lanes + x - distance for x in range(lanes)]
        upper = [x + distance if not x & distance else lanes + x for x in range(lanes)]
        picks = [ir.Constant(ir.VectorType(emit.INT32, lanes), chosen) for chosen in (lower, upper)]
        for i in (i for i in range(lanes) if not i & distance):
            pair = values[i], values[i + distance]
            values[i], values[i + distance] = (builder.shuffle_vector(*pair, chosen) for chosen in picks)
        distance *= 2
    for i, value in zip(indices, values, strict=True):
        writer.store(value, writer.row(out, i, out_row))
