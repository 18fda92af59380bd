"""What `SparkModel` refuses before anything starts."""

from __future__ import annotations

import pytest

from kspark import optimizers
from kspark.arguments import check_rule
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
