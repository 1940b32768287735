"""1,000 random nets as C: compiled strictly, run, and compared with predict to 1e-6; some of them optimised, some under
sanitizers, some with int8 weights."""

import re
import subprocess

import numpy as np
import pytest
from c_nets import STRICT, call, error, gcc, load, random_net

from minidl.interop import check_same
from minidl.interop.c.exporting import _rounded
from minidl.interop.c.source import c_source
from minidl.layers import LAYERS

__all__ = ["gcc"]  # the fixture
COUNT, FILES = 1000, 4


@pytest.fixture(scope="module")
def nets():
    return [random_net(seed) for seed in range(COUNT)]


def samples_of(model, seed=0):
    x = np.random.default_rng(seed).normal(size=(4, *model.input_shape)).astype(model.dtype)
    x[2:] *= 3
    return x


def sources(models, quantize=False) -> dict[str, str]:
    """Their files, as few: many nets stand in one."""
    texts = [c_source(model, f"net_{number}", quantize).text for number, model in enumerate(models)]
    return {f"nets_{first}": "\n".join(texts[first::FILES]) for first in range(FILES)}


def largest_errors(library, models, wanted=None) -> np.ndarray:
    errors = []
    for number, (model, like) in enumerate(zip(models, wanted or models, strict=True)):
        x = samples_of(model, number)
        errors.append(error(call(library, f"net_{number}", x, model.output_shape), like.predict(x)))
    return np.array(errors)


def test_the_nets_have_every_layer_and_both_precisions(nets):
    met = {type(layer) for model in nets for layer in model.layers}
    assert met == set(LAYERS.classes.values())
    assert {model.dtype.name for model in nets} == {"float32", "float64"}
    assert {sum(hasattr(layer, "units") for layer in model.layers) for model in nets} == {1, 2, 3}


def test_1000_random_nets_are_as_predict_to_1e_6(nets, gcc, tmp_path):
    library = load(gcc, tmp_path, sources(nets), "-O0")
    errors = largest_errors(library, nets)
    assert len(errors) == COUNT and not np.isnan(errors).any()
    doubles = np.array([model.dtype == np.float64 for model in nets])
    assert (errors[doubles] <= 1e-12).all()
    # a net that takes a difference of close numbers, as layer normalisation may, makes more of its last bits than 1e-6
    sensitive = np.flatnonzero(errors > 1e-6)
    assert len(sensitive) <= COUNT // 200
    for number in sensitive:
        model = nets[number]
        check_same(model, lambda x, i=number, m=model: call(library, f"net_{i}", x, m.output_shape))


def test_optimised_for_this_processor_they_are_the_same(nets, gcc, tmp_path):
    some = nets[:40]
    library = load(gcc, tmp_path, sources(some), "-O3", "-march=native", "-ffp-contract=fast")
    assert np.sort(largest_errors(library, some))[-2] <= 1e-6


def test_int8_nets_are_as_predict_with_the_rounded_weights(nets, gcc, tmp_path):
    some = nets[40:100]
    rounded = [_rounded(model) for model in some]
    library = load(gcc, tmp_path, sources(some, quantize=True), "-O0")
    assert np.sort(largest_errors(library, some, rounded))[-2] <= 1e-6
    far = largest_errors(library, some) > 1e-4
    assert far.mean() > 0.5, "int8 weights are others"


@pytest.mark.parametrize("macro", ["expf=cosf", "tanhf=sinf", "sqrt=cbrt"])
def test_nets_compiled_with_another_function_are_found(nets, gcc, tmp_path, macro):
    function = macro.partition("=")[0]
    some = [model for model in nets[:200] if model.dtype == np.float32]
    some = [model for model in some if re.search(rf"\b{function}\(", c_source(model, "net").text)][:5]
    library = load(gcc, tmp_path, sources(some), "-O0", f"-D{macro}")
    errors = largest_errors(library, some)
    assert (errors > 1e-6).sum() >= 3
    for number in np.flatnonzero(errors > 1e-3):
        with pytest.raises(ValueError, match="different numbers"):
            check_same(some[number], lambda x, i=number: call(library, f"net_{i}", x, some[i].output_shape))


def test_a_changed_weight_is_found(nets, gcc, tmp_path):
    text = c_source(nets[0], "net_0").text
    head, weight, rest = re.split(r"(static const \w+ net_0_weight_\d+\S+ = \{\n\{)", text, maxsplit=1)
    changed = f"{head}{weight}{re.sub('^[^,}]+', '7', rest)}"
    library = load(gcc, tmp_path, {"changed": changed}, "-O0")
    assert largest_errors(library, nets[:1])[0] > 1e-6


def test_sanitizers_find_nothing(nets, gcc, tmp_path):
    """Each net reads and writes arrays that are exactly as long as they must be."""
    some, calls, wanted = nets[:20], [], []
    for number, model in enumerate(some):
        x, real = samples_of(model)[:1], "float" if model.dtype == np.float32 else "double"
        numbers = ", ".join(map(repr, x.ravel().tolist()))
        calls.append(
            f"{{ const {real} x[] = {{{numbers}}}; {real} out[net_{number}_OUTPUTS]; net_{number}_predict(x, out);\n"
            f'for (int j = 0; j < net_{number}_OUTPUTS; j++) printf("%.9g ", out[j]); }}\n'
        )
        wanted.append(model.predict(x).ravel())
    text = "\n".join(c_source(model, f"net_{number}").text for number, model in enumerate(some))
    found = run_sanitized(gcc, tmp_path, text, calls)
    assert found.returncode == 0 and not found.stderr, found.stderr[-2000:]
    np.testing.assert_allclose(np.array(found.stdout.split(), float), np.concatenate(wanted), 1e-5, 1e-6)
    # and a sample that is too short is seen
    short = re.sub(r"x\[\] = \{[^}]*\}", "x[] = {0}", calls[3])
    assert short != calls[3]
    found = run_sanitized(gcc, tmp_path, text, [short])
    assert found.returncode != 0 and "overflow" in found.stderr


def run_sanitized(gcc, folder, text, calls):
    program = f"{text}\n#include <stdio.h>\nint main(void)\n{{\n{''.join(calls)}return 0;\n}}\n"
    (folder / "sanitized.c").write_text(program)
    flags = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-fstrict-aliasing"]
    command = [gcc, *STRICT, *flags, str(folder / "sanitized.c"), "-o", str(folder / "sanitized"), "-lm"]
    subprocess.run(command, check=True)
    return subprocess.run([str(folder / "sanitized")], capture_output=True, text=True)


def test_the_text_has_no_binary_tricks_and_nothing_that_stays(nets):
    for number, model in enumerate(nets[:100]):
        text = c_source(model, "net", quantize=number % 2 == 1).text
        assert text.isascii() and not re.search(r"union|memcpy|malloc|\* *\)", text)
        assert re.findall(r"#include (\S+)", text) == ["<math.h>", "<stdio.h>"]
        before_main = text.partition("#ifdef net_MAIN")[0]
        assert not re.search(r"^\s*static (?!const|float net|double net|void net)", before_main, re.MULTILINE)
