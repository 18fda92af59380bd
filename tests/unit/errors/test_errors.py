"""The tree of errors, and the sentences in them."""

from __future__ import annotations

import pickle

import pytest

from kspark import errors
from kspark.errors import (
    Described,
    Failure,
    NonFiniteError,
    WorkerError,
    inside,
    invalid,
    invalid_type,
)

FAILURE = Failure(3, "node7", 1, "ZeroDivisionError", "division by zero", "  File x\nZeroDiv\n\n")


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ("KSparkError", RuntimeError),
        ("ClusterError", errors.KSparkError),
        ("NotEnoughSlotsError", errors.ClusterError),
        ("EnvironmentMismatchError", errors.ClusterError),
        ("WorkerError", errors.KSparkError),
        ("NonFiniteError", errors.WorkerError),
        ("AggregationError", errors.KSparkError),
        ("IncompatibleDeltaError", errors.AggregationError),
        ("ProtocolError", errors.KSparkError),
        ("ConnectionLostError", errors.KSparkError),
    ],
)
def test_the_tree_of_errors_matches_the_docstring(child, parent):
    assert getattr(errors, child).__bases__ == (parent,)
    assert f"{child}" in errors.__doc__


def test_sentence_names_argument_rule_and_value():
    error = invalid("epochs", "an integer >= 1", 0)
    assert type(error) is ValueError
    assert str(error) == "`epochs` must be an integer >= 1. Received: epochs=0"


def test_a_description_is_not_quoted():
    error = invalid("x", "a data set with at least one example", Described("0 examples"))
    assert str(error).endswith("Received: 0 examples")


def test_a_wrong_type_raises_a_type_error_with_the_same_sentence():
    error = invalid_type("mode", "a string", b"x")
    assert type(error) is TypeError
    assert str(error) == "`mode` must be a string. Received: mode=b'x'"


@pytest.mark.parametrize(("length", "shown"), [(198, 200), (199, 200), (5000, 200)])
def test_long_values_are_cut_to_200_characters(length, shown):
    text = str(invalid("x", "short", "a" * length)).split("Received: x=")[1]
    assert len(text) == shown
    assert text.endswith("...") == (length > 198)


def test_a_worker_error_names_the_place_the_cause_and_the_remedy():
    assert str(WorkerError(FAILURE, "use floats.")) == (
        "Shard 3 failed on host node7 (attempt 1): ZeroDivisionError: division by zero\n"
        "Hint: use floats.\n\n"
        "Traceback of the worker:\n  File x\nZeroDiv"
    )


def test_worker_error_without_hint_and_traceback_is_one_line():
    bare = Failure(0, "h", 0, "Lost", "gone", "")
    assert str(WorkerError(bare)) == "Shard 0 failed on host h (attempt 0): Lost: gone"


@pytest.mark.parametrize("kind", [WorkerError, NonFiniteError])
def test_worker_error_survives_pickling(kind):
    """Process pools and test runners send exceptions to their parents."""
    error = pickle.loads(pickle.dumps(kind(FAILURE, "a hint")))
    assert type(error) is kind
    assert error.failure == FAILURE
    assert error.hint == "a hint"
    assert str(error) == str(kind(FAILURE, "a hint"))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (invalid("x", "small", 9), ValueError, "In `data`: `x` must be small. Received: x=9"),
        (invalid_type("x", "small", 9), TypeError, "In `data`: `x` must be small. Received: x=9"),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), ValueError, "In `data`: 'utf-8' codec"),
    ],
)
def test_errors_inside_an_argument_name_that_argument(error, kind, text):
    with pytest.raises(kind) as caught, inside("data"):
        raise error
    assert str(caught.value).startswith(text)
    assert caught.value.__cause__ is error


def test_other_errors_are_not_changed():
    with pytest.raises(WorkerError) as caught, inside("data"):
        raise WorkerError(FAILURE)
    assert "`data`" not in str(caught.value)
