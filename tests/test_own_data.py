"""``python -m minidl distill data.csv --target column``: a user's own data from the file to the saved student."""

import json
import re

import numpy as np
import pytest

from minidl import get_num_threads, load_model, set_num_threads
from minidl.__main__ import main
from minidl.datasets import table
from minidl.datasets.table import Column, describe_columns, encode, read_table
from minidl.distillation import main_job, own_data

QUICK = "--teacher 32 --student 8 --teacher-steps 60 --steps 60 --seeds 2 --learning-rate 0.01".split()
NAMES = np.array(["ash, white", "birch", "cedar"])
rng = np.random.default_rng(4)
ROWS = 150
LABELS = rng.integers(0, 3, ROWS)
WIDTH = rng.normal(size=ROWS) + 2 * LABELS
SEEN = 1.6e9 + 100 * (rng.normal(size=ROWS) - 2 * LABELS).round(2)  # seconds since 1970
BARK = np.array(["grey", "white", "brown"])[(LABELS + (rng.random(ROWS) > 0.7)) % 3]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = get_num_threads()
    yield
    set_num_threads(threads)


def write(text, name="trees.csv"):
    with open(name, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    return name


def trees(extra_head="", extra="", kinds=NAMES[LABELS]):
    lines = [f"width,seen,bark,park{extra_head},kind"]
    for width, seen, bark, kind in zip(WIDTH, SEEN, BARK, kinds, strict=True):
        lines.append(f'{width:.3f},{seen:.2f}, {bark},7{extra},"{kind}"')
    return "\n".join(lines) + "\n"


def refused(capsys, message, *arguments):
    assert main(["distill", *arguments]) == 2
    shown = capsys.readouterr()
    assert re.search(message, shown.err), shown.err
    assert "kernels" not in shown.out  # nothing was trained


# ---------------------------------------------------------------- the whole job


def test_from_a_csv_file_to_a_student_that_is_used_as_printed(capsys):
    write(trees())
    assert main(["distill", "trees.csv", "--target", "kind", *QUICK, "--output", "result.json"]) == 0
    text, sizes = capsys.readouterr().out, [len(rows) for rows in own_data.split(LABELS, ROWS, 0)]
    for words in (
        "trees.csv: 150 rows, 6 inputs -> 'kind'",
        "column 'bark': 3 words",
        "one value in all training rows: park\n",
        "task: classification of 3 classes (guessed, as 'kind' holds 3 different words; --task says otherwise)",
        f"to choose the epoch, {sizes[2]} to judge (seed 0)\nthe most frequent class everywhere makes",
        "2 x 6-32-3",
        "trees-student.npz",
    ):
        assert words in text
    result = json.load(open("result.json"))
    assert [row["model"] for row in result["models"]][2:] == ["labels alone", "distilled"]
    assert result["task"] == "classification" and result["rows"] == sizes
    # the lines that were printed, on a file whose columns have another order and no target
    with open("new.csv", "w") as file:
        file.write("bark;seen;park;width\n")
        file.writelines(
            f"{bark};{seen:.2f};7;{width:.3f}\n" for bark, seen, width in zip(BARK, SEEN, WIDTH, strict=True)
        )
    names: dict = {}
    exec("\n".join(re.findall(r"^    (.*)$", text, re.M)), names)
    right = np.mean(np.array(names["answers"]) == NAMES[LABELS])
    assert right > 0.85, "raw numbers, words and classes go in and out"
    saved = load_model("trees-student.npz")
    assert saved.dtype == np.float64  # the seconds would lose digits in float32
    # the student that was saved is one of those that were judged
    parts = own_data.split(LABELS, ROWS, 0)
    judged = encode(read_table("new.csv"), names["about"]["columns"])[parts[2]]
    errors = np.count_nonzero(saved.predict(judged).argmax(axis=1) != LABELS[parts[2]])
    assert errors in result["models"][-1]["errors"]
    assert names["about"]["inputs"] == ["width", "seen", "bark=brown", "bark=grey", "bark=white", "park"]


def test_the_same_command_gives_the_same_figures(capsys):
    write(trees())
    results = []
    for threads in "12":
        options = ["--threads", threads, "--output", "r.json", "--save", f"{threads}.npz"]
        assert main(["distill", "trees.csv", "--target", "kind", *QUICK, *options]) == 0
        results.append([row["errors"] for row in json.load(open("r.json"))["models"]])
    assert results[0] == results[1]
    assert np.array_equal(load_model("1.npz").params, load_model("2.npz").params)
    options = ["--seed", "7", "--output", "r.md", "--save", "3.npz", "--seeds", "1"]
    assert main(["distill", "trees.csv", "--target", "kind", *QUICK, *options]) == 0
    assert open("r.md").read().startswith("| model ") and "says little" in capsys.readouterr().out
    assert not np.array_equal(load_model("1.npz").params, load_model("3.npz").params)  # control


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_arrays(form, capsys):
    x, y = np.column_stack([WIDTH, SEEN]), (LABELS > 0).astype(int)
    if form == "npz":
        np.savez("data.npz", x=x, y=y)
        arguments = ["data.npz"]
    else:
        np.save("x.npy", x)
        np.save("y.npy", np.array(["no", "yes"])[y][:, None])
        arguments = ["--x", "x.npy", "--y", "y.npy"]
    assert main(["distill", *arguments, *QUICK, "--save", "s.npz"]) == 0
    text = capsys.readouterr().out
    assert "task: binary of 2 classes" in text and "2-8-2" in text
    about = json.load(open("s.json"))
    assert about["classes"] == ([0, 1] if form == "npz" else ["no", "yes"]) and about["columns"] is None
    assert np.mean(load_model("s.npz").predict(x).argmax(axis=1) == y) > 0.8


def test_numbers_to_predict(capsys):
    """The student answers in the target's own unit."""
    price = 5000 * (WIDTH + LABELS) + 300_000 + 100 * rng.normal(size=ROWS)
    lines = trees().splitlines()
    values = ["price", *(f"{value:.2f}" for value in price)]
    write("".join(f"{line},{value}\n" for line, value in zip(lines, values, strict=True)))
    options = ["--target", "price", *QUICK, "--steps", "600", "--output", "r.json", "--save", "s.npz"]
    assert main(["distill", "trees.csv", *options]) == 0
    text = capsys.readouterr().out
    assert "task: regression (guessed, as 'price' holds 150 different numbers" in text
    nobody = float(re.search("the mean everywhere has an RMSE of (.*)", text)[1])
    distilled = json.load(open("r.json"))["models"][-1]
    assert distilled["rmse_mean"] < 0.5 * nobody and 0.7 < distilled["r2_mean"] < 1
    parts = own_data.split(None, ROWS, 0)
    assert nobody == pytest.approx(
        np.sqrt(np.mean((price[parts[2]] - price[parts[0]].mean()) ** 2)), rel=1e-3
    )
    names: dict = {}
    exec("\n".join(re.findall(r"^    (.*)$", text, re.M)).replace("new.csv", "trees.csv"), names)
    error = np.sqrt(np.mean((names["answers"] - price)[parts[2]] ** 2))
    assert any(error == pytest.approx(rmse, rel=1e-2) for rmse in distilled["rmse"])


def test_the_main_job_on_digits_knows_nothing_of_it(monkeypatch):
    seen = []
    monkeypatch.setattr("minidl.distillation.main_job.run", seen.append)
    assert main([]) == main(["distill"]) == main(["--seeds", "1"]) == 0
    for options in seen:
        assert not set(vars(options)) & set(own_data.OPTIONS)
        main_job.set_numbers_of_loss(options, 0.1, 0.9)
        assert options.temperature == 2.0 and options.steps == 5000


# ---------------------------------------------------------------- what is refused


FILES = {
    "a missing value": (
        "a,b,t\n1,2,x\n3,,y\n",
        "line 3, column 'b' .row 2 of the data.: a value is missing, got ''",
    ),
    "NaN": ("a,b,t\n1,nan,x\n", "line 2, column 'b' .*a value is missing, got 'nan'"),
    "a missing target": ("a,t\n1,x\n2,?\n", "line 3, column 't' .*missing"),
    "no such column": ("a,b,target\n1,2,x\n", "has no column 't': .*Known: a, b, target"),
    "names twice": ("a,b,a,t\n1,2,3,x\n", "columns 1 and 3 have one name, 'a'"),
    "a column without a name": (",a,t\n0,1,x\n", "column 1 has no name.*index=False"),
    "no header": ("1,2,3\n4,5,6\n", "the first line must name the columns, got numbers"),
    "no UTF-8": ("a,t\n1,caf\xe9\n".encode("latin1"), "is no UTF-8 text, byte 0xe9: .*iconv"),
    "huge": ("a,t\n1,x\n1e300,y\n", "line 3, column 'a' .*1e300 is too large"),
    "infinite": ("a,t\n1,x\n-inf,y\n", "-inf is too large"),
    "ragged": ("a,b,t\n1,2,x\n3,4\n", "line 3 has 2 fields, its header 3"),
    "an open quote": ('a,t\n1,"x\n', "cannot be read as CSV"),
    "empty": ("", "is empty: the first line must name the columns"),
    "no rows": ("a,t\n", "has a header and no rows"),
    "only the target": ("t\nx\ny\n", "no column to learn from"),
    "many words": (
        "a,t\n" + "".join(f"word{i},x\n" for i in range(40)),
        "'a' holds 40 different words.*--drop 'a'",
    ),
    "one class": ("a,t\n" + "".join(f"{i},x\n" for i in range(40)), "'t' is x in every row"),
    "three rows": ("a,t\n1,x\n2,y\n3,z\n", "class 'x' of 't' has 1 row: training, validation and test"),
    "a rare class": ("a,t\n" + "1,x\n" * 20 + "2,y\n2,y\n", "class 'y' of 't' has 2 rows"),
    "few rows": ("a,t\n" + "1,x\n2,y\n" * 4, "has 8 rows: 10 at least"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_learnt_from_is_refused(name, capsys):
    text, message = FILES[name]
    refused(capsys, message, write(text), "--target", "t")


def test_options_that_do_not_fit_are_refused(capsys):
    write(trees())
    np.savez("data.npz", x=np.ones((20, 2)), y=np.arange(20) % 2)
    np.savez("other.npz", a=np.ones(3))
    np.save("x.npy", np.ones((4, 2)))
    write("no zip", "bad.npz")
    csv = ["trees.csv", "--target", "kind"]
    refused(capsys, "--target must name the column to predict: width, seen, bark, park, kind", "trees.csv")
    refused(capsys, "no column 'knd': did you mean 'kind'", "trees.csv", "--target", "knd")
    refused(capsys, "no column 'lenght'", *csv, "--drop", "lenght")
    refused(capsys, "--drop 'kind': it is the column to predict", *csv, "--drop", "kind")
    refused(capsys, "--labels is for digits", *csv, "--labels", "10")
    refused(capsys, "--data is for digits", *csv, "--data", "folder")
    refused(capsys, "--task binary needs two classes, but 'kind' holds 3", *csv, "--task", "binary")
    refused(capsys, "--task regression needs numbers", *csv, "--task", "regression")
    message = "--task classification needs words or whole numbers, but 'width' holds others"
    refused(capsys, message, "trees.csv", "--target", "width", "--task", "classification")
    refused(capsys, "give a CSV or .npz file, or --x FILE and --y FILE", "--target", "kind")
    refused(capsys, "give a CSV or .npz file", "--x", "x.npy")
    refused(capsys, "--target is for a CSV file", "data.npz", "--target", "y")
    refused(capsys, "an .npy file holds x or y", "x.npy")
    refused(capsys, "must hold x and y, got a", "other.npz")
    refused(capsys, "bad.npz is no file of arrays", "bad.npz")
    refused(capsys, "No such file", "nothing.csv", "--target", "t")
    refused(capsys, "there is no folder", *csv, "--save", "no/folder/s.npz")
    refused(capsys, "--output no/r.md: there is no folder no", *csv, "--output", "no/r.md")
    regression = ["trees.csv", "--target", "width", *QUICK, "--temperature", "2"]
    refused(capsys, "--temperature softens probabilities; a regression has none, got 2.0", *regression)
    refused(capsys, "--save names the model", *csv, "--save", "s.json")
    refused(capsys, "temperature must be > 0", *csv, "--temperature", "0")
    refused(capsys, "--seeds must be >= 1", *csv, "--seeds", "0")


def test_arrays_that_cannot_be_learnt_from_are_refused(capsys):
    def arrays(x, y):
        np.savez("data.npz", x=x, y=y)
        return "data.npz"

    x, y = np.ones((20, 2)), np.arange(20) % 2
    refused(
        capsys, r"x must have shape \(rows, columns\), got \(20, 2, 1\): x.reshape", arrays(x[..., None], y)
    )
    refused(
        capsys,
        r"x must be finite, got nan at index \(3, 1\)",
        arrays(np.where(np.arange(40) == 7, np.nan, 1).reshape(20, 2), y),
    )
    refused(capsys, "x must fit float32, got 1e\\+300", arrays(x * 1e300, y))
    refused(capsys, "x must hold real numbers", arrays(x * 1j, y))
    refused(capsys, "y must have one row per sample of x: expected 20, got 19", arrays(x, y[:19]))
    refused(capsys, r"y must have shape \(rows,\)", arrays(x, np.eye(2)[y]))
    refused(capsys, "y must hold real numbers", arrays(x, y.astype("S1")))
    refused(capsys, "allow_pickle", arrays(x, np.array([None] * 20)))


# ---------------------------------------------------------------- the parts


def test_how_a_table_is_read():
    text = '\ufeffa; "b b";c\r\n1;"x;1";+2e3\r\n\r\n-0,5;"y ""z""";3\r\n'
    read = read_table(write(text))
    assert read.names == ["a", "b b", "c"] and read.lines == [2, 4]
    assert read.rows == [["1", "x;1", "+2e3"], ["-0,5", 'y "z"', "3"]]
    columns = describe_columns(read)
    assert columns == [Column("a", ["-0,5", "1"]), Column("b b", ["x;1", 'y "z"']), Column("c")]
    assert encode(read, columns).tolist() == [[0, 1, 1, 0, 2000], [1, 0, 0, 1, 3]]
    assert encode(read, [["c", None]]).tolist() == [[2000], [3]]
    with pytest.raises(ValueError, match="line 2, column 'b b' .*: must be a number, got 'x;1'"):
        encode(read, [["b b", None]])
    with pytest.raises(ValueError, match=r"line 4, column 'b b' .*Known: x;1; got 'y \"z\"'"):
        encode(read, [["b b", ["x;1"]]])
    assert table._as_number("1_000") is None and float("1_000") == 1000


@pytest.mark.parametrize(
    "values, wanted, name",
    [
        (["a", "b", "c"], "auto", "classification"),
        (["a", "b"], "auto", "binary"),
        ([0.0, 1.0], "auto", "binary"),
        ([-1.0, 1.0, 5.0], "auto", "classification"),
        (range(30), "auto", "regression"),
        ([0.5, 1.0], "auto", "regression"),
        (range(30), "classification", "classification"),
        ([0.0, 1.0], "regression", "regression"),
    ],
)
def test_the_task_is_guessed(values, wanted, name):
    y = np.repeat(np.array(list(values)), 5)
    data = own_data.Data(np.ones((len(y), 1)), y, None, "file", "t")
    task, answers = own_data.choose_own_task(data, wanted)
    assert task.name == name and ("guessed" in task.why) == (wanted == "auto")
    if task.classes is None:
        assert answers.dtype == np.float64
    else:
        assert [task.classes[k] for k in answers] == y.tolist()


def test_the_split_is_seeded_and_of_each_class_alike():
    labels = rng.permutation(np.repeat([0, 1, 2], [100, 30, 3]))
    parts = own_data.split(labels, len(labels), 0)
    assert sorted(np.concatenate(parts)) == list(range(133))
    assert [np.bincount(labels[rows]).tolist() for rows in parts] == [[60, 18, 1], [20, 6, 1], [20, 6, 1]]
    again, other = own_data.split(labels, 133, 0), own_data.split(labels, 133, 1)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not np.array_equal(parts[0], other[0])
    assert [len(rows) for rows in own_data.split(None, 10, 0)] == [6, 2, 2]


def test_normalisation_and_its_folding():
    x = np.column_stack([rng.normal(3, 5, 40), np.full(40, 0.1), 1e9 + rng.normal(size=40)])
    mean, factor = own_data.normalisation(x)
    normal = (x - mean) * factor
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(normal.std(axis=0), [1, 0, 1], rtol=1e-6)
    from minidl.layers import Dense, Input
    from minidl.models import Sequential

    model = Sequential([Input((3,)), Dense(5, "tanh"), Dense(2, "softmax")], seed=1)
    expected = model.predict(normal)
    folded = own_data.fold(model, mean, factor, x)
    assert folded.dtype == np.float64
    np.testing.assert_allclose(folded.predict(x), expected, rtol=1e-4)
    small = x - [0, 0, 1e9]
    folded = own_data.fold(model, mean - [0, 0, 1e9], factor, small)
    assert folded.dtype == np.float32
    np.testing.assert_allclose(folded.predict(small), expected, rtol=1e-4)
