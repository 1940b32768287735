"""Training and prediction: the fit loop, its two ways to run a step, what guards it, evaluate and predict."""

from .fit import Unfinished, fit
from .inference import evaluate, predict
from .layerwise import train_on_batch
from .options import AUTO, FitOptions
from .tuning import Tuning, tuned_fit

__all__ = [
    "AUTO",
    "FitOptions",
    "Tuning",
    "Unfinished",
    "evaluate",
    "fit",
    "predict",
    "train_on_batch",
    "tuned_fit",
]
