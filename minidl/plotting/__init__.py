"""Pictures of trainings and distillations. Each function draws on ``ax``, by default one of its own, and returns it.

An ``Axes`` of its own shows by itself in a notebook; ``ax.figure.savefig("picture.png")`` writes it to a file. It
belongs to no window and needs no closing. Needs matplotlib: ``pip install "minidl[plots]"``.
"""

from .answers import confusion, reliability, softened_probabilities
from .attributions import attribution, compare_attributions
from .curves import learning_curves, sweep

__all__ = [
    "attribution", "compare_attributions", "confusion", "learning_curves", "reliability", "softened_probabilities",
    "sweep",
]  # fmt: skip
