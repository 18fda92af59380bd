"""The settings of a Spark application are read once."""

from __future__ import annotations

from types import SimpleNamespace

from kspark.cluster.settings import spark_settings


class Context:
    """Stands for a `SparkContext`. Counts how often its settings are read."""

    def __init__(self, **settings):
        self.settings, self.reads = settings, 0

    def getConf(self):
        self.reads += 1
        return self.settings


def test_settings_are_read_once_per_application():
    first, second = Context(name="first"), Context(name="second")
    for context in (first, first, second, second):
        session = SimpleNamespace(sparkContext=context)
        assert spark_settings(session) == context.settings
    assert (first.reads, second.reads) == (1, 1)
