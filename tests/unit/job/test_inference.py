"""The DataFrames that are scored, with a stand-in for Spark's."""

from types import SimpleNamespace

import pytest

from kspark.job import inference
from kspark.job.inference import COLUMNAR_INPUT, as_rows


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
    monkeypatch.setattr(inference, "F", functions)
    frame = Frame(settings)
    assert as_rows(frame) == (("filtered", True) if filtered else frame)
