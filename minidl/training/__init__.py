"""Training and prediction: the fit loop, its two ways to run a step, what guards it, evaluate and predict."""

from .fit import Unfinished, fit
from .inference import evaluate, predict
from .options import FitOptions

__all__ = ["FitOptions", "Unfinished", "evaluate", "fit", "predict"]
