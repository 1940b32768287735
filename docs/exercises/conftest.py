"""``pytest docs/exercises -k chapter_2`` judges your answers of chapter 2, ``--solutions`` those of the project."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


class Answers:
    """What a file of answers defines. A name that is still None counts as not answered."""

    def __init__(self, path: Path):
        spec = importlib.util.spec_from_file_location(f"answers_{path.parent.name}_{path.stem}", path)
        self._module, self._path = importlib.util.module_from_spec(spec), path
        spec.loader.exec_module(self._module)

    def __getattr__(self, name):
        answer = getattr(self._module, name)
        if answer is None:
            pytest.fail(f"{self._path.name}: {name} is not answered yet", pytrace=False)
        return answer


def pytest_addoption(parser):
    parser.addoption("--solutions", action="store_true", help="judge docs/exercises/solutions")


@pytest.fixture
def answers(request):
    """The answers to the chapter that the test's file is named after."""
    folder = FOLDER / "solutions" if request.config.getoption("--solutions") else FOLDER
    return Answers(folder / request.path.name.removeprefix("test_"))
