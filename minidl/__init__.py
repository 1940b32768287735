"""minidl: train and distil multilayer perceptrons on the CPU. See README.md."""

from . import (
    activations,
    callbacks,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    plotting,
    regularizers,
    teachers,
    utils,
)
from .callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from .constraints import MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from .distillation import DistillationReport, born_again, distill, mutual_learning
from .explain import explain
from .gradcheck import GradientError, check_gradients
from .interpret import integrated_gradients, saliency
from .layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    Layer,
    LayerNormalization,
    LeakyReLU,
    Normalization,
    PReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from .losses import KnowledgeDistillation, boltzmann, log_softmax, softmax
from .models import Model, Sequential, clone_model, load_model
from .optimizers import SGD, Adagrad, Adam, Adamax, AdamW, Lion, Nadam, RMSprop
from .optimizers.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)
from .regularizers import L1, L1L2, L2
from .runtime import get_num_threads, matmul, set_num_threads, warmup
from .sweep import distill_sweep
from .teachers import Ensemble, load_logits, save_logits
from .utils import set_random_seed, to_categorical

__version__ = "0.1.0"

__all__ = [
    "__version__", "Activation", "activations", "Adagrad", "Adam", "Adamax", "AdamW", "BatchNormalization",
    "boltzmann", "born_again", "Callback", "callbacks", "check_gradients", "clone_model", "constraints",
    "CosineDecay", "CosineDecayRestarts", "CSVLogger", "datasets", "Dense", "distill", "distill_sweep",
    "DistillationReport", "Dropout", "EarlyStopping", "ELU", "Ensemble", "explain", "ExponentialDecay",
    "Flatten", "GaussianNoise", "get_num_threads", "GradientError", "History", "initializers", "Input",
    "integrated_gradients", "InverseTimeDecay", "KnowledgeDistillation", "L1", "L1L2", "L2", "LambdaCallback", "Layer",
    "LayerNormalization", "layers", "LeakyReLU", "LearningRateScheduler", "Lion", "load_logits", "load_model",
    "log_softmax", "losses", "matmul", "MaxNorm", "metrics", "MinMaxNorm", "Model", "ModelCheckpoint",
    "models", "mutual_learning", "Nadam", "NonNeg", "Normalization", "optimizers", "PiecewiseConstantDecay",
    "plotting", "PolynomialDecay", "PReLU", "RandomTranslation", "ReduceLROnPlateau", "regularizers", "ReLU",
    "Rescaling", "RMSprop", "saliency", "save_logits", "Sequential", "set_num_threads", "set_random_seed", "SGD",
    "Softmax", "softmax", "teachers", "TerminateOnNaN", "to_categorical", "UnitNorm", "utils", "warmup",
]  # fmt: skip
