"""What `summary` prints, and what a notebook shows of a model: one table of its layers."""

from typing import NamedTuple

from ..kernels.program import DENSE
from ..registry import is_minidls
from ..tables import format_table, html_lines, html_table
from .base import ops_of

_HEAD = ["Layer (type)", "Output Shape", "Params", "Bytes", "Multiply-adds"]
_NARROWEST = 12  # the column of names


class Summary(NamedTuple):
    """A model's layers, a row each, and the lines below them."""

    title: str
    rows: list[list[str]]
    totals: list[str]

    def lines(self, line_length: int | None) -> list[str]:
        """As text, where ``line_length`` is given no wider than that: names are cut."""
        rows = self.rows
        if line_length is not None:
            widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
            room = max(_NARROWEST, line_length - sum(widths[1:]) - 2 * len(widths[1:]))
            rows = [[_cut(name, room), *cells] for name, *cells in rows]
        return [self.title, *format_table(_HEAD, rows).split("\n"), *self.totals]

    def html(self) -> str:
        """For a notebook."""
        return html_lines([self.title], bold=True) + html_table(_HEAD, self.rows) + html_lines(self.totals)


def summarize(stack) -> Summary:
    """The layers of ``stack``: output shapes, parameters, bytes, multiply-adds a sample; and the sums of these."""
    rows, multiply_adds, uncounted = [], 0, []
    for layer in stack.layers:
        shape = "?" if layer.output_shape is None else str((None, *layer.output_shape))
        cells, ops = ["? (unbuilt)", "?", "?"], None
        if layer.built:
            ops = ops_of(layer)
            if ops is None and is_minidls(
                type(layer)
            ):  # a layer without a kernel, which has no matrix product
                ops = []
            count = layer.count_params()
            cells = [f"{count:,}", f"{count * stack.dtype.itemsize:,}", "?"]
        if ops is None:
            uncounted.append(layer.name)
        else:
            of_layer = sum(op.in_size * op.out_size for op in ops if op.kind == DENSE)
            multiply_adds += of_layer
            cells[2] = f"{of_layer:,}"
        rows.append([f"{layer.name} ({type(layer).__name__})", shape, *cells])
    totals = []
    if stack.built:
        without = f", without those of {', '.join(uncounted)}, which only its own code knows" * bool(
            uncounted
        )
        totals.append(f"Multiply-adds of matrix products, a sample: {multiply_adds:,}{without}")
    counts = {"Total": stack.weights, "Trainable": stack.trainable_weights}
    counts["Non-trainable"] = stack.non_trainable_weights
    for which, views in counts.items():
        count, size = sum(view.size for view in views), sum(view.nbytes for view in views) / 1024
        found = (
            f"{count:,} ({size:,.2f} KB, {stack.dtype})"
            if stack.built
            else "unknown until the model is built"
        )
        totals.append(f"{which} params: {found}")
    return Summary(f'Model: "{stack.name}"', rows, totals)


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 3] + "..."
