"""Attributions over images: which pixels raise an answer, which lower it, and where two models look differently."""

from typing import Any

import numpy as np

from ..validation import check_array, check_finite
from .axes import axes_for, note

_COLORS = "RdBu_r"
_SIGNS = "red raises the output, blue lowers it"


def attribution(image: np.ndarray, values: np.ndarray, ax: Any = None) -> Any:
    """An image in gray, under what each of its pixels does to an output: red raises it, blue lowers it.

    ``image`` (H, W) or (H, W, channels); ``values`` of its shape, as of `minidl.saliency` or
    `minidl.integrated_gradients` for one sample. Channels are summed. Colours are symmetric around 0, where the image
    shows through.
    """
    image, values = _gray("image", image), _gray("values", values)
    _check_alike(image, values=values)
    ax = axes_for(ax, 5.2, 4.2)
    drawn = _draw(ax, image, values, np.abs(values).max(), 0)
    ax.figure.colorbar(drawn, ax=ax, label="attribution", shrink=0.8)
    ax.set(xlabel="column", ylabel="row")
    note(ax, _SIGNS)
    return ax


def compare_attributions(
    image: np.ndarray, teacher_values: np.ndarray, student_values: np.ndarray, ax: Any = None
) -> Any:
    """Where teacher and student look differently: the attributions of each over the same image, and the difference.

    Arguments as in `attribution`. Each model's values are divided by the sum of their magnitudes, for logits of two
    models have two scales: what is drawn are shares. All three have one scale of colours. The title is half the sum of
    the magnitudes of the difference: 0 % where both look at the same, 100 % where they share nothing.
    """
    image = _gray("image", image)
    given = {"teacher_values": teacher_values, "student_values": student_values}
    values = {name: _gray(name, each) for name, each in given.items()}
    _check_alike(image, **values)
    teacher, student = (_shares(name, each) for name, each in values.items())
    panels = {"teacher": teacher, "student": student, "teacher - student": teacher - student}
    ax = axes_for(ax, 9.6, 3.8)
    height, width = image.shape
    step = width + max(2, width // 10)
    most = max(np.abs(each).max() for each in panels.values())
    for place, each in enumerate(panels.values()):
        drawn = _draw(ax, image, each, most, place * step)
    ax.set_xlim(-0.5, 2 * step + width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_xticks([place * step + (width - 1) / 2 for place in range(3)], list(panels))
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(drawn, ax=ax, label="share of a model's attribution", shrink=0.8, format="{x:.1%}")
    ax.set(title=f"they differ by {np.abs(teacher - student).sum() / 2:.0%}")
    note(ax, f"{_SIGNS}; in the difference red is where the teacher's is larger")
    return ax


def _gray(argument: str, array: Any) -> np.ndarray:
    """float64 (H, W): channels are summed, as attributions add up."""
    array = check_array(argument, array)
    check_finite(argument, array)
    if array.ndim == 3:
        array = array.sum(axis=2, dtype=np.float64)
    if array.ndim != 2:
        hint = "" if array.ndim != 1 else f"; write {argument}.reshape(height, width)"
        raise ValueError(f"{argument} must have shape (H, W) or (H, W, channels), got {array.shape}{hint}")
    return array.astype(np.float64)


def _check_alike(image: np.ndarray, **values: np.ndarray) -> None:
    for name, each in values.items():
        if each.shape != image.shape:
            raise ValueError(
                f"{name} must have the height and width of image, {image.shape}, got {each.shape}"
            )


def _shares(argument: str, values: np.ndarray) -> np.ndarray:
    total = np.abs(values).sum()
    if total == 0:
        raise ValueError(f"{argument} must not all be 0: shares of them cannot be compared")
    return values / total


def _draw(ax: Any, image: np.ndarray, values: np.ndarray, most: float, left: float) -> Any:
    """``values`` in colours over a pale ``image``, whose first column is at ``left``; returns their scale.

    The nearer a value is to 0, the more of the image shows through.
    """
    height, width = image.shape
    extent = (left - 0.5, left + width - 0.5, height - 0.5, -0.5)
    most = most or 1.0
    low, high = image.min(), image.max()
    ax.imshow(image, cmap="gray_r", extent=extent, vmin=low, vmax=low + 2.5 * ((high - low) or 1.0))
    alpha = np.clip(np.abs(values) / most * 1.5, 0, 1)
    ax.imshow(values, cmap=_COLORS, vmin=-most, vmax=most, alpha=alpha, extent=extent)
    # colours of the scale are those of opaque pixels
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-most, most), _COLORS)
