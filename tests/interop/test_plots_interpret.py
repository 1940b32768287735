"""Pictures of attributions: colours have the sign of the values, and two models are compared by shares."""

from __future__ import annotations

import numpy as np
import pytest
from extras import needs

needs("matplotlib")

from matplotlib.figure import Figure  # noqa: E402

from minidl import plotting  # noqa: E402

rng = np.random.default_rng(0)
IMAGE = rng.uniform(0, 255, (5, 4))
VALUES, OTHERS = rng.normal(0, 1, (2, 5, 4))


def overlays(ax):
    """What is drawn over the image, one array a panel."""
    return [np.asarray(image.get_array()) for image in ax.images[1::2]]


def test_values_are_drawn_with_their_sign():
    ax = plotting.attribution(IMAGE, VALUES)
    below, above = ax.images
    np.testing.assert_array_equal(below.get_array(), IMAGE)
    np.testing.assert_array_equal(above.get_array(), VALUES)
    assert above.norm.vmin == -above.norm.vmax == -np.abs(VALUES).max()
    red, _, blue, _ = np.moveaxis(above.cmap(above.norm(np.array([-2.0, 2.0]))), 1, 0)
    assert blue[0] > red[0] and red[1] > blue[1], "red raises, blue lowers"
    assert "red raises the output" in ax.get_xlabel() and ax._repr_png_()[0][:4] == b"\x89PNG"
    mine = Figure().add_subplot()
    assert plotting.attribution(IMAGE, np.zeros((5, 4)), ax=mine) is mine


def test_channels_are_summed():
    image, values = rng.uniform(0, 1, (5, 4, 3)), rng.normal(0, 1, (5, 4, 3))
    ax = plotting.attribution(image.astype(np.float32), values)
    np.testing.assert_allclose(overlays(ax)[0], values.sum(axis=2))


def test_teacher_student_and_difference_stand_side_by_side():
    ax = plotting.compare_attributions(IMAGE, VALUES, OTHERS)
    teacher, student = (each / np.abs(each).sum() for each in (VALUES, OTHERS))
    for drawn, expected in zip(overlays(ax), (teacher, student, teacher - student), strict=True):
        np.testing.assert_allclose(drawn, expected)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["teacher", "student", "teacher - student"]
    lefts = [image.get_extent()[0] for image in ax.images[::2]]
    rights = [image.get_extent()[1] for image in ax.images[::2]]
    assert all(right < left for right, left in zip(rights, lefts[1:], strict=False))
    assert ax.get_xlim()[0] <= lefts[0] and ax.get_xlim()[1] >= rights[-1]
    assert len({image.norm.vmax for image in ax.images[1::2]}) == 1, "one scale of colours"
    assert (
        ax.get_title() == f"they differ by {np.abs(teacher - student).sum() / 2:.0%}" != "they differ by 0%"
    )


def test_the_scale_of_logits_does_not_count():
    assert plotting.compare_attributions(IMAGE, VALUES, 7 * VALUES).get_title() == "they differ by 0%"
    assert plotting.compare_attributions(IMAGE, VALUES, -VALUES).get_title() == "they differ by 100%"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((IMAGE.ravel(), VALUES), r"image must have shape \(H, W\).*write image.reshape\(height, width\)"),
        ((IMAGE, VALUES.T), r"values must have the height and width of image, \(5, 4\), got \(4, 5\)"),
        ((IMAGE, VALUES * np.nan), "values must be finite"),
        ((IMAGE, VALUES, "here"), "ax must be a matplotlib Axes, got 'here'"),
        ((IMAGE, np.zeros((5, 4)), OTHERS), "teacher_values must not all be 0"),
        ((IMAGE, VALUES, OTHERS[:3]), "student_values must have the height and width of image"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    compares = len(arguments) == 3 and isinstance(arguments[2], np.ndarray)
    draw = plotting.compare_attributions if compares else plotting.attribution
    with pytest.raises((ValueError, TypeError), match=message):
        draw(*arguments)
