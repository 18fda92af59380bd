"""A model with several optimizers is copied, and trains as in Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec
from kspark.replica.building import build
from kspark.replica.stepping import assignment

layers, optimizers = keras.layers, keras.optimizers

pytestmark = pytest.mark.skipif(
    not hasattr(optimizers, "MultiOptimizer"), reason="this Keras has no `MultiOptimizer`"
)


def by_pattern(pattern):
    """Two optimizers of the same class, which differ in their learning rate only."""
    chosen = optimizers.OptimizerMap(optimizers.SGD(0.1), {pattern: optimizers.SGD(0.01)})
    return optimizers.MultiOptimizer(chosen)


def by_function():
    """A function without a name of its own, which makes an optimizer for each variable."""
    rates = {"kernel": 0.1, "bias": 0.01}
    return optimizers.MultiOptimizer(lambda variable: optimizers.Adam(rates[variable.name]))


def excluding():
    decaying = optimizers.AdamW(0.1, weight_decay=0.5)
    decaying.exclude_from_weight_decay(var_names=["bias"])
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(decaying))


def scheduled():
    schedule = optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
    return optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.SGD(schedule)))


OPTIMIZERS = {
    "any_model": lambda: by_pattern(".*first/.*"),
    "name_of_the_model": lambda: by_pattern("named/first/.*"),
    "name_that_fits_the_copy_only": lambda: by_pattern("first/.*"),
    "function": by_function,
    "exclusions": excluding,
    "schedule": scheduled,
    "scaled_loss": lambda: optimizers.LossScaleOptimizer(by_pattern("named/first/.*")),
}


def model_with(optimizer):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh", name="first"), layers.Dense(3, name="last")],
        name="named",
    )
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("made", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_a_model_with_several_optimizers_trains_as_in_keras(made, window_of):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 4)).astype("f4"), random.normal(size=(24, 3)).astype("f4")
    plain, given = model_with(made()), model_with(made())
    replica = build(ReplicaSpec.of(given))
    numbers = assignment(given.optimizer, given.trainable_variables)
    assert assignment(replica.model.optimizer, replica.model.trainable_variables) == numbers
    plain.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
    replica.train(window_of(x, y), 4)
    for ours, theirs in zip(replica.model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_the_state_of_several_optimizers_is_copied(window_of):
    given = model_with(by_function())
    given.fit(np.ones((8, 4)), np.ones((8, 3)), batch_size=4, verbose=0)
    replica = build(ReplicaSpec.of(given))
    assert replica.counters == (2, 2, 2, 2, 2)
    for ours, theirs in zip(replica.get_optimizer_state(), given.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, keras.ops.convert_to_numpy(theirs))


def test_models_whose_variables_have_other_optimizers_have_other_digests():
    first, last = (ReplicaSpec.of(model_with(by_pattern(p))) for p in (".*first/.*", ".*last/.*"))
    assert first.digest != last.digest
