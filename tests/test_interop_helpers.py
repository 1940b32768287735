"""What all bridges to other libraries share."""

import numpy as np
import pytest

from minidl.interop import check_same
from minidl.layers import Dense, Input
from minidl.models import Sequential


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


def test_a_conversion_with_other_numbers_is_refused():
    model = student()
    check_same(model, lambda x: model.predict(x, verbose=0))
    check_same(model, model.predict_logits, logits=True)
    for wrong in (
        model.predict_logits,
        lambda x: model.predict(x, verbose=0)[:, :2],
        lambda x: model.predict(x, verbose=0) + 0.01,
        lambda x: np.nan * x[:, :3],
    ):
        with pytest.raises(ValueError, match="different numbers"):
            check_same(model, wrong)
