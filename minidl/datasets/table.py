"""Tables in files: CSV with a header, read with the standard library, and its columns as numbers.

``read_table`` reads the text; ``describe_columns`` finds which columns hold numbers and which words; ``encode`` makes
the array: a column of numbers stays one column, one of words becomes a column of 0 and 1 for each word.
"""

import csv
import math
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..validation import known_names, shorten

MOST_WORDS = 30
"""A column of more different words is refused: it would become as many columns."""
_MISSING = {"", "na", "n/a", "#n/a", "nan", "null", "none", "?"}
_DELIMITERS = ",;\t|"
_LARGEST = float(np.finfo(np.float32).max)


class Table(NamedTuple):
    """The text of a file: the columns' names, and each row with the number of its line."""

    path: str
    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    def texts(self, name: str) -> list[str]:
        """A column, by its name."""
        if name not in self.names:
            raise ValueError(f"{self.path} has no column {shorten(name)}: {known_names(name, self.names)}")
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    def place(self, name: str, row: int) -> str:
        """Where a value stands, for a message."""
        return f"{self.path}, line {self.lines[row]}, column {name!r} (row {row + 1} of the data)"


class Column(NamedTuple):
    """A column to learn from: its name, and the words that it may hold; None for numbers."""

    name: str
    words: list[str] | None = None


def read_table(path: str | os.PathLike) -> Table:
    """The table in a CSV file of UTF-8 text, whose first line names its columns.

    Fields are divided by what divides most of the header: comma, semicolon, tab or bar. Raises ValueError, naming file
    and line, for other text, columns of no name or of one name, and rows of other lengths.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(_DELIMITERS, key=header.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            found = [([field.strip() for field in row], reader.line_num) for row in reader if any(row)]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{path} is no UTF-8 text, byte {byte:#04x}: save it as UTF-8, or convert it, "
            "iconv -f latin1 -t utf8"
        ) from None
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: line {reader.line_num}: {error}") from error
    if not found:
        raise ValueError(f"{path} is empty: the first line must name the columns")
    (names, _), *found = found
    _check_header(path, names)
    for row, line in found:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {line} has {len(row)} fields, its header {len(names)}")
    if not found:
        raise ValueError(f"{path} has a header and no rows")
    return Table(path, names, [row for row, _ in found], [line for _, line in found])


def _check_header(path: str, names: Sequence[str]) -> None:
    if all(_as_number(name) is not None for name in names):
        raise ValueError(f"{path}: the first line must name the columns, got numbers: {shorten(list(names))}")
    for place, name in enumerate(names):
        if not name:
            raise ValueError(
                f"{path}: column {place + 1} has no name. pandas writes its index like that: "
                "frame.to_csv(path, index=False)"
            )
        if name in names[:place]:
            first = list(names).index(name) + 1
            raise ValueError(f"{path}: columns {first} and {place + 1} have one name, {name!r}")


def _as_number(text: str) -> float | None:
    """The number that a text is; None for a word. 1_000 is one to Python alone."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def numbers_of(table: Table, name: str) -> np.ndarray | None:
    """A column as float64 (N,), or None if it holds words; a missing value is refused, and one beyond float32."""
    texts = table.texts(name)
    for row, text in enumerate(texts):
        if text.lower() in _MISSING:
            raise ValueError(
                f"{table.place(name, row)}: a value is missing, got {text!r}: fill it (a word such as "
                "unknown is a value), or leave out the row or the column (--drop)"
            )
    numbers = [_as_number(text) for text in texts]
    if any(number is None for number in numbers):
        return None
    for row, number in enumerate(numbers):
        if not math.isfinite(number) or abs(number) > _LARGEST:
            raise ValueError(f"{table.place(name, row)}: {texts[row]} is too large for a number of float32")
    return np.array(numbers, np.float64)


def describe_columns(table: Table, without: Iterable[str] = ()) -> list[Column]:
    """Each column that is not left out, with its words if it holds words; too many different ones are refused."""
    columns = []
    for name in table.names:
        if name in without:
            continue
        words = None
        if numbers_of(table, name) is None:
            texts = table.texts(name)
            words = sorted(set(texts))
            if len(words) > MOST_WORDS:
                row = next(row for row, text in enumerate(texts) if _as_number(text) is None)
                raise ValueError(
                    f"{table.path}: column {name!r} holds {len(words)} different words, {MOST_WORDS} at most become "
                    f"columns of 0 and 1. Leave it out (--drop {name!r}) or make numbers of it; the first that is no "
                    f"number is {shorten(texts[row])} in line {table.lines[row]}"
                )
        columns.append(Column(name, words))
    if not columns:
        raise ValueError(f"{table.path} has no column to learn from")
    return columns


def encode(table: Table, columns: Iterable[Sequence]) -> np.ndarray:
    """float64 (N, features) of these columns, ``Column`` or [name, words], in their order, whatever the file's is.

    Raises ValueError for a column that is not there, a word that is not among a column's, and where numbers are
    wanted and words stand.
    """
    parts = []
    for name, words in columns:
        if words is None:
            numbers = numbers_of(table, name)
            if numbers is None:
                texts = table.texts(name)
                row = next(row for row, text in enumerate(texts) if _as_number(text) is None)
                raise ValueError(f"{table.place(name, row)}: must be a number, got {shorten(texts[row])}")
            parts.append(numbers[:, None])
            continue
        places = {word: place for place, word in enumerate(words)}
        texts = table.texts(name)
        for row, text in enumerate(texts):
            if text not in places:
                raise ValueError(f"{table.place(name, row)}: {known_names(text, words)}; got {shorten(text)}")
        parts.append(np.eye(len(words))[[places[text] for text in texts]])
    return np.concatenate(parts, axis=1)
