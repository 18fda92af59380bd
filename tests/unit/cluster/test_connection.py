"""A server of Spark Connect that is gone, without a server."""

import logging
from types import SimpleNamespace

import pytest
from pyspark.errors import PySparkAssertionError, PySparkException

from kspark.cluster import connection
from kspark.cluster.connection import ConnectionToServerError, reaching, tidy
from kspark.cluster.pieces import size_limit
from kspark.cluster.remote import setting
from kspark.cluster.resources import on_resources
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


def test_other_errors_of_a_clean_up_are_logged_and_the_clean_up_goes_on(caplog):
    calls = []
    with caplog.at_level(logging.WARNING, "kspark"):
        tidy(Session(), lambda: fails("no such view"), lambda: calls.append("next"))
    assert "no such view" in caplog.text
    assert calls == ["next"]


CHANGED = "Received incorrect server side session identifier for request. (1 != 2)"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[NO_ACTIVE_SESSION] None.", type("SparkConnectException", (PySparkException,), {})),
        (CHANGED, PySparkAssertionError),
        (UNAVAILABLE, type("Rendezvous", (Exception,), {"__module__": "grpc._channel"})),
    ],
)
def test_a_server_that_was_restarted_or_ended_is_explained_by_calls_of_models(text, kind):
    @on_resources
    def method(self):
        fails(text, kind)

    with pytest.raises(ConnectionToServerError), reaching(Session()):
        fails(text, kind)
    with pytest.raises(ConnectionToServerError) as told:
        method(SimpleNamespace(resources=None))
    assert isinstance(told.value.__cause__, kind)


def test_an_error_that_is_explained_stays_as_it_is():
    explained = connection.lost_connection("gone")

    @on_resources
    def method(self):
        raise explained

    with pytest.raises(ConnectionToServerError) as told:
        method(SimpleNamespace(resources=None))
    assert told.value is explained


class GoneSession(Session):
    conf = SimpleNamespace(get=lambda *given: fails(UNAVAILABLE))


def test_settings_of_a_server_that_is_gone_are_explained():
    with pytest.raises(ConnectionToServerError):
        size_limit(GoneSession())
    with pytest.raises(ConnectionToServerError), setting(GoneSession(), "name", "value"):
        pass
