"""A replica's state as arrays: what is merged, what is kept, and how it is restored."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.errors import IncompatibleDeltaError
from kspark.replica import Replica, weight_spec
from kspark.weights import FIXED, STATE, TRAINABLE, Weight, WeightSpec

layers, ops = keras.layers, keras.ops


class Counting(layers.Layer):
    """A layer with integer, boolean and half precision state."""

    def build(self, shape):
        self.calls = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, name="calls"
        )
        self.seen = self.add_weight(
            shape=(2,), dtype="bool", initializer="zeros", trainable=False, name="seen"
        )
        self.half = self.add_weight(
            shape=(3,), dtype="float16", initializer="ones", trainable=False, name="half"
        )

    def call(self, x):
        self.calls.assign_add(1)
        return x


@pytest.fixture
def mixed():
    """A model with every kind of variable; in Keras' order they are mixed up."""
    keras.utils.set_random_seed(1)
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(size=(20, 4)))
    model = keras.Sequential(
        [
            keras.Input((4,)),
            normalization,
            layers.Dropout(0.5, seed=3),
            layers.Dense(5),
            layers.BatchNormalization(),
            Counting(),
            layers.GaussianNoise(0.1, seed=4),
            layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def test_the_weight_spec_lists_roles_in_order(mixed):
    spec = weight_spec(mixed)
    roles = [w.role for w in spec.weights]
    assert roles == [
        *(STATE, STATE, FIXED),  # Normalization: mean, variance, count
        *(TRAINABLE, TRAINABLE),
        *(TRAINABLE, TRAINABLE, STATE, STATE),  # BatchNormalization
        *(FIXED, FIXED, STATE),  # Counting
        *(TRAINABLE, TRAINABLE),
        *(FIXED, FIXED),  # the generators of Dropout and GaussianNoise, not in `weights`
    ]
    for weight, variable in zip(spec.weights, mixed.weights, strict=False):
        assert weight == Weight(variable.path, tuple(variable.shape), variable.dtype, weight.role)
    assert [w.shape for w in spec.weights[-2:]] == [(2,), (2,)]
    assert spec.trainable_size == 4 * 5 + 5 + 5 + 5 + 5 * 2 + 2
    assert spec.dtype == np.float32


def test_the_vector_equals_the_flattened_arrays_of_the_spec(mixed):
    replica = Replica.of(mixed)
    arrays = [v.numpy() for v in mixed.weights] + [np.zeros(2, "int64")] * 2
    np.testing.assert_array_equal(replica.get_vector(), replica.spec.flatten(arrays))
    out = np.empty(replica.spec.size, "float32")
    assert replica.get_vector(out) is out
    np.testing.assert_array_equal(out, replica.get_vector())


def test_vector_is_the_same_before_and_after_compiling(mlp):
    replica = Replica.of(mlp())
    out = np.empty(replica.spec.size, "float32")
    for turn in range(20):
        vector = np.full(replica.spec.size, turn, "float32")
        replica.set_vector(vector)
        np.testing.assert_array_equal(replica.get_vector(out), vector)
        np.testing.assert_array_equal(replica.model.get_weights()[0], np.full((4, 5), turn))


def test_setting_the_vector_keeps_dtypes_and_fixed_state(mixed):
    replica = Replica.of(mixed)
    before, fixed = [(v.dtype, tuple(v.shape)) for v in mixed.variables], replica.get_fixed()
    vector = np.linspace(-1, 1, replica.spec.size, dtype="float32")
    replica.set_vector(vector)
    vector[:] = 9.0  # the caller's own again
    assert [(v.dtype, tuple(v.shape)) for v in mixed.variables] == before
    expected = np.linspace(-1, 1, replica.spec.size, dtype="float32")
    np.testing.assert_allclose(replica.get_vector(), expected, atol=1e-3)  # a part is float16
    for now, then in zip(replica.get_fixed(), fixed, strict=True):
        assert now.dtype == then.dtype
        np.testing.assert_array_equal(now, then)


def test_vectors_of_another_shape_or_dtype_are_refused(mixed):
    replica = Replica.of(mixed)
    for vector in (np.zeros(3, "float32"), np.zeros(replica.spec.size, "float64")):
        with pytest.raises(IncompatibleDeltaError, match="vector has shape"):
            replica.set_vector(vector)
        with pytest.raises(IncompatibleDeltaError, match="out has shape"):
            replica.get_vector(vector)


def test_double_precision_is_kept():
    layer = layers.Dense(2, dtype="float64", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile("sgd", "mse")
    replica = Replica.of(model)
    vector = np.array([1 + 1e-12, 1, 0, 0])
    replica.set_vector(vector)
    np.testing.assert_array_equal(replica.get_vector(), vector)


def test_a_model_without_weights_can_be_evaluated(window_of):
    model = keras.Sequential([keras.Input((2,)), layers.Rescaling(2.0)])
    model.compile("sgd", "mse")
    replica = Replica.of(model)
    assert replica.get_vector().shape == (0,)
    replica.set_vector(np.empty(0, "float32"))
    replica.evaluate(window_of(np.ones((3, 2), "f4"), np.zeros((3, 2), "f4")), 2)
    assert replica.metric_results() == {"loss": 4.0}


def test_spec_of_another_model_is_refused(mixed):
    replica = Replica.of(mixed)
    other = WeightSpec(replica.spec.weights[1:])
    with pytest.raises(ValueError, match="`spec` must be"):
        Replica(mixed, other, replica.inputs)


def test_fixed_state_can_be_read_and_restored(mixed, window_of):
    replica = Replica.of(mixed)
    start = replica.get_fixed()
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    replica.train(window_of(x, y), 4)
    trained = replica.get_fixed()
    calls = [a for a in trained if a.shape == ()]
    assert max(map(int, calls)) == 2
    replica.set_fixed(start)
    np.testing.assert_array_equal(np.hstack(replica.get_fixed()), np.hstack(start))
    replica.set_fixed(trained)
    np.testing.assert_array_equal(np.hstack(replica.get_fixed()), np.hstack(trained))
    with pytest.raises(ValueError, match="`fixed` must be arrays of shapes"):
        replica.set_fixed(start[1:])


def test_creating_metrics_draws_no_random_number(mixed, window_of):
    """Preparing runs one row through the model, which must not change the counter of calls."""
    replica = Replica.of(mixed)
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    replica.train(window_of(x, y), 4, 0, 0)
    assert not any(int(a) == 1 for a in replica.get_fixed() if a.dtype == "int64" and a.ndim == 0)


def test_optimizer_state_can_be_read_and_restored(mixed, window_of):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)).astype("f4"), rng.normal(size=(8, 2)).astype("f4")
    replica = Replica.of(mixed)
    replica.train(window_of(x, y), 4)
    state, vector, fixed = (
        replica.get_optimizer_state(),
        replica.get_vector(),
        replica.get_fixed(),
    )
    replica.train(window_of(x, y), 4)
    expected = replica.get_vector()
    replica.set_optimizer_state(state)
    replica.set_vector(vector)
    replica.set_fixed(fixed)
    replica.train(window_of(x, y), 4)
    np.testing.assert_array_equal(replica.get_vector(), expected)
    assert int(replica.get_optimizer_state()[0]) == 4
    with pytest.raises(ValueError, match="`optimizer_state`"):
        replica.set_optimizer_state(state[:-1])


def test_the_learning_rate_can_be_changed(mlp):
    replica = Replica.of(mlp("sgd"))
    assert replica.learning_rate == pytest.approx(0.01)
    replica.learning_rate = 0.5
    assert replica.learning_rate == 0.5
    assert 0.5 in [float(a) for a in replica.get_optimizer_state() if a.ndim == 0]


def test_a_scheduled_learning_rate_cannot_be_changed(mlp):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    replica = Replica.of(mlp(keras.optimizers.SGD(schedule)))
    assert replica.learning_rate is None
    with pytest.raises(ValueError, match="schedule"):
        replica.learning_rate = 0.1


def test_only_a_schedule_is_advanced(mlp):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    scheduled, other = Replica.of(mlp(keras.optimizers.SGD(schedule))), Replica.of(mlp("adam"))
    for replica in (scheduled, other):
        replica.advance_schedule(7)
    assert int(scheduled.model.optimizer.iterations) == 7
    assert int(other.model.optimizer.iterations) == 0


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_schedule_of_accumulated_gradients_is_advanced(mlp, wrapped):
    """`iterations` is no variable then, but its value divided by the accumulated steps."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = keras.optimizers.Adam(schedule, gradient_accumulation_steps=3)
    whole = keras.optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer
    replica = Replica.of(mlp(whole))
    replica.advance_schedule(10)
    assert int(optimizer.iterations) == 3
    assert float(optimizer.learning_rate) == pytest.approx(0.05)


needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no `MultiOptimizer`"
)


def multi_optimizer(pattern=".*dense.*kernel", rate=0.1):
    optimizers = keras.optimizers
    others = {pattern: optimizers.Adam(0.01)}
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(rate), others))


@needs_multi_optimizer
def test_a_multi_optimizer_has_a_learning_rate_per_optimizer(mlp):
    replica = Replica.of(mlp(multi_optimizer()))
    assert replica.learning_rate == pytest.approx((0.01, 0.1))
    replica.learning_rate = (0.5, None)
    assert replica.learning_rate == pytest.approx((0.5, 0.1))
    with pytest.raises(ValueError, match="shorter"):
        replica.learning_rate = 0.5


@needs_multi_optimizer
def test_the_schedules_of_a_multi_optimizer_are_advanced(mlp):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    replica = Replica.of(mlp(multi_optimizer(rate=schedule)))
    assert replica.learning_rate == (pytest.approx(0.01), None)
    replica.advance_schedule(10)
    adam, sgd = replica.model.optimizer.optimizers
    assert (int(adam.iterations), int(sgd.iterations)) == (0, 10)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda: keras.optimizers.SGD(0.1), (2,)),
        (lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), (2,)),
        (lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), (0, 2, 2)),
        pytest.param(multi_optimizer, (2, 2, 2), marks=needs_multi_optimizer),
    ],
)
def test_counters_are_all_integers_of_the_optimizer(mlp, rows, window_of, optimizer, expected):
    """Of a wrapper: its own counter, which Keras does not use, and the steps since it rescaled."""
    replica = Replica.of(mlp(optimizer()))
    replica.train(window_of(*rows(8)), 4)
    assert replica.counters == expected
    other = Replica.of(mlp(optimizer()))
    other.counters = replica.counters
    assert other.counters == expected
    with pytest.raises(ValueError, match="`counters` must be arrays of shapes"):
        other.counters = (*expected, 1)


@needs_multi_optimizer
def test_steps_whose_state_is_lost_are_withdrawn_except_from_schedules(mlp):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    replica = Replica.of(mlp(multi_optimizer(rate=schedule)))
    replica.counters = (7, 8, 9)
    replica.withdraw_steps((1, 2, 3))
    assert replica.counters == (1, 2, 9)


def generator_states(replica):
    return [a.tolist() for a in replica.get_fixed() if a.shape == (2,) and a.dtype != bool]


def test_reseeding_depends_on_seed_and_shard(mixed):
    replica = Replica.of(mixed)
    own = generator_states(replica)
    assert own == [[3, 0], [4, 0]]
    replica.reseed(11, 0)
    assert generator_states(replica) == own
    seen = {tuple(s[0] for s in own)}
    for seed, shard in [(11, 1), (11, 2), (12, 1)]:
        replica.reseed(seed, shard)
        first = generator_states(replica)
        replica.reseed(seed, shard)
        assert generator_states(replica) == first
        assert [s[1] for s in first] == [0, 0]
        assert first[0][0] != first[1][0]
        seen.add(tuple(s[0] for s in first))
    assert len(seen) == 4


def test_shards_drop_different_units(mlp, rows, window_of):
    """Dropout alone changes the inputs here, so equal masks would give equal losses."""
    window = window_of(*rows(8))
    losses = []
    for shard in (0, 1, 1):
        replica = Replica.of(mlp("sgd", layers.Dropout(0.5, seed=1)))
        replica.reseed(5, shard)
        replica.train(window, 4)
        losses.append(replica.metric_results()["loss"])
    assert losses[0] != losses[1]
    assert losses[1] == losses[2]


@pytest.mark.parametrize("key", [("path", 0, 6), None])
def test_only_rows_of_a_window_with_a_key_are_cached(key, mlp, window_of):
    model = mlp(keras.optimizers.SGD(0.0), loss="mse", run_eagerly=True)
    replica = Replica.of(model)
    x, y = np.zeros((6, 4), "float32"), np.zeros((6, 3), "float32")

    def loss(key):
        replica.reset_metrics()
        replica.train(window_of(x, y, key=key), 3)
        return replica.metric_results()["loss"]

    first = loss(key)
    y += 1.0  # which a real window with this key would never do
    assert (loss(key) == first) is (key is not None)
    assert loss(("path", 6, 12)) != first


def test_the_size_of_the_state_is_that_of_its_arrays(mixed):
    mixed.compile("adam", "mse")
    replica = Replica.of(mixed)
    arrays = [*replica.get_optimizer_state(), *replica.get_fixed()]
    assert replica.state_nbytes == sum(array.nbytes for array in arrays)
