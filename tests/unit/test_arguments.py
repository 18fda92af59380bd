"""What `SparkModel` refuses before anything starts."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark import SparkModel, optimizers
from kspark.arguments import check_backend, check_class_weight, check_rule
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


def test_classes_of_one_target_may_be_weighted():
    check_class_weight({0: 2.0}, 1)
    check_class_weight(None, 2)
    check_class_weight(None, 0)
    with pytest.raises(ValueError, match="`class_weight` must be `None` for a model without targ"):
        check_class_weight({0: 2.0}, 0)


def test_classes_of_several_targets_are_refused_before_there_is_any_spark():
    entry = keras.Input((2,))
    outputs = [keras.layers.Dense(1, name=name)(entry) for name in ("a", "b")]
    model = keras.Model(entry, outputs)
    model.compile(loss=["mse", "mse"])
    rule = "`class_weight` must be `None` for a model with several outputs. Received: .*{1: 2.0}"
    with pytest.raises(ValueError, match=rule):
        SparkModel(model).fit(np.zeros((4, 2)), [np.zeros(4)] * 2, class_weight={1: 2.0})
