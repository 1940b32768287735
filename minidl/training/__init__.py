"""Training and prediction: the fit loop, its two ways to run a step, what guards it, evaluate and predict."""

from .batches import fit_stream
from .fit import fit
from .inference import evaluate, predict
from .layerwise import train_on_batch
from .options import AUTO, FitOptions
from .streams import arrays_of, is_stream, open_stream
from .tally import Unfinished
from .tuning import Tuning, tuned_fit

__all__ = [
    "AUTO", "FitOptions", "Tuning", "Unfinished", "arrays_of", "evaluate", "fit", "fit_stream", "is_stream",
    "open_stream", "predict", "train_on_batch", "tuned_fit",
]  # fmt: skip
