"""Write ``keras_<version>.keras``, a small model of the installed Keras 3, and what it predicts, into this folder.

KERAS_BACKEND=torch python tests/golden/make_keras_files.py
"""

import json
from pathlib import Path

import keras
import numpy as np

layers = keras.layers
inputs = keras.Input((3,))
hidden = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0])(inputs)
hidden = keras.Sequential([layers.Dense(4, activation="gelu", name="mine"), layers.BatchNormalization()])(
    hidden
)
hidden = layers.Dense(2, kernel_regularizer="l2")(hidden)
model = keras.Model(inputs, layers.Softmax()(hidden))

rng = np.random.default_rng(0)
for layer in (*model.layers[2].layers, model.layers[3]):
    layer.set_weights([rng.uniform(0.5, 2, array.shape) for array in layer.get_weights()])
x = rng.normal(size=(4, 3)).astype("float32")
target = Path(__file__).with_name(f"keras_{keras.__version__}.keras")
model.save(target)
target.with_suffix(".json").write_text(
    json.dumps({"x": x.tolist(), "y": model.predict(x, verbose=0).tolist()}) + "\n"
)
