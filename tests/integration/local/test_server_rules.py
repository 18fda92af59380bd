"""Server optimizers in `SparkModel`: each one in a fit, and their state between fits."""

import logging

import keras
import numpy as np
import pytest

from kspark import SparkModel, load_spark_model, optimizers
from kspark.errors import WorkerError

STATEFUL = [optimizers.SGD(0.5, momentum=0.9), optimizers.Adam(0.05)]
OF_KERAS = keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.7))
CASES = [STATEFUL[0], pytest.param(STATEFUL[1], marks=pytest.mark.thorough), OF_KERAS]
RULES = {
    "synchronous": (
        "sgd",
        "adagrad",
        "adam",
        "yogi",
        "elastic_average",
        "median",
        "one_shot",
        "trimmed_mean",
    ),
    "asynchronous": ("sgd", "adagrad", "adam", "yogi", "downpour", "adag", "staleness_aware"),
    "hogwild": ("sgd", "downpour", "adag"),
}
IN_SHORT = ("yogi", "staleness_aware")


def labelled(n=240):
    random = np.random.default_rng(1)
    y = random.integers(0, 3, n)
    x = random.normal(size=(n, 6)).astype("f4")
    x[np.arange(n), y] += 4
    return x, y


def classifier():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model


def train(spark_model, first, last, **more):
    x, y = labelled()
    return spark_model.fit(x, y, 8, last, 0, initial_epoch=first, **more)


@pytest.mark.parametrize("rule", CASES, ids=["momentum", "adam", "keras"])
def test_two_fits_with_a_saved_model_between_equal_one_fit(spark, tmp_path, rule):
    """The weights have the same bytes, because the rule's state is saved with the model."""
    models = []
    for parts in ([(0, 4)], [(0, 2), (2, 4)]):
        spark_model = SparkModel(classifier(), num_workers=2, seed=7, server_optimizer=rule)
        for first, last in parts:
            train(spark_model, first, last)
            path = str(tmp_path / f"{len(parts)}-{last}.keras")
            spark_model.save(path)
            spark_model = load_spark_model(path)
        models.append(spark_model.master_network)
    for one, other in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        pytest.param(mode, rule, marks=() if rule in IN_SHORT else pytest.mark.thorough)
        for mode, rules in RULES.items()
        for rule in rules
    ]
    + [pytest.param("asynchronous", keras.optimizers.Nadam(0.02), id="asynchronous-keras")],
)
def test_every_rule_learns_in_its_modes(spark, mode, rule):
    frequency = "epoch" if mode == "synchronous" else 5
    spark_model = SparkModel(
        classifier(), mode, frequency, num_workers=2, seed=7, server_optimizer=rule
    )
    losses = train(spark_model, 0, 5).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def constrained():
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5, "tanh"), layers.Dropout(0.0)])
    model.add(layers.BatchNormalization())
    model.add(layers.Dense(3, "softmax", kernel_constraint="unit_norm"))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    return model


def adamw():
    rate = keras.optimizers.schedules.CosineDecay(0.05, 4)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.1, epsilon=1e-2)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def test_one_worker_equals_a_loop_that_gives_keras_optimizer_minus_the_delta(spark):
    """Also with statistics, constraints, and the state of both optimizers from epoch to epoch."""
    x, y = labelled()
    plain, server = constrained(), adamw()
    for _ in range(3):
        before = [v.numpy() for v in plain.trainable_variables]
        plain.fit(x, y, epochs=1, shuffle=False, verbose=0)
        deltas = [v.numpy() - b for v, b in zip(plain.trainable_variables, before, strict=True)]
        for variable, value in zip(plain.trainable_variables, before, strict=True):
            variable.assign(value)
        minus = [keras.ops.convert_to_tensor(-d) for d in deltas]
        server.apply_gradients(list(zip(minus, plain.trainable_variables, strict=True)))
    ours = constrained()
    SparkModel(ours, num_workers=1, server_optimizer=adamw()).fit(
        x, y, epochs=3, shuffle=False, verbose=0
    )
    for one, other in zip(plain.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    norms = np.linalg.norm(ours.layers[-1].get_weights()[0], axis=0)
    np.testing.assert_allclose(norms, 1, rtol=0, atol=1e-6)


class Fails(keras.callbacks.Callback):
    """Ends a fit after its second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise RuntimeError("enough")


def test_a_failed_fit_keeps_weights_and_rule_state_of_the_same_epoch(spark):
    """The next fit gives the result that it would have given without the failure."""
    models = []
    for callbacks in ([], [Fails()]):
        model = classifier()
        spark_model = SparkModel(model, num_workers=2, seed=7, server_optimizer=STATEFUL[0])
        if callbacks:
            with pytest.raises(RuntimeError, match="enough"):
                train(spark_model, 0, 4, callbacks=callbacks)
            assert len(spark_model.last_fit.epochs) == 2
        else:
            train(spark_model, 0, 2)
        train(spark_model, 2, 3)
        models.append(model)
    for one, other in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(one, other)


class Poisons(keras.callbacks.Callback):
    """Lets the second epoch diverge."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.optimizer.learning_rate = np.nan


def test_the_rule_state_of_a_diverged_epoch_is_discarded(spark):
    """Many exchanges merge values that are not finite before the loss is checked."""
    model = classifier()
    spark_model = SparkModel(model, "synchronous", 2, num_workers=2, server_optimizer="adam")
    with pytest.raises(WorkerError, match="NaN or infinite in epoch 2"):
        train(spark_model, 0, 3, callbacks=[Poisons()])
    assert len(spark_model.last_fit.epochs) == 1
    assert np.isfinite(model.get_weights()[0]).all()
    model.optimizer.learning_rate = 0.1
    assert np.isfinite(train(spark_model, 1, 3).history["loss"]).all()


def test_rule_state_of_other_weights_is_discarded_with_a_warning(spark, caplog):
    """For example when layers are frozen between two fits."""
    spark_model = SparkModel(classifier(), num_workers=2, server_optimizer=STATEFUL[1])
    train(spark_model, 0, 1)
    with caplog.at_level(logging.WARNING, "kspark"):
        train(spark_model, 1, 2)
        assert "starts without state" not in caplog.text
        model = spark_model.master_network
        model.add(keras.layers.Dense(3, activation="softmax"))
        model.layers[0].trainable = False
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        train(spark_model, 2, 3)
    assert "The server optimizer starts without state" in caplog.text


@pytest.mark.parametrize("road", ["auto", "rounds"])
def test_one_shot_averaging_is_the_mean_of_models_that_plain_keras_trains(spark, caplog, road):
    x, y = labelled(60)
    parts, rows = [slice(0, 40), slice(40, 60)], [40, 20]
    models = [classifier() for _ in parts]
    for part, model in zip(parts, models, strict=True):
        model.fit(x[part], y[part], 8, epochs=3, shuffle=False, verbose=0)
    pairs = [list(zip(x[part], y[part], strict=True)) for part in parts]
    rdd = spark.sparkContext.parallelize(pairs, 2).flatMap(lambda pairs: pairs)
    ours = classifier()
    spark_model = SparkModel(ours, frequency="fit", batch_size=8, road=road)
    history = spark_model.fit(rdd, epochs=3, shuffle=False, verbose=0, validation_data=(x, y))
    for found, *trained in zip(ours.get_weights(), *(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(found, np.average(trained, axis=0, weights=rows), atol=1e-6)
    assert len(history.history["val_loss"]) == 3
    assert spark_model.last_fit.server_optimizer == "one_shot"
    halve = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ours.set_weights([w / 2 for w in ours.get_weights()])
    )
    spark_model.fit(rdd, epochs=1, verbose=0, callbacks=[halve])
    assert "do not get the weights that a callback has set" in caplog.text
    with pytest.raises(ValueError, match='`frequency` must be "epoch" with .*one_shot'):
        SparkModel(ours, frequency=2, server_optimizer="one_shot")
