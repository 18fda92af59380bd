"""`steps_per_epoch`, `validation_steps` and `steps` use the rows that Keras uses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kspark import SparkModel

X = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
Y = X @ np.arange(6, dtype="float32")[:, None] / 4
BATCHES = {"batch_size": 8}  # 6 whole batches and one of 2 rows in a pass


def regressor():
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "mse", metrics=["mae"])
    return model


def both(fit, **settings):
    """Histories and models of Keras and of one worker, after the same calls."""
    made = []
    for wrap in (lambda model: model, lambda model: SparkModel(model, num_workers=1, **settings)):
        model = regressor()
        made.append((fit(wrap(model)), model))
    return made


def check_same(made, atol=1e-5):
    (expected, plain), (found, ours) = made
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=atol, err_msg=name)
    for a, b in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize(
    ("steps", "settings"),
    [
        (3, {}),
        (9, {"road": "rounds"}),
        (3, {"frequency": "batch"}),
        (9, {"mode": "asynchronous", "frequency": 2}),
        (3, {"mode": "hogwild", "frequency": 3}),
        pytest.param(9, {"frequency": "batch"}, marks=pytest.mark.thorough),
        pytest.param(3, {"mode": "asynchronous"}, marks=pytest.mark.thorough),
        pytest.param(9, {"mode": "hogwild", "frequency": 3}, marks=pytest.mark.thorough),
    ],
)
def test_epochs_go_on_where_the_one_before_stopped(spark, settings, steps):
    def fit(model):
        data, more = {"x": X, "y": Y, "shuffle": False, **BATCHES}, {"verbose": 0}
        if isinstance(model, keras.Model):  # Arrays do not go round in Keras.
            data = {"x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).repeat()}
        return model.fit(**data, epochs=3, steps_per_epoch=steps, **more).history

    check_same(both(fit, **settings))


def test_several_workers_share_the_steps(spark):
    model = regressor()
    spark_model = SparkModel(model, num_workers=2, batch_size=8)
    spark_model.fit(X, Y, epochs=2, steps_per_epoch=5, verbose=0)
    epochs = spark_model.last_fit.workers
    assert [[w["batches"] for w in workers] for workers in epochs] == [[3, 2], [3, 2]]
    # 25 rows are batches of 8, 8, 8, 1; 8, ...
    assert [[w["num_examples"] for w in workers] for workers in epochs] == [[24, 16], [17, 9]]
    with pytest.raises(ValueError, match="`steps_per_epoch` must be >= 2"):
        spark_model.fit(X, Y, steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize("road", ["auto", "rounds"])
@pytest.mark.parametrize("held_out", ["split", "data"])
def test_validation_uses_the_first_batches(spark, held_out, road):
    def fit(model):
        given = {"validation_split": 0.4} if held_out == "split" else {"validation_data": (X, Y)}
        more = {"validation_batch_size": 4, "validation_steps": 3, "shuffle": False, "verbose": 0}
        return model.fit(X, Y, epochs=2, **given, **more, **BATCHES).history

    check_same(both(fit, road=road))


@keras.saving.register_keras_serializable("tests")
class MeanLabel(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true)


def test_validation_uses_the_first_rows_of_a_frame_that_is_divided(spark):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[MeanLabel(name="labels")])
    rows = [([0.0], float(i)) for i in range(40)]
    frame = spark.createDataFrame(rows, "features array<double>, label double").coalesce(1)
    spark_model = SparkModel(model, num_workers=2, batch_size=4)
    history = spark_model.fit(frame, validation_data=frame, validation_steps=2, verbose=0).history
    assert history["val_labels"] == [3.5]


def test_a_restored_fit_goes_on_at_the_rows_where_it_was_interrupted(spark, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    fits = {"epochs": 4, "steps_per_epoch": 3, "verbose": 0, **BATCHES}
    whole, parts = regressor(), regressor()
    SparkModel(whole, num_workers=1, seed=1).fit(X, Y, **fits)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(InterruptedError):
        SparkModel(parts, num_workers=1, seed=1).fit(X, Y, callbacks=[backup, Stop()], **fits)
    again = regressor()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    SparkModel(again, num_workers=1, seed=1).fit(X, Y, callbacks=[backup], **fits)
    for a, b in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_evaluate_and_predict_use_the_first_batches(spark):
    model = regressor()
    spark_model = SparkModel(model, num_workers=2)
    expected = model.evaluate(X, Y, 4, steps=3, verbose=0)
    np.testing.assert_allclose(spark_model.evaluate(X, Y, 4, steps=3), expected, rtol=1e-5)
    predicted = model.predict(X, 4, steps=3, verbose=0)
    np.testing.assert_allclose(spark_model.predict(X, 4, steps=3), predicted, rtol=1e-5)
    rows = [(x.tolist(), float(y[0])) for x, y in zip(X, Y, strict=True)]
    frame = spark.createDataFrame(rows, "features array<double>, label double").coalesce(3)
    np.testing.assert_allclose(spark_model.evaluate(frame, None, 4, steps=3), expected, rtol=1e-5)
    assert spark_model.predict(frame, 4, steps=3).count() == 12
    rdd = spark.sparkContext.parallelize(list(zip(X, Y, strict=True)), 5)
    np.testing.assert_allclose(spark_model.evaluate(rdd, None, 4, steps=3), expected, rtol=1e-5)
    features = spark.sparkContext.parallelize(list(X), 5)
    found = spark_model.predict(features, 4, steps=3)
    np.testing.assert_allclose(np.stack(found), predicted, rtol=1e-5)
    assert len(spark_model.predict(X, 4, steps=99)) == 50
