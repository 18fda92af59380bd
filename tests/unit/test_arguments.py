"""What `SparkModel` refuses before anything starts."""

from __future__ import annotations

import keras
import pytest

from kspark import optimizers
from kspark.arguments import check_backend, check_rule
from kspark.plan import TrainingPlan


def plan(mode, frequency="epoch"):
    return TrainingPlan.create(mode=mode, frequency=frequency)


@pytest.mark.parametrize("frequency", ["epoch", "batch", 1])
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous", "hogwild"])
def test_the_plain_average_works_everywhere(mode, frequency):
    check_rule(optimizers.get("average"), plan(mode, frequency))


@pytest.mark.parametrize("rule", ["sgd", "adam", "median"])
def test_merged_gradients_leave_a_rule_nothing_to_do(rule):
    check_rule(optimizers.get(rule), plan("synchronous", 1))
    with pytest.raises(ValueError, match=r"`server_optimizer` must be .* frequency=1 .*Received"):
        check_rule(optimizers.get(rule), plan("synchronous", "batch"))


def test_a_rule_for_another_mode():
    with pytest.raises(ValueError, match='for mode="synchronous"; this one is for "asynchronous"'):
        check_rule(optimizers.get("downpour"), plan("synchronous"))


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_gradients_are_merged_where_the_backend_shows_them(monkeypatch, backend):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    for mode in ("synchronous", "asynchronous", "hogwild"):
        for frequency in ("epoch", 1):
            check_backend(plan(mode, frequency))
    check_backend(plan("asynchronous", "batch"))
    if backend == "tensorflow":
        check_backend(plan("synchronous", "batch"))
        return
    with pytest.raises(ValueError, match=f"`frequency` must be .* '{backend}': .*'tensorflow'. R"):
        check_backend(plan("synchronous", "batch"))
