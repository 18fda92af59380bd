"""A server of Spark Connect that is gone, without a server."""

import pytest
from pyspark.errors import PySparkException

from kspark.cluster import connection
from kspark.cluster.connection import ConnectionToServerError, reaching, tidy
from kspark.cluster.spark_job import job_error


class SparkConnectGrpcException(PySparkException):
    """Has the name of PySpark's."""


class Session:
    pass


UNAVAILABLE = "<RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = refused"


def fails(text, kind=SparkConnectGrpcException):
    raise kind(text)


@pytest.mark.parametrize("text", [UNAVAILABLE, "[INVALID_HANDLE.SESSION_CHANGED] restarted"])
def test_a_loss_is_explained(text):
    last = text.split()[-1]
    with pytest.raises(ConnectionToServerError, match=last) as told, reaching(Session()):
        fails(text)
    assert job_error(told.value) is told.value


def test_what_a_function_on_a_worker_says_is_no_loss():
    session = Session()
    with pytest.raises(PySparkException), reaching(session):
        fails(UNAVAILABLE, type("PythonException", (PySparkException,), {}))
    with reaching(session):
        pass


def test_after_a_loss_no_call_is_made_for_a_while(monkeypatch):
    session, calls = Session(), []
    tidy(session, lambda: fails(UNAVAILABLE), lambda: calls.append("in the same block"))
    tidy(session, lambda: calls.append("later"))
    with pytest.raises(ConnectionToServerError), reaching(session):
        calls.append("inside")
    assert calls == []
    tidy(Session(), lambda: calls.append("another session"))
    monkeypatch.setattr(connection, "REMEMBERED_SECONDS", 0.0)
    tidy(session, lambda: calls.append("much later"))
    assert calls == ["another session", "much later"]


def test_other_errors_of_a_clean_up_are_raised():
    with pytest.raises(PySparkException, match="no such view"):
        tidy(Session(), lambda: fails("no such view"))
