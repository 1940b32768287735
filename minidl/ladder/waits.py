"""What each rung waits for, in words. Every sentence follows from the figures it is given; none is true by itself."""

from __future__ import annotations

import mmap

from ..kernels.ladder import COLUMNS
from ..kernels.target import PANEL_BYTES
from .figures import Figures

_NOTICED = 0.1
"""Of its time, or of a figure: less is within what two measurements of one thing differ by."""


def size_text(count: float) -> str:
    """Bytes, with the unit that suits."""
    for unit, name in ((2**20, "MB"), (2**10, "KB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def rate_text(rate: float) -> str:
    """Operations a second, in GFLOP/s; or bytes a second, in GB/s."""
    return f"{rate / 1e9:.3g}"


def time_text(seconds: float) -> str:
    return f"{1e9 * seconds:.3g} ns"


def percent_text(part: float) -> str:
    percent = 100 * part
    return f"{percent:.0f} %" if percent >= 9.5 else f"{percent:.2g} %"


def interpreter(f: Figures) -> str:
    meanwhile = f.machine.ceiling / f.rate
    return (
        f"The interpreter takes {time_text(f.term)} for a multiply-add. This core could do {meanwhile:,.0f} in that time."
    )


def latency(f: Figures) -> str:
    needs, near = f.machine.latency, 2 / f.near
    if abs(near / needs - 1) < 0.25:
        cause = (
            f"Latency: all terms of a number go into one sum, so each waits {time_text(needs)} for the one before. "
        )
    else:
        cause = f"A multiply-add is finished after {time_text(needs)}; in the first-level cache a term takes {time_text(near)}. "
    line = f.machine.line
    column = f"b, read down its columns of {f.size} numbers"
    if 4 * f.size >= line:
        column += f", each in a cache line of its own: {size_text(f.size * line)} a column"
    return cause + f"A term takes {time_text(f.term)} here. " + _farther(f, column)


def bytes_of_b(f: Figures) -> str:
    b = f"b: all its {size_text(4 * f.size**2)} come by for each row of c"
    return _bytes(f, 12, "two loads and a store for each multiply-add") + _farther(f, b)


def bytes_of_c(f: Figures) -> str:
    block = size_text(4 * f.size * min(COLUMNS, f.size))
    c = f"c: all rows of a block, {block}, come by for each four rows of b"
    return _bytes(f, 6, "five loads and a store for four multiply-adds") + _farther(f, c)


def _bytes(f: Figures, count: int, made_of: str) -> str:
    """``count``: bytes that a term moves between registers and the first-level cache."""
    needed, has = f.machine.ceiling / 2 * count, f.machine.near_bytes
    text = f"{made_of}, {count} bytes a term. "
    if needed > has:
        return (
            f"Bytes: {text}At the ceiling these were {rate_text(needed)} GB/s; the first-level cache gives {rate_text(has)}. "
        )
    return f"{text[0].upper()}{text[1:]}"


def _farther(f: Figures, what: str) -> str:
    """What the same code loses because its data does not lie in the first-level cache."""
    lost = 1 - f.rate / f.near
    if lost < _NOTICED:
        return f"The caches farther away cost nothing: it makes {rate_text(f.near)} GFLOP/s on data in the first."
    return (
        f"On data in the first-level cache it makes {rate_text(f.near)} GFLOP/s; here it waits {percent_text(lost)} of "
        f"its time for {what}."
    )


def far_rows(f: Figures) -> str:
    row = 4 * f.size
    rows = f"b: the {f.size} rows of its panel lie {row:,} bytes apart"
    wanted, room, sets = panel_room(f)
    if wanted > room:
        rows += f", and fall into {sets} of the {f.machine.caches[0].sets} sets of the first-level cache, which have room for {room} of their {wanted} lines"
    else:
        pages = len({p * row // mmap.PAGESIZE for p in range(f.size)})
        rows += f", in {pages} pages of memory"
    return _farther(f, rows)


def panel_room(f: Figures) -> tuple[int, int, int]:
    """(lines of a panel of b, as many of them as its sets of the first-level cache hold, those sets).

    Without a cache to ask there is room for all.
    """
    line = f.machine.line
    lines = {(p * 4 * f.size + at) // line for p in range(f.size) for at in range(0, PANEL_BYTES, line)}
    if not f.machine.caches:
        return len(lines), len(lines), 0
    first = f.machine.caches[0]
    sets = {number % first.sets for number in lines}
    return len(lines), len(sets) * first.ways, len(sets)


def lanes_times_clock(f: Figures) -> str:
    m = f.machine
    lost = 1 - f.rate / f.near
    rest = (
        f"The tile alone, on data in the first-level cache, makes {rate_text(f.near)} GFLOP/s: copying and the caches "
        f"farther away cost {percent_text(lost)}."
        if lost > 0.02
        else f"The tile alone, on data in the first-level cache, makes no more ({rate_text(f.near)} GFLOP/s)."
    )
    return (
        f"Lanes times clock: {m.lanes} lanes x 2 operations x {m.ceiling / 2e9 / m.lanes:.2g} billion multiply-adds a second "
        f"are the ceiling. {rest}"
    )


def cores(f: Figures) -> str:
    return (
        f"Lanes times clock times cores, and the slowest thread. It makes {f.rate / f.alone:.2f} times what rung 6 does; "
        f"multiply-adds alone go {f.machine.ceiling_together / f.machine.ceiling:.2f} times as fast on {f.threads} threads."
    )


def the_same(f: Figures) -> str:
    where = f"On one thread it makes {rate_text(f.alone)} GFLOP/s. " if f.alone else ""
    return f"{where}It waits for the same as the rung before."
