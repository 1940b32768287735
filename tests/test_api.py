"""The names users import, from everywhere Keras has them, and what importing must not cost."""

import importlib
import inspect
import subprocess
import sys

import pytest

import minidl

PLACES = {
    "models": "Sequential load_model",
    "layers": "Input Dense Activation ReLU LeakyReLU PReLU ELU Softmax Dropout Flatten Rescaling GaussianNoise "
    "RandomTranslation Normalization BatchNormalization LayerNormalization",
    "optimizers": "SGD Adagrad Adam Adamax AdamW Lion Nadam RMSprop",
    "optimizers.schedules": "CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay "
    "PiecewiseConstantDecay PolynomialDecay",
    "callbacks": "EarlyStopping ModelCheckpoint LearningRateScheduler ReduceLROnPlateau CSVLogger "
    "TerminateOnNaN LambdaCallback",
    "losses": "KnowledgeDistillation CategoricalCrossentropy SparseCategoricalCrossentropy "
    "BinaryCrossentropy MeanSquaredError HalfMeanSquaredError MeanAbsoluteError Huber KLDivergence "
    "LogCosh Poisson Hinge SquaredHinge CategoricalHinge MeanAbsolutePercentageError CosineSimilarity "
    "MeanSquaredLogarithmicError BinaryFocalCrossentropy CategoricalFocalCrossentropy",
    "metrics": "Accuracy CategoricalAccuracy MeanSquaredError MeanAbsoluteError AUC Precision Recall F1Score R2Score "
    "RootMeanSquaredError BinaryCrossentropy CategoricalCrossentropy CosineSimilarity",
    "regularizers": "L1 L2 L1L2",
    "constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
    "datasets.mnist": "load_data load_subset",
    "utils": "set_random_seed to_categorical",
}


ALSO_AT_THE_TOP = (
    "models", "layers", "optimizers", "optimizers.schedules", "callbacks", "regularizers", "constraints", "utils",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_names_where_keras_has_them(place):
    module = importlib.import_module(f"minidl.{place}")
    for name in PLACES[place].split():
        found = getattr(module, name)
        if place in ALSO_AT_THE_TOP:
            assert getattr(minidl, name) is found and name in minidl.__all__
        assert getattr(minidl, name, found) is found, f"minidl.{name} is another thing"
    reached = minidl
    for part in place.split("."):
        reached = getattr(reached, part)
    assert reached is module


def test_public_names_exist():
    assert all(hasattr(minidl, name) for name in minidl.__all__)
    functions = "matmul softmax log_softmax boltzmann distill check_gradients set_num_threads get_num_threads"
    for name in [*functions.split(), "warmup", "Sequential", "Ensemble", "load_model"]:
        assert name in minidl.__all__ and callable(getattr(minidl, name))
    for name in ("Dense", "Dropout", "Adam", "MaxNorm", "EarlyStopping", "KnowledgeDistillation"):
        assert name in minidl.__all__


@pytest.mark.parametrize(
    "function, signature",
    [
        (minidl.Sequential, "layers=None name=None dtype='float32' seed=None"),
        (minidl.Sequential.compile, "self optimizer='rmsprop' loss=None metrics=None"),
        (
            minidl.Sequential.fit,
            "self x y=None batch_size=32 epochs=1 verbose='auto' callbacks=None validation_split=0.0 "
            "validation_data=None shuffle=True class_weight=None sample_weight=None initial_epoch=0",
        ),
        (
            minidl.Sequential.evaluate,
            "self x y=None batch_size=32 verbose='auto' sample_weight=None return_dict=False",
        ),
        (
            minidl.Dense,
            "units activation=None use_bias=True kernel_initializer='glorot_uniform' "
            "bias_initializer='zeros' kernel_regularizer=None kernel_constraint=None input_dim=None "
            "input_shape=None name=None",
        ),
        (minidl.KnowledgeDistillation, "temperature=2.0 hard_weight=0.5 soft_weight=0.5"),
        (minidl.matmul, "a b out=None transpose_a=False transpose_b=False"),
        (minidl.softmax, "logits temperature=1.0"),
        (minidl.boltzmann, "energies temperature=1.0"),
    ],
)
def test_signatures_are_fixed(function, signature):
    parameters = inspect.signature(function).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert shown[: len(signature.split())] == signature.split()


def test_importing_is_light():
    """Optional dependencies, and what only downloads need, stay out of ``import minidl``."""
    heavy = "matplotlib sklearn scipy torch jax keras onnx onnxruntime mpi4py safetensors h5py dask ssl pytest".split()
    code = (
        "import numba, sys; before = set(sys.modules); import minidl; "
        f"print(sorted(set({heavy}) & (set(sys.modules) - before)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
