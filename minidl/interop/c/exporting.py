"""Write a model as a C file, once it was compiled and compared; say what int8 weights change."""

import copy
import os
import re
import shutil
import subprocess
import tempfile
from typing import NamedTuple

import numpy as np

from ...archive import check_path, replacing
from ...figures import TASK_FIGURES
from ...layers import Dense
from ...models import Sequential
from ...training.tasks import TASKS
from ...validation import check_bool, check_choice, check_inputs, check_rows, describe, warn
from .. import check_same, refuse_own_parts
from .source import Written, c_source, quantized

COMPILERS = ("cc", "gcc", "clang")
"""What is looked for on PATH, in this order."""
_KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while".split()
)
_SAMPLES = 1000  # drawn where no data are given


class Exported(NamedTuple):
    """What `export` wrote. ``print`` shows it in words."""

    path: str
    name: str
    """NAME of the functions and constants."""
    constants: int
    """Bytes of the constants, which a linker puts where programs are."""
    stack: int
    """Bytes of the arrays that a call has on its stack."""
    is_checked: bool
    """Whether the file was compiled and gave the model's numbers."""
    lost: dict[str, float]
    """Empty unless quantized: what the int8 weights change, by name."""
    told: str

    def __str__(self) -> str:
        return self.told


def export(
    model: Sequential,
    path: str | os.PathLike,
    quantize: bool = False,
    name: str | None = None,
    data: object = None,
    verify: bool | str = "auto",
) -> Exported:
    """Write a built model as one C99 file for inference, which needs nothing but ``<math.h>`` and allocates nothing.

    The file has ``void NAME_predict(const float *x, float *out)`` for one sample, the constants ``NAME_INPUTS`` and
    ``NAME_OUTPUTS``, and a ``main`` that reads samples and prints outputs if ``NAME_MAIN`` is defined. All else in it
    is static. Outputs are those of ``predict``: probabilities, if the model ends in softmax or sigmoid. A float64 model
    has ``double`` in the place of ``float`` everywhere. Weights are written so that they are read as the same bits.
    The arrays of a call lie on its stack; the file and the result tell their size. They are two, or three where a Dense
    layer has 1,024 inputs or more, each as long as the widest layer that uses it.

    Parameters
    ----------
    path : the file, which is replaced whole or not at all.
    quantize : keep the weights of Dense layers as int8 with a scale of each column, a fourth of the size. Weights w of
        a unit become ``scale * q`` with ``scale = max |w| / 127``, so each is off by ``scale / 2`` at most. Biases and
        all arithmetic stay as they are. What it saves and costs is printed.
    name : NAME, a C identifier; by default the model's name made one.
    data : with ``quantize``, samples x or a pair (x, y) to measure what is lost: x beside the model itself, y by the
        loss and the metrics that the model is compiled with. Without it samples of the normal distribution are drawn.
    verify : "auto" compiles the file with the first of cc, gcc and clang that is found, compares its outputs with
        ``predict`` on random samples, and warns if there is no compiler. True raises an error there. False does
        neither.

    Raises ValueError for a layer, activation or number without a C form (a user's own layer, NaN), by its name, or if
    the compiled file gives other numbers; RuntimeError if it cannot be compiled or run. Nothing is written then.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    model.require_built("export")
    refuse_own_parts(model, "C")
    quantize, verify = check_bool("quantize", quantize), check_choice("verify", verify, ("auto", True, False))
    shown, name = check_path(path), _checked_name(name, model)
    samples = _checked_data(model, data, quantize)
    written = c_source(model, name, quantize)
    rounded = _rounded(model) if quantize else model
    is_checked = verify is not False and _is_same(rounded, written, name, must=verify is True)
    told = f"{shown}: {written.constants:,} bytes of constants, {written.stack:,} bytes of stack a call"
    lost: dict[str, float] = {}
    if quantize:
        told += f"; the {model.dtype} parameters take {model.params.nbytes:,} bytes"
        lost, measured = _measured(model, rounded, *samples)
        told += f"\n{measured}"
    with replacing(path) as file:
        file.write(written.text.encode("ascii"))
    if quantize:
        print(told)
    return Exported(shown, name, written.constants, written.stack, is_checked, lost, told)


def _checked_name(name: str | None, model: Sequential) -> str:
    if name is None:
        made = re.sub("[^A-Za-z0-9]+", "_", model.name).strip("_")
        return made if re.match("[A-Za-z]", made) and made not in _KEYWORDS else f"net_{made}".strip("_")
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name in _KEYWORDS:
        raise ValueError(
            "name must be a C identifier of letters, digits and _ that begins with a letter and is no keyword, "
            f"got {name!r}"
        )
    return name


def _checked_data(model: Sequential, data: object, quantize: bool) -> tuple:
    """(x, y); y is None where there is none, x too where nothing is given."""
    if data is None:
        return None, None
    if not quantize:
        raise ValueError("data must be left out without quantize=True: the outputs are those of predict")
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    x = check_inputs(x, model.input_shape, model.dtype, "x of data")
    if y is not None:
        model.require_compiled("data=(x, y)")
        check_rows("y of data", len(y), x.shape[0])
    return x, y


# ---- the check


def _is_same(model: Sequential, written: Written, name: str, must: bool) -> bool:
    """Compile the file and compare its outputs; False, after a warning, if there is no compiler."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        lacking = f"no C compiler ({', '.join(COMPILERS)}) was found on PATH"
        if must:
            raise RuntimeError(f"verify=True needs a C compiler: {lacking}")
        warn(
            f"{lacking}: the C file of {name} was not compared with predict. verify=False says that this is meant"
        )
        return False
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, f"{name}.c"), os.path.join(folder, f"{name}.exe")
        with open(source, "w", encoding="ascii") as file:
            file.write(written.text)
        _run([compiler, "-std=c99", "-O1", f"-D{name}_MAIN", source, "-o", program, "-lm"])

        def outputs(x: np.ndarray) -> np.ndarray:
            samples = "\n".join(" ".join(map(repr, sample)) for sample in x.reshape(len(x), -1).tolist())
            hint = f" (a call takes {written.stack:,} bytes of stack)"
            numbers = np.array(_run([program], samples, hint).split(), dtype=model.dtype)
            return numbers.reshape(len(x), *model.output_shape)

        check_same(model, outputs)
    return True


def _run(command: list[str], text: str = "", hint: str = "") -> str:
    """What the command prints. RuntimeError if it fails, with the hint if it crashes."""
    what = os.path.basename(command[0])
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise RuntimeError(f"{what} could not be run to check the C file ({error}); {_UNCHECKED}") from error
    if done.returncode:
        why = done.stderr.strip()[-500:] or f"it ended with code {done.returncode}{hint}"
        raise RuntimeError(f"{what} failed as the C file was checked: {why}; {_UNCHECKED}")
    return done.stdout


_UNCHECKED = "verify=False exports without a check"


# ---- what int8 weights change


def _rounded(model: Sequential) -> Sequential:
    """A copy with the weights that the C file has."""
    model = copy.deepcopy(model)
    for layer in model.layers:
        if isinstance(layer, Dense):
            q, scale = quantized(layer.weight)
            layer.weight[...] = q * scale
    return model


def _measured(model: Sequential, rounded: Sequential, x, y) -> tuple[dict[str, float], str]:
    """What the model with rounded weights gives that ``model`` does not, by name and in words."""
    beside = (
        f"{x.shape[0]:,} samples" if x is not None else f"{_SAMPLES:,} random samples, as no data were given"
    )
    if x is None:
        x = np.random.default_rng(0).normal(size=(_SAMPLES, *model.input_shape))
    exact, found = model.predict(x, verbose=0), rounded.predict(x, verbose=0)
    lost = {"largest_difference": float(np.abs(exact - found).max())}
    words = [f"largest difference of an output {lost['largest_difference']:.3g}"]
    answers = model.final_activation or (model.loss and model.loss.fused_activation)
    if answers in ("softmax", "sigmoid"):
        logits = (each.predict_logits(x).reshape(-1, model.output_shape[-1]) for each in (rounded, model))
        lost["agreement"] = TASK_FIGURES[TASKS[answers].name].beside_teacher(*logits)["agreement"]
        words.append(f"agreement {lost['agreement']:.2%}")
    if y is not None:
        before, after = (each.evaluate(x, y, verbose=0, return_dict=True) for each in (model, rounded))
        for metric in before:
            lost[metric] = after[metric] - before[metric]
            words.append(f"{metric} {before[metric]:.4f} becomes {after[metric]:.4f}")
    return lost, f"int8 weights, on {beside}: {', '.join(words)}"
