"""Checks of single arguments: what they accept and return, and the errors."""

from __future__ import annotations

from enum import Enum

import numpy as np
import pytest

from kspark.plan import TrainingPlan
from kspark.plan.checks import check_fraction


def plan(**arguments):
    return TrainingPlan.create(**{"mode": "synchronous", "frequency": "epoch", **arguments})


@pytest.mark.parametrize(
    ("name", "value", "kind", "rule"),
    [
        ("mode", "sync", ValueError, 'one of "synchronous", "asynchronous", "hogwild"'),
        ("frequency", "step", ValueError, '"epoch", "batch" or an integer >= 1'),
        ("frequency", 0, ValueError, '"epoch", "batch" or an integer >= 1'),
        ("frequency", True, ValueError, '"epoch", "batch" or an integer >= 1'),
        ("frequency", 2.0, ValueError, '"epoch", "batch" or an integer >= 1'),
        ("epochs", 0, ValueError, "an integer >= 1"),
        ("epochs", 1.5, TypeError, "an integer >= 1"),
        ("epochs", True, TypeError, "an integer >= 1"),
        ("initial_epoch", -1, ValueError, "an integer >= 0"),
        ("initial_epoch", 2, ValueError, r"<= epochs \(1\)"),
        ("initial_epoch", "0", TypeError, "an integer >= 0"),
        ("batch_size", 0, ValueError, "an integer >= 1"),
        ("batch_size", None, TypeError, "an integer >= 1"),
        ("shuffle", 1, TypeError, "True or False"),
        ("seed", -1, ValueError, "an integer >= 0"),
        ("seed", 1.0, TypeError, "an integer >= 0"),
        ("timeout", 0, ValueError, "a finite number of seconds > 0"),
        ("timeout", float("inf"), ValueError, "a finite number of seconds > 0"),
        ("timeout", float("nan"), ValueError, "a finite number of seconds > 0"),
        ("timeout", "60", TypeError, "a number of seconds > 0"),
        ("timeout", True, TypeError, "a number of seconds > 0"),
        ("max_failures", -1, ValueError, "an integer >= 0"),
        ("max_failures", 0.5, TypeError, "an integer >= 0"),
        ("on_nonfinite", "warn", ValueError, 'one of "raise", "ignore"'),
        ("compression", "int7", ValueError, 'None or one of .*"int8" is the nearest'),
        ("compression", 8, TypeError, "None, a codec's name"),
        ("port", -1, ValueError, "a port from 0 to 65535"),
        ("port", 65536, ValueError, "a port from 0 to 65535"),
        ("port", "80", TypeError, "a port from 0 to 65535"),
        ("port", True, TypeError, "a port from 0 to 65535"),
        ("port", (0, 10), ValueError, r"a pair \(first, last\) of ports"),
        ("port", (10, 9), ValueError, r"a pair \(first, last\) of ports"),
        ("port", (10, 65536), ValueError, r"a pair \(first, last\) of ports"),
        ("port", (1, 2, 3), TypeError, r"a pair \(first, last\) of ports"),
        ("class_weight", {}, TypeError, "a non-empty mapping"),
        ("class_weight", [1.0], TypeError, "a non-empty mapping"),
        ("class_weight", {-1: 1.0}, ValueError, "keyed by class indices >= 0"),
        ("class_weight", {True: 1.0}, ValueError, "keyed by class indices >= 0"),
        ("class_weight", {"a": 1.0}, ValueError, "keyed by class indices >= 0"),
        ("class_weight", {0: -1.0}, ValueError, "a mapping to finite weights >= 0"),
        ("class_weight", {0: float("nan")}, ValueError, "a mapping to finite weights >= 0"),
        ("class_weight", {0: float("inf")}, ValueError, "a mapping to finite weights >= 0"),
        ("class_weight", {0: "1"}, ValueError, "a mapping to finite weights >= 0"),
        ("validation_batch_size", 0, ValueError, "an integer >= 1"),
        ("validation_freq", 0, ValueError, "an integer >= 1"),
        ("validation_freq", [1, 0], ValueError, "an integer >= 1"),
        ("validation_freq", 0.5, TypeError, "an integer >= 1"),
    ],
)
def test_wrong_arguments_are_named_in_the_error(name, value, kind, rule):
    with pytest.raises(kind, match=f"^`{name}` must be .*{rule}.*Received: {name}="):
        plan(**{name: value})


@pytest.mark.parametrize("given", [0, 7, np.int64(3)])
def test_max_staleness_becomes_a_plain_integer(given):
    bound = plan(mode="asynchronous", max_staleness=given).max_staleness
    assert (bound, type(bound)) == (given, int)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0, 0),
        (np.int64(8080), 8080),
        ((5000, 5010), (5000, 5010)),
        ([5000, 5010], (5000, 5010)),  # as JSON gives it back
        ((np.int32(1), 65535), (1, 65535)),
    ],
)
def test_ports_are_kept_as_plain_integers(given, kept):
    port = plan(port=given).port
    assert port == kept
    assert {type(p) for p in (port if isinstance(port, tuple) else (port,))} == {int}


def test_numpy_numbers_become_python_numbers():
    made = plan(
        frequency=np.int64(5), epochs=np.int32(3), initial_epoch=np.int8(2), batch_size=np.int64(8),
        seed=np.uint32(7), shuffle=np.bool_(False), timeout=np.float32(2), max_failures=np.int16(1),
        class_weight={np.int64(1): np.float32(0.5), 0: 2}, validation_freq=np.int64(2),
    )  # fmt: skip
    numbers = ("frequency", "epochs", "initial_epoch", "batch_size", "seed", "max_failures")
    assert {type(getattr(made, name)) for name in numbers} == {int}
    assert (type(made.shuffle), type(made.timeout)) == (bool, float)
    assert made.class_weight == {1: 0.5, 0: 2.0}
    assert {type(v) for pair in made.class_weight.items() for v in pair} == {int, float}
    assert type(made.validation_freq) is int


def test_boundary_values_are_accepted():
    made = plan(epochs=2, initial_epoch=2, batch_size=1, max_failures=0, seed=0, port=65535)
    assert (made.initial_epoch, made.max_failures, made.seed, made.port) == (2, 0, 0, 65535)
    assert plan(on_nonfinite="ignore").on_nonfinite == "ignore"
    assert plan(class_weight={0: 0}).class_weight == {0: 0.0}
    assert plan(frequency=1).frequency == 1


def test_validation_epochs_are_sorted():
    assert plan(validation_freq=[3, 1]).validation_freq == (1, 3)
    assert plan(validation_freq=range(1, 4)).validation_freq == (1, 2, 3)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, np.float32(0.25)])
def test_fractions_below_one_are_accepted(value):
    check_fraction("validation_split", value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1.0, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("0.1", TypeError),
     (None, TypeError), (False, TypeError)],
)  # fmt: skip
def test_values_that_are_not_fractions_are_refused(value, kind):
    with pytest.raises(kind, match="`validation_split` must be a number >= 0 and < 1"):
        check_fraction("validation_split", value)


class Mode(str, Enum):
    LOCK_FREE = "hogwild"


def test_a_choice_becomes_a_plain_string():
    mode = plan(mode=Mode.LOCK_FREE).mode
    assert (mode, type(mode)) == ("hogwild", str)
