"""Settings that exclude each other are refused."""

from __future__ import annotations

import pytest

from kspark.plan import TrainingPlan


def plan(**arguments):
    return TrainingPlan.create(**{"mode": "synchronous", "frequency": "epoch", **arguments})


def test_compression_is_refused_in_hogwild_mode():
    with pytest.raises(
        ValueError, match=r"`compression` must be None with mode=\"hogwild\", .*Int8"
    ):
        plan(mode="hogwild", compression="int8")
    assert plan(mode="hogwild", compression=None).compression is None


@pytest.mark.parametrize(
    ("mode", "value", "kind", "rule"),
    [
        ("asynchronous", -1, ValueError, "an integer >= 0"),
        ("asynchronous", True, TypeError, "an integer >= 0"),
        ("asynchronous", 1.0, TypeError, "an integer >= 0"),
        ("synchronous", 0, ValueError, 'None with mode="synchronous", .*at every exchange'),
        ("hogwild", 0, ValueError, 'None with mode="hogwild", .*shared memory'),
    ],
)
@pytest.mark.parametrize("frequency", ["epoch", 3])
def test_max_staleness_is_refused_outside_asynchronous_mode(mode, value, kind, rule, frequency):
    assert plan(mode=mode, frequency=frequency).max_staleness is None
    with pytest.raises(kind, match=f"^`max_staleness` must be {rule}.*Received: max_staleness="):
        plan(mode=mode, frequency=frequency, max_staleness=value)


@pytest.mark.parametrize(
    ("given", "value", "kind", "rule"),
    [
        ({}, 0, ValueError, "a finite number of seconds > 0"),
        ({}, -1.5, ValueError, "a finite number of seconds > 0"),
        ({}, float("inf"), ValueError, "a finite number of seconds > 0"),
        ({}, "3", TypeError, "a number of seconds > 0"),
        ({}, True, TypeError, "a number of seconds > 0"),
        ({"mode": "asynchronous"}, 3, ValueError, 'None with mode="asynchronous", .* slow one'),
        ({"mode": "hogwild"}, 3, ValueError, 'None with mode="hogwild", .* slow one'),
        ({"frequency": "batch"}, 3, ValueError, "None with frequency='batch', .* exchange"),
        ({"frequency": 4}, 3, ValueError, "None with frequency=4, .* exchange"),
    ],
)
def test_straggler_timeout_is_refused_outside_rounds(given, value, kind, rule):
    assert plan(**given).straggler_timeout is None
    told = f"^`straggler_timeout` must be {rule}.*Received: straggler_timeout="
    with pytest.raises(kind, match=told):
        plan(**given, straggler_timeout=value)


@pytest.mark.parametrize(
    ("mode", "frequency"), [("synchronous", "batch"), ("asynchronous", "epoch"), ("hogwild", 3)]
)
def test_rounds_are_refused_where_replicas_exchange_within_an_epoch(mode, frequency):
    rule = rf'`road` must be "auto" or "live" with mode="{mode}" and frequency={frequency!r}'
    with pytest.raises(ValueError, match=rule):
        TrainingPlan.create(mode=mode, frequency=frequency, road="rounds")
    TrainingPlan.create(mode=mode, frequency=frequency, road="live")


def test_the_live_road_is_refused_with_a_straggler_timeout():
    with pytest.raises(ValueError, match='`road` must be "auto" or "rounds" with a `straggler_ti'):
        TrainingPlan.create(road="live", straggler_timeout=1.0)
    TrainingPlan.create(road="rounds", straggler_timeout=1.0)


@pytest.mark.parametrize(
    ("given", "value", "kind", "rule"),
    [
        ({}, 0, ValueError, "an integer >= 1"),
        ({}, 1.5, TypeError, "an integer >= 1"),
        ({}, True, TypeError, "an integer >= 1"),
        ({"road": "rounds"}, 3, ValueError, 'None with road="rounds", where workers are not'),
        ({"straggler_timeout": 9}, 3, ValueError, "None with a `straggler_timeout`, where"),
    ],
)
def test_callbacks_every_needs_workers_that_report(given, value, kind, rule):
    assert plan(**given).callbacks_every is None
    with pytest.raises(kind, match=f"^`callbacks_every` must be {rule}.*Received: callbacks_every"):
        plan(callbacks_every=value, **given)


def test_a_setting_that_needs_a_connection_is_named():
    assert plan().connection_setting == ""
    assert plan(road="live").connection_setting == 'road="live"'
    assert plan(callbacks_every=3).connection_setting == "callbacks_every=3"
