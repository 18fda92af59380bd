"""How a Spark job ends: cancelled, or with an error that says why. Without Spark."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from kspark.cluster import spark_job
from kspark.cluster.spark_job import JobLostError, SparkJob, job_error
from kspark.errors import ClusterError, EnvironmentMismatchError

TOO_LARGE = (
    "An error occurred while calling o12.collect.\n"
    ": org.apache.spark.SparkException: Job aborted due to stage failure: Total size of "
    "serialized results of 3 tasks (1200.0 MiB) is bigger than spark.driver.maxResultSize "
    "(1024.0 MiB)\n"
    "\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:1)\n"
)


class SlowToSubmit:
    """A context and an RDD whose job is submitted only after it was cancelled once."""

    def __init__(self):
        self.sparkContext = self
        self.cancelled = 0
        self.begun = threading.Event()
        self.told = threading.Condition()
        self.submitted = self.ended = False

    def setJobGroup(self, group, description, interrupt):
        self.group = group
        self.begun.set()

    def collect(self):
        with self.told:
            self.told.wait_for(lambda: self.cancelled, timeout=30)
            self.submitted, before = True, self.cancelled
            self.ended = self.told.wait_for(lambda: self.cancelled > before, timeout=30)
        return []

    def cancelJobGroup(self, group):
        assert group == self.group
        with self.told:
            self.cancelled += 1
            self.told.notify_all()


def test_a_job_that_is_submitted_after_it_was_cancelled_is_cancelled_again(monkeypatch, caplog):
    monkeypatch.setattr(spark_job, "POLL_SECONDS", 0.01)
    spark = SlowToSubmit()
    job = SparkJob(spark, spark, "late").start()
    assert spark.begun.wait(30)
    job.cancel()
    assert spark.submitted and spark.ended
    assert job.finished.is_set()
    assert not caplog.messages


def test_a_job_that_ignores_its_cancellation_is_abandoned_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(spark_job, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(spark_job, "CANCEL_SECONDS", 0.05)
    end = threading.Event()
    context = SimpleNamespace(setJobGroup=lambda *_: None, cancelJobGroup=lambda _: None)
    rdd = SimpleNamespace(collect=lambda: [end.wait(30)])
    job = SparkJob(SimpleNamespace(sparkContext=context), rdd, "deaf").start()
    job.cancel()
    assert "did not end" in caplog.text
    end.set()
    job.result()


@pytest.mark.parametrize("collect", [lambda: [1], lambda: 1 / 0])
def test_the_bell_is_set_when_a_job_succeeds_or_fails(collect):
    """The bell is for a caller that waits for several jobs."""
    bell, context = threading.Event(), SimpleNamespace(setJobGroup=lambda *_: None)
    spark, rdd = SimpleNamespace(sparkContext=context), SimpleNamespace(collect=collect)
    job = SparkJob(spark, rdd, "one of several", bell=bell).start()
    assert bell.wait(30)
    assert job.finished.is_set()


def test_a_job_that_has_ended_is_not_cancelled():
    context = SimpleNamespace(setJobGroup=lambda *_: None)
    job = SparkJob(
        SimpleNamespace(sparkContext=context), SimpleNamespace(collect=lambda: [1]), "done"
    ).start()
    assert job.result() == [1]
    job.cancel()


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (TOO_LARGE, ClusterError, "Raise spark.driver.maxResultSize.*1200.0 MiB"),
        ("ModuleNotFoundError: No module named 'x'", EnvironmentMismatchError, "named 'x'"),
        ("PYTHON_VERSION_MISMATCH", EnvironmentMismatchError, "another Python version"),
        ("ExecutorLostFailure (executor 1 exited)", JobLostError, "executor 1 exited"),
    ],
)
def test_errors_of_spark_become_errors_that_name_the_remedy(text, kind, told):
    error = job_error(RuntimeError(text))
    assert type(error) is kind
    with pytest.raises(kind, match=told):
        raise error


def test_a_job_is_watched_while_it_runs_and_cancelled_if_that_fails(monkeypatch):
    monkeypatch.setattr(spark_job, "POLL_SECONDS", 0.01)
    spark, seen = SlowToSubmit(), []

    def watch(job):
        seen.append(job)
        if len(seen) == 3:
            raise OSError("no screen")

    job = SparkJob(spark, spark, "watched").start()
    with pytest.raises(OSError, match="no screen"):
        job.result(watch=watch)
    assert seen == [job] * 3
    assert spark.cancelled and job.finished.is_set()
