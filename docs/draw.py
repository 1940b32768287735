"""Draws the README's pictures: ``python docs/draw.py`` writes ``flow.svg`` and ``speed.svg`` beside this file.

Plain Python, no dependency. Each picture is a card with a light ground of its own, so that it reads the same on a
light and on a dark page.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"

GROUND, EDGE, INK, FAINT = "#fafaf7", "#b9bdc4", "#1f2328", "#59636e"
BLUE, GREEN, AMBER, ROSE, LILAC = "#dde8f7", "#d6ecd9", "#f9e5c4", "#f7d9dc", "#e6def3"
BACK = "#b0323f"  # the way back: gradients
TEXT = "font-family=\"system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif\""
CODE = "font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace\""


class Card:
    def __init__(self, width: int, height: int, title: str):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{title}">',
            f"<title>{title}</title>",
            "<defs>",
            *(
                f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{color}"/></marker>'
                for name, color in (("ahead", INK), ("back", BACK))
            ),
            "</defs>",
            f'<rect x="1" y="1" width="{width - 2}" height="{height - 2}" rx="10" fill="{GROUND}" stroke="{EDGE}"/>',
        ]

    def text(self, x, y, words, size=14, color=INK, anchor="middle", weight="normal", font=TEXT) -> None:
        words = str(words).replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}" '
            f'font-weight="{weight}" {font}>{words}</text>'
        )

    def box(self, x, y, width, height, fill, title, *lines, file="") -> None:
        """A box with a bold title, lines under it, and the file that holds it along the bottom."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="{INK}" '
            f'stroke-opacity="0.45"/>'
        )
        middle = x + width / 2
        self.text(middle, y + 24, title, 16, weight="bold")
        for i, line in enumerate(lines):
            self.text(middle, y + 46 + 19 * i, line, 13.5)
        if file:
            self.text(middle, y + height - 9, file, 12, FAINT, font=CODE)

    def arrow(self, *points, back=False) -> None:
        """A line through ``points`` (x, y), with its head at the last."""
        path = "M" + " L".join(f"{x} {y}" for x, y in points)
        color, head, dash = (BACK, "back", ' stroke-dasharray="6 4"') if back else (INK, "ahead", "")
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.8"{dash} marker-end="url(#{head})"/>'
        )

    def bar(self, x, y, width, height, fill) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{height}" rx="2" fill="{fill}"/>'
        )

    def svg(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def flow() -> str:
    """One training step, from data to update, and what a teacher adds to it."""
    card = Card(
        920,
        446,
        "One training step: data, layers, loss, backward, update; a teacher adds its logits to the loss",
    )
    card.box(24, 150, 150, 106, BLUE, "data", "x (B, I)", "y (B, C)", file="datasets/")
    card.box(262, 24, 262, 84, AMBER, "teacher", "large, trained, never changed", file="teachers/")
    card.box(262, 172, 262, 84, GREEN, "student: layers", "Dense, ReLU, …, Dense", file="layers/")
    card.box(654, 24, 242, 232, ROSE, "loss", "plain, on labels alone:", "CE(y, q)", file="losses/")
    middle = 775
    card.text(middle, 122, "distilled:", 13.5)
    card.text(middle, 143, "hard_weight · CE(y, q)", 13, font=CODE)
    card.text(middle, 163, "+ soft_weight · T² · KL(p‖q)", 13, font=CODE)
    card.text(middle, 190, "p, q: softmax(logits / T)", 12.5, FAINT)
    card.text(middle, 207, "of teacher and student (CE: T = 1)", 12.5, FAINT)
    card.box(
        654, 318, 242, 84, ROSE, "gradient of the loss", "(q − y)/B, or its distilled form", file="losses/"
    )
    card.box(262, 318, 262, 84, GREEN, "backward", "dweight, dbias of each layer", file="layers/")
    card.box(24, 318, 150, 84, LILAC, "update", "SGD, Adam, …", file="optimizers/")

    card.arrow((174, 200), (262, 200))
    card.text(218, 193, "x", 13.5, font=CODE)
    card.arrow((99, 150), (99, 66), (262, 66))
    card.text(180, 59, "x", 13.5, font=CODE)
    card.arrow((524, 66), (654, 66))
    card.text(589, 58, "teacher_logits", 12.5, font=CODE)
    card.text(589, 83, "(B, C)", 12.5, FAINT)
    card.arrow((524, 214), (654, 214))
    card.text(589, 206, "logits", 12.5, font=CODE)
    card.text(589, 231, "(B, C)", 12.5, FAINT)
    card.arrow((140, 150), (140, 140), (654, 140))
    card.text(218, 133, "y", 13.5, font=CODE)

    card.arrow((775, 256), (775, 318), back=True)
    card.arrow((654, 360), (524, 360), back=True)
    card.text(589, 352, "dlogits", 12.5, BACK, font=CODE)
    card.arrow((262, 360), (174, 360), back=True)
    card.text(218, 352, "grads", 12.5, BACK, font=CODE)
    card.arrow((99, 318), (99, 287), (393, 287), (393, 256), back=True)
    card.text(246, 280, "params: weight, bias", 12.5, BACK, font=CODE)
    shapes = "B rows in a batch, I inputs, C classes. Solid: forward. Dashed: backward and update."
    card.text(24, 428, shapes, 12.5, FAINT, anchor="start")
    return card.svg()


LIBRARIES = {  # in the picture: the names in the table, each at its best number of threads
    "minidl": ["minidl"],
    "JAX": ["jax-scan", "jax-step"],
    "NumPy": ["numpy"],
    "Keras": ["keras-jax", "keras-torch"],
    "PyTorch": ["torch-eager", "torch-fused", "torch-compile"],
    "scikit-learn": ["sklearn"],
}


def speed() -> str:
    """The time of one training step beside other libraries, from the committed table."""
    table = json.loads((RESULTS / "train_step.json").read_text(encoding="utf-8"))
    card = Card(920, 276, "Time of one training step in minidl, JAX, NumPy, Keras, PyTorch and scikit-learn")
    for left, name, title in (
        (24, "small net, batch 32", "784-64-64-10, batch 32"),
        (480, "big net, batch 128", "784-1200-1200-10, batch 128"),
    ):
        case = next(case for case in table["cases"] if case["name"] == name)
        best = {
            library: min(time["median"] for who, time in case["times"].items() if who.split("@")[0] in names)
            for library, names in LIBRARIES.items()
        }
        card.text(left, 34, title, 16, anchor="start", weight="bold")
        start, width = left + 96, 220
        longest = max(best.values())
        for i, (library, seconds) in enumerate(sorted(best.items(), key=lambda item: item[1])):
            y = 52 + 30 * i
            ours = library == "minidl"
            card.text(start - 8, y + 16, library, 14, anchor="end", weight="bold" if ours else "normal")
            length = width * seconds / longest
            card.bar(start, y, length, 22, "#2f7d46" if ours else "#9aa7b8")
            shown = f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"
            if not ours:
                ratio = seconds / best["minidl"]
                shown += f" · {ratio:.1f} ×" if ratio < 9.95 else f" · {ratio:.0f} ×"
            card.text(
                start + length + 7, y + 16, shown, 14, anchor="start", weight="bold" if ours else "normal"
            )
    machine = table["machine"]
    note = "One step of Adam, float32, each library at its best. ×: multiples of minidl's. "
    note += f"{machine['processor']}, {machine['cores']} cores."
    card.text(24, 256, note, 13, FAINT, anchor="start")
    return card.svg()


PICTURES = {"flow.svg": flow, "speed.svg": speed}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (HERE / name).write_text(draw(), encoding="utf-8")
