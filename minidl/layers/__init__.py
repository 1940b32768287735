"""Layers: each one's forward and, under it, its backward.

A layer maps a batch ``x`` (B, *input_shape) to ``out`` (B, *output_shape). ``backward`` takes ``dout``, the
gradient of the loss with respect to what ``forward`` returned, and returns ``dx``. It also overwrites the
gradients of the layer's own parameters. Gradients are never accumulated: what it leaves alone is 0 in training.

Parameters live in the model's flat vectors: ``layer.weight`` and ``layer.dweight`` are views of them.

A layer of your own, in plain NumPy::

    from minidl.initializers import Constant
    from minidl.layers import Layer

    class Scale(Layer):
        def __init__(self, start=1.0, **options):       # options: name, input_shape, trainable
            super().__init__(**options)
            self.start = start                          # kept under its own name, so that it is saved

        def build(self, input_shape):
            self.add_weight("gain", input_shape, initializer=Constant(self.start))

        def forward(self, x, training=False):
            self.x = x
            return x * self.gain

        def backward(self, dout):
            self.dgain[...] = (dout * self.x).sum(axis=0)
            return dout * self.gain

It trains, and is saved with the model; ``load_model(path, custom_objects={"Scale": Scale})`` reads it again.
``minidl.check_gradients(model, x, y)`` compares its backward with differences of its forward. A model with such a
layer runs layer by layer in Python, not in the compiled loop (see `Layer.ops`).
"""

from .base import LAYERS, Layer, Parameter
from .dense import ELU, Activation, Dense, LeakyReLU, ReLU, Softmax
from .featurewise import PReLU
from .normalization import BatchNormalization, LayerNormalization
from .preprocessing import Normalization, Rescaling
from .rowwise import Dropout, Flatten, GaussianNoise, Input, RandomTranslation

__all__ = [
    "Activation", "BatchNormalization", "Dense", "Dropout", "ELU", "Flatten", "GaussianNoise", "Input",
    "LAYERS", "Layer", "LayerNormalization", "LeakyReLU", "Normalization", "PReLU", "Parameter",
    "RandomTranslation", "ReLU", "Rescaling", "Softmax",
]  # fmt: skip
