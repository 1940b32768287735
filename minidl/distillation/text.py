"""Models, losses and figures as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def describe_layers(model) -> str:
    """The sizes of a sample on its way through the model: ``784-64-64-10``."""
    sizes = [int(np.prod(model.input_shape))]
    sizes += [int(layer.units) for layer in model.layers if hasattr(layer, "units")]
    return "-".join(map(str, sizes))


def describe_loss(loss) -> str:
    """``KnowledgeDistillation(temperature=4, hard_weight=0.1, soft_weight=0.9)``."""
    if loss is None:
        return "labels alone"
    settings = {k: v for k, v in loss.get_config().items() if k != "name" and v is not False}
    for key, value in settings.items():
        if isinstance(value, dict):  # the config of a schedule
            numbers = (f"{number:g}" for number in value["config"].values())
            settings[key] = f"{value['class_name']}({', '.join(numbers)})"
    listed = (f"{k}={v:g}" if type(v) in (int, float) else f"{k}={v}" for k, v in settings.items())
    return f"{type(loss).__name__}({', '.join(listed)})"


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
