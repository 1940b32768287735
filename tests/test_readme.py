"""The README's Python examples run as they stand, one after the other. What it and the pages in docs/ name exists:
commands, files, tests. Their pictures are what the code draws.
"""

import contextlib
import importlib.util
import io
import re
import signal
from pathlib import Path

import pytest

import minidl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(examples: list[str]) -> tuple[dict, str]:
    names, shown = {"__name__": "readme"}, io.StringIO()
    with contextlib.redirect_stdout(shown):
        for number, example in enumerate(examples):
            exec(compile(example, f"README.md, example {number + 1}", "exec"), names)
    return names, shown.getvalue()


def test_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    minidl.utils.set_random_seed(0)
    examples = blocks("python")
    assert len(examples) >= 3 and sum(example.count("fit(") for example in examples) >= 3
    before = signal.getsignal(signal.SIGTERM)
    try:
        names, shown = run(examples)
    finally:
        signal.signal(signal.SIGTERM, before)
    # what the text beside them promises
    report = names["report"]
    assert report.student.accuracy > 0.9 and report.student.accuracy <= 1
    assert str(report) in shown
    again = minidl.load_model(tmp_path / "student.npz")
    assert again.layers[0].weight.shape == (784, 32)
    assert names["model"].layers[1].gain.shape == (1,)


def test_a_broken_example_is_seen():
    text = README.replace("student.save(", "student.sav(")
    assert text != README
    with pytest.raises(AttributeError, match="sav"):
        run([blocks("python", text)[0].replace("epochs=10", "epochs=1")])


def test_readme_is_short():
    assert len(README.splitlines()) <= 250


def test_commands_it_names_exist():
    named = set(re.findall(r"python -m minidl (\w+)", README))
    assert named >= {"distill", "explain", "warmup"}
    main = (Path(minidl.__file__).parent / "__main__.py").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"python -m minidl (\w+)", text):
            assert f'"{name}"' in main, f"{page.name} names {name}"
        for name in re.findall(r"python -m (minidl\.\w+|benchmarks\.\w+|tests\.\w+)", text):
            assert (ROOT / f"{name.replace('.', '/')}.py").exists(), f"{page.name} names {name}"
        for name in re.findall(r"python ((?:docs|examples)/[\w/]+\.py)", text):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def broken_links(page: Path, text: str) -> list[str]:
    links = re.findall(r"\]\(([^)#\s]+)\)", text)
    return [link for link in links if "://" not in link and not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_broken_link_is_seen():
    assert broken_links(PAGES[0], "[one](docs/layout.md), [two](docs/nowhere.md)") == ["docs/nowhere.md"]


def test_files_in_the_layout_exist():
    page = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+(?:\.py|/))`", page)
    assert len(named) > 25
    for name in named:
        places = (ROOT / "minidl" / name, ROOT / "minidl" / "kernels" / name, ROOT / name)
        assert any(place.exists() for place in places), f"docs/layout.md names {name}"


def files_left_out(page: str) -> list[str]:
    """Files of minidl/ and of its kernels that the page does not name; folders are named as such."""
    rooms = (ROOT / "minidl", ROOT / "minidl" / "kernels")
    names = [path.name for room in rooms for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
    return [name for name in names if f"`{name}`" not in page]


def test_no_file_is_left_out_of_the_layout():
    page = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    assert files_left_out(page) == []
    assert files_left_out(page.replace("`plan.py`", "")) == ["plan.py"]


def test_pictures_are_what_the_code_draws():
    spec = importlib.util.spec_from_file_location("draw", ROOT / "docs" / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, picture in draw.PICTURES.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == picture(), (
            f"run python docs/draw.py: {name}"
        )
        assert f"(docs/{name})" in README


PROMISES = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")


def promises(text: str = PROMISES) -> list[tuple[str, str]]:
    """(file, test) for every test the page names; a bare name is of the file named before it."""
    found, file = [], ""
    for name in re.findall(r"`((?:test_\w+\.py::)?test_\w+)`", text):
        file = name.split("::")[0] if "::" in name else file
        found.append((file, name.split("::")[-1]))
    return found


def missing(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    tests = Path(__file__).parent
    return [
        (file, test)
        for file, test in named
        if f"\ndef {test}(" not in (tests / file).read_text(encoding="utf-8")
    ]


def test_every_promise_has_its_test():
    named = promises()
    assert len(named) > 35 and missing(named) == []
    assert missing([("test_readme.py", "test_no_such_thing")])
