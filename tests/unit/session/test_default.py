"""A program that has started no session gets that of its environment, or one on this machine."""

from types import SimpleNamespace

import pytest

from kspark.session import default


@pytest.fixture
def started(monkeypatch):
    """What was started: `local_session`, or the session that the environment describes."""
    for name in default.CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    builder = SimpleNamespace(getOrCreate=lambda: "that of the environment")
    monkeypatch.setattr(default, "SparkSession", SimpleNamespace(builder=builder))
    monkeypatch.setattr(default, "local_session", lambda: "local")
    return default.default_session


def test_a_plain_script_runs_on_this_machine(started):
    assert started() == "local"


@pytest.mark.parametrize("variable", ["PYSPARK_GATEWAY_PORT", "SPARK_REMOTE"])
def test_a_script_that_was_submitted_runs_on_its_cluster(started, monkeypatch, variable):
    monkeypatch.setenv(variable, "sc://host")
    assert started() == "that of the environment"
