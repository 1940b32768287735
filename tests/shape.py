"""How large the package's files and functions are: ``python -m tests.shape``.

Rooms one can live in: a file is read in one sitting (400 lines), a function on one screen (60 lines, docstring
included), and a function that only the package calls takes at most 8 parameters. Where a number hurts clarity,
clarity wins; this only shows where to look.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8
SHOWN = 5  # the longest of each kind are shown, and all that are over the limit

# No user calls what is in here.
INTERNAL_ROOMS = {"kernels", "training", "validation.py", "registry.py", "archive.py", "parameters.py"}


class File(NamedTuple):
    name: str
    lines: int


class Function(NamedTuple):
    name: str  # "layers/dense.py:12:Dense.forward"
    lines: int
    parameters: int  # without self and cls
    internal: bool


class Shape(NamedTuple):
    files: list[File]  # longest first
    functions: list[Function]  # longest first


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)


def count_parameters(arguments: ast.arguments) -> int:
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def find_functions(tree: ast.AST, file: str) -> list[Function]:
    """Every function and method; one inside another is internal, and so is all of an internal class."""
    found: list[Function] = []

    def visit(node: ast.AST, path: list[str], internal: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                visit(child, path, internal)
                continue
            name, is_class = child.name, isinstance(child, ast.ClassDef)
            private = internal or (name.startswith("_") and not name.startswith("__"))
            if not is_class:
                where = f"{file}:{child.lineno}:{'.'.join([*path, name])}"
                lines = child.end_lineno - child.lineno + 1
                found.append(Function(where, lines, count_parameters(child.args), private))
            visit(child, [*path, name], private or not is_class)

    visit(tree, [], file.split("/")[0] in INTERNAL_ROOMS)
    return found


def measure(root: Path) -> Shape:
    sizes, functions = [], []
    for path in files(root):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        sizes.append(File(name, len(text.splitlines())))
        functions += find_functions(ast.parse(text), name)
    return Shape(
        sorted(sizes, key=lambda file: (-file.lines, file.name)),
        sorted(functions, key=lambda function: (-function.lines, function.name)),
    )


def describe(shape: Shape) -> str:
    text = [f"{sum(file.lines for file in shape.files):,} lines in {len(shape.files)} files"]

    def section(what: str, limit: int, entries: list[tuple[int, str]]) -> None:
        entries = sorted(entries, key=lambda entry: -entry[0])
        over = sum(size > limit for size, _ in entries)
        text.extend(["", f"{over} {what} {limit}"])
        text.extend(f"{size:7,}  {name}" for size, name in entries[: max(over, SHOWN)])

    internal = [function for function in shape.functions if function.internal]
    section("files of more lines than", FILE_LINES, [(file.lines, file.name) for file in shape.files])
    section("functions of more lines than", FUNCTION_LINES, [(f.lines, f.name) for f in shape.functions])
    section(
        "internal functions of more parameters than", PARAMETERS, [(f.parameters, f.name) for f in internal]
    )
    return "\n".join(text)


if __name__ == "__main__":
    print(describe(measure(Path(__file__).parents[1] / "minidl")))
