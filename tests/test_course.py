"""The course: its listings print what the pages show, its formulas name functions that exist, its exercises can be
solved, are not solved already, and find a wrong answer.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import minidl

ROOT = Path(__file__).parents[1]
COURSE, EXERCISES = ROOT / "docs" / "course", ROOT / "docs" / "exercises"


def load(path: Path, source: str = ""):
    """The module of a file, or of ``source`` in its place."""
    module = SimpleNamespace(__name__=path.stem, __file__=str(path))
    exec(compile(source or path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    return module


RUN = load(COURSE / "run.py")
CHAPTERS = RUN.CHAPTERS
PAGES = {chapter: RUN.page_of(chapter).read_text(encoding="utf-8") for chapter in CHAPTERS}


@pytest.fixture
def own_number_of_threads():
    before = minidl.get_num_threads()
    yield
    minidl.set_num_threads(before)


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.usefixtures("own_number_of_threads")
def test_listings_print_what_the_page_shows(chapter):
    assert RUN.written(PAGES[chapter], chapter) == PAGES[chapter], (
        "run python docs/course/run.py --write, and look at what has changed"
    )


def test_another_output_and_another_command_are_seen():
    page = "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n`python docs/course/run.py 7.1`\n"
    assert RUN.written(page, 7) == page
    assert RUN.written(page.replace("2", "3"), 7) == page
    assert RUN.written(page.replace("7.1", "7.2"), 7) == page
    assert RUN.written("```python\nprint(1 + 1)\n```\n", 7) == page


def test_one_listing_is_run_as_its_command_says(capsys):
    RUN.main(["1.3"])
    assert capsys.readouterr().out.splitlines() == RUN.listings(PAGES[1])[2][1].splitlines()
    for wrong in ([], ["0"], ["1.99"], ["1.x"], ["1", "2"]):
        with pytest.raises(SystemExit):
            RUN.main(wrong)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_is_read_in_ten_minutes(chapter):
    without_outputs = re.sub(r"^```text.*?^```$", "", PAGES[chapter], flags=re.MULTILINE | re.DOTALL)
    words = [word for word in without_outputs.split() if re.search(r"\w", word)]
    assert 900 <= len(words) <= 1500


def test_the_main_job_is_told_as_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = r"^\| (teacher|labels.*|distilled.*|argmax.*) \| [\d,]+ \| ([\d.]+ ± [\d.]+) \|$"
    rows = re.findall(row, PAGES[4], flags=re.MULTILINE)
    assert len(rows) == 6
    for name, errors in rows:
        told = re.escape(errors.replace("±", "+-"))
        assert re.search(rf"^{re.escape(name)}  .* {told} ", readme, flags=re.MULTILINE), name


def formulas(folder: Path, page: str) -> list[tuple[str, Path]]:
    """(function, file) of each link to a Python file whose text is a name in backticks."""
    links = re.findall(r"\[`([\w.]+)`\]\(([^)#\s]+\.py)\)", page)
    return [(name, folder / link) for name, link in links if not name.endswith(".py")]


def missing(named: list[tuple[str, Path]]) -> list[str]:
    return [name for name, file in named if name.split(".")[-1] not in defined(file)]


def defined(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_formula_stands_beside_a_function_that_exists(chapter):
    named = formulas(COURSE, PAGES[chapter])
    assert len(named) >= 4 and missing(named) == []


def test_a_missing_function_is_seen():
    named = formulas(COURSE, "[`dense_forward`](../../minidl/tiny.py), [`no_such`](../../minidl/tiny.py)")
    assert missing(named) == ["no_such"]


def exercises(chapter: int) -> list:
    """(name, test) of a chapter's exercises."""
    module = load(EXERCISES / f"test_chapter_{chapter}.py")
    return [(name, test) for name, test in vars(module).items() if name.startswith("test_exercise_")]


def fails(test, answers) -> bool:
    """Whether the answers do not pass. A name that is None is not answered."""
    names = {name: value for name, value in vars(answers).items() if value is not None}
    with pytest.MonkeyPatch.context() as monkeypatch:
        wanted = test.__code__.co_varnames[: test.__code__.co_argcount]
        try:
            test(SimpleNamespace(**names), *[monkeypatch] * ("monkeypatch" in wanted))
        except (AssertionError, AttributeError, NotImplementedError):
            return True
    return False


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_solutions_pass_and_what_is_not_answered_fails(chapter):
    tests = exercises(chapter)
    assert [name.split("_")[2] for name, _ in tests] == ["1", "2", "3"]
    solutions, stubs = (
        load(folder / f"chapter_{chapter}.py") for folder in (EXERCISES / "solutions", EXERCISES)
    )
    for name, test in tests:
        assert not fails(test, solutions), name
        assert fails(test, stubs), f"docs/exercises/chapter_{chapter}.py is answered: the repository's is not"


WRONG = [
    (1, 1, "LOSS_1000_CLASSES = 6.91", "LOSS_1000_CLASSES = 3.00"),
    (1, 1, "LOSS_VARIANCE_HALF = 2.55", "LOSS_VARIANCE_HALF = 2.30"),
    (1, 2, " - layers[0]", ""),
    (1, 3, "1 - out * out", "1 - out"),
    (2, 1, "-0.33", "0.67"),
    (2, 1, "= 1 / 32", "= 1"),
    (2, 2, " / T", ""),
    (2, 2, " - (dout * q).sum(axis=1, keepdims=True)", ""),
    (2, 3, " - g.mean(axis=1, keepdims=True)", ""),
    (2, 3, "g = gamma * dout", "g = dout"),
    (3, 1, "STEP_1_UNCORRECTED = 3.2", "STEP_1_UNCORRECTED = 0.1"),
    (3, 1, "math.sqrt(v) + 1e-7", "v + 1e-7"),
    (3, 2, "LARGEST_RATE = 0.04", "LARGEST_RATE = 0.02"),
    (3, 2, "momentum * u - rate * g", "momentum * u - rate * (1 - momentum) * g"),
    (3, 3, "LEFT_OF_A_WEIGHT = 0.905", "LEFT_OF_A_WEIGHT = 0.1"),
    (3, 3, "min(step / steps, 1)", "step / steps"),
    (4, 1, "0.946, 1.48, 0.889", "0.946, 0.946, 0.946"),
    (4, 1, "SMALL_LOGITS_20_TO_1_WITHOUT = 1 / 400", "SMALL_LOGITS_20_TO_1_WITHOUT = 1 / 20"),
    (4, 2, "soft = T * (", "soft = ("),
    (4, 2, "soft_weight / y.shape[1]", "soft_weight * (1 - y) / (y.shape[1] - 1)"),
    (4, 2, " - difference.mean(axis=1, keepdims=True)", ""),
    (4, 3, '"wine, taught by forest": False', '"wine, taught by forest": True'),
    (5, 1, '"naive Numba": "latency"', '"naive Numba": "bytes"'),
    (5, 1, "(1 / 64, 1 / 8, 1 / 2, 1)", "(1 / 8, 1 / 8, 1 / 2, 1)"),
    (5, 2, "SETS_1024 = 1 ", "SETS_1024 = 64 "),
    (5, 2, "EIGHT_ROWS = 5.0", "EIGHT_ROWS = 4.5"),
    (
        5,
        3,
        "            for p in range(k):\n                tile += np.outer(rows[:, p], columns[p])",
        "            tile = rows @ columns",
    ),
    (6, 1, "4 * 4 * 55_050", "3 * 4 * 55_050"),
    (6, 1, ".reshape(shape))", ".reshape(shape).copy())"),
    (6, 2, "for row in range(len(x)):", "for row in reversed(range(len(x))):"),
    (6, 2, "MEETINGS_A_STEP = 2", "MEETINGS_A_STEP = 1"),
    (6, 3, "default_rng([seed, epoch])", "default_rng(seed)"),
    (6, 3, "default_rng([seed, epoch])", "default_rng(seed + epoch)"),
]
"""(chapter, exercise, a line of the solution, the same with a mistake that learners make)"""


@pytest.mark.parametrize("chapter, number, right, wrong", WRONG)
def test_a_wrong_answer_is_found(chapter, number, right, wrong):
    path = EXERCISES / "solutions" / f"chapter_{chapter}.py"
    source = path.read_text(encoding="utf-8")
    assert source.count(right) == 1
    assert fails(exercises(chapter)[number - 1][1], load(path, source.replace(right, wrong)))


def test_every_exercise_has_a_wrong_answer():
    assert {(chapter, number) for chapter, number, *_ in WRONG} == {
        (chapter, number) for chapter in CHAPTERS for number in (1, 2, 3)
    }


@pytest.mark.parametrize("options, code", [((), 1), (("--solutions",), 0)])
def test_the_command_that_readers_type(options, code):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "docs/exercises",
        "-k",
        "chapter_1",
    ]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("3 failed" if code else "3 passed") in done.stdout
    assert options or "LOSS_10_CLASSES is not answered yet" in done.stdout


def test_the_reading_order_adds_up():
    page = (COURSE / "README.md").read_text(encoding="utf-8")
    minutes = [
        int(found) for found in re.findall(r"^\| \d+ \| \[`minidl/[^|]*\| (\d+) \|", page, flags=re.MULTILINE)
    ]
    assert len(minutes) > 12 and f"Together {sum(minutes)} minutes." in page
