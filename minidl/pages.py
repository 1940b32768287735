"""What the commands that explain themselves share: wrapped text, the style of their pages, a file to write to."""

import textwrap
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1f24; --soft: #5b6570; --line: #d5dae0; --bar: #2f6fb3;
        --track: #e9edf1; --mark: #b3452f; --note: #fff4d6; --code: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --ink: #e6e9ec; --soft: #a3adb7; --line: #363d44; --bar: #6aa5e3; --track: #262c32;
          --mark: #ef8a72; --note: #3a3119; --code: #1e2327; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 46rem; background: var(--page); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 0; }
section { border-top: 1px solid var(--line); padding: .9rem 0; }
p { margin: .4rem 0; }
.speed { display: flex; flex-wrap: wrap; gap: 0 1rem; color: var(--soft); }
.speed span:first-child { color: var(--ink); font-weight: 600; }
.changed { font-weight: 600; }
.note { background: var(--note); padding: .6rem .8rem; border-radius: .4rem; }
.read, figcaption { color: var(--soft); font-size: .875rem; }
code, pre { font: .8125rem/1.45 ui-monospace, monospace; }
pre { background: var(--code); padding: .7rem; overflow-x: auto; border-radius: .4rem; }
summary { cursor: pointer; font-size: .875rem; color: var(--soft); }
svg { display: block; width: 100%; height: auto; }
figure { margin: 1rem 0; max-width: 34rem; }
.bar { height: .9rem; margin: .3rem 0; }
.fill { fill: var(--bar); } .track { fill: var(--track); } .mark { stroke: var(--mark); stroke-width: 1.5; }
.grid { stroke: var(--line); } text { fill: var(--ink); font: 11px system-ui, sans-serif; } .tick { fill: var(--soft); }
figure text { paint-order: stroke; stroke: var(--page); stroke-width: 3; }
"""


def wrap(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def check_writable(option: str, name: str) -> None:
    """OSError that names the option, if a file of this name cannot be written. A file that is there stays as it is."""
    path = Path(name)
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise OSError(f"{option} {name} cannot be written: {error.strerror or error}") from None
