"""What is shown, apart from how: sections of sentences, matrices and tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Matrix:
    """An array by name. Of one axis: a row."""

    name: str
    values: np.ndarray
    note: str = ""


@dataclass
class Table:
    """Cells of text below a head."""

    head: list[str]
    rows: list[list[str]]


@dataclass
class Sum:
    """One entry of a product, with its numbers filled in: ``name = 1*0.5 + 2*0.2 + 0.1 = 1.0000``."""

    text: str


Part = str | Matrix | Table | Sum
"""A string is a paragraph."""


@dataclass
class Section:
    title: str
    formula: str = ""
    parts: list[Part] = field(default_factory=list)

    def add(self, *parts: Part) -> None:
        self.parts += parts


def dot(name: str, a, b, result: float, *more: float) -> Sum:
    """The sum of the products of ``a`` and ``b``, and of what is added to it; the middle of a long one is left out."""
    terms = [f"{u:.4g}*{v:.4g}" for u, v in zip(a, b, strict=True)]
    if len(terms) > 6:
        terms = [*terms[:3], "...", *terms[-1:]]
    terms += [f"{value:.4g}" for value in more]
    return Sum(f"{name} = {' + '.join(terms)} = {result:.4f}")


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is readable."""
    size = abs(value)
    if size == 0 or 1e-4 <= size < 1e5:
        return f"{value:.4g}"
    return f"{value:.2e}"
