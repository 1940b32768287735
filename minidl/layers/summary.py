"""What `summary` prints."""


def summary_lines(stack, line_length: int) -> list[str]:
    """The layers of ``stack`` with their output shapes and numbers of parameters, and the sums of these."""
    first, second = round(line_length * 0.45), round(line_length * 0.4)
    lines = [f'Model: "{stack.name}"', "_" * line_length]
    lines += [" Layer (type)".ljust(first) + "Output Shape".ljust(second) + "Param #", "=" * line_length]
    for layer in stack.layers:
        shape = "?" if layer.output_shape is None else str((None, *layer.output_shape))
        title = f" {layer.name} ({type(layer).__name__})"
        if len(title) >= first:
            title = title[: first - 4] + "..."
        count = f"{layer.count_params():,}" if layer.built else "? (unbuilt)"
        lines.append(title.ljust(first) + shape.ljust(second) + count)
    lines.append("=" * line_length)
    counts = {"Total": stack.weights, "Trainable": stack.trainable_weights}
    counts["Non-trainable"] = stack.non_trainable_weights
    for which, views in counts.items():
        count, size = sum(view.size for view in views), sum(view.nbytes for view in views) / 1024
        found = (
            f"{count:,} ({size:,.2f} KB, {stack.dtype})"
            if stack.built
            else "unknown until the model is built"
        )
        lines.append(f"{which} params: {found}")
    return lines
