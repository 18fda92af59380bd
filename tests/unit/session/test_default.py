"""A program that has started no session gets that of its environment, or one on this machine."""

from types import SimpleNamespace

import pytest

from kspark.session import configured, default


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What was started: `local_session`, or the session that the environment describes."""
    for name in (*configured.SUBMITTED, "PYSPARK_SUBMIT_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("spark.master yarn", "that of the environment"),
        ("spark.ui.port 1\n  spark.master=spark://host:7077", "that of the environment"),
        ("# spark.master yarn\nspark.ui.port 1", "local"),
    ],
)
def test_the_file_of_defaults_may_say_where_spark_runs(started, tmp_path, text, found):
    (tmp_path / "spark-defaults.conf").write_text(text, encoding="utf-8")
    assert started() == found


def test_the_command_line_may_say_where_spark_runs(started, monkeypatch):
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell")
    assert started() == "that of the environment"
