"""Callbacks: what happens around epochs and batches. Names, arguments and the order of calls are Keras's.

The compiled loop runs in slices of at most about 100 ms. ``on_train_batch_end`` is called once a slice, with the
index of the slice's last batch and the means of loss and metrics since the epoch began. A slice is a single
batch if a callback wants every batch: see ``Callback.wants_every_batch``.
"""

from .base import Callback, LambdaCallback
from .callback_list import CallbackList, titled
from .display import CSVLogger, History, LineProgress, ProgressBar, check_verbose, say
from .monitors import EarlyStopping, LearningRateScheduler, ModelCheckpoint, ReduceLROnPlateau, TerminateOnNaN

__all__ = ["CSVLogger", "Callback", "CallbackList", "EarlyStopping", "History", "LambdaCallback"]
__all__ += ["LearningRateScheduler", "ModelCheckpoint", "ProgressBar", "ReduceLROnPlateau", "TerminateOnNaN"]
__all__ += ["LineProgress", "check_verbose", "say", "titled"]
