"""Why soft answers teach, and when they do not: one student, taught in eight ways, on four kinds of data.

    python examples/why_soft.py [picture.png]

All students are 784-64-64-10, with the same initial weights seed by seed, and take the same number of steps. 300 of
the 6,000 digits have a label, and all teachers learned from those alone, shifted. A column says which digits students
see; in one column only the target differs, and soft answers come without labels. In the last, no digit is a 3, and none
is called a 3 by any teacher. "Wrong classes shuffled": as sure of the likeliest class, but the others change places by
lot.

Errors of 2,000 (5 seeds, mean and standard deviation; on two cores of an AMD EPYC, family 25, model 1):

                                    300 digits      300, shifted    6,000, shifted   no 3 among them         3s missed
    teacher                                        164.2 +-  9.8
    smoothed teacher                               146.8 +-  4.7
    bad teacher (30 labels)                        660.2 +- 22.9
    labels                      286.8 +-  3.7      217.4 +-  6.2
    labels, smoothed 0.1        302.4 +-  3.5      179.8 +-  7.2
    teacher's argmax            286.8 +-  3.7      217.0 +-  6.4     165.4 +-  5.6     339.6 +-  7.0     200.0 +-  0.0
    teacher's soft answers      279.8 +- 13.8      225.2 +-  5.5     184.6 +-  9.7     303.4 +- 14.8     147.2 +- 16.8
      wrong classes shuffled    295.8 +- 13.7      209.0 +- 15.0     174.8 +-  3.0     344.0 +-  2.0     200.0 +-  0.0
    smoothed teacher's argmax   286.8 +-  3.7      217.6 +-  6.2     147.0 +- 10.9     332.0 +-  9.3     200.0 +-  0.0
    smoothed teacher's soft     269.8 +- 11.7      173.0 +-  8.7     156.2 +- 12.1     326.8 +-  6.2     192.8 +-  5.6
    bad teacher's soft          669.6 +- 16.8      652.2 +- 24.1     658.6 +- 18.8     677.8 +- 14.8      75.2 +-  4.4

The probability of a 3 in the last two columns: percentiles of what students are told, the mean of what they say (T 4):

                                   told 5 %              half              95 %        says of 3s         of others
    teacher's argmax                 0.0000            0.0000            0.0000            0.0060            0.0053
    teacher's soft answers           0.0006            0.0129            0.0989            0.2110            0.0253
      wrong classes shuffled         0.0006            0.0163            0.1264            0.0585            0.0313
    smoothed teacher's argmax        0.0000            0.0000            0.0000            0.0059            0.0053
    smoothed teacher's soft          0.0668            0.0815            0.1071            0.1106            0.0836
    bad teacher's soft               0.0008            0.0243            0.1860            0.3918            0.0593

What a change saves, mean and standard error of the differences seed by seed:

    teacher's argmax                          300, shifted to 6,000, shifted    217.0 to 165.4    51.6 +- 2.8
    labels to smoothed 0.1                    300, shifted                      217.4 to 179.8    37.6 +- 5.3
    labels to smoothed 0.1                    300 digits                        286.8 to 302.4   -15.6 +- 1.9
    smoothed 0.1 to smoothed teacher's soft   300, shifted                      179.8 to 173.0     6.8 +- 6.1
    labels to smoothed teacher's soft         300 digits                        286.8 to 269.8    17.0 +- 5.1
    shuffled to soft answers                  300 digits                        295.8 to 279.8    16.0 +- 4.0
    smoothed teacher's argmax to soft         6,000, shifted                    147.0 to 156.2    -9.2 +- 6.3
    teacher's argmax to soft answers          6,000, shifted                    165.4 to 184.6   -19.2 +- 3.8
    shuffled to soft answers                  6,000, shifted                    174.8 to 184.6    -9.8 +- 5.0

6,000, shifted, by the teacher: errors with standard errors, and digits seen on which students contradict it:

    teacher's argmax                           165.4 +- 2.5      2.9%
    teacher's soft answers                     184.6 +- 4.3      6.3%
    soft answers, T 1                          166.0 +- 1.6      3.7%
    argmax, 12 passes                          159.4 +- 5.4      0.0%
    soft answers, 12 passes                    169.2 +- 3.2      2.8%

How far the likeliest logit leads the mean of the others (300, shifted; median): teacher 16.7, smoothed 4.8, bad 13.7.

What it shows:

- Where nothing else speaks of a class, soft answers do: 53 of the 200 threes are named by students that have never
  seen one. What they are told of 3s differs from digit to digit, and they learn which digits have more of one: of
  threes they say 0.21, of others 0.025. Shuffled, the same numbers name none. So there is knowledge in them of which
  class looks like which.
- Where students see all classes, that knowledge buys nothing clear here. On shifted digits the better teacher's soft
  answers save 6.8 +- 6.1 errors beside smoothed labels, and shuffled answers are no worse than true ones.
- The teacher's augmentation saves more than any answer: smoothed labels make 302 errors without it, 180 with it. Soft
  answers hand on a little of it: without shifts they save 17.0 +- 5.1 of the 286.8 of labels, and there it counts which
  wrong class gets how much: 16.0 +- 4.0 errors are saved beside shuffled answers.
- Digits without a label save 33 more, because a teacher answers for them: its argmax makes 147 errors. Its soft
  answers, 156, are no better (-9.2 +- 6.3).
- Softer answers take longer to learn: in four passes at T 4 students contradict their teacher on 6.3 % of the digits
  they saw, at T 1 and of its argmax on 3.7 and 2.9 %. That is most of what soft answers cost there: 185 errors, with
  three times the passes 169.
- A teacher of smoothed labels is better, and its answers say less of what looks like what: they are nearly the same
  for all digits, 0.07 to 0.11, and 193 threes are missed, not 147 (Mueller, Kornblith and Hinton 2019, arXiv
  1906.02629).
- Students of a bad teacher are as bad as it is. They miss few threes because they call many digits a 3, as it does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Dropout, Input, Rescaling
from minidl.losses import CategoricalCrossentropy, KnowledgeDistillation
from minidl.optimizers.schedules import CosineDecay

PASSES = 4  # how often a student sees each image; those of one digit are shifted differently
TEMPERATURE = 4.0
UNSEEN = 3  # the class that is left out in the last column


class Column(NamedTuple):
    """Which digits students see."""

    all_digits: bool  # those without a label, too
    shifted: bool
    without_unseen: bool = False  # only those of which neither the label nor any teacher's answer is UNSEEN


COLUMNS = {
    "300 digits": Column(False, False),
    "300, shifted": Column(False, True),
    "6,000, shifted": Column(True, True),
    f"no {UNSEEN} among them": Column(True, True, without_unseen=True),
}
MISSED = f"{UNSEEN}s missed"
"""One more column, of the same students as the last: their errors among the digits they have never seen."""
_SMALL, _ALL = "300, shifted", "6,000, shifted"
CHANGES = (
    ("teacher's argmax", f"{_SMALL} to {_ALL}", "teacher's argmax", "teacher's argmax"),
    ("labels to smoothed 0.1", _SMALL, "labels", "labels, smoothed 0.1"),
    ("labels to smoothed 0.1", "300 digits", "labels", "labels, smoothed 0.1"),
    ("smoothed 0.1 to smoothed teacher's soft", _SMALL, "labels, smoothed 0.1", "smoothed teacher's soft"),
    ("labels to smoothed teacher's soft", "300 digits", "labels", "smoothed teacher's soft"),
    ("shuffled to soft answers", "300 digits", "  wrong classes shuffled", "teacher's soft answers"),
    ("smoothed teacher's argmax to soft", _ALL, "smoothed teacher's argmax", "smoothed teacher's soft"),
    ("teacher's argmax to soft answers", _ALL, "teacher's argmax", "teacher's soft answers"),
    ("shuffled to soft answers", _ALL, "  wrong classes shuffled", "teacher's soft answers"),
)
"""The third table: what is changed; the column, or from which to which; the rows."""
OF_UNSEEN = ("told 5 %", "half", "95 %", f"says of {UNSEEN}s", "of others")
"""The columns of the second table: see `on_unseen`."""


def shifted(images, rng, most=2):
    """Each image (28, 28) moved by up to ``most`` pixels in both directions; 0 moves in."""
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))
    top, left = rng.integers(0, 2 * most + 1, (2, len(images)))
    return windows[np.arange(len(images)), top, left]


def train(x, target, seed, units, loss, batch_size=32, epochs=PASSES, dropout=0.0):
    """A new net, fitted to one-hot targets, or to logits if ``loss`` distils."""
    layers = [Input((784,)), Rescaling(1 / 255), Dropout(dropout / 3)]
    for count in units:
        layers += [Dense(count, "relu"), Dropout(dropout)]
    model = minidl.Sequential([*layers, Dense(10, "softmax")], seed=seed)
    steps = epochs * -(-len(x) // batch_size)
    model.compile(minidl.Adam(CosineDecay(0.002, steps)), loss)
    teaching = {"target_model": target} if loss.distills else {"y": target}
    model.fit(x.reshape(len(x), -1), batch_size=batch_size, epochs=epochs, verbose=0, **teaching)
    return model


def train_teacher(images, labels, seed, steps, units, smoothing=0.0):
    """A large net that sees each digit shifted and with pixels missing, never twice the same."""
    rows = np.resize(np.arange(len(labels)), 64 * steps)
    x, target = shifted(images[rows], np.random.default_rng(seed)), np.eye(10)[labels[rows]]
    loss = CategoricalCrossentropy(label_smoothing=smoothing)
    return train(x, target, seed, units, loss, batch_size=64, epochs=1, dropout=0.3)


def with_wrong_classes_shuffled(logits, rng):
    """As sure of the likeliest class as before; which other class is likely is drawn by lot, for each image."""
    shuffled = rng.permuted(logits, axis=1)
    rows, best, found = np.arange(len(logits)), logits.argmax(axis=1), shuffled.argmax(axis=1)
    shuffled[rows, found] = shuffled[rows, best]
    shuffled[rows, best] = logits[rows, best]
    return shuffled


def lessons(y, logits, rng):
    """{row of the table: (target, loss)} for images with labels ``y``, None where labels are not known.

    ``logits``: the answers of each teacher.
    """
    hard, smooth = CategoricalCrossentropy(), CategoricalCrossentropy(label_smoothing=0.1)
    soft = KnowledgeDistillation(TEMPERATURE, hard_weight=0.0, soft_weight=1.0)
    logits, smoothed, bad = logits.values()
    found = {
        "teacher's argmax": (np.eye(10)[logits.argmax(axis=1)], hard),
        "teacher's soft answers": (logits, soft),
        "  wrong classes shuffled": (with_wrong_classes_shuffled(logits, rng), soft),
        "smoothed teacher's argmax": (np.eye(10)[smoothed.argmax(axis=1)], hard),
        "smoothed teacher's soft": (smoothed, soft),
        "bad teacher's soft": (bad, soft),
    }
    if y is None:
        return found
    return {"labels": (np.eye(10)[y], hard), "labels, smoothed 0.1": (np.eye(10)[y], smooth)} | found


def seen_digits(column, x, y, known, count, teachers, rng):
    """(images, {teacher: logits}, labels or None) of ``count`` images, so that all students take the same steps."""
    rows = rng.permutation(len(x)) if column.all_digits else known
    if column.without_unseen:
        rows = rows[y[rows] != UNSEEN]
    rows = np.resize(rows, count)
    images = shifted(x[rows], rng, 2 if column.shifted else 0)
    logits = {name: ask(teacher, images) for name, teacher in teachers.items()}
    if column.without_unseen:
        says = np.array([each.argmax(axis=1) for each in logits.values()])
        kept = np.resize(np.flatnonzero((says != UNSEEN).all(axis=0)), count)
        images, logits = images[kept], {name: each[kept] for name, each in logits.items()}
    return images, logits, None if column.all_digits else y[rows]


def on_unseen(target, loss, model, x_test, y_test):
    """The probability of the class that is left out: percentiles of what the student was told for the digits it saw,
    and the mean of what it says of test digits of that class, and of the others. Soft ones at the loss's temperature.
    """
    told = (minidl.softmax(target.astype(float), TEMPERATURE) if loss.distills else target)[:, UNSEEN]
    says = minidl.softmax(ask(model, x_test).astype(float), TEMPERATURE)[:, UNSEEN]
    is_unseen = y_test == UNSEEN
    return [*np.percentile(told, (5, 50, 95)), says[is_unseen].mean(), says[~is_unseen].mean()]


def other_lessons(logits):
    """{row of the fourth table: (target, loss, passes over the images)}: is it time that soft answers want?"""
    argmax, longer = np.eye(10)[logits.argmax(axis=1)], 3 * PASSES
    at_1, soft = (KnowledgeDistillation(T, hard_weight=0.0, soft_weight=1.0) for T in (1.0, TEMPERATURE))
    return {
        "soft answers, T 1": (logits, at_1, PASSES),
        f"argmax, {longer} passes": (argmax, CategoricalCrossentropy(), longer),
        f"soft answers, {longer} passes": (logits, soft, longer),
    }


def lead(logits):
    """The median over the images of the largest logit less the mean of the others."""
    return np.median(logits.max(axis=1) - (logits.sum(axis=1) - logits.max(axis=1)) / (logits.shape[1] - 1))


def ask(model, images):
    return model.predict_logits(images.reshape(len(images), -1))


def main(picture=None, labels=300, bad_labels=30, steps=1500, seeds=5, units=((256, 256), (64, 64))):
    (x, y), (x_test, y_test) = mnist.load_subset()
    y, y_test = y.astype(int), y_test.astype(int)
    errors = {}  # {(row, column): errors of each seed}
    unseen = {}  # {row: `on_unseen` of each seed}
    leads = {}  # {teacher: `lead` of each seed}
    learnt = {}  # {row of the fourth table: (errors, share of its own digits on which it contradicts its teacher)}

    def wrong_ones(model):
        return ask(model, x_test).argmax(axis=1) != y_test

    def note_learnt(row, model, images, taught):
        contradicts = np.mean(ask(model, images).argmax(axis=1) != taught.argmax(axis=1))
        learnt.setdefault(row, []).append((wrong_ones(model).sum(), contradicts))

    def count(row, column, model):
        wrong = wrong_ones(model)
        errors.setdefault((row, column), []).append(int(wrong.sum()))
        if COLUMNS[column].without_unseen:
            errors.setdefault((row, MISSED), []).append(int(wrong[y_test == UNSEEN].sum()))

    of_class = [np.flatnonzero(y == label) for label in range(10)]
    known = np.concatenate([rows[: labels // 10] for rows in of_class])
    few = np.concatenate([rows[: bad_labels // 10] for rows in of_class])
    for seed in range(seeds):
        teachers = {
            "teacher": train_teacher(x[known], y[known], seed, steps, units[0]),
            "smoothed teacher": train_teacher(x[known], y[known], seed, steps, units[0], smoothing=0.1),
            "bad teacher": train_teacher(x[few], y[few], seed, steps, units[0]),
        }
        for name, teacher in teachers.items():
            count(name, "300, shifted", teacher)
        for name, column in COLUMNS.items():
            rng = np.random.default_rng(seed)
            images, logits, of_labels = seen_digits(column, x, y, known, 32 * steps // PASSES, teachers, rng)
            if name == _SMALL:
                for teacher, answers in logits.items():
                    leads.setdefault(teacher, []).append(lead(answers))
            for row, (target, loss) in lessons(of_labels, logits, rng).items():
                model = train(images, target, seed, units[1], loss)
                count(row, name, model)
                if column.without_unseen:
                    unseen.setdefault(row, []).append(on_unseen(target, loss, model, x_test, y_test))
                if name == _ALL and row in ("teacher's argmax", "teacher's soft answers"):
                    note_learnt(row, model, images, logits["teacher"])
            if name == _ALL:
                for row, (target, loss, passes) in other_lessons(logits["teacher"]).items():
                    model = train(images, target, seed, units[1], loss, epochs=passes)
                    note_learnt(row, model, images, logits["teacher"])

    print(table(errors, len(y_test), seeds))
    print(table_of_unseen(unseen))
    print(table_of_changes(errors))
    print(table_of_time(learnt))
    told = ", ".join(f"{teacher} {np.mean(found):.1f}" for teacher, found in leads.items())
    print(f"\nhow far the likeliest logit leads the mean of the others, {_SMALL}, median: {told}")
    print(verdict(errors, seeds))
    logits = ask(teachers["teacher"], x_test)
    chosen = ambiguous(logits, y_test)
    print("\nWhat the label does not say: the last teacher's answers for digits it names rightly\n")
    for first in range(0, len(chosen), 2):
        print(side_by_side([describe(x_test[i], y_test[i], logits[i]) for i in chosen[first : first + 2]]))
    if picture:
        draw(picture, x_test[chosen], logits[chosen])
    return errors


# ---------------------------------------------------------------- what is printed


def table(errors, digits, seeds):
    lines = [f"errors of {digits:,} test digits, mean and standard deviation over {seeds} seeds", ""]
    columns = [*COLUMNS, MISSED]
    lines.append(f"{'taught by':<26}" + "".join(f"{column:>18}" for column in columns))
    for row in dict.fromkeys(row for row, _ in errors):
        cells = [errors.get((row, column)) for column in columns]
        shown = ["" if each is None else f"{np.mean(each):.1f} +- {spread(each):4.1f}" for each in cells]
        lines.append((f"{row:<26}" + "".join(f"{cell:>18}" for cell in shown)).rstrip())
    return "\n".join(lines)


def table_of_unseen(unseen):
    lines = [
        "",
        f"the probability of a {UNSEEN}, where none is among the digits; T {TEMPERATURE:g}, mean of the seeds",
        "",
    ]
    lines.append(f"{'taught by':<26}" + "".join(f"{column:>18}" for column in OF_UNSEEN))
    for row, found in unseen.items():
        lines.append(f"{row:<26}" + "".join(f"{value:18.4f}" for value in np.mean(found, axis=0)))
    return "\n".join(lines)


def table_of_changes(errors):
    lines = ["", "what a change saves, mean and standard error of the differences seed by seed", ""]
    for name, column, before, after in CHANGES:
        start, _, end = column.partition(" to ")
        of_both = errors[before, start], errors[after, end or start]
        saved, means = np.subtract(*of_both), " to ".join(f"{np.mean(counts):.1f}" for counts in of_both)
        error = standard_error(saved)
        lines.append(f"{name:<42}{column:<34}{means:<16}{saved.mean():6.1f} +- {error:3.1f}")
    return "\n".join(lines)


def table_of_time(learnt):
    lines = [
        "",
        f"{_ALL}, by the teacher: errors with standard errors, and digits seen on which it is contradicted",
        "",
    ]
    for row, found in learnt.items():
        wrong, contradicts = np.transpose(found)
        error = standard_error(wrong)
        lines.append(f"{row:<42}{wrong.mean():6.1f} +- {error:3.1f}{contradicts.mean():10.1%}")
    return "\n".join(lines)


def spread(counts):
    return np.std(counts, ddof=1) if len(counts) > 1 else 0.0


def standard_error(counts):
    return spread(counts) / np.sqrt(len(counts))


def verdict(errors, seeds):
    """What soft answers save, in each column beside the best of equal means that are not soft."""
    lines = [""]
    for column in COLUMNS:
        of_column = {row: counts for (row, name), counts in errors.items() if name == column}
        taught = {
            row: counts for row, counts in of_column.items() if row.startswith("labels") or "'s " in row
        }
        soft, best = (
            min((row for row in taught if ("soft" in row) is is_soft), key=lambda row: np.mean(taught[row]))
            for is_soft in (True, False)
        )
        saved = np.subtract(taught[best], taught[soft])  # seed by seed
        error = standard_error(saved)
        sure = "more" if abs(saved.mean()) > 2 * error and seeds > 1 else "less"
        lines.append(
            f"{column}: {saved.mean():.1f} +- {error:.1f} errors saved by {soft}, of the {np.mean(taught[best]):.1f} "
            f"of {best}: {sure} than two standard errors"
        )
    return "\n".join(lines)


def ambiguous(logits, y, count=4):
    """Digits that the teacher names rightly, with the likeliest second class; one for each label."""
    probs = minidl.softmax(logits.astype(float))
    first, second = np.argsort(-probs, axis=1)[:, :2].T
    found: dict[int, int] = {}
    for i in np.argsort(-probs[np.arange(len(y)), second], kind="stable"):
        if first[i] == y[i]:
            found.setdefault(y[i], i)
    return list(found.values())[:count]


def describe(image, label, logits):
    """A digit in characters, 28 columns wide, with the teacher's three likeliest classes."""
    rows = image.reshape(14, 2, 28).mean(axis=1) / 256 * 10
    lines = ["".join(" .:-=+*#%@"[int(value)] for value in row) for row in rows]
    lines = [line for line in lines if line.strip()]
    lines.append(f"label {label}, which is all it says")
    for temperature in (1, TEMPERATURE):
        probs = minidl.softmax(logits[None].astype(float), temperature)[0]
        likely = "  ".join(f"{i}: {probs[i]:3.0%}" for i in np.argsort(-probs)[:3])
        lines.append(f"T {temperature:g}   {likely}")
    return lines


def side_by_side(blocks):
    height = max(map(len, blocks))
    blocks = [[""] * (height - len(block)) + block for block in blocks]
    return (
        "\n".join("   ".join(f"{part:<30}" for part in parts).rstrip() for parts in zip(*blocks, strict=True))
        + "\n"
    )


def draw(path, images, logits):
    """The digits above the teacher's answers at T = 1 and 4."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(3 * len(images), 5), layout="constrained")
    for (above, below), image, row in zip(figure.subplots(2, len(images)).T, images, logits, strict=True):
        above.imshow(image, cmap="gray_r")
        above.set_axis_off()
        minidl.plotting.softened_probabilities(row, (1, 4), ax=below)
        below.get_legend().remove()
        below.set(ylim=(0, 1))
    below.legend(fontsize="small")
    figure.savefig(path)
    print(f"written to {Path(path)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
