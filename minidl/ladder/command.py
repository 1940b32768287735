"""``python -m minidl ladder``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from .. import runtime
from ..kernels import cache
from ..kernels.jit import JIT_DISABLED
from ..pages import check_writable, wrap
from ..validation import check_int
from . import page, text
from .assembly import inner_loop
from .figures import measure_machine
from .measure import LEAST, MOST, climb, compile_rungs

_SECONDS = 0.5
"""For each rung, and about as long for the ceilings."""


def add_options(add) -> None:
    """``add``: `argparse.ArgumentParser.add_argument`."""
    add("--size", type=int, default=768, help=f"of the square matrices, {LEAST} to {MOST}")
    add("--threads", type=int, default=None, help="of the last rungs; default: all processors")
    add("--asm", action="store_true", help="show the machine code of each inner loop")
    add("--html", metavar="FILE", default=None, help="write the same as a page, too")


def run(options: argparse.Namespace) -> None:
    """Measure and tell; what is wrong with an option is said before anything is measured."""
    size = check_int("--size", options.size, LEAST, MOST)
    if options.threads is not None:
        runtime.set_num_threads(check_int("--threads", options.threads, 1, 256))
    if JIT_DISABLED:
        raise ValueError("the ladder needs compiled code, and NUMBA_DISABLE_JIT is set")
    if options.html is not None:
        check_writable("--html", options.html)
    width, blocks = min(max(shutil.get_terminal_size().columns, 40), 100), _can_show(text._BLOCKS + "\u2502")
    seconds, is_new = compile_rungs()
    kept = "they are kept on disk" if cache.folder() else f"they are not kept: {cache.ADVICE}"
    print(wrap(f"kernels: {seconds:.1f} s to {f'compile; {kept}' if is_new else 'load from disk'}", width))
    machine = measure_machine(_SECONDS)
    print(text.heading(size, machine, width), flush=True)
    if machine.threads < (options.threads or 1):
        print(wrap(f"No more threads are used than there are processors: {machine.threads}.", width))
    results, loops = [], {}
    for number, (rung, figures) in enumerate(climb(machine, size, _SECONDS), 1):
        before = results[-1][1].rate if results else 0.0
        print("\n" + text.rung_text(number, rung, figures, before, width, blocks), flush=True)
        results.append((rung, figures))
        if options.asm and rung.kernel and rung.kernel not in loops:
            loops[rung.kernel] = inner_loop(rung.kernel)
            print(text.loop_text(loops[rung.kernel], width), flush=True)
    for note in text.notes(machine, results):
        print("\n" + wrap(note, width))
    if options.html is not None:
        Path(options.html).write_text(page.html(size, machine, results, loops), encoding="utf-8")
        print(f"\nwritten to {options.html}")


def _can_show(characters: str) -> bool:
    """Whether standard output has these characters."""
    try:
        characters.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
