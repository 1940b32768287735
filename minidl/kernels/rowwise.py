"""The operations that work on each row by itself: one row of each table is one kind, forward and backward."""

from __future__ import annotations

import numpy as np

from .activations import activation_backward, activation_forward
from .choose import choose
from .elementwise import copy, rescale
from .ops import ACTIVATION, DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION, RESCALING
from .program import CHANNELS, CODE, HEIGHT, HIGH_DX, HIGH_DY, LOW_DX, LOW_DY, WIDTH
from .random import dropout, gaussian_noise, translate_between


def _activation(out, x, op, setting, key, first_row):
    activation_forward(out, x, op[CODE], setting[0])


def _activation_gradient(dx, dout, out, x, op, setting, key, first_row):
    activation_backward(dx, dout, out, x, op[CODE], setting[0])


def _dropout(out, x, op, setting, key, first_row):
    dropout(out, x, setting[0], key, first_row)


def _dropout_gradient(dx, dout, out, x, op, setting, key, first_row):
    dropout(dx, dout, setting[0], key, first_row)


def _noise(out, x, op, setting, key, first_row):
    gaussian_noise(out, x, setting[0], key, first_row)


def _noise_gradient(dx, dout, out, x, op, setting, key, first_row):
    copy(dx, dout)


def _translation(out, x, op, setting, key, first_row):
    translate_between(
        out, x, op[HEIGHT], op[WIDTH], op[CHANNELS], op[LOW_DY], op[HIGH_DY], op[LOW_DX], op[HIGH_DX],
        setting[0], key, first_row, np.int64(1),
    )  # fmt: skip


def _translation_gradient(dx, dout, out, x, op, setting, key, first_row):
    translate_between(
        dx, dout, op[HEIGHT], op[WIDTH], op[CHANNELS], op[LOW_DY], op[HIGH_DY], op[LOW_DX], op[HIGH_DX],
        0.0, key, first_row, np.int64(-1),
    )  # fmt: skip


def _rescaling(out, x, op, setting, key, first_row):
    rescale(out, x, setting[0], setting[1])


def _rescaling_gradient(dx, dout, out, x, op, setting, key, first_row):
    rescale(dx, dout, setting[0], 0.0)


rowwise_forward = choose({
    ACTIVATION: _activation,
    DROPOUT: _dropout,
    GAUSSIAN_NOISE: _noise,
    RANDOM_TRANSLATION: _translation,
    RESCALING: _rescaling,
})  # fmt: skip
"""rowwise_forward(kind, out, x, op, setting, key, first_row): one operation on some rows, the first of them
``first_row`` of its batch; ``op`` and ``setting`` are its rows of the program, ``key`` is for random draws."""

rowwise_backward = choose({
    ACTIVATION: _activation_gradient,
    DROPOUT: _dropout_gradient,
    GAUSSIAN_NOISE: _noise_gradient,
    RANDOM_TRANSLATION: _translation_gradient,
    RESCALING: _rescaling_gradient,
})  # fmt: skip
"""rowwise_backward(kind, dx, dout, out, x, op, setting, key, first_row): its gradient."""
