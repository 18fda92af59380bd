"""The cases of the table: all rules and codecs, each in the modes that it supports."""

from __future__ import annotations

from benchmarks.convergence.case import Case, cases, sorted_cases, with_rule
from kspark import compression, optimizers
from kspark.plan import TrainingPlan
from kspark.spark_model.arguments import check_rule

ROWS = ("random order", "sorted", "sorted, mixed once", "sorted, mixed every epoch")
UNMEASURED = {"KerasOptimizer", "OneShot"}
"""Rules of which docs/choosing.md says that they are not measured."""


def test_every_rule_is_measured_in_every_mode_that_it_supports() -> None:
    found = {(c.mode, c.rule) for c in cases("mnist", [2, 4, 8], 5).values()}
    rules = {optimizers.get(name) for _, name in found}
    for rule in rules:
        for mode in rule.modes - {"hogwild"}:
            assert (mode, type(rule).__name__) in found
    every = [getattr(optimizers, name) for name in optimizers.__all__]
    named = {r.__name__ for r in every if isinstance(r, type) and hasattr(r, "clone")}
    assert {type(rule).__name__ for rule in rules} == named - {
        "ServerOptimizer",
        "ScaledDelta",
    } - UNMEASURED


def test_every_case_has_valid_arguments() -> None:
    for c in cases("mnist", [2, 4, 8], 5).values():
        if c.mode == "keras":
            continue
        document = {"class_name": c.rule, "config": dict(c.rule_config)}
        rule = optimizers.get(document)
        plan = TrainingPlan.create(
            mode=c.mode, frequency=c.frequency, compression=c.compression, scale_lr=c.scale_lr
        )
        check_rule(rule, plan)
        assert plan.compression == compression.get(c.compression)


def test_only_the_plain_average_is_measured_with_every_number_of_shards() -> None:
    found = cases("mnist", [8, 2, 4], 5)
    assert {f"{k}/synchronous/epoch/Average" for k in (2, 4, 8)} <= set(found)
    assert {c.shards for c in found.values() if c.rule != "Average" or c.compression} == {4}


def test_sorted_rows_are_measured_with_and_without_mixing() -> None:
    found = sorted_cases("mnist", [4], 5)
    assert [found[f"4/synchronous/epoch/{name}"] for name in ROWS] == [
        Case(),
        Case(rows="sorted"),
        Case(rows="sorted", reshuffle=5),
        Case(rows="sorted", reshuffle="epoch"),
    ]
    assert len(found) == 4 * len({(c.mode, c.frequency) for c in found.values()}) == 20


def test_the_key_of_a_fit_depends_on_its_seed_and_rule_but_not_on_the_order_of_arguments() -> None:
    one = with_rule(Case(), "SGD", momentum=0.9, learning_rate=0.5)
    other = with_rule(Case(), "SGD", learning_rate=0.5, momentum=0.9)
    assert one.key(0) == other.key(0) != one.key(1)
    assert one.key(0) != Case().key(0)
