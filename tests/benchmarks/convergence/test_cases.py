"""Which fits are in the table: all rules and codecs, each where it works."""

from __future__ import annotations

from types import ModuleType

from kspark import compression, optimizers
from kspark.arguments import check_rule
from kspark.plan import TrainingPlan


def test_every_rule_is_measured_in_every_mode_it_is_for(case: ModuleType) -> None:
    found = {(c.mode, c.rule) for c in case.cases("mnist", [2, 4, 8], 5).values()}
    rules = {optimizers.get(name) for _, name in found}
    for rule in rules:
        for mode in rule.modes - {"hogwild"}:
            assert (mode, type(rule).__name__) in found
    every = [getattr(optimizers, name) for name in optimizers.__all__]
    named = {r.__name__ for r in every if isinstance(r, type) and hasattr(r, "clone")}
    assert {type(rule).__name__ for rule in rules} == named - {"ServerOptimizer", "ScaledDelta"}


def test_every_case_is_one_that_kspark_trains(case: ModuleType) -> None:
    for c in case.cases("mnist", [2, 4, 8], 5).values():
        if c.mode == "keras":
            continue
        document = {"class_name": c.rule, "config": dict(c.rule_config)}
        rule = optimizers.get(document)
        plan = TrainingPlan.create(
            mode=c.mode, frequency=c.frequency, compression=c.compression, scale_lr=c.scale_lr
        )
        check_rule(rule, plan)
        assert plan.compression == compression.get(c.compression)


def test_averages_are_measured_with_all_numbers_of_shards_and_the_rest_with_one(
    case: ModuleType,
) -> None:
    found = case.cases("mnist", [8, 2, 4], 5)
    assert {f"{k}/synchronous/epoch/Average" for k in (2, 4, 8)} <= set(found)
    assert {c.shards for c in found.values() if c.rule != "Average" or c.compression} == {4}


def test_a_fit_is_named_by_everything_that_decides_on_it(case: ModuleType) -> None:
    one = case.with_rule(case.Case(), "SGD", momentum=0.9, learning_rate=0.5)
    other = case.with_rule(case.Case(), "SGD", learning_rate=0.5, momentum=0.9)
    assert one.key(0) == other.key(0) != one.key(1)
    assert one.key(0) != case.Case().key(0)
