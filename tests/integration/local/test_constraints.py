"""Constraints of weights hold after a fit, whatever merges the weights."""

import keras
import numpy as np
import pytest

from kspark import SparkModel
from kspark.optimizers import ElasticAverage

layers = keras.layers


class Between(keras.constraints.Constraint):
    """A constraint of one's own."""

    def __call__(self, w):
        return keras.ops.clip(w, -0.1, 0.3)


def constrained():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, "tanh", kernel_constraint="non_neg", bias_constraint=Between()),
            layers.Dense(
                4, kernel_constraint="unit_norm", bias_constraint=keras.constraints.MaxNorm(0.05)
            ),
            layers.Dense(1, kernel_constraint=keras.constraints.MinMaxNorm(0.2, 0.4, rate=0.5)),
        ]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def rows():
    x = np.random.default_rng(0).normal(size=(256, 6)).astype("float32")
    return x, x[:, :1]


def check(model):
    non_neg, between, unit, most = model.get_weights()[:4]
    assert non_neg.min() >= 0
    assert between.min() >= np.float32(-0.1)
    assert between.max() <= np.float32(0.3)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=0), 1, rtol=0, atol=1e-6)
    assert np.linalg.norm(most) <= 0.05 + 1e-6


class Check(keras.callbacks.Callback):
    """Checks the weights that callbacks see."""

    def on_epoch_end(self, epoch, logs=None):
        check(self.model)


def test_a_single_shard_equals_plain_fit(spark):
    """Also with a constraint that moves weights a part of the way each time it is applied."""
    plain, ours = constrained(), constrained()
    plain.fit(*rows(), epochs=3, shuffle=False, verbose=0)
    SparkModel(ours, num_workers=1).fit(*rows(), epochs=3, shuffle=False, verbose=0)
    for one, other in zip(plain.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


THOROUGH = [
    ("synchronous", "epoch", "average"),
    ("synchronous", "epoch", ElasticAverage(momentum=0.9)),
    ("synchronous", 2, "adam"),
    ("synchronous", 2, ElasticAverage(momentum=0.9)),
    ("synchronous", "batch", "average"),
    ("asynchronous", "batch", "average"),
    ("asynchronous", 2, "adam"),
    ("asynchronous", 2, keras.optimizers.AdamW(0.05)),
    ("hogwild", 2, "downpour"),
    ("hogwild", "epoch", "sgd"),
]


@pytest.mark.parametrize(
    ("mode", "frequency", "rule"),
    [
        ("synchronous", "epoch", "adam"),
        ("asynchronous", 2, ElasticAverage(momentum=0.9)),
        ("hogwild", "batch", "average"),
        *[pytest.param(*case, marks=pytest.mark.thorough) for case in THOROUGH],
    ],
)
def test_constraints_hold_after_every_epoch(spark, mode, frequency, rule):
    model = constrained()
    spark_model = SparkModel(model, mode, frequency, num_workers=2, server_optimizer=rule)
    spark_model.fit(*rows(), epochs=2, verbose=0, callbacks=[Check()])
    check(model)


@pytest.mark.thorough
def test_constraints_hold_when_late_shards_are_merged(three):
    model = constrained()
    spark_model = SparkModel(model, num_workers=3, server_optimizer="adam", straggler_timeout=0.001)
    spark_model.fit(*rows(), epochs=3, verbose=0, callbacks=[Check()])
    check(model)


@pytest.mark.thorough
def test_constraints_hold_when_executors_average_groups(spark):
    model = constrained()
    spark_model = SparkModel(model, num_workers=16, server_optimizer="adam", batch_size=8)
    spark_model.fit(*rows(), epochs=2, verbose=0, callbacks=[Check()])
    check(model)
