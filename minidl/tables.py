"""Tables of text: aligned lines, Markdown, and HTML for notebooks."""

from collections.abc import Iterable, Sequence
from html import escape

_CELL = "padding:0.2em 0.8em;border:0;border-bottom:1px solid rgba(128,128,128,0.35);white-space:nowrap;"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Lines of aligned columns: the first column to the left, all others to the right."""
    lines = [list(head), *map(list, rows)]
    narrowest = 2 if markdown else 0  # Markdown's rule "-:" needs two characters
    widths = [max(narrowest, *map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells):
        cells = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip()

    rule = ["-" * width for width in widths]
    if markdown:
        rule[1:] = [dashes[1:] + ":" for dashes in rule[1:]]
    return "\n".join([line(lines[0]), line(rule), *map(line, lines[1:])])


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same as HTML. Colours are the page's own, dark or light; a table that is too wide scrolls."""

    def line(tag: str, cells: Sequence[str]) -> str:
        aligned = (
            f'<{tag} style="{_CELL}text-align:{"left" if i == 0 else "right"}">{escape(str(cell))}</{tag}>'
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(aligned)}</tr>"

    body = "".join(line("td", cells) for cells in rows)
    table = f"<thead>{line('th', head)}</thead><tbody>{body}</tbody>"
    style = "border-collapse:collapse;border:0;margin:0.3em 0;font-variant-numeric:tabular-nums"
    return f'<div style="overflow-x:auto;max-width:100%"><table style="{style}">{table}</table></div>'


def html_lines(lines: Iterable[str], bold: bool = False) -> str:
    """Each line as a paragraph."""
    weight = "font-weight:bold;" if bold else ""
    style = f"margin:0.2em 0;{weight}max-width:60em;overflow-wrap:anywhere"
    return "".join(f'<p style="{style}">{escape(line)}</p>' for line in lines)
