"""The DataFrames that are scored, and Spark's functions for them, with stand-ins for Spark's."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import SimpleNamespace

import pytest
from pyspark.sql.types import DoubleType, StringType

from kspark.cluster.bootstrap import ship
from kspark.job import frame_scoring
from kspark.job.frame_scoring import COLUMNAR_INPUT, MAX_FUNCTIONS, SharedModel, with_rows_converted


class Frame:
    """A DataFrame that only knows its session's settings and its filters."""

    def __init__(self, settings):
        self.sparkSession = SimpleNamespace(conf=settings)

    def where(self, condition):
        return ("filtered", condition)


@pytest.mark.parametrize(
    ("settings", "filtered"),
    [
        ({COLUMNAR_INPUT: "true"}, True),
        ({COLUMNAR_INPUT: "false"}, False),
        ({}, False),  # before Spark 4.3
    ],
)
def test_rows_are_filtered_only_where_spark_would_pass_columns(monkeypatch, settings, filtered):
    functions = SimpleNamespace(spark_partition_id=lambda: 0)
    monkeypatch.setattr(frame_scoring, "F", functions)
    frame = Frame(settings)
    assert with_rows_converted(frame) == (("filtered", True) if filtered else frame)


class Function:
    """A function of columns, which Spark hands to the JVM at its first use."""

    def __init__(self, function, kind):
        self.kind = kind

    def asNondeterministic(self):
        return self


@pytest.fixture
def model(monkeypatch):
    """A `SharedModel` without a session."""
    monkeypatch.setattr(frame_scoring, "ARROW_UDF", Function)
    shared = SharedModel.__new__(SharedModel)
    shared._functions, shared._lock = {}, Lock()
    return shared


def shipped(*args):
    return ship(frame_scoring.inference_worker.predict_last, *args)


def test_the_next_frame_with_the_same_columns_gets_the_same_function(model):
    first = model.column_function(shipped("a"), 1, DoubleType())
    assert model.column_function(shipped("a"), 1, DoubleType()) is first


@pytest.mark.parametrize(
    ("args", "num_columns", "kind"),
    [(("b",), 1, DoubleType()), (("a",), 2, DoubleType()), (("a",), 1, StringType())],
)
def test_another_task_number_of_columns_or_type_gets_another_function(
    model, args, num_columns, kind
):
    first = model.column_function(shipped("a"), 1, DoubleType())
    other = model.column_function(shipped(*args), num_columns, kind)
    assert other is not first
    assert other.kind == kind


def test_only_the_functions_that_were_used_last_are_kept(model):
    first = model.column_function(shipped(0), 1, DoubleType())
    for number in range(1, MAX_FUNCTIONS):
        model.column_function(shipped(number), 1, DoubleType())
    assert model.column_function(shipped(0), 1, DoubleType()) is first
    model.column_function(shipped("one more"), 1, DoubleType())
    assert len(model._functions) == MAX_FUNCTIONS
    assert model.column_function(shipped(0), 1, DoubleType()) is first


def test_threads_share_the_functions_of_a_model(model):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            numbers = [number % 60 for number in range(3000)]
            kind = DoubleType()
            found = pool.map(lambda n: model.column_function(shipped(n), 1, kind), numbers)
            assert all(function.kind is kind for function in found)
    finally:
        sys.setswitchinterval(before)
    assert len(model._functions) == MAX_FUNCTIONS
