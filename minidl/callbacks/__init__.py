"""Callbacks: what happens around epochs and batches. Names, arguments and the order of calls are Keras's.

The compiled loop runs in slices of at most about 100 ms. ``on_train_batch_end`` is called once a slice, with the
index of the slice's last batch and the means of loss and metrics since the epoch began. A slice is a single
batch if a callback wants every batch: see ``Callback.wants_every_batch``.
"""

from .base import Callback as Callback
from .callback_list import CallbackList as CallbackList
from .display import CSVLogger as CSVLogger
from .display import History as History
from .display import ProgressBar as ProgressBar
from .display import check_verbose as check_verbose
from .functions import LambdaCallback as LambdaCallback
from .functions import LearningRateScheduler as LearningRateScheduler
from .monitors import EarlyStopping as EarlyStopping
from .monitors import ModelCheckpoint as ModelCheckpoint
from .monitors import ReduceLROnPlateau as ReduceLROnPlateau
from .monitors import TerminateOnNaN as TerminateOnNaN
