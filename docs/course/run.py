"""Runs the listings of the course, each chapter's one after the other.

``python docs/course/run.py 3`` prints what the listings of chapter 3 print, ``3.2`` what its second prints.
``--write`` puts that into the pages, under each listing, with the command that makes it.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
CHAPTERS = sorted(int(path.stem.split("_")[1]) for path in FOLDER.glob("chapter_*.md"))
_LISTING = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n`([^`\n]*)`\n)?", re.MULTILINE | re.DOTALL
)


def page_of(chapter: int) -> Path:
    return FOLDER / f"chapter_{chapter}.md"


def command_of(chapter: int, number: int) -> str:
    """The command that stands under what listing ``number`` prints."""
    return f"python docs/course/run.py {chapter}.{number}"


def listings(page: str) -> list[tuple[str, str, str]]:
    """(code, what stands on the page as its output, the command under it) of each listing."""
    return _LISTING.findall(page)


def outputs(page: str, name: str = "listing") -> list[str]:
    """What each listing prints; all share their variables."""
    names, printed = {"__name__": name}, []
    for number, (code, *_) in enumerate(listings(page), 1):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(compile(code, f"{name}.{number}", "exec"), names)
        printed.append("\n".join(line.rstrip() for line in shown.getvalue().splitlines()))
    return printed


def written(page: str, chapter: int) -> str:
    """The page with the output of each listing under it, and under that the command."""
    printed = iter(enumerate(outputs(page, f"chapter {chapter}"), 1))

    def with_output(found: re.Match) -> str:
        number, text = next(printed)
        shown = f"\n```text\n{text}\n```\n`{command_of(chapter, number)}`\n" if text else ""
        return f"```python\n{found[1]}```\n{shown}"

    return _LISTING.sub(with_output, page)


def main(arguments: list[str]) -> None:
    if arguments == ["--write"]:
        for chapter in CHAPTERS:
            page = page_of(chapter).read_text(encoding="utf-8")
            page_of(chapter).write_text(written(page, chapter), encoding="utf-8")
        return
    chapter, _, number = (arguments or [""])[0].partition(".")
    if len(arguments) != 1 or chapter not in map(str, CHAPTERS) or not (number or "1").isdigit():
        sys.exit(
            f"which chapter, {CHAPTERS[0]} to {CHAPTERS[-1]}, or which of its listings, as 3.2?\n\n{__doc__}"
        )
    page = page_of(int(chapter)).read_text(encoding="utf-8")
    count = len(listings(page))
    if number and not 1 <= int(number) <= count:
        sys.exit(f"chapter {chapter} has the listings {chapter}.1 to {chapter}.{count}, not {arguments[0]}")
    for place, text in enumerate(outputs(page, f"chapter {chapter}"), 1):
        if text and int(number or place) == place:
            print(text if number else f"{chapter}.{place}\n{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
