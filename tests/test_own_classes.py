"""Classes of the user's that derive from losses, metrics and optimizers: what is overridden is used, or refused."""

import numpy as np
import pytest
from own_layers import Scale

from minidl import Dense, Sequential, losses, metrics, optimizers, regularizers
from minidl.models import clone_model, load_model
from minidl.teachers import Ensemble


class Doubled(losses.MeanSquaredError):
    def value_and_grad(self, logits, y, sample_weight=None):
        value, gradient = super().value_and_grad(logits, y, sample_weight)
        return 2 * value, 2 * gradient


class DoubledCrossentropy(losses.SparseCategoricalCrossentropy):
    def value_and_grad(self, logits, y, sample_weight=None):
        value, gradient = super().value_and_grad(logits, y, sample_weight)
        return 2 * value, 2 * gradient


class DoubledKD(losses.KnowledgeDistillation):
    def value_and_grad(self, logits, y, teacher_logits, sample_weight=None):
        value, gradient = super().value_and_grad(logits, y, teacher_logits, sample_weight)
        return 2 * value, 2 * gradient


@pytest.mark.parametrize("doubled", [Doubled, DoubledCrossentropy, DoubledKD])
def test_a_losss_own_value_and_grad_is_used(doubled):
    """Twice the loss at half the learning rate trains as the loss does; passed over, it would train half as fast."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 5)), rng.integers(0, 3, 64)
    y = np.eye(3)[y] if doubled is Doubled else y
    teacher = {"target_model": rng.normal(size=(64, 3))} if doubled is DoubledKD else {}

    def trained(loss, rate):
        model = Sequential(
            [Dense(3, "linear" if doubled is Doubled else "softmax", input_shape=(5,))], seed=0
        )
        model.compile(optimizers.SGD(rate), loss)
        history = model.fit(x, y, epochs=2, verbose=0, **teacher).history["loss"]
        return model.params, history, model.evaluate(x, y, verbose=0)

    base = doubled.__mro__[1]
    params, history, value = trained(doubled(), 0.25)
    expected, base_history, base_value = trained(base(), 0.5)
    np.testing.assert_allclose(params, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(history, np.multiply(2, base_history), rtol=1e-5)
    if doubled is not DoubledKD:  # without a teacher it is evaluated as crossentropy
        assert value == pytest.approx(2 * base_value, rel=1e-5)
    assert abs(trained(base(), 0.25)[0] - params).max() > 1e-3


def test_a_loss_of_ones_own_is_used_when_it_is_called():
    z, y = np.random.default_rng(0).normal(size=(2, 4, 3))
    assert Doubled()(y, z) == pytest.approx(2 * losses.MeanSquaredError()(y, z))
    labels = np.array([0, 1, 2, 0])
    from_logits = DoubledCrossentropy(from_logits=True)(labels, z)
    assert from_logits == pytest.approx(2 * losses.SparseCategoricalCrossentropy(from_logits=True)(labels, z))
    assert DoubledKD()(labels, z, y) == pytest.approx(2 * losses.KnowledgeDistillation()(labels, z, y))
    with pytest.raises(TypeError, match="value_and_grad of its own, which takes logits"):
        DoubledCrossentropy()(labels, np.full((4, 3), 1 / 3))
    model = Sequential([Dense(3, "relu", input_shape=(5,))])
    with pytest.raises(ValueError, match="needs probabilities, but the model ends with relu"):
        model.compile("sgd", DoubledCrossentropy())


def test_a_loss_without_value_and_grad_is_refused():
    class Kerass(losses.Loss):
        def call(self, y_true, y_pred):
            return 25.0

    for cls in (Kerass, losses.Loss, type("Both", (Doubled,), {"call": Kerass.call})):
        with pytest.raises(TypeError, match=f"{cls.__name__} must define value_and_grad"):
            cls()


@pytest.mark.parametrize(
    ("base", "method"),
    [
        (metrics.Accuracy, "update_state"),
        (metrics.Accuracy, "result"),
        (metrics.MeanSquaredError, "rows"),
        (optimizers.SGD, "step"),
        (optimizers.Adam, "update"),
    ],
)
def test_what_training_would_pass_over_is_refused(base, method):
    own = type(
        "Own", (base,), {method: lambda self, *arguments: getattr(super(base, self), method)(*arguments)}
    )
    options = (
        {"optimizer": own()} if base.__module__.startswith("minidl.optimizers") else {"metrics": [own()]}
    )
    model = Sequential([Dense(2, input_shape=(3,))])
    with pytest.raises(TypeError, match=f"Own overrides {method}, which training does not call"):
        model.compile(loss="mse", **options)
    harmless = type("Own", (base,), {"note": lambda self: 1})()
    model.compile(loss="mse", **{key: harmless if key == "optimizer" else [harmless] for key in options})


def test_a_schedules_own_call_is_used():
    class Half(optimizers.schedules.CosineDecay):
        def __call__(self, step):
            return 0.5 * super().__call__(step)

    np.testing.assert_allclose(
        optimizers.SGD(Half(0.1, 10)).learning_rates(0, 5),
        optimizers.SGD(optimizers.schedules.CosineDecay(0.05, 10)).learning_rates(0, 5),
    )


class Shifted(Sequential):
    """Seven more than the layers say."""

    def forward(self, x, training=False, logits=False):
        return super().forward(x, training=training, logits=logits) + 7


class Halved(Sequential):
    def forward(self, x, training=False, logits=False):
        return super().forward(x, training=training, logits=logits) / 2

    def backward(self, dout, logits=False):
        return super().backward(dout / 2, logits=logits)


def test_a_models_own_forward_is_used():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), rng.normal(size=(60, 2)).astype(np.float32)

    def made(cls):
        model = cls([Dense(2, input_shape=(3,))], seed=0)
        model.compile(optimizers.SGD(0.01), "mse")
        return model

    plain, shifted = made(Sequential), made(Shifted)
    np.testing.assert_allclose(shifted.predict(x), plain.predict(x) + 7, rtol=1e-6)
    np.testing.assert_array_equal(shifted.predict_logits(x), shifted.predict(x))
    assert shifted.evaluate(x, y + 7, verbose=0) == pytest.approx(plain.evaluate(x, y, verbose=0), rel=1e-5)
    assert shifted.evaluate(x, y, verbose=0) > 10
    shifted.fit(x, y + 7, epochs=2, verbose=0)
    plain.fit(x, y, epochs=2, verbose=0)
    np.testing.assert_allclose(shifted.params, plain.params, rtol=1e-4, atol=1e-6)


def test_a_models_own_backward_is_used():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)).astype(np.float32), rng.normal(size=(60, 2)).astype(np.float32)
    params = []
    for cls, scale in ((Sequential, 0.5), (Halved, 1.0)):
        model = cls([Dense(2, input_shape=(3,))], dtype="float64", seed=0)
        start = model.params.copy()
        model.compile(optimizers.SGD(0.01), "mse")
        if scale == 0.5:  # the same by hand
            for step in range(0, 60, 30):
                out = model.forward(x[step : step + 30]) / 2
                model.backward((out - y[step : step + 30]) / 60 * 2 / 2)
                model.params -= 0.01 * model.grads
        else:
            model.fit(x, y, batch_size=30, shuffle=False, verbose=0)
        params.append(model.params - start)
    np.testing.assert_allclose(params[1], params[0], rtol=1e-9)


def test_a_model_with_kerass_call_is_refused():
    class Model(Sequential):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="Model defines call, which is never called: override forward"):
        Model([Dense(1)])


@pytest.mark.parametrize("method", ["call", "__call__"])
def test_a_layer_or_model_that_computes_in_kerass_method_is_refused(method):
    """It was passed over without a word: the built-in's forward ran."""
    layer = type("Zero", (Dense,), {method: lambda self, x: 0 * x})
    with pytest.raises(TypeError, match=f"Zero defines {method}, which is never called: override forward"):
        layer(2)
    model = type("Twice", (Sequential,), {method: lambda self, x: 2 * x})
    with pytest.raises(TypeError, match=f"Twice defines {method}, which is never called: override forward"):
        model([Dense(1)])
    step = type("Step", (Sequential,), {"train_step": lambda self, data: None})
    with pytest.raises(TypeError, match="Step defines train_step, which is never called: override forward"):
        step([Dense(1)])
    assert type("Fine", (Dense,), {"helper": lambda self, x: x})(2).units == 2


class DoubledModel(Sequential):
    def forward(self, x, training=False, logits=False):
        return 2 * super().forward(x, training, logits)


def test_a_model_with_a_forward_of_its_own_keeps_its_class(tmp_path):
    model, x = DoubledModel([Dense(2, input_shape=(3,))], seed=1), np.ones((4, 3), np.float32)
    model.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="model class DoubledModel is not minidl's: pass custom_objects"):
        load_model(tmp_path / "m.npz")
    loaded = load_model(tmp_path / "m.npz", custom_objects={"DoubledModel": DoubledModel})
    again = DoubledModel.from_config(model.get_config())
    again.set_weights(model.get_weights())
    for other in (loaded, again):
        assert type(other) is DoubledModel
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
    assert type(clone_model(model)) is DoubledModel
    assert "class_name" not in Sequential([Dense(2, input_shape=(3,))]).get_config()


class Twice(Scale):
    def __init__(self, start=2.0, **options):
        super().__init__(**options)
        self.start = start * 2


class Positional(Scale):
    def __init__(self, *arguments, **options):
        super().__init__(**options)
        self.first = arguments[0]


class Kept(Scale):
    def __init__(self, start=2.0, **options):
        super().__init__(**options)
        self.start = float(start)


@pytest.mark.parametrize(
    "layer, told",
    [(Twice(3.0), "made again with start=6.0, it has 12.0"), (Positional(3.0), "does not take")],
)
def test_a_layer_that_its_attributes_do_not_make_again_is_not_saved(layer, told, tmp_path):
    model = Sequential([layer, Dense(2)])
    model.build((None, 3))
    with pytest.raises(TypeError, match=f"cannot be saved: .*{told}"):
        model.save(tmp_path / "m.npz")
    kept = Sequential([Kept(3), Dense(2)])
    kept.build((None, 3))
    kept.save(tmp_path / "m.npz")
    assert load_model(tmp_path / "m.npz", custom_objects={"Kept": Kept}).layers[0].start == 3.0


@pytest.mark.parametrize("name", ["update_step", "apply_gradients", "learning_rate"])
def test_a_method_of_kerass_optimizers_is_refused(name):
    model = Sequential([Dense(1, input_shape=(3,))])
    own = type("Own", (optimizers.SGD,), {name: property(lambda self: 0.5, lambda self, value: None)})
    with pytest.raises(TypeError, match=f"Own overrides {name}, which training does not call"):
        model.compile(own(), "mse")


def test_what_a_loss_or_regularizer_computes_when_called_is_not_passed_over():
    class Shown(losses.MeanSquaredError):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return 25.0

    class Penalty:
        def __call__(self, weight):
            return 99.0

    with pytest.raises(TypeError, match="Shown must define value_and_grad"):
        Shown()
    with pytest.raises(TypeError, match="a regularizer is its l1 and l2: Mixed must not define __call__"):
        type("Mixed", (Penalty, regularizers.L2), {})
    assert type("Plain", (regularizers.L2,), {})(0.1).l2 == 0.1


def test_a_metric_takes_targets_of_the_outputs_shape_alone():
    metric, rng = metrics.MeanSquaredError(), np.random.default_rng(0)
    pred = rng.normal(size=(2, 4, 3))
    for shape in ((2, 3, 4), (2, 12), (8, 3)):
        with pytest.raises(ValueError, match=r"y_true must have shape \(2, 4, 3\) or \(2, 4\)"):
            metric(rng.normal(size=shape), pred)
    true = rng.normal(size=pred.shape)
    assert metric(true, pred) == pytest.approx(((true - pred) ** 2).mean())


def test_a_kind_without_a_kernel_is_refused_by_compile():
    class MySGD(optimizers.SGD):
        kind = 99

    class MyMetric(metrics.MeanSquaredError):
        kind = 98

    class MyAccuracy(metrics.Accuracy):
        def kind_for(self, sparse, outputs):
            return 96

    class Kindless(metrics.Metric):
        pass

    model = Sequential([Dense(1, input_shape=(3,))])
    told = r"kind of {} must be the number of one of minidl's kernels, .*{} \({}\).*, got {}"
    with pytest.raises(ValueError, match=told.format("MySGD", "SGD", int(optimizers.SGD().kind), 99)):
        model.compile(MySGD(), "mse")
    for kind in ("kind_on_logits", "kind_on_outputs"):
        own = type("MyLoss", (losses.MeanSquaredError,), {kind: 97})
        with pytest.raises(ValueError, match="kind of MyLoss must be the number of one of .*, got 97"):
            model.compile("sgd", own())
    with pytest.raises(ValueError, match="kind of MySGD must be"):
        MySGD().step(np.ones(3), np.zeros(3))
    number = int(metrics.MeanSquaredError.kind)
    for metric, got in ((MyMetric(), 98), (Kindless(), None)):
        with pytest.raises(ValueError, match=told.format(type(metric).__name__, "ERROR", number, got)):
            model.compile("sgd", "mse", metrics=[metric])
    told = told.format("MyAccuracy", "ERROR", number, 96)
    with pytest.raises(ValueError, match=told):
        model.compile("sgd", "mse", metrics=[MyAccuracy()])
    with pytest.raises(ValueError, match=told):
        MyAccuracy()([1.0], [1.0])


def test_an_ensemble_that_takes_no_rows_is_refused_as_a_teacher():
    class Mine(Ensemble):
        def logits(self, x, temperature=1.0):
            return np.zeros((len(x), 3))

    class Right(Ensemble):
        def logits(self, x, temperature=1.0, rows=None):
            return super().logits(x, rows=rows, temperature=temperature)

    logits = np.arange(12.0).reshape(4, 3)
    model = Sequential([Dense(3, input_shape=(2,))])
    model.compile("sgd")
    told = r"logits of Mine must take \(x, rows=None, temperature=1.0\): got an unexpected keyword argument 'rows'"
    for misuse in (
        lambda: model.fit(np.ones((4, 2)), [0, 1, 2, 0], target_model=Mine([logits]), verbose=0),
        lambda: Ensemble([Mine([logits])]),
    ):
        with pytest.raises(TypeError, match=told):
            misuse()
    model.fit(np.ones((4, 2)), [0, 1, 2, 0], target_model=Right([logits]), verbose=0)
