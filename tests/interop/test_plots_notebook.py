"""Pictures show by themselves in a notebook, name their classes, and say what can be compared."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import subprocess
import sys
import weakref

import numpy as np
import pytest
from extras import needs

needs("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from minidl import plotting  # noqa: E402
from minidl.callbacks import History  # noqa: E402
from minidl.layers import Dense, Input  # noqa: E402
from minidl.models import Sequential  # noqa: E402

rng = np.random.default_rng(3)
LONG = [f"{name} of a long name" for name in ("a house", "an incomprehensibilities", "c", "d", "e")]


def answers(samples=200, classes=5, noise=1.0):
    """Labels, a teacher's logits and a student's, who is right less often."""
    y = rng.integers(0, classes, samples)
    teacher = 3.0 * np.eye(classes)[y] + rng.normal(0, 1, (samples, classes))
    return y, teacher, teacher + rng.normal(0, noise, teacher.shape)


def history(training_loss="", **logs):
    made = History()
    made.history, made.training_loss = logs, training_loss
    return made


# ---------------------------------------------------------------- notebooks


def test_axes_of_their_own_show_as_png_at_half_their_pixels():
    ax = plotting.learning_curves(history(loss=[2.0, 1.0]))
    png, shown = ax._repr_png_()
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and (width, height) == (2 * shown["width"], 2 * shown["height"])
    mine = Figure().add_subplot()
    assert not hasattr(plotting.learning_curves(history(loss=[1.0]), ax=mine), "_repr_png_"), "control"


def test_ipython_shows_them():
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, about = formatters.DisplayFormatter().format(plotting.reliability(*answers()[1::-1]))
    assert shown["image/png"][:4] == b"\x89PNG" and about["image/png"]["width"] > 300
    html, _ = formatters.DisplayFormatter().format(Sequential([Input((3,)), Dense(2)]))
    assert "<table" in html["text/html"] and html["text/plain"].startswith("<Sequential")


def test_figures_do_not_pile_up_and_need_no_pyplot():
    ax = plotting.learning_curves(history(loss=[2.0, 1.0]))
    ax._repr_png_()
    seen = weakref.ref(ax.figure)
    del ax
    gc.collect()
    assert seen() is None
    code = (
        "import sys; from minidl import plotting; from minidl.callbacks import History; h = History(); "
        "h.history = {'loss': [1.0]}; plotting.learning_curves(h)._repr_png_(); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_axes_are_pickled_and_copied():
    ax = plotting.learning_curves(history(loss=[2.0, 1.0]))
    for again in (pickle.loads(pickle.dumps(ax)), copy.copy(ax)):
        assert again._repr_png_()[0][:4] == b"\x89PNG"


def test_axes_are_refused_by_name():
    with pytest.raises(TypeError, match="ax must be a matplotlib Axes, got"):
        plotting.confusion(*answers()[1:], ax=Figure())


# ---------------------------------------------------------------- what is comparable


def legend(ax):
    return [text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts()]


def test_a_fit_says_what_its_training_loss_is():
    x, y = rng.random((40, 4), np.float32), rng.integers(0, 3, 40)

    def trained(**arguments):
        model = Sequential([Input((4,)), Dense(3, "softmax")], seed=0)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model.fit(x, y, epochs=4, verbose=0, validation_data=(x, y), **arguments)

    plain, rare = trained(), trained(validation_freq=2)
    taught = trained(target_model=rng.normal(0, 1, (40, 3)))
    weighted = trained(class_weight={0: 2.0, 1: 1.0, 2: 1.0}, sample_weight=np.ones(40))
    assert [each.training_loss for each in (plain, taught, weighted)] == [
        "",
        "distillation loss",
        "loss with class_weight and sample_weight",
    ]
    assert legend(plotting.learning_curves(plain)) == ["training", "validation"]
    assert legend(plotting.learning_curves(taught))[0] == "training: distillation loss (not comparable)"
    both = plotting.learning_curves({"student": taught, "plain": plain})
    assert legend(both) == ["student validation", "plain validation"] and "left out" in both.get_xlabel()
    same = plotting.learning_curves({"one": taught, "two": taught})
    assert len(same.lines) == 4, "of one kind they are comparable"
    assert list(plotting.learning_curves(rare).lines[1].get_xdata()) == [2, 4], (
        "validated after every second epoch"
    )


def test_validation_alone():
    logs = history(loss=[1.0, 0.5], val_loss=[1.5, 1.0])
    (line,) = plotting.learning_curves(logs, "val_loss").lines
    assert (line.get_label(), list(line.get_xdata())) == ("validation", [1, 2])


def test_a_single_epoch_is_seen():
    ax = plotting.learning_curves(history(loss=[1.0], val_loss=[1.5], mean=[1.0]))
    assert [(list(line.get_xdata()), line.get_marker()) for line in ax.lines] == [([0.5], "o"), ([1.0], "s")]
    assert not [
        line for line in plotting.learning_curves(history(loss=[1.0] * 300)).lines if line.get_marker()
    ]


# ---------------------------------------------------------------- answers


def test_confusion_of_any_two():
    y, teacher, student = answers()
    for given, names, truth, said in (
        (dict(student_logits=student, y=y), ("label", "student says"), y, student),
        (dict(teacher_logits=teacher, y=np.eye(5)[y]), ("label", "teacher says"), y, teacher),
        (
            dict(teacher_logits=teacher, student_logits=student),
            ("teacher says", "student says"),
            teacher.argmax(axis=1),
            student,
        ),
    ):
        ax = plotting.confusion(**given, classes=LONG)
        counts = np.zeros((5, 5), int)
        np.add.at(counts, (truth, said.argmax(axis=1)), 1)
        shown = {(t.get_position()[1], t.get_position()[0]): int(t.get_text()) for t in ax.texts}
        assert shown == {(r, c): counts[r, c] for r, c in np.ndindex(5, 5) if r != c and counts[r, c]}
        assert (ax.get_ylabel(), ax.get_xlabel()) == names and f"{counts.trace() / 200:.2%}" in ax.get_title()
    unknown = plotting.confusion(student_logits=student, y=np.where(np.arange(200) < 50, y, -1))
    right = (student[:50].argmax(axis=1) == y[:50]).mean()
    assert unknown.get_title() == f"right: {right:.2%} of 50"


def test_confusion_refuses():
    y, teacher, student = answers()
    for given, message in (
        (dict(), "confusion compares two of teacher_logits, student_logits, y, got none"),
        (dict(y=y), "confusion compares two of .*, got y"),
        (
            dict(teacher_logits=teacher, student_logits=student, y=y),
            "confusion compares two of .*, got teacher",
        ),
        (
            dict(student_logits=student, y=y[:9]),
            "y must have one row per sample of logits: expected 200, got 9",
        ),
        (dict(student_logits=student, y=y + 1), r"y must hold whole numbers in -1..4"),
        (dict(student_logits=student, y=0 * y - 1), "y must hold labels, got none >= 0"),
        (dict(student_logits=student, y=y, classes="abcde"), "classes must be a list of names, got 'abcde'"),
        (
            dict(student_logits=student, y=y, classes=["a"]),
            "one name for each of the 5 classes of student_logits",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            plotting.confusion(**given)


def ticks(axis) -> list:
    """The labels of those within the plot; matplotlib keeps one beyond each end."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def outside(ax) -> list[str]:
    """Texts of which a part is beyond the figure's edge."""
    FigureCanvasAgg(ax.figure).draw()
    shown = [*ax.texts, *ticks(ax.xaxis), *ticks(ax.yaxis), ax.title, ax.xaxis.label, ax.yaxis.label]
    shown += ax.get_legend().get_texts() if ax.get_legend() else []
    edge = ax.figure.bbox.padded(1)
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_text()]
    return [text for text, box in boxes if not all(edge.contains(*corner) for corner in box.corners())]


def overlapping(axis) -> list[str]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in ticks(axis) if text.get_text()]
    return [text for (text, a), (_, b) in itertools.pairwise(boxes) if a.overlaps(b)]


@pytest.mark.parametrize("classes", [2, 26])
def test_names_and_counts_have_room(classes):
    names = [f"class {i}, {'with a very long name' * (i % 2)}" for i in range(classes)]
    y, teacher, student = answers(3000, classes, 2.0)
    for ax in (
        plotting.confusion(teacher, student, classes=names),
        plotting.softened_probabilities(teacher[0], classes=names),
        plotting.reliability({"teacher": teacher, "student": student}, y),
    ):
        assert not outside(ax) and not overlapping(ax.xaxis) and not overlapping(ax.yaxis)
    ax = plotting.confusion(student_logits=student, y=y)
    assert not outside(ax) and all(text.get_fontsize() >= 5 for text in ax.texts)
    cell = ax.get_window_extent().width / classes
    assert all(text.get_window_extent().width < cell for text in ax.texts)


def test_many_classes_are_told_by_colours_and_the_likeliest():
    y, teacher, student = answers(3000, 300)
    ax = plotting.confusion(teacher, student, classes=[f"word {i}" for i in range(300)])
    assert not ax.texts and len(ax.figure.axes) == 2 and not outside(ax) and not overlapping(ax.yaxis)
    assert [text.get_text() for text in ticks(ax.yaxis)][:3] == ["word 0", "word 8", "word 16"]
    ax = plotting.softened_probabilities(teacher[0], (4,))
    shown = [int(text.get_text()) for text in ticks(ax.xaxis)]
    assert shown == np.argsort(-teacher[0])[:30].tolist() and "the 30 likeliest of 300" in ax.get_xlabel()


def test_the_checks_of_room_can_fail():
    ax = plotting.softened_probabilities(np.arange(3.0))
    ax.set_xticks(range(3), ["words that are much too long to stand beside others"] * 3)
    ax.text(1.2, 0.5, "far away", transform=ax.figure.transFigure).set_in_layout(False)
    assert outside(ax) == ["far away"] and len(overlapping(ax.xaxis)) == 2


def test_reliability_writes_the_number_of_samples_of_each_bin():
    y, teacher, _ = answers()
    ax = plotting.reliability(teacher, y, bins=10)
    (above,) = ax.child_axes
    written = [int(text.get_text()) for text in above.texts]
    assert sum(written) == 200 and written == [
        int(bar.get_height()) for bar in above.patches if bar.get_height()
    ]
