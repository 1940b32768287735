"""Sections as text: plain ASCII but for names, at any width from 40 columns on."""

from __future__ import annotations

import numpy as np

from ..pages import wrap
from ..tables import format_table
from .document import Matrix, Section, Sum, Table

_INDENT = 14


def render(sections: list[Section], width: int, most: int | None) -> str:
    """``most``: of each matrix, at most so many rows and columns."""
    blocks = [section_text(section, width, most) for section in sections]
    return "\n\n".join(blocks) + "\n"


def section_text(section: Section, width: int, most: int | None) -> str:
    lines = [*wrap(section.title, width).split("\n"), "-" * min(len(section.title), width)]
    if section.formula:
        lines.append(wrap(section.formula, width))
    for part in section.parts:
        if isinstance(part, Matrix):
            lines += _matrix(part, width, most)
        elif isinstance(part, Table):
            lines += _table(part, width)
        elif isinstance(part, Sum):
            indent = _INDENT if len(part.text) + _INDENT <= width else 2
            lines.append(wrap(part.text, width, " " * indent))
        else:
            lines.append(wrap(part, width))
    return "\n".join(lines)


def cut(values: np.ndarray, most: int | None) -> tuple[np.ndarray, str]:
    """The first rows and columns of a matrix, and what to say of the rest."""
    values = np.atleast_2d(values)
    values = values.reshape(len(values), -1) + 0.0  # no -0.0
    if most is None or max(values.shape) <= most:
        return values, ""
    return values[:most, :most], f"the first of {values.shape[0]} x {values.shape[1]}"


def _matrix(part: Matrix, width: int, most: int | None) -> list[str]:
    values, rest = cut(part.values, most)
    note = ", ".join(said for said in (part.note, rest) if said)
    # a name that is too long for its column stands on a line of its own
    named = f"{part.name + ' =':>13} " if len(part.name) <= _INDENT - 3 else f"{'':>{_INDENT}}"
    lines = [] if named.strip() else [f"  {part.name} ="]
    shown = np.array2string(
        values,
        precision=4,
        suppress_small=_is_plain(values),
        floatmode="fixed",
        sign=" ",
        max_line_width=width,
        prefix=" " * _INDENT,
        threshold=values.size + 1,
    )
    lines += (named + shown).split("\n")
    if note and len(lines[-1]) + 3 + len(note) <= width:
        lines[-1] += f"   {note}"
    elif note:
        lines.append(wrap(f"({note})" if not note.startswith("(") else note, width, " " * _INDENT))
    return lines


def _is_plain(values: np.ndarray) -> bool:
    """Whether four decimals show the larger numbers."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    return not size.size or bool(size.max() < 1e5 and size.max() >= 1e-3)


def _table(part: Table, width: int) -> list[str]:
    lines = format_table(part.head, part.rows).split("\n")
    if max(map(len, lines)) <= width:
        return ["  " + line if len(line) + 2 <= width else line for line in lines]
    # too wide: each row becomes a few lines of "head: cell"
    found = []
    for row in part.rows:
        pairs = [f"{head}: {cell}" for head, cell in zip(part.head, row, strict=True)]
        found.append(wrap("; ".join(pairs), width, "  "))
    return found
