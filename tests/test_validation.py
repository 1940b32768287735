"""Argument checks: what passes, what is refused, and that the message names argument, rule and value."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minidl
from minidl import losses, optimizers
from minidl import validation as v


def refused(match, call, *args, error=ValueError, **kwargs):
    with pytest.raises(error, match=match):
        call(*args, **kwargs)


# -- numbers, names --------------------------------------------------------------------------------


def test_integers():
    assert v.check_int("n", np.int8(3), 0, 5) == 3 and type(v.check_int("n", np.int8(3))) is int
    refused("n must be >= 1, got 0", v.check_int, "n", 0, minimum=1)
    refused("n must be <= 2, got 3", v.check_int, "n", 3, maximum=2)
    for bad in (1.0, True, "1", None, np.float32(2), np.array([1])):
        refused("n must be an integer, got", v.check_int, "n", bad, error=TypeError)


def test_floats():
    assert v.check_float("t", np.float32(0.5), above=0) == 0.5
    assert type(v.check_float("t", np.array(2))) is float
    refused("temperature must be > 0, got 0", v.check_float, "temperature", 0, above=0)
    refused("t must be < 1, got 1.0", v.check_float, "t", 1.0, below=1)
    refused("t must be >= 0, got -0.1", v.check_float, "t", -0.1, minimum=0)
    refused("t must be <= 1, got 1.5", v.check_float, "t", 1.5, maximum=1)
    refused("t must be finite, got nan", v.check_float, "t", float("nan"))
    refused("t must be finite, got inf", v.check_float, "t", float("inf"), above=0)
    refused("t must be finite", v.check_float, "t", 10**400)
    for bad in ("1", True, None, 1j, np.ones(2)):
        refused("t must be a number, got", v.check_float, "t", bad, error=TypeError)


def test_bools_choices_dtypes_shapes():
    assert v.check_bool("shuffle", np.True_) is True
    refused("shuffle must be True or False, got 1", v.check_bool, "shuffle", 1, error=TypeError)
    assert v.check_choice("verbose", "auto", ("auto", 1)) == "auto"
    refused("verbose must be one of 'auto', 1, got True", v.check_choice, "verbose", True, ("auto", 1))
    assert v.check_dtype(np.float32) == v.check_dtype("float32") == np.dtype("float32")
    for bad in ("float16", ">f8", int, None, "nonsense"):
        refused("dtype must be 'float32' or 'float64'", v.check_dtype, bad)
    assert v.check_shape("shape", 3) == (3,) and v.check_shape("shape", [2, np.int64(3)]) == (2, 3)
    refused("at least one axis", v.check_shape, "shape", ())
    refused("every size must be >= 1, got 0", v.check_shape, "shape", (2, 0))
    refused("shape must be an integer or a tuple", v.check_shape, "shape", "12", error=TypeError)
    refused("every size must be an integer", v.check_shape, "shape", (2, None), error=TypeError)


def test_a_shape_of_many_axes_is_not_described_for_each_of_them():
    described = []

    class Size(int):
        def __repr__(self):
            described.append(self)
            return super().__repr__()

    assert len(v.check_shape("input_shape", [Size(1)] * 500)) == 500
    assert len(described) <= 500


def test_nearest_name():
    error = v.unknown_name("loss", "mes", ["mse", "mae", "huber"])
    assert str(error) == "unknown loss 'mes': did you mean 'mse'? Known: huber, mae, mse"
    assert "did you mean" not in str(v.unknown_name("loss", "xyz", ["mse"]))


def test_describe_is_short():
    assert v.describe(np.zeros((2, 3), np.int8)) == "an array of shape (2, 3) and dtype int8"
    assert len(v.describe("x" * 10**6)) < 100


def test_messages_are_short_whatever_was_received():
    for value in ([1] * 16_000, "x" * 16_000):
        for check, arguments in (
            (v.check_choice, ("mode", value, ("min", "max"))),
            (v.check_dtype, (value,)),
            (v.check_shape, ("shape", [*value, 0])),
            (optimizers.get, ({"class_name": [value]},)),
            (losses.get, ({"class_name": "mse", "config": value},)),
        ):
            with pytest.raises((ValueError, TypeError)) as error:
                check(*arguments)
            assert len(str(error.value)) < 1000, check


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "u1", "i8", "f2", "f4", "f8", "longdouble", ">f4", ">i2"])
def test_real_arrays_pass_uncopied(dtype):
    array = np.ones((3, 2), dtype)
    for view in (array, array[::-1], array.T, np.broadcast_to(array[0], (3, 2))):
        assert np.shares_memory(v.check_array("x", view), view)
    v.check_finite("x", array)


@pytest.mark.parametrize(
    "value, error, message",
    [
        (None, ValueError, "x must be an array, got None"),
        (["a"], TypeError, "x must hold real numbers"),
        (
            np.ones(2, complex),
            TypeError,
            "x must hold real numbers, got an array of shape .2,. and dtype complex128",
        ),
        (np.array([1, None]), TypeError, "x must hold real numbers"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "x must hold real numbers"),
        ([[1, 2], [3]], ValueError, "x cannot be made an array"),
        (
            np.ma.masked_array([1.0, 2.0], [True, False]),
            TypeError,
            "x must be a plain array, got a masked array",
        ),
        (3.0, ValueError, "x must have at least one axis, got a single number 3.0"),
        ([], ValueError, r"x must not be empty, got shape \(0,\)"),
        (np.zeros((0, 4)), ValueError, r"x must not be empty, got shape \(0, 4\)"),
        ({1: 2}, TypeError, "x must hold real numbers"),
        (object(), TypeError, "x must hold real numbers"),
        ((i for i in range(3)), TypeError, "x must hold real numbers"),
    ],
)
def test_what_is_no_real_array(value, error, message):
    refused(message, v.check_array, "x", value, error=error)


def test_axes():
    refused("x must have 2 axes, got shape", v.check_array, "x", [1.0], ndim=2)
    assert v.check_array("x", [], allow_empty=True).size == 0


@given(
    hnp.arrays(
        st.sampled_from(["f2", "f4", "f8"]),
        hnp.array_shapes(max_dims=3),
        elements=st.sampled_from([0, 1, -2]),
    ),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.data(),
)
def test_the_first_bad_index_is_named(array, bad, draw):
    v.check_finite("x", array)
    places = draw.draw(st.lists(st.integers(0, array.size - 1), min_size=1, max_size=3))
    array.reshape(-1)[places] = bad
    index = np.unravel_index(min(places), array.shape)
    shown = int(index[0]) if array.ndim == 1 else tuple(int(i) for i in index)
    with pytest.raises(ValueError) as caught:
        v.check_finite("x", array)
    assert str(caught.value) == f"x must be finite, got {bad} at index {shown}"


def test_the_index_is_right_in_a_later_block():
    array = np.zeros((300_000, 3), np.float32)
    array[234_567, 1] = np.nan
    refused(r"got nan at index \(234567, 1\)", v.check_finite, "y", array)
    labels = np.zeros(3_000_000, np.int64)
    labels[2_345_678] = 10
    refused("got 10 at index 2345678", v.check_labels, labels, 10)


def test_what_does_not_fit_the_models_dtype():
    array = np.array([1.0, 1e39])
    v.check_finite("x", array)
    refused("x must fit float32, got 1e[+]39 at index 1", v.check_finite, "x", array, np.float32)


def test_a_memory_map_is_not_read_into_memory(tmp_path):
    big = np.memmap(tmp_path / "big", np.float32, "w+", shape=(20_000, 784))
    tracemalloc.start()
    assert np.shares_memory(v.check_inputs(big, (784,)), big)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 < big.nbytes


# -- data sets -------------------------------------------------------------------------------------


def test_inputs():
    assert v.check_inputs(np.zeros((3, 4), np.uint8), (4,)).dtype == np.uint8
    assert v.check_inputs([1.0, 2.0], (1,)).shape == (2, 1)
    assert v.check_inputs(np.zeros((3, 2, 2)), None).shape == (3, 2, 2)
    refused(r"x must have shape \(N, 4\), got \(3, 5\)", v.check_inputs, np.zeros((3, 5)), (4,))
    refused(r"got \(4,\); one sample is x\[None\]", v.check_inputs, np.zeros(4), (4,))
    refused("flatten it with x.reshape", v.check_inputs, np.zeros((3, 2, 2)), (4,))
    refused(r"x must have shape \(N, features\), got \(3,\)", v.check_inputs, np.zeros(3), None)
    refused("x must not be empty", v.check_inputs, np.zeros((0, 4)), (4,))
    refused("teacher must have shape", v.check_inputs, np.zeros((3, 5)), (4,), argument="teacher")


def test_labels():
    for labels in (
        [0, 2, 1],
        np.array([0, 2, 1], np.uint8),
        [0.0, 2.0, 1.0],
        [[0], [2], [1]],
        np.array([0, 2, 1], ">i2"),
    ):
        found = v.check_labels(labels, 3)
        assert found.dtype == np.int64 and found.tolist() == [0, 2, 1] and found.flags.c_contiguous
    assert v.check_labels([True, False], 2).tolist() == [1, 0]
    assert v.check_labels([-1, 0], 2, unlabelled=True).tolist() == [-1, 0]
    refused(r"y must hold whole numbers in 0..2 \(3 classes\), got 3 at index 1", v.check_labels, [0, 3], 3)
    refused("got -1 at index 0", v.check_labels, [-1, 0], 3)
    refused("in -1..2 .* got -2 at index 1", v.check_labels, [-1, -2], 3, unlabelled=True)
    refused("got 0.5 at index 1", v.check_labels, [0.0, 0.5], 3)
    refused("y must be finite, got nan at index 0", v.check_labels, [np.nan, 0.5], 3)
    refused("rows of class probabilities go with loss", v.check_labels, np.eye(3), 3)
    refused(r"shape \(N,\), got \(2, 2\)", v.check_labels, np.zeros((2, 2)), 3)
    refused("got True at index 0", v.check_labels, [True, False], 1)


def test_targets():
    assert v.check_targets(np.eye(3, dtype=np.uint8), (3,)).dtype == np.uint8
    assert v.check_targets([1.0, 0.0], (1,)).shape == (2, 1)
    refused("class indices go with loss 'sparse_categorical", v.check_targets, [0, 1, 2], (3,))
    refused(r"y must have shape \(N, 3\), got \(2, 2\)", v.check_targets, np.zeros((2, 2)), (3,))
    refused("y must be finite, got inf", v.check_targets, [[np.inf, 0.0]], (2,))
    refused(
        r"y must be in \[0, 1\] \(probabilities\), got 2.0 at index \(0, 1\)",
        v.check_targets,
        [[0.0, 2.0]],
        (2,),
        limits=(0.0, 1.0),
    )
    v.check_targets([[1 + 1e-7, -1e-8]], (2,), limits=(0.0, 1.0))  # rounding is forgiven


def test_weights_and_logits():
    assert v.check_sample_weight([[1], [2]], 2).tolist() == [1.0, 2.0]
    refused("sample_weight must be >= 0, got -1 at index 1", v.check_sample_weight, [1, -1], 2)
    refused("one row per sample of x: expected 3, got 2", v.check_sample_weight, [1, 1], 3)
    refused("sample_weight must be finite", v.check_sample_weight, [1, np.nan], 2)
    refused(r"sample_weight must have shape \(N,\)", v.check_sample_weight, np.ones((2, 2)), 2)
    # a teacher's logits are rows of targets, too
    assert v.check_targets(np.zeros((2, 3), np.float16), (3,)).dtype == np.float16
    teacher = "float64", "teacher_logits"
    refused(
        r"teacher_logits must have shape \(N, 3\), got \(2, 4\)",
        v.check_targets,
        np.zeros((2, 4)),
        (3,),
        *teacher,
    )
    refused("teacher_logits must have one row per sample", v.check_rows, "teacher_logits", 1, 2)
    refused(
        r"teacher_logits must be finite, got nan at index \(0, 0\)",
        v.check_targets,
        [[np.nan]],
        (1,),
        *teacher,
    )


@given(
    hnp.arrays(
        st.sampled_from(["?", "i1", "u1", "i8", "u8", "f2", "f4", "f8", "c8", "U3", "O", "M8[s]"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.sampled_from([v.check_inputs, v.check_labels, v.check_targets, v.check_sample_weight]),
)
def test_any_array_passes_or_is_refused(array, check):
    args = {v.check_inputs: [(3,)], v.check_labels: [3], v.check_targets: [(3,)]}
    try:
        found = check(array, *args.get(check, [3]))
    except (ValueError, TypeError) as error:
        assert str(error).split()[0] in ("x", "y", "teacher_logits", "sample_weight")
    else:
        assert np.isfinite(np.asarray(found, np.float64)).all() and len(found) > 0


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite_is_found_wherever_it_is_in_a_large_array(threads, dtype, all_threads):
    array = np.ones(
        (1100, 4001), dtype
    )  # 17 and 34 MB: looked at by all threads, in shares that end within a row
    array[7, 7] = np.finfo(dtype).max
    before = minidl.get_num_threads()
    minidl.set_num_threads(threads)
    try:
        v.check_finite("x", array)
        for row, column in [(0, 0), (366, 2667), (549, 4000), (733, 1333), (1099, 4000)]:
            for value in (np.nan, np.inf, -np.inf):
                array[row, column] = value
                refused(rf"got {value} at index \({row}, {column}\)", v.check_finite, "x", array)
                array[row, column] = 1
    finally:
        minidl.set_num_threads(before)
