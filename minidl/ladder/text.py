"""The ladder on a terminal: at any width from 40 columns on, and where there is no UTF-8."""

from __future__ import annotations

import inspect
from importlib import import_module

from ..kernels.target import TILE_ROWS, TILE_VECTORS
from ..machine import blas_name, rate_text, size_text, time_text
from ..pages import wrap
from .assembly import Loop
from .figures import Figures, Machine
from .rungs import NUMPY, THREADS, Rung
from .waits import percent_text, times_text

_BLOCKS = "\u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"
"""An eighth of a character to a whole one."""
_BUSY = 0.9
"""A smaller share of its processor than this means that other processes had some of it."""


def head(size: int, machine: Machine) -> list[str]:
    """Sentences: the work, the processor, what it can do at most."""
    caches = (
        ", ".join(f"L{cache.level} {size_text(cache.size)}" for cache in machine.caches) or "caches unknown"
    )
    together = f"; {rate_text(machine.ceiling_together)} on {machine.threads}" if machine.threads > 1 else ""
    each = machine.adds_a_cycle
    adds = f"{each:.0f}" if abs(each - round(each)) < 0.25 else f"{each:.1f}"
    sentences = [
        f"c = a b, each {size} x {size} float32: {2e-9 * size**3:.3g} GFLOP. "
        "Each rung is checked against NumPy, then timed.",
        f"{machine.name}; {caches}, lines of {machine.line} bytes.",
        f"The ceiling, measured: {rate_text(machine.ceiling)} GFLOP/s on one thread{together}. "
        f"That is {machine.lanes} lanes x 2 operations x about {adds} multiply-adds a cycle, "
        f"at {machine.clock / 1e9:.1f} GHz or somewhat more.",
        f"A multiply-add takes {time_text(machine.latency)}. So {machine.sums_needed:.1f} vectors of sums must be "
        f"under way at any time to reach the ceiling; a tile has {TILE_ROWS * TILE_VECTORS}.",
    ]
    if machine.threads == 1:
        sentences.append("This process uses one thread, so the rung of threads is left out.")
    return sentences


def title(rung: Rung, figures: Figures) -> str:
    if rung is THREADS:
        return f"{rung.name} ({figures.threads})"
    return f"{rung.name} ({blas_name()})" if rung is NUMPY else rung.name


def changed(rung: Rung, figures: Figures) -> str:
    """What the rung does otherwise than the one before."""
    said = rung.changed
    if figures.rows < figures.size:
        said += f" It computes {figures.rows} of the {figures.size} rows of c."
    if rung is NUMPY and figures.threads > 1:
        said += f" On {figures.threads} threads, in a process of its own."
    return said


def sources(rung: Rung) -> list[str]:
    """Where to read it: "minidl/kernels/ladder.py:25 naive"."""
    return [f"minidl/{file}{line_of(file, name)} {name}" for file, name in rung.sources]


def line_of(file: str, name: str) -> str:
    """ ":25", where a function of a file below minidl/ begins; "" if there is no source to read.

    ValueError if the file has no function of that name.
    """
    module = import_module("minidl." + file.removesuffix(".py").replace("/", "."))
    try:
        lines = inspect.getsource(module).splitlines()
    except OSError:
        return ""
    for number, line in enumerate(lines, 1):
        if line.strip().startswith(f"def {name}("):
            return f":{number}"
    raise ValueError(f"minidl/{file} has no function {name}")


def notes(machine: Machine, results: list[tuple[Rung, Figures]]) -> list[str]:
    """What made the figures worse than this machine is, if anything did."""
    found = []
    alone = min([machine.share, *(f.share for _, f in results if f.threads == 1)])
    if alone < _BUSY:
        found.append(
            f"This processor was busy: at times, other processes had {percent_text(1 - alone)} of it. "
            "What one thread does is told for the time that it ran, but the caches were not its own. "
            "Better figures come from a quiet machine."
        )
    together = [f for _, f in results if f.threads > 1]
    if machine.threads > 1:
        gain = machine.ceiling_together / machine.ceiling
        share = min([machine.share_together, *(f.share for f in together)])
        if gain < 0.8 * machine.threads or any(f.is_crowded for f in together):
            found.append(
                f"{machine.threads} threads make {gain:.2f} times the multiply-adds of one, not "
                f"{machine.threads} times: " + _why_threads_gain_little(machine, share)
            )
    if any(f.of_ceiling > 1.02 for _, f in results):
        found.append("A rung above the ceiling: the machine was slower when the ceiling was measured.")
    return found


def _why_threads_gain_little(machine: Machine, share: float) -> str:
    if share < _BUSY:
        return (
            f"another core is busy. Other processes had up to {percent_text(1 - share)} of these processors' time. "
            "Threads look useless then; on a quiet machine they are not."
        )
    if machine.shares_cores:
        return "some of these processors are hyper-threads of one core, and share its multiply-add units."
    return (
        "no other process of this system had their time. The cores may share a clock, or a virtual machine's host runs "
        "others on them."
    )


# ---------------------------------------------------------------- the terminal


def heading(size: int, machine: Machine, width: int) -> str:
    return "\n".join(wrap(sentence, width) for sentence in head(size, machine))


def speed(figures: Figures, before: float) -> list[str]:
    """Its speed, its part of the ceiling, its gain. ``before``: the rate of the rung before, 0 for none."""
    whose = f" of {figures.threads} threads" if figures.threads > 1 else ""
    said = [f"{rate_text(figures.rate)} GFLOP/s", f"{percent_text(figures.of_ceiling)} of the ceiling{whose}"]
    return said + ([f"{times_text(figures.rate / before)} times the last"] if before else [])


def bar(figures: Figures, width: int, blocks: bool) -> str:
    """Its speed as a part of what all threads can do; a line marks the ceiling of one."""
    machine, room = figures.machine, width - 2
    top = max(machine.ceiling, machine.ceiling_together)
    eighths = round(8 * room * min(1.0, figures.rate / top))
    whole, rest = divmod(eighths, 8)
    drawn = (_BLOCKS[7] if blocks else "#") * whole
    if whole < room:
        drawn += (_BLOCKS[max(rest, 1) - 1] if rest or not whole else " ") if blocks else " "
    drawn = list(drawn.ljust(room))
    mark = round(room * machine.ceiling / top) - 1
    if mark < room - 1 and drawn[mark] == " ":
        drawn[mark] = "\u2502" if blocks else "|"
    return "[" + "".join(drawn) + "]"


def rung_text(number: int, rung: Rung, figures: Figures, before: float, width: int, blocks: bool) -> str:
    lines = [
        wrap(f"{number} {title(rung, figures)}: {', '.join(speed(figures, before))}", width),
        bar(figures, width, blocks),
        wrap(changed(rung, figures), width, "  "),
        wrap(rung.waits(figures), width, "  "),
        *(f"  {place}" for place in sources(rung)),
    ]
    return "\n".join(lines)


def loop_text(loop: Loop, width: int) -> str:
    return "\n".join([wrap(f"The inner loop, {loop}", width, "  "), *(f"    {line}" for line in loop.lines)])
