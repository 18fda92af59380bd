"""What lies outside the model's variables is the same on the driver and on the workers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import SparkModel, load_spark_model
from kspark.ml import KerasRegressor

layers, ops = keras.layers, keras.ops

X = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
Y = X[:, :1]


class Weighted(keras.losses.Loss):
    """A loss whose weight a callback changes."""

    def __init__(self):
        super().__init__()
        self.weight = keras.Variable(1.0, trainable=False)

    def call(self, y_true, y_pred):
        return self.weight * ops.mean(ops.square(y_true - y_pred), axis=-1)


class SwitchOff(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.model.loss.weight.assign(0.0)


class Counting(keras.losses.Loss):
    """A loss that changes its own variable."""

    def __init__(self):
        super().__init__()
        self.calls = keras.Variable(0.0, trainable=False)

    def call(self, y_true, y_pred):
        self.calls.assign_add(1.0)
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


def dense(loss, *inner, optimizer="sgd"):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((3,)), *inner, layers.Dense(1)])
    model.compile(optimizer, loss)
    return model


@pytest.mark.parametrize("frequency", ["epoch", "batch"])
def test_variables_of_the_loss_follow_the_callbacks(frequency, spark):
    model = dense(Weighted())
    spark_model = SparkModel(model, frequency=frequency, num_workers=1)
    history = spark_model.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[SwitchOff()])
    assert history.history["loss"][0] > 0
    assert history.history["loss"][1:] == [0.0, 0.0]


def test_variables_that_the_loss_changes_come_back(spark):
    ours, theirs = dense(Counting()), dense(Counting())
    SparkModel(ours, num_workers=1).fit(X, Y, epochs=2, batch_size=8, verbose=0, shuffle=False)
    theirs.fit(X, Y, epochs=2, batch_size=8, verbose=0, shuffle=False)
    assert float(ours.loss.calls) == float(theirs.loss.calls)


def test_a_stage_trains_lora_and_keeps_its_seeds(spark):
    frame = spark.createDataFrame(
        [(x.tolist(), float(y[0])) for x, y in zip(X, Y, strict=True)], ["features", "label"]
    ).coalesce(2)
    model = dense("mse", layers.Dense(4), layers.Dropout(0.3))
    model.layers[0].enable_lora(2)
    model.compile("adam", "mse")
    stage = KerasRegressor(model, epochs=2, batchSize=8, numWorkers=2, seed=1, verbose=0)
    first, second = (stage.fit(frame).kerasModel for _ in range(2))
    for ours, theirs in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    factor = first.layers[0].lora_kernel_b.numpy()
    assert np.abs(factor).max() > 0


def test_a_saved_model_goes_on_as_the_model_itself(tmp_path, spark):
    model = dense("mse", layers.Dense(4))
    model.layers[0].enable_lora(2)
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.2)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[1].bias])
    model.compile(optimizer, "mse")
    ours = SparkModel(model, num_workers=1, seed=3)
    fit = {"batch_size": 8, "verbose": 0}
    ours.fit(X, Y, epochs=1, **fit)
    ours.save(str(tmp_path / "model.keras"))
    loaded = load_spark_model(str(tmp_path / "model.keras"))
    histories = [each.fit(X, Y, epochs=2, **fit).history["loss"] for each in (ours, loaded)]
    np.testing.assert_allclose(*histories, rtol=1e-6)
    for mine, theirs in zip(
        ours.master_network.variables, loaded.master_network.variables, strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), atol=1e-7)
