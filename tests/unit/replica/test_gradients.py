"""Mean gradients of k replicas move all of them as one replica with k times the batch."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.errors import IncompatibleDeltaError
from kspark.replica import Replica, check_gradient_merging

layers, ops = keras.layers, keras.ops
BATCH = 4

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.05),
    "ema": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=8.0
    ),
}


class Taken(Exception):
    """Ends a training step before it applies its gradient."""


def gradient_of(replica, window, index):
    """Gradient and number of examples of one batch. The replica stays as it is.

    A compiled step may have updated metrics, or decayed weights, before the exception ends it.
    """
    vector, slots, metrics = (
        replica.get_vector(),
        replica.get_optimizer_state(),
        replica.metric_state(),
    )
    taken = []

    def take(gradient, count):
        taken.append((gradient.copy(), count))
        raise Taken

    with pytest.raises(Taken):
        replica.train_merging(window, BATCH, index, index + 1, take)
    replica.set_vector(vector)
    replica.set_optimizer_state(slots)
    replica.set_metric_state(metrics)
    return taken[0]


def train_together(replicas, windows, batches):
    """Every replica applies the mean gradient of each batch, also after its last row."""
    pairs = list(zip(replicas, windows, strict=True))
    for index in range(batches):
        active = [(r, w) for r, w in pairs if index * BATCH < w.num_examples]
        vectors, counts = zip(*(gradient_of(r, w, index) for r, w in active), strict=True)
        mean = np.average(vectors, axis=0, weights=counts).astype("float32")
        for replica, window in pairs:
            if index * BATCH < window.num_examples:
                replica.train_merging(window, BATCH, index, index + 1, lambda *_, m=mean: m)
            else:
                replica.apply_gradient(mean)


def shares(arrays, workers=2):
    """Rows for each worker so that batch i of all together are rows [i * 8, i * 8 + 8)."""
    rows = np.arange(len(arrays[0]))
    picked = [rows[(rows % (workers * BATCH)) // BATCH == k] for k in range(workers)]
    return [[a[p] for a in arrays] for p in picked]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_replicas_equal_one_machine(name, mlp, rows, window_of):
    x, y = rows(22)  # The last batch has 4 + 2 rows: the mean must be weighted.
    replicas = [Replica.of(mlp(OPTIMIZERS[name](), run_eagerly=True)) for _ in range(2)]
    train_together(replicas, [window_of(*p) for p in shares([x, y])], 3)
    model = mlp(OPTIMIZERS[name](), run_eagerly=True)
    model.fit(x, y, batch_size=2 * BATCH, shuffle=False, verbose=0)
    if name == "ema":
        for replica in replicas:
            replica.finalize()
    expected = Replica.of(model)
    for replica in replicas:
        np.testing.assert_allclose(replica.get_vector(), expected.get_vector(), atol=1e-5)
        for ours, state in zip(
            replica.get_optimizer_state(), expected.get_optimizer_state(), strict=True
        ):
            np.testing.assert_allclose(ours, state, atol=1e-5)


def embedded():
    """Sparse gradients, a regularizer, and a variable that the loss does not depend on."""
    keras.utils.set_random_seed(2)
    tokens = keras.Input((3,), dtype="int32")
    hidden = layers.Flatten()(layers.Embedding(6, 2, embeddings_regularizer="l2")(tokens))
    unused = layers.Dense(2, name="unused")(hidden)
    used = layers.Dense(1, name="used")(hidden)
    model = keras.Model(tokens, [used, unused])
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.5), loss=["mse", None])
    return model


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_gradients_of_embeddings_and_unused_weights_merge_in_a_compiled_loop(window_of):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (16, 3)), rng.normal(size=(16, 1)).astype("float32")
    weights = rng.random(16).astype("float32")
    replicas = [Replica.of(embedded()) for _ in range(2)]
    windows = [window_of(*part) for part in shares([x, y, weights])]
    train_together(replicas, windows, 2)
    model = embedded()
    model.fit(x, [y], batch_size=8, shuffle=False, verbose=0, sample_weight=[weights])
    for replica in replicas:
        for ours, keras_own in zip(replica.model.weights, model.weights, strict=True):
            np.testing.assert_allclose(ours.numpy(), keras_own.numpy(), atol=1e-5)
    states = zip(*(r.metric_state() for r in replicas), strict=True)
    replicas[0].set_metric_state([a + b for a, b in states])
    expected = float(model.get_metrics_result()["loss"])
    assert replicas[0].metric_results() == {"loss": pytest.approx(expected, abs=1e-6)}


def test_a_zero_gradient_changes_metrics_and_state_but_no_trainable_weight(mlp, rows, window_of):
    replica = Replica.of(mlp("sgd", layers.BatchNormalization(), metrics=["accuracy"]))
    before = replica.get_vector()
    exchanged = []

    def zero(gradient, count):
        exchanged.append((gradient.copy(), count))
        return np.zeros_like(gradient)

    replica.train_merging(window_of(*rows(10)), BATCH, 2, 3, zero)
    after = replica.get_vector()
    [(gradient, count)] = exchanged
    assert gradient.any()
    assert gradient.shape == (replica.spec.trainable_size,)
    assert gradient.dtype == np.float32
    assert count == 2
    size = replica.spec.trainable_size
    np.testing.assert_array_equal(before[:size], after[:size])
    assert not np.array_equal(before[size:], after[size:])  # the moving statistics
    assert replica.metric_results()["loss"] > 0
    assert sum(a.sum() for a in replica.metric_state() if a.size == 1) > 0


@pytest.mark.parametrize("eager", [False, True])
def test_merging_loop_equals_single_steps(eager, mlp, rows, window_of):
    x, y = rows(10)
    window = window_of(x, y, order=np.arange(10)[::-1])
    models = [mlp("adam", metrics=["accuracy"], run_eagerly=eager) for _ in range(2)]
    looped, stepped = map(Replica.of, models)
    counts = []

    def halved(gradient, count):
        counts.append(count)
        return gradient / 2

    looped.train_merging(window, BATCH, 1, 3, halved)
    for index, batch in ((1, slice(4, 8)), (2, slice(8, 10))):
        stepped.evaluate(window_of(x[::-1][batch], y[::-1][batch]), BATCH)
        stepped.apply_gradient(gradient_of(stepped, window, index)[0] / 2)
    assert counts == [4, 2]
    np.testing.assert_allclose(looped.get_vector(), stepped.get_vector(), atol=1e-7)
    found, expected = looped.metric_results(), stepped.metric_results()
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in expected.items()}


@pytest.mark.parametrize("eager", [False, True])
def test_exchanging_loop_equals_training_between_exchanges(eager, mlp, rows, window_of):
    window = window_of(*rows(18))
    looped, stepped = (Replica.of(mlp("adam", run_eagerly=eager)) for _ in range(2))
    shift = np.linspace(0, 1, looped.spec.size, dtype="float32")
    seen = []

    def exchange(vector, count):
        seen.append((vector.copy(), count))
        return vector + shift if len(seen) < 3 else None

    looped.train_exchanging(window, BATCH, 0, [1, 3, 5], exchange)
    for number, (start, stop) in enumerate([(0, 1), (1, 3), (3, 5)]):
        stepped.train(window, BATCH, start, stop)
        vector = stepped.get_vector()
        np.testing.assert_allclose(seen[number][0], vector, atol=1e-6)
        if number < 2:
            stepped.set_vector(vector + shift)
    assert [count for _, count in seen] == [4, 8, 6]
    np.testing.assert_allclose(looped.get_vector(), stepped.get_vector(), atol=1e-6)


def aligned(size):
    """A vector where TensorFlow would use the memory it is given without a copy."""
    memory = np.empty(size * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size * 4].view(np.float32)


def test_the_array_of_an_answer_may_be_reused(mlp, rows, window_of):
    replica = Replica.of(mlp())
    answer = aligned(replica.spec.size)
    answer[:] = 0.5
    replica.train_exchanging(window_of(*rows(4)), BATCH, 0, [1], lambda vector, count: answer)
    answer[:] = 7.0
    np.testing.assert_array_equal(replica.get_vector(), np.full(replica.spec.size, 0.5, "f4"))


class Lost(Exception):
    pass


@pytest.mark.parametrize("eager", [False, True])
def test_exceptions_of_the_exchange_are_raised_unchanged(eager, mlp, rows, window_of):
    replica = Replica.of(mlp(run_eagerly=eager))
    window, error = window_of(*rows(8)), Lost("gone")

    def fail(vector, count):
        raise error

    with pytest.raises(Lost) as caught:
        replica.train_merging(window, BATCH, 0, 2, fail)
    assert caught.value is error
    with pytest.raises(Lost):
        replica.train_exchanging(window, BATCH, 0, [1], fail)
    with pytest.raises(IncompatibleDeltaError, match="Shape"):
        replica.train_merging(window, BATCH, 0, 1, lambda vector, count: vector[1:])
    replica.train_merging(window, BATCH, 0, 2, lambda vector, count: None)  # still usable


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.parametrize(
    ("loss", "word"),
    [
        (keras.losses.MeanSquaredError(reduction="sum"), "sum"),
        ([keras.losses.MeanSquaredError(reduction="none")], "none"),
        ({"out": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")}, "weight"),
    ],
)
def test_losses_that_are_not_means_are_refused(loss, word):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="out")])
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=f"frequency=.batch.*{word}"):
        check_gradient_merging(model)


def test_a_custom_train_step_is_refused():
    model = OwnStep([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="OwnStep overrides `train_step`"):
        check_gradient_merging(model)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), ["mae"], {"out": "mse"}])
def test_losses_that_are_means_are_accepted(loss):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="out")])
    model.compile("sgd", loss)
    check_gradient_merging(model)


def rooted(y_true, y_pred):
    return ops.sqrt(ops.mean(ops.square(y_true - y_pred)))


def test_the_loss_is_checked_on_rows(mlp, rows, window_of):
    x, y = rows(10)
    window = window_of(x, y.astype("float32"))
    Replica.of(mlp("sgd", layers.Dense(4, kernel_regularizer="l2"))).check_gradient_merging(
        window, BATCH
    )
    model = mlp(loss=rooted)
    with pytest.raises(ValueError, match="mean of both losses"):
        Replica.of(model).check_gradient_merging(window_of(x, np.eye(3, dtype="f4")[y]), BATCH)


def test_masked_sequences_are_refused(window_of):
    model = keras.Sequential(
        [keras.Input((3, 1)), layers.Masking(), layers.LSTM(2, return_sequences=True)]
    )
    model.compile("sgd", "mse")
    x = np.ones((4, 3, 1), "float32")
    x[:2, 1:] = 0.0  # Two rows of one step, two of three.
    y = np.arange(24, dtype="float32").reshape(4, 3, 2)
    with pytest.raises(ValueError, match="masked sequences"):
        Replica.of(model).check_gradient_merging(window_of(x, y), 2)


class Noise(layers.Layer):
    """Random in evaluation too, from a generator of its own or from Keras' global one."""

    def __init__(self, own=True, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1) if own else None

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed_generator)


@pytest.mark.parametrize("own", [True, False])
def test_random_layers_are_accepted(own, mlp, rows, window_of):
    replica = Replica.of(mlp("sgd", Noise(own), run_eagerly=True))
    before = replica.get_fixed()
    replica.check_gradient_merging(window_of(*rows(10)), BATCH)
    replica.check_summable(window_of(*rows(10)), BATCH)
    np.testing.assert_array_equal(replica.get_fixed(), before)  # no number was drawn
