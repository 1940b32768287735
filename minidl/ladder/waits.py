"""What each rung waits for, in words. Every sentence follows from the figures it is given: others make it another."""

from __future__ import annotations

import mmap

from ..kernels.ladder import COLUMNS
from ..kernels.target import PANEL_BYTES
from ..machine import blas_name, rate_text, size_text, time_text
from .figures import Figures

_NOTICED = 0.1
"""Of a rung's time: less is what two measurements of one thing may differ by."""


def times_text(factor: float) -> str:
    """Two digits that count."""
    rounded = float(f"{factor:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def percent_text(part: float) -> str:
    return f"{times_text(100 * part) if part < 0.1 else round(100 * part)} %"


def interpreter(f: Figures) -> str:
    return (
        f"Waits for the interpreter, which takes {time_text(f.term)} for a multiply-add. "
        f"In that time this core could do {times_text(f.machine.ceiling / f.rate)}."
    )


def latency(f: Figures) -> str:
    needs, near, lost = f.machine.latency, 2 / f.near, _lost(f)
    if abs(near / needs - 1) < 0.25:
        label = "latency"
        cause = f"All terms go into one sum, and each waits for the one before: {time_text(needs)}."
    else:
        label = "its own instructions"
        cause = (
            f"A multiply-add is done in {time_text(needs)}; "
            f"a term takes {time_text(near)} on data in the first-level cache."
        )
    if lost > _NOTICED:
        label = f"data, then {label}" if lost > 0.5 else f"{label}, then data"
    lines = f"{f.size} numbers in as many cache lines, {size_text(f.size * f.machine.line)} a column"
    column = f"b is read down its columns: {lines}"
    return f"Waits for {label}. {cause} Here a term takes {time_text(f.term)}. {_farther(f, column)}"


def bytes_of_b(f: Figures) -> str:
    b = f"All {size_text(4 * f.size**2)} of b come by for each row of c"
    return _bytes(f, 12, "two loads and a store for each multiply-add", b)


def bytes_of_c(f: Figures) -> str:
    block = size_text(4 * f.size * min(COLUMNS, f.size))
    c = f"All rows of a block of c, {block}, come by for each four rows of b"
    return _bytes(f, 6, "five loads and a store for four multiply-adds", c)


def _bytes(f: Figures, count: int, made_of: str, farther: str) -> str:
    """``count``: bytes that a term moves between registers and the first-level cache."""
    needed, has = f.machine.ceiling / 2 * count, f.machine.near_bytes
    label = "bytes" if needed > has or _lost(f) > _NOTICED else "its loads and stores"
    text = f"Waits for {label}: {count} a term, in {made_of}. "
    if needed > has:
        text += (
            f"The ceiling would need {rate_text(needed)} GB/s; the first-level cache gives {rate_text(has)}. "
        )
    return text + _farther(f, farther)


def far_rows(f: Figures) -> str:
    row = 4 * f.size
    rows = f"The {f.size} rows of a panel of b lie {row:,} bytes apart"
    wanted, room, sets = panel_room(f)
    if wanted > room:
        rows += f", in {sets} of the {f.machine.caches[0].sets} sets of the first-level cache, "
        rows += f"which have room for {room} of their {wanted} lines"
    else:
        rows += f", in {len({p * row // mmap.PAGESIZE for p in range(f.size)})} pages of memory"
    return f"Waits for {'data' if _lost(f) > _NOTICED else 'little'}. {_farther(f, rows)}"


def panel_room(f: Figures) -> tuple[int, int, int]:
    """(cache lines of a panel of b as it lies, how many of them its sets of the first-level cache hold, those sets).

    Where the caches are not known there is room for all.
    """
    line = f.machine.line
    starts = range(0, 4 * f.size**2, 4 * f.size)
    lines = {number for at in starts for number in range(at // line, (at + PANEL_BYTES - 1) // line + 1)}
    if not f.machine.caches:
        return len(lines), len(lines), 0
    first = f.machine.caches[0]
    sets = {number % first.sets for number in lines}
    return len(lines), len(sets) * first.ways, len(sets)


def lanes_times_clock(f: Figures) -> str:
    m, lost = f.machine, _lost(f)
    more = "" if f.of_ceiling > 0.5 and lost < 0.25 else "more than "
    cost = f"and the caches farther away cost {percent_text(lost)}" if lost > 0.01 else "costs nothing"
    return (
        f"Waits for {more}lanes times clock: {m.lanes} lanes x 2 operations x {m.ceiling / 2e9 / m.lanes:.2f} billion "
        "vectors multiplied and added a second are the ceiling. The tile alone, on data in the first-level cache, "
        f"makes {rate_text(f.near)} GFLOP/s; copying {cost}."
    )


def cores(f: Figures) -> str:
    gain = f"It makes {f.rate / f.alone:.2f} times what rung 6 does"
    if f.is_crowded:
        return f"{_no_processor(f)} {gain}."
    most = f.machine.ceiling_together / f.machine.ceiling
    return (
        f"Waits for lanes times clock times cores, and for the slowest thread. {gain}; "
        f"multiply-adds in registers go {most:.2f} times as fast on {f.threads} threads as on one."
    )


def numpy(f: Figures) -> str:
    alone = f" On one thread it makes {rate_text(f.alone)} GFLOP/s." if f.alone else ""
    if f.is_crowded:
        return _no_processor(f) + alone
    if any(name in blas_name().lower() for name in ("openblas", "mkl", "blis")):
        return f"Waits for the same: it is built of the same tiles and panels, in assembly or C.{alone}"
    return f"How it computes, and so what it waits for, is not known here.{alone}"


def _no_processor(f: Figures) -> str:
    lost = percent_text(1 - f.share)
    return f"Waits for a free processor: other processes had {lost} of the time of its {f.threads}."


def _lost(f: Figures) -> float:
    """The part of its time that the same code does not take on data in the first-level cache."""
    return 1 - f.rate / f.near


def _farther(f: Figures, what: str) -> str:
    near = f"{rate_text(f.near)} GFLOP/s"
    if _lost(f) < _NOTICED:
        return (
            f"On data in the first-level cache it makes {'hardly' if f.near > f.rate else 'no'} more, {near}."
        )
    lost = percent_text(_lost(f))
    return (
        f"On data in the first-level cache it makes {near}; "
        f"here it waits {lost} of its time for data farther away. {what}."
    )
