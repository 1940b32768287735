"""Training and prediction: the fit loop, its two ways to run a step, what guards it, evaluate and predict."""

from .epoch import Unfinished
from .fit import fit
from .inference import evaluate, predict
from .options import FitOptions

__all__ = ["FitOptions", "Unfinished", "evaluate", "fit", "predict"]
