"""The README's Python examples run as they stand, one after the other; the commands it names exist."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import minidl

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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
    names, shown = run(examples)
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


def test_commands_and_files_it_names_exist():
    named = set(re.findall(r"python -m minidl (\w+)", README))
    assert named >= {"distill", "explain", "matmul", "info"}
    main = (Path(minidl.__file__).parent / "__main__.py").read_text(encoding="utf-8")
    assert all(f'"{name}"' in main for name in named)
    table = README.split("## The flow")[1].split("## The maths")[0]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", table)
    assert len(named) > 15
    root = Path(__file__).parents[1]
    for name in named:
        places = (root / "minidl" / name, root / "minidl" / "kernels" / name, root / name)
        assert any(place.exists() for place in places), f"README names {name}"


def promises(text: str = README) -> list[tuple[str, str]]:
    """(file, test) for every test the section names; a bare name is of the file named before it."""
    found, file, section = [], "", text.split("## What minidl promises")[1].split("\n## ")[0]
    for name in re.findall(r"`((?:test_\w+\.py::)?test_\w+)`", section):
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
