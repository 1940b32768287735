"""`minidl.explain` and ``python -m minidl explain``: what is said is what the engine computes, of any small model."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from own_layers import Scale

import minidl
from minidl import activations, losses, optimizers
from minidl.__main__ import main
from minidl.explain import command, distillation, example, explain
from minidl.explain.step import has_correction

X, Y = example.X, np.eye(3)[example.CLASSES]


def said(capsys, *options: str) -> str:
    assert main(["explain", *options]) == 0
    return capsys.readouterr().out


def flat(text: str) -> str:
    return " ".join(text.split())


def is_right(text: str) -> bool:
    """Whether the gradients were as measured. Some losses are large, as a percentage."""
    largest = float(re.search(r"largest difference[^:]*: (\S+)", text)[1])
    loss = float(re.search(r"the loss was (\S+), and is now", text)[1])
    return largest < 2e-9 * max(1.0, abs(loss))


def model(*layers, loss="categorical_crossentropy", optimizer="sgd", **options) -> minidl.Sequential:
    net = minidl.Sequential([minidl.Input((2,)), *layers], seed=0, **options)
    net.compile(optimizer, loss)
    return net


# ---------------------------------------------------------------- the plain step


def test_the_plain_step(capsys):
    text = said(capsys)
    assert is_right(text)
    was, now = map(float, re.search(r"the loss was (\S+), and is now (\S+)", text).groups())
    assert now < was
    # By hand: a[0, 0] = 1 * 0.5 + 2 * 0.2 + 0.1 and the ReLU of a[0, 2] = 0.8 - 0.8 - 0.2.
    assert "a_1[0,0] = 1*0.5 + 2*0.2 + 0.1 = 1.0000" in text
    q = np.exp([-0.06, 0.23, 0.19]) / np.exp([-0.06, 0.23, 0.19]).sum()
    assert f"[[ {q[0]:.4f}  {q[1]:.4f}  {q[2]:.4f}]" in text
    assert "KL" not in text and "-0.0000" not in text


def test_where_q_minus_y_over_b_comes_from(capsys):
    """dL/dq = -y / (q B), through q (d - sum(d q)), is (q - y) / B."""
    z = np.array([[-0.06, 0.23, 0.19], [0.405, 0.145, -0.25]])
    q = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    d = -Y / (q * 2)
    through = q * (d - (d * q).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(through, (q - Y) / 2, atol=1e-15)
    text = said(capsys)
    place = text.index("d = dL/dq")
    for name, number in ((r"d = dL/dq", d[0, 1]), ("through it", through[0, 1]), ("dlogits", through[0, 1])):
        place = text.index(name, place)
        assert f"{number:.4f}" in text[place : place + 60]


def test_the_loss_of_an_untrained_net(capsys):
    assert "its loss is ln C = ln 3 = 1.0986" in flat(said(capsys))
    assert "its loss is ln 2 = 0.6931" in flat(said(capsys, "--loss", "binary_crossentropy"))
    net = model(minidl.Dense(7, "softmax"), loss="sparse_categorical_crossentropy")
    text = flat(str(explain(net, X, [0, 6])))
    mean, low, high = map(
        float, re.search(r"weights have (\S+) on the mean \((\S+) to (\S+)\)", text).groups()
    )
    assert "ln 7 = 1.9459" in text and low < 1.9459 < mean < high
    assert float(re.search(r"cost more: (\S+) with x 3", text)[1]) > mean


def test_several_steps(capsys):
    """Each step begins where the one before has ended, as ``fit`` would go."""
    found = explain(model(minidl.Dense(3, "softmax"), optimizer="adam"), X, Y, steps=3)
    net = model(minidl.Dense(3, "softmax"), optimizer="adam", dtype="float64")
    net.set_weights(model(minidl.Dense(3, "softmax")).get_weights())
    for step in found.steps:
        assert step.trace.loss == net.train_on_batch(X, Y)
        np.testing.assert_array_equal(step.parameters[0].after, net.layers[0].weight)
    text = said(capsys, "--steps", "3")
    assert "Step 3: Update" in text and text.count("the loss was") == 3


# ---------------------------------------------------------------- every part of the registries


@pytest.mark.parametrize("name", losses.LOSSES.classes)
def test_every_loss(capsys, name):
    assert is_right(said(capsys, "--loss", name))


@pytest.mark.parametrize("name", activations.NAMES)
def test_every_activation(capsys, name):
    assert is_right(said(capsys, "--activation", name))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS.names)
def test_every_optimizer(capsys, name):
    text = said(capsys, "--optimizer", name, "--steps", "2")
    assert is_right(text)
    corrected = name in ("adam", "adamw", "nadam", "adamax")
    assert has_correction(optimizers.get(name)) == corrected == ("with and without its correction" in text)


def test_a_wrong_gradient_is_seen():
    class Doubled(Scale):
        def backward(self, dout):
            return 2 * super().backward(dout)

    right, wrong = (model(minidl.Dense(3, "tanh"), layer(), minidl.Softmax()) for layer in (Scale, Doubled))
    assert is_right(str(explain(right, X, Y))) and not is_right(str(explain(wrong, X, Y)))


def test_a_sum_in_place_of_the_mean():
    """Its gradient is q - y, so nothing is said of B."""
    net = model(minidl.Dense(3, "softmax"), loss=losses.CategoricalCrossentropy(reduction="sum"))
    found = explain(net, X, Y)
    assert is_right(str(found)) and "/ B" not in str(found) and "ln C" not in str(found)
    np.testing.assert_allclose(found.steps[0].trace.dlogits, found.steps[0].trace.output - Y, atol=1e-12)


def test_what_regularizers_add_is_said():
    with_it = model(minidl.Dense(3, "softmax", kernel_regularizer="l2"), optimizer=minidl.SGD(0.1))
    text = str(explain(with_it, X, Y))
    assert is_right(text) and "what regularizers add" in text
    assert "what regularizers add" not in str(explain(model(minidl.Dense(3, "softmax")), X, Y))


# ---------------------------------------------------------------- Adam


def test_adams_first_ten_steps_with_and_without_its_correction(capsys):
    text = said(capsys, "--optimizer", "adam", "--learning-rate", "0.001")
    table = re.findall(r"^ +(\d+) +(\S+) +(\S+) +(\S+)$", text, re.MULTILINE)
    assert len(table) == 10
    for t, (step, corrected, uncorrected, ratio) in enumerate(table, 1):
        expected = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)
        assert int(step) == t and float(corrected) == 0.001
        assert abs(float(ratio) - expected) < 0.006 and abs(float(uncorrected) / 0.001 - expected) < 0.006
    assert table[0][3] == "3.16" and table[9][3] == "6.53"
    assert "0.001 for g = 0.1, 0.001 for g = 1, 0.001 for g = 1000" in flat(text)


def test_moments_and_the_length_of_each_step():
    found = explain(model(minidl.Dense(3, "softmax"), optimizer="adam"), X, Y, steps=2)
    m = v = 0.0
    for t, step in enumerate(found.steps, 1):
        (weight, _) = step.parameters
        m, v = 0.9 * m + 0.1 * weight.gradient, 0.999 * v + 0.001 * weight.gradient**2
        np.testing.assert_allclose(weight.slots["m"], m, rtol=1e-12)
        np.testing.assert_allclose(weight.slots["v"], v, rtol=1e-12)
        expected = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)
        assert step.uncorrected == pytest.approx(expected, rel=1e-4)
    assert f"{found.steps[1].uncorrected:.2f} times as long" in flat(str(found))


# ---------------------------------------------------------------- distillation


def test_both_terms_of_the_loss(capsys):
    text = said(capsys, "--temperature", "4")
    assert is_right(text) and "KL(p_T || q_T), with temperature T = 4" in text
    hard, soft, total = map(float, re.search(r"loss = (\S+) \+ (\S+) = (\S+)", text).groups()[:3])
    assert hard + soft == pytest.approx(total, abs=2e-6)
    assert said(capsys, "--distill") == text  # 4 is the default


def test_what_is_said_of_t_squared(capsys):
    """The weights keep their meaning where logits are small beside T, and only roughly elsewhere."""
    text = flat(said(capsys, "--distill"))
    assert "This 1/T is the chain rule, at any T. Once the logits are small beside T, " in text
    assert "keep their meaning roughly, but not exactly at every T" in text and "same at any T" not in text
    assert "It is exact, at any T and for any logits. The second 1/T hides in q_T - p_T" in text


def norms(case: distillation.Study) -> np.ndarray:
    """(4, 4): norm, relative, norm, relative, by temperature."""
    return np.array([[float(cell) for cell in row[1:]] for row in distillation.norms_table(case).rows])


def test_the_norms_of_the_soft_gradient():
    confident, begun, small = distillation._cases().values()
    for case in (confident, begun, small):
        for (_, without, _, with_it), t in zip(norms(case)[:, [0, 1, 2, 3]], (1, 2, 4, 20), strict=True):
            assert without == pytest.approx(with_it / t**2, rel=6e-3)
    np.testing.assert_allclose(norms(small)[:, 3], 1, atol=0.01)
    np.testing.assert_allclose(norms(small)[[2, 3], 1], [1 / 16, 1 / 400], rtol=0.02)
    for case in (confident, begun):  # as measured on digits: 1 : 2.6 : 2.2 and 1 : 4.1 : 3.7
        _, _, at_4, at_20 = norms(case)[:, 3]
        assert at_4 > 2 and 1.5 < at_20 < at_4
        assert norms(case)[3, 1] > 1.5 / 400


def test_the_limit_of_high_temperatures(capsys):
    text = said(capsys, "--distill")
    apart = [float(found) for found in re.findall(r" (\S+)%$", text, re.MULTILINE)]
    assert len(apart) == 5 and apart == sorted(apart, reverse=True) and apart[-1] < 0.1 < 10 < apart[0]


def test_what_the_label_does_not_say(capsys):
    text = flat(said(capsys, "--distill"))
    p = losses.softmax(example.TEACHER_LOGITS)
    assert f"{p[0, 1]:.3f} for it, {p[0, 2]:.3f} for class 2 and {p[0, 0]:.3f} for class 0" in text
    assert "class 2 is 2.718 times as likely as class 0" in text


# ---------------------------------------------------------------- a model of one's own


def test_a_model_stays_as_it_is():
    net = model(minidl.Dense(4), minidl.BatchNormalization(), minidl.Dropout(0.5), minidl.Dense(3, "softmax"))
    net.train_on_batch(X, Y)
    before, moments = net.params.copy(), net.optimizer.batches
    found = explain(net, X, Y, optimizer="adam", steps=2)
    np.testing.assert_array_equal(net.params, before)
    assert net.optimizer.batches == moments and isinstance(net.optimizer, minidl.SGD)
    assert (
        is_right(str(found)) and "dgamma_2" in str(found) and "moving" not in str(found).split("2. Loss")[1]
    )


@pytest.mark.parametrize(
    "layers", [(Scale(),), (minidl.Dense(3, "tanh"), minidl.Softmax())], ids=["own", "softmax"]
)
def test_models_of_other_layers(layers):
    if len(layers) == 1:
        found = explain(model(*layers, loss="mse"), X, X[::-1], steps=2)
    else:
        found = explain(model(*layers), X, Y, steps=2)
    assert is_right(str(found)) and found.html()


def test_a_slice_of_a_large_model():
    net = minidl.Sequential(
        [minidl.Input((784,)), minidl.Dense(64, "relu"), minidl.Dense(10, "softmax")], seed=0
    )
    net.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 784)), rng.integers(0, 10, 100)
    with pytest.raises(ValueError, match="too many to read .*most=6.*samples=2.*layers="):
        explain(net, x, y)
    found = explain(net, x, y, samples=2, most=4)
    text = str(found)
    assert len(text.splitlines()) < 300 and is_right(text)
    assert "the first of 784 x 64" in flat(text) and "of 400 of the 50,890 parameters" in flat(text)
    assert len(found.lesson.batch.x) == 2 and found.html()
    alone = str(explain(net, x, y, layers=[net.layers[-1].name], samples=2))
    assert "weight_2" in alone and "dweight_1" not in alone


@pytest.mark.parametrize("width", [40, 60, 110])
def test_narrow_terminals(width):
    text = explain(
        example.make_model(losses.KnowledgeDistillation(4.0), "relu"),
        X,
        Y,
        loss=losses.KnowledgeDistillation(4.0),
        optimizer="adam",
        teacher_logits=example.TEACHER_LOGITS,
        steps=2,
    ).text(width)
    assert max(map(len, text.splitlines())) <= width and text.isascii()


def test_no_utf_8():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    command = [sys.executable, "-m", "minidl", "explain", "--distill", "--optimizer", "adam"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "" and max(map(len, done.stdout.splitlines())) <= 60


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "options, rule",
    [
        ("--optimizer adm", "unknown optimizer 'adm': did you mean 'adam'?"),
        ("--loss mss", "unknown loss 'mss': did you mean 'mse'?"),
        ("--activation relo", "unknown activation 'relo': did you mean 'relu'?"),
        ("--temperature 0", "temperature must be > 0, got 0.0"),
        ("--temperature -1", "temperature must be > 0, got -1.0"),
        ("--learning-rate -1", "--learning-rate must be >= 0"),
        ("--steps 0", "--steps must be >= 1, got 0"),
        ("--distill --loss mse", "leave out --loss mse"),
        ("--html /nowhere/at/all.html", "/nowhere/at/all.html cannot be written"),
    ],
)
def test_bad_options(capsys, monkeypatch, options, rule):
    monkeypatch.setattr(command, "explain", with_data_that_are_looked_at_last)
    assert main(["explain", *options.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and rule in shown.err and shown.err.count("\n") == 1


def with_data_that_are_looked_at_last(model, x, y, **options):
    return explain(
        model, None, None, **options
    )  # which would be the first thing to say, were it looked at first


def test_bad_arguments():
    net = model(minidl.Dense(3, "softmax", name="last"))
    for change, rule in (
        (dict(layers=["lost"]), "did you mean 'last'"),
        (dict(loss="mss"), "did you mean 'mse'"),
        (dict(teacher_logits=np.zeros((5, 3)) + [0, 1, 2]), "teacher_logits"),
        (dict(samples=0), "samples must be >= 1"),
        (dict(steps=0), "steps must be >= 1"),
    ):
        with pytest.raises(ValueError, match=rule):
            explain(net, X, Y, **change)
    with pytest.raises(TypeError, match="os.PathLike"):
        explain(net, X, Y, html=5)
    with pytest.raises(TypeError, match="model must be a Sequential"):
        explain("net", X, Y)
    with pytest.raises(ValueError, match="the model was not compiled"):
        explain(minidl.Sequential([minidl.Input((2,)), minidl.Dense(3)]), X, Y)
    with pytest.raises(ValueError, match="neither"):
        explain(model(minidl.Dense(3), loss="mse"), X, Y, teacher_logits=example.TEACHER_LOGITS)
    with pytest.raises(ValueError, match="the loss must be finite"), np.errstate(all="ignore"):
        explain(model(minidl.Dense(3), loss="poisson"), X, Y)


@pytest.mark.parametrize("lead, at_4, limit", [(3, 0.61, None), (6, 1.06, 0.6), (12, 2.6, 1.2)])
def test_what_is_said_of_a_lead_is_so(lead, at_4, limit):
    study = distillation.Study(np.zeros((1, 10)), np.eye(10)[:1] * lead, None)
    one, four, hot = (study.at(t).norm for t in (1.0, 4.0, 1e4))
    assert four / one == pytest.approx(at_4, rel=0.01)
    assert limit is None or hot / one == pytest.approx(limit, rel=0.03)
