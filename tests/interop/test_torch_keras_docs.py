"""The listings of docs/torch_keras.md run, one after the other."""

import os
import re
from pathlib import Path

import numpy as np
from extras import needs

os.environ.setdefault("KERAS_BACKEND", "torch")
needs("torch", "keras", "h5py", "safetensors")

PAGE = Path(__file__).parents[2] / "docs" / "torch_keras.md"


def test_the_listings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listings = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict = {}
    for number, listing in enumerate(listings):
        exec(compile(listing, f"{PAGE.name}, listing {number + 1}", "exec"), names)
    assert len(listings) == 4
    x, teacher = names["x"], names["teacher"]
    np.testing.assert_allclose(names["model"].predict(x), teacher.predict(x, verbose=0), atol=1e-6)
    np.testing.assert_allclose(names["small"].predict(x, verbose=0), names["student"].predict(x), atol=1e-6)
    assert names["again"].output_shape == (3,) and (tmp_path / "student.safetensors").exists()
