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
