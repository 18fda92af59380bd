"""A learning rate that follows the number of workers, on `local[2]`."""

import logging

import keras
import numpy as np

from kspark import SparkModel

BATCH = 4


def model_of():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1, 0.5), "sparse_categorical_crossentropy")
    return model


def test_two_workers_equal_one_machine_with_the_joint_batch_and_the_scaled_rate(spark, caplog):
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 6)).astype("float32")
    y = (x @ random.normal(size=(6, 3))).argmax(axis=1).astype("int32")
    halves = [np.arange(0, 16).reshape(4, BATCH), np.arange(16, 32).reshape(4, BATCH)]
    joint = np.concatenate(halves, axis=1).reshape(-1)  # batch i holds batch i of each shard
    plain, ours = model_of(), model_of()
    spark_model = SparkModel(ours, frequency="batch", num_workers=2, batch_size=BATCH)
    for _ in range(2):  # the second fit begins with the model's own rate again
        warming = keras.callbacks.LearningRateScheduler(lambda epoch: [0.1, 0.15, 0.2][epoch])
        plain.fit(x[joint], y[joint], 2 * BATCH, 3, 0, [warming], shuffle=False)
        with caplog.at_level(logging.INFO, "kspark"):
            scaled = {"scale_lr": "linear", "warmup_epochs": 2}
            spark_model.fit(x, y, epochs=3, shuffle=False, verbose=0, **scaled)
        for a, b in zip(ours.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        assert float(ours.optimizer.learning_rate) == np.float32(0.1)
    rates = [facts.learning_rate for facts in spark_model.last_fit.epochs]
    np.testing.assert_allclose(rates, [0.1, 0.15, 0.2], rtol=1e-6)
    told = [m for m in caplog.messages if "global batch 8, 4 updates of the weights per epoch" in m]
    assert len(told) == 2  # once per fit
    assert spark_model.last_fit.workload.global_batch == 2 * BATCH
