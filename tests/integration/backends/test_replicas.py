"""A replica trains, evaluates and predicts as `keras.Model` does, on any backend; without Spark."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import Replica, ReplicaSpec
from kspark.replica.building import build
from kspark.shards import Chunk, SparseRows, Window

layers, ops = keras.layers, keras.ops
BACKEND = keras.backend.backend()
ROWS, SIZE = 22, 4


class Penalty(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return x


class Subclassed(keras.Model):
    """A subclassed model of a layer with a loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(5, "relu")
        self.penalty = Penalty()
        self.out = layers.Dense(1)

    def call(self, x):
        return self.out(self.penalty(self.hidden(x)))


class OwnStep(Subclassed):
    """Returns a value of its own from `train_step`, as the backend wants it."""

    if BACKEND == "jax":

        def train_step(self, state, data):
            logs, state = super().train_step(state, data)
            return {**logs, "double": 2.0 * logs["loss"]}, state

    else:

        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "double": 2.0 * logs["loss"]}


def dense(*more, loss="mse", **compiled):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), *more, layers.Dense(1)])
    model.compile("adam", loss, metrics=["mae"], **compiled)
    return model


def dropout():
    return dense(layers.Dropout(0.5))


def seeded_dropout():
    return dense(layers.Dropout(0.5, seed=3))


def convolution():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Reshape((6, 1)),
            layers.Conv1D(4, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", weighted_metrics=["mae"])
    return model


def recurrent():
    parts = [layers.Reshape((3, 2)), layers.Masking(), layers.LSTM(4), layers.Dense(1)]
    model = keras.Sequential([keras.Input((6,)), *parts])
    model.compile("rmsprop", "mse", metrics=["mae"])
    return model


def subclassed(kind=Subclassed):
    model = kind()
    model(np.zeros((1, 6), "float32"))
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def own_step():
    return subclassed(OwnStep)


def half():
    float16 = layers.Dense(8, "relu", dtype="mixed_float16")
    model = keras.Sequential([keras.Input((6,)), float16, layers.Dense(1)])
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=8.0, dynamic_growth_steps=5
    )
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def bfloat16():
    part = layers.Dense(8, "relu", dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((6,)), part, layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def averaged():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.5)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=0.1, clipnorm=0.5), "mse")
    return model


def eager():
    return dense(run_eagerly=True)


def uncompiled():
    return dense(layers.BatchNormalization(), jit_compile=False)


thorough = pytest.mark.thorough
CASES = [
    dropout,
    convolution,
    own_step,
    half,
    pytest.param(seeded_dropout, marks=thorough),
    pytest.param(recurrent, marks=thorough),
    pytest.param(subclassed, marks=thorough),
    pytest.param(bfloat16, marks=thorough),
    pytest.param(averaged, marks=thorough),
    pytest.param(eager, marks=thorough),
    pytest.param(uncompiled, marks=thorough),
]


def rows():
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 6)).astype("float32")
    x[3, 2:4] = 0.0  # masked
    return x, x[:, :1] * 2 + 1, random.random(ROWS).astype("float32")


def made(make):
    keras.utils.set_random_seed(1)
    return make()


def built(model):
    found = [Penalty, Subclassed, OwnStep]
    replica = build(ReplicaSpec.of(model, {kind.__name__: kind for kind in found}))
    replica.alone = True
    return replica


def fit(model, x, y, weights, make):
    """Train for two epochs, and return the metrics of the last."""
    keras.utils.set_random_seed(9)
    if BACKEND != "torch" or make is not dropout:
        history = model.fit(x, y, SIZE, 2, 0, shuffle=False, sample_weight=weights).history
        return {name: values[-1] for name, values in history.items()}
    # With torch, the loader in `fit` draws from the generator of the dropout.
    for start in [*range(0, ROWS, SIZE)] * 2:
        batch = slice(start, start + SIZE)
        model.train_on_batch(x[batch], y[batch], weights[batch])
    return {}


def same(ours, theirs, atol):
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        assert one.dtype == other.dtype
        left, right = map(keras.ops.convert_to_numpy, (one, other))
        np.testing.assert_allclose(left, right, rtol=0, atol=atol, err_msg=one.path)


@pytest.mark.parametrize("make", CASES)
def test_a_replica_equals_fit(make):
    x, y, weights = rows()
    replica, plain = built(made(make)), made(make)
    window = Window([x], [y], [weights])
    atol = 2e-3 if make in (half, bfloat16) else 1e-5
    keras.utils.set_random_seed(9)
    for _ in range(2):
        replica.reset_metrics()
        replica.train(window, SIZE)
    expected = fit(plain, x, y, weights, make)
    same(replica.model, plain, atol)
    same(replica.model.optimizer, plain.optimizer, atol)
    found = replica.metric_results()
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=atol), name
    replica.reset_metrics()
    replica.evaluate(window, SIZE)
    expected = plain.evaluate(x, y, SIZE, 0, weights, return_dict=True)
    found = replica.model.get_metrics_result()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-3, abs=atol), name
    (predicted,) = replica.predict(window, 7)
    np.testing.assert_allclose(predicted, plain.predict(x, verbose=0), rtol=1e-3, atol=atol)


class Noise(layers.Layer):
    """Random in inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed_generator)


def test_layers_that_are_random_in_inference_draw_as_in_keras():
    x, y, _ = rows()
    plain, replica = made(lambda: dense(Noise())), Replica.of(made(lambda: dense(Noise())))
    for _ in range(2):
        (predicted,) = replica.predict(Window([x]), 8)
        np.testing.assert_allclose(predicted, plain.predict(x, 8, verbose=0), atol=1e-5)
    replica.check_gradient_merging(Window([x], [y]), SIZE)
    replica.check_summable(Window([x], [y]), SIZE)


@pytest.mark.parametrize(
    "layer",
    [
        layers.IntegerLookup(vocabulary=[1, 2, 3], output_mode="multi_hot"),
        layers.Hashing(4, output_mode="multi_hot"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_compute_with_tensorflow_train(layer):
    x = np.array([[1, 2], [3, 1], [2, 2], [4, 1]] * 4, "int32")
    encoded = keras.ops.convert_to_numpy(layer(x))
    y = np.arange(16, dtype="float32").reshape(-1, 1)

    def linear(*first):
        model = keras.Sequential([*first, layers.Dense(1, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        return model

    replica = Replica.of(linear(keras.Input((2,), dtype="int32"), layer))
    replica.train(Window([x], [y]), SIZE)
    plain = linear(keras.Input((4,)))
    plain.fit(encoded, y, SIZE, shuffle=False, verbose=0)
    same(replica.model, plain, 1e-5)


def two_inputs():
    number = keras.Input((2,), name="number")
    word = keras.Input((4,), dtype="int32", name="word")
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(7, 3, mask_zero=True)(word))
    hidden = layers.Concatenate()([number, embedded])
    outputs = {
        "one": layers.Dense(1, name="one")(hidden),
        "two": layers.Dense(3, name="two")(hidden),
    }
    model = keras.Model({"word": word, "number": number}, outputs)
    two = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", {"one": "mse", "two": two}, metrics={"two": ["accuracy"]})
    return model


def test_dictionaries_of_inputs_and_outputs_equal_fit():
    random = np.random.default_rng(0)
    x = {"number": random.normal(size=(20, 2)), "word": random.integers(0, 7, (20, 4))}
    y = {"one": random.normal(size=(20, 1)), "two": random.integers(0, 3, 20)}
    replica, plain = built(made(two_inputs)), made(two_inputs)
    window = Window(
        [x[a.name] for a in replica.inputs.inputs], [y[a.name] for a in replica.inputs.targets]
    )
    replica.train(window, SIZE)
    history = plain.fit(x, y, SIZE, 1, 0, shuffle=False).history
    same(replica.model, plain, 1e-5)
    assert replica.metric_results() == {
        name: pytest.approx(values[-1], abs=1e-5) for name, values in history.items()
    }
    predicted = replica.structured_outputs(replica.predict(window, 8))
    for name, values in plain.predict(x, verbose=0).items():
        np.testing.assert_allclose(predicted[name], values, atol=1e-5)


@pytest.mark.parametrize("make", [averaged, half])
def test_the_mean_gradient_of_two_replicas_is_that_of_the_joint_batch(make):
    x, y, _ = rows()
    x, y = x[:16], y[:16]
    plain = made(make)
    replicas = [built(made(make)) for _ in range(2)]
    windows = [Window([x[part]], [y[part]]) for part in (slice(0, 8), slice(8, 16))]
    for index in range(2):
        found = [gradient_of(r, w, index) for r, w in zip(replicas, windows, strict=True)]
        for replica in replicas:
            replica.apply_gradient(np.mean(found, axis=0))
    order = np.arange(16).reshape(2, 2, SIZE).swapaxes(0, 1).reshape(-1)
    plain.fit(x[order], y[order], 2 * SIZE, 1, 0, shuffle=False)
    assert replicas[0].get_vector().tobytes() == replicas[1].get_vector().tobytes()
    same(replicas[0].model, plain, 1e-3 if make is half else 1e-5)


class Taken(Exception):
    """Ends a step before its gradient is applied."""


def gradient_of(replica, window, index):
    taken = []

    def take(gradient, count):
        taken.append(gradient.copy())
        raise Taken

    vector, slots = replica.get_vector(), replica.get_optimizer_state()
    with pytest.raises(Taken):
        replica.train_merging(window, SIZE, index, index + 1, take)
    # A compiled step of TensorFlow may have decayed weights before the exception ends it.
    replica.set_vector(vector)
    replica.set_optimizer_state(slots)
    return taken[0]


class Halving:
    """A preparation of rows that divides features by two."""

    def applies(self, *, training):
        return True

    def seed(self, value):
        pass

    def __call__(self, chunk, number, *, training):
        return Chunk([a / np.float32(2) for a in chunk.x], chunk.y, chunk.sample_weight)


def work_on(replica, window):
    """All ways to use a window, and the bytes of what remains."""
    replica.train(window, SIZE)
    replica.train_exchanging(window, SIZE, 0, [2, 6], lambda vector, count: vector / 2)
    replica.train_merging(window, SIZE, 0, 6, lambda vector, count: vector / 2)
    replica.evaluate(window, SIZE)
    state = [replica.get_vector(), *replica.metric_state(), *replica.predict(window, SIZE)]
    return [array.tobytes() for array in state]


@pytest.mark.parametrize("kind", ["sparse", "prepared"])
def test_sparse_and_prepared_rows_give_the_bytes_of_dense_rows(kind):
    x, y, _ = rows()
    x[np.abs(x) < 1] = 0.0
    expected = Replica.of(made(seeded_dropout))
    found = Replica.of(made(seeded_dropout))
    found.part_bytes = 2 * SIZE * (x[0].nbytes + y[0].nbytes)
    if kind == "sparse":
        given, window = SparseRows.of(x), Window([x], [y])
    else:
        found.preparation = Halving()
        given, window = x, Window([x / np.float32(2)], [y])
    assert work_on(found, Window([given], [y])) == work_on(expected, window)
