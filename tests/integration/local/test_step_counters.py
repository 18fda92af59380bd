"""Callbacks see the step counters and learning rates that they see in Keras; on `local[2]`."""

import keras
import numpy as np
import pytest

from kspark import SparkModel

optimizers, layers = keras.optimizers, keras.layers


class Watch(keras.callbacks.Callback):
    """Notes the learning rate and the steps of each optimizer whenever it is called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def note(self, hook):
        several = getattr(self.model.optimizer, "optimizers", [self.model.optimizer])
        for one in several:
            self.seen.append((hook, float(one.learning_rate), int(one.iterations)))

    def on_train_begin(self, logs=None):
        self.note("train_begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.note("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.note("end")

    def on_train_end(self, logs=None):
        self.note("train_end")


def schedule():
    return optimizers.schedules.ExponentialDecay(0.1, 8, 0.5)


def accumulating():
    """Eight steps an epoch, of which every third changes the weights."""
    return optimizers.Adam(schedule(), gradient_accumulation_steps=3)


def with_schedules():
    chosen = optimizers.OptimizerMap(optimizers.SGD(schedule()), {".*first/.*": accumulating()})
    return optimizers.MultiOptimizer(chosen)


def with_rates():
    chosen = optimizers.OptimizerMap(optimizers.SGD(0.1), {".*first/.*": optimizers.Adam(0.01)})
    return optimizers.MultiOptimizer(chosen)


def scaled():
    return optimizers.LossScaleOptimizer(optimizers.Adam(schedule()), dynamic_growth_steps=5)


def model_with(optimizer):
    keras.utils.set_random_seed(1)
    first, last = layers.Dense(4, "tanh", name="first"), layers.Dense(1, name="last")
    model = keras.Sequential([keras.Input((3,)), first, last])
    model.compile(optimizer, "mse")
    return model


def train(model, fit, halved):
    """Train in two fits. Returns what callbacks saw."""
    x = np.random.default_rng(0).normal(size=(256, 3)).astype("float32")
    watch = Watch()
    rates = [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)] if halved else []
    for _ in range(2):
        fit(x, x[:, :1], 32, 2, 0, callbacks=[*rates, watch], shuffle=False)
    return watch.seen, model.get_weights()


LOCK_STEP = [("synchronous", "epoch"), ("synchronous", 3), ("synchronous", "batch")]
ROADS = [*LOCK_STEP, ("asynchronous", 3), ("hogwild", "batch")]
SHORT = [(with_schedules, "synchronous", "epoch"), (with_rates, "synchronous", 3)]
CASES = [
    *[(made, *road) for made in (accumulating, with_schedules, scaled) for road in ROADS],
    *[(with_rates, *road) for road in LOCK_STEP],  # others do not wait for a rate
]
THOROUGH = [pytest.param(*case, marks=pytest.mark.thorough) for case in CASES if case not in SHORT]


@pytest.mark.parametrize(("made", "mode", "frequency"), [*SHORT, *THOROUGH])
def test_one_worker_shows_callbacks_what_keras_shows(spark, made, mode, frequency):
    plain, ours = model_with(made()), model_with(made())
    halved = made is with_rates
    seen, expected = train(plain, plain.fit, halved)
    spark_model = SparkModel(ours, mode, frequency, num_workers=1)
    found, weights = train(ours, spark_model.fit, halved)
    assert len(found) > 8
    assert found == seen
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


class StartsAgain(keras.callbacks.Callback):
    """Sets the step counter back, so that a schedule begins anew."""

    def __init__(self, hook, epoch):
        super().__init__()
        setattr(self, hook, lambda *given: self.start_again(given[0] if len(given) > 1 else 0))
        self.epoch = epoch

    def start_again(self, epoch):
        if epoch == self.epoch:
            self.model.optimizer.iterations.assign(2)


@pytest.mark.parametrize(
    ("hook", "epoch", "frequency"),
    [
        ("on_epoch_end", 0, "epoch"),
        ("on_epoch_begin", 0, "epoch"),
        ("on_epoch_begin", 1, "epoch"),
        ("on_epoch_begin", 0, 3),
        ("on_train_begin", 0, 3),
    ],
)
def test_workers_get_the_steps_that_a_callback_sets(spark, hook, epoch, frequency):
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    models, seen = [], []
    for fit_of in (
        lambda model: model.fit,
        lambda model: SparkModel(model, frequency=frequency, num_workers=1).fit,
    ):
        model, watch = model_with(optimizers.Adam(schedule())), Watch()
        callbacks = [StartsAgain(hook, epoch), watch]
        fit_of(model)(x, x[:, :1], 8, 3, 0, callbacks=callbacks, shuffle=False)
        models.append(model)
        seen.append(watch.seen)
    assert seen[0] == seen[1]
    assert int(models[1].optimizer.iterations) != 24
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_steps_that_running_workers_would_not_get_are_refused(spark):
    x = np.zeros((64, 3), "float32")
    spark_model = SparkModel(model_with(optimizers.Adam(0.1)), frequency=3, num_workers=1)
    with pytest.raises(ValueError, match=r"set the optimizer's `iterations` after the first epoch"):
        spark_model.fit(x, x[:, :1], 8, 3, 0, callbacks=[StartsAgain("on_epoch_end", 0)])


@pytest.mark.thorough
@pytest.mark.parametrize(("mode", "frequency"), ROADS)
def test_two_workers_show_callbacks_the_steps_of_the_first(spark, mode, frequency):
    """Its three batches of an epoch, if the other has five; except where all make joint steps."""
    sizes, steps = (12, 20), 5 if (mode, frequency) == ("synchronous", "batch") else 3
    x = np.random.default_rng(0).normal(size=(sum(sizes), 3)).astype("float32")
    parts = [list(zip(part, part[:, :1], strict=True)) for part in np.split(x, [sizes[0]])]
    rows = spark.sparkContext.parallelize(parts, 2).flatMap(lambda part: part)
    watch, model = Watch(), model_with(optimizers.SGD(schedule()))
    spark_model = SparkModel(model, mode, frequency, batch_size=4)
    for _ in range(2):
        spark_model.fit(rows, epochs=2, verbose=0, callbacks=[watch])
    assert [count for hook, _, count in watch.seen if hook == "end"] == [
        steps * epoch for epoch in (1, 2, 3, 4)
    ]
    assert int(model.optimizer.iterations) == 4 * steps
