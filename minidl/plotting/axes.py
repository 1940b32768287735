"""What pictures share: an ``Axes`` that shows by itself, legends beside it, names of classes that fit."""

import functools
import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from ..validation import describe

_DPI = 180  # twice what a notebook draws an inch with: sharp on screens of high density
CHARACTER = 0.085  # inches, in the font of labels
FAINT = "gray"  # on light and dark grounds alike


def axes_for(ax: Any, width: float = 6.0, height: float = 4.0) -> Any:
    """``ax``, or for None the only ``Axes`` of a new figure of that size in inches."""
    if ax is not None:
        if not callable(getattr(ax, "plot", None)):
            raise TypeError(f"ax must be a matplotlib Axes, got {describe(ax)}")
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "minidl[plots]"') from error
    # outside pyplot, which would keep every figure until it is closed, and show none of them again
    ax = Figure(figsize=(width, height), layout="constrained").add_subplot()
    ax._repr_png_ = functools.partial(_png_of, ax)  # what IPython asks an object for
    return ax


def _png_of(ax: Any) -> tuple[bytes, dict]:
    """The figure of ``ax`` as PNG, and the size at which a notebook shows it."""
    stream = io.BytesIO()
    ax.figure.savefig(stream, format="png", dpi=_DPI)
    width, height = ax.figure.get_size_inches() * _DPI / 2
    return stream.getvalue(), {"width": round(width), "height": round(height)}


def note(ax: Any, text: str) -> None:
    """A few words below the x axis's label."""
    label = ax.get_xlabel()
    ax.set_xlabel(f"{label}\n{textwrap.fill(text, 66)}" if text else label, fontsize="small")


def legend_outside(ax: Any, **options: Any) -> None:
    """To the right of the plot, where it hides nothing; long labels are wrapped."""
    handles, labels = ax.get_legend_handles_labels()
    labels = [textwrap.fill(label, 30) for label in labels]
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small", **options)


def class_names(classes: Sequence[str] | None, count: int, of: str) -> list[str]:
    if isinstance(classes, str) or not isinstance(classes, (Iterable, type(None))):
        raise TypeError(f"classes must be a list of names, got {describe(classes)}")
    names = [str(name) for name in (range(count) if classes is None else classes)]
    if len(names) != count:
        raise ValueError(
            f"classes must have one name for each of the {count} classes of {of}, got {len(names)}"
        )
    return names


LONGEST = 24  # characters in a line of a class's name


def wrap(name: str, width: int = LONGEST) -> str:
    """A name in lines of at most ``width`` characters; of a very long one the beginning."""
    lines = textwrap.wrap(name, width, max_lines=3, placeholder=" …", break_on_hyphens=False)
    return "\n".join(lines) or name


def class_ticks(names: list[str], room: float) -> tuple[list[str], float]:
    """Labels for the x axis, ``room`` inches apart, and the height they need if they have to stand upright, else 0."""
    width = max(int(room / CHARACTER) - 1, 1)  # a character stays free
    if max(len(word) for name in names for word in [*name.split(), ""]) <= width:
        return [wrap(name, width) for name in names], 0.0
    labels = [wrap(name) for name in names]
    return labels, CHARACTER * max(len(line) for label in labels for line in label.split("\n"))
