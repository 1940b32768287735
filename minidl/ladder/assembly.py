"""The machine code of a kernel's inner loop, and what can be counted in it."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from numba.core import types

from ..kernels import ladder
from ..kernels.jit import assembly
from ..kernels.units import array

_LABEL = re.compile(r"(\.?L\w+):")
_JUMP = re.compile(r"(?:j\w+|b|b\.?\w\w|cbn?z|tbn?z)\s(?:.*[\s,])?(\.?L\w+)$")
_MULTIPLY_ADD = re.compile(r"v?fn?m(add|sub)\w*|(fmla|fmls)(\.\w+)?")
_MULTIPLY = re.compile(r"v?mul[sp][sd]|fmul(\.\w+)?")
_STACK = re.compile(r"\(%rsp|\[sp\b")
_FRAME = re.compile(r"\(%rbp|\[x29\b")


class Loop(NamedTuple):
    """A loop, instruction by instruction (AT&T syntax on x86), with its label first.

    ``multiply_adds`` counts multiplications where the processor has no fused multiply-add. ``lanes`` is how many
    numbers each takes at once. ``spills`` are loads and stores of the stack: values for which no register was left.
    """

    lines: tuple[str, ...]
    multiply_adds: int
    lanes: int
    loads: int
    stores: int
    spills: int

    def __str__(self) -> str:
        counted = (
            (self.multiply_adds, "multiply-add"),
            (self.loads, "load"),
            (self.stores, "store"),
            (self.spills, "spill"),
        )
        numbers = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counted]
        numbers[0] += f" of {self.lanes} lane{'' if self.lanes == 1 else 's'}"
        return f"{len(self.lines) - 1} instructions: {', '.join(numbers)}"


@functools.cache
def inner_loop(kernel: str) -> Loop:
    """The inner loop of a function of `kernels.ladder`, compiled anew for float32."""
    return find_loop(assembly(getattr(ladder, kernel), (array(types.float32, 2),) * 3))


def find_loop(text: str) -> Loop:
    """The loop without a loop inside that has the most multiply-adds, counted by lanes; ValueError if there is none."""
    loops = [_read(lines, frame) for function in _functions(text) for lines, frame in _innermost(function)]
    if not loops:
        raise ValueError("there is no loop in this machine code")
    return max(loops, key=lambda loop: (loop.multiply_adds * loop.lanes, -len(loop.lines)))


def _functions(text: str) -> list[list[str]]:
    """The lines of each function, without directives and comments."""
    functions: list[list[str]] = [[]]
    for line in text.splitlines():
        line = re.sub(r"\s+", " ", line.split("//")[0].split("##")[0]).strip()
        is_label = line.endswith(":")
        if is_label and not _LABEL.fullmatch(line):
            functions.append([])
        elif line and not line.startswith("#") and (is_label or not line.startswith(".")):
            functions[-1].append(line)
    return functions


def _innermost(lines: list[str]) -> list[tuple[list[str], bool]]:
    """(its lines, whether a register points into the stack) of each loop: what lies between a label and a jump back."""
    labels, spans = {}, []
    has_frame = any(re.search(r"mov\w* %rsp, %rbp|(mov|add) x29, sp", line) for line in lines)
    for at, line in enumerate(lines):
        if label := _LABEL.fullmatch(line):
            labels[label[1]] = at
        elif (jump := _JUMP.fullmatch(line)) and jump[1] in labels:
            spans.append((labels[jump[1]], at))
    inner = [(a, z) for a, z in spans if not any(a <= b and y <= z and (b, y) != (a, z) for b, y in spans)]
    return [(lines[a : z + 1], has_frame) for a, z in inner]


def _read(lines: list[str], has_frame: bool) -> Loop:
    instructions = [line for line in lines if not line.endswith(":")]
    names = [line.split()[0] for line in instructions]
    adds = [i for i, name in enumerate(names) if _MULTIPLY_ADD.fullmatch(name)]
    adds = adds or [i for i, name in enumerate(names) if _MULTIPLY.fullmatch(name)]
    loads = stores = spills = 0
    for name, line in zip(names, instructions, strict=True):
        kind, count = _memory(name, line)
        loads += count * (kind == "load")
        stores += count * (kind == "store")
        on_stack = _STACK.search(line) or (has_frame and _FRAME.search(line))
        spills += count * bool(kind and on_stack)
    lanes = max((_lanes(names[i], instructions[i]) for i in adds), default=1)
    return Loop(tuple(lines), len(adds), lanes, loads, stores, spills)


def _memory(name: str, line: str) -> tuple[str, int]:
    """("load", "store" or "", how many numbers or vectors)."""
    if "[" in line and name[:2] in ("ld", "st"):  # ARM; ldp and stp move two
        return "load" if name.startswith("ld") else "store", 2 if name[:3] in ("ldp", "stp") else 1
    if "(" not in line or name.startswith(("lea", "prefetch", "nop", "j", "call")):
        return "", 0
    return "store" if "mov" in name and line.endswith(")") else "load", 1


def _lanes(name: str, line: str) -> int:
    """float32 numbers that an arithmetic instruction takes at once."""
    if arm := re.search(r"\.(\d)s", line):
        return int(arm[1])
    if not name.endswith("ps"):
        return 1
    return 16 if "%zmm" in line else 8 if "%ymm" in line else 4
