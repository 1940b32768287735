"""Training and prediction: the fit loop, its two ways to run a step, what guards it, evaluate and predict."""

from .batches import fit_stream
from .fit import Unfinished, fit
from .inference import evaluate, predict
from .layerwise import train_on_batch
from .options import FitOptions
from .streams import arrays_of, is_stream, open_stream

__all__ = [
    "FitOptions",
    "Unfinished",
    "arrays_of",
    "evaluate",
    "fit",
    "fit_stream",
    "is_stream",
    "open_stream",
]
__all__ += ["predict", "train_on_batch"]
