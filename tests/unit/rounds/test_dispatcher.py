"""Orders and results of a long job: who gets what when; no socket, no Spark."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from kspark.errors import AggregationError, Failure, FitEndedError, ProtocolError
from kspark.live.wire import Order
from kspark.live.wire.reports import (
    EpochEnd,
    FailureReport,
    MissingFilesReport,
    ObstacleReport,
    OrderRequest,
    ProgressReport,
    ResultReport,
)
from kspark.rounds import dispatcher as module
from kspark.rounds.dispatcher import STOP, WAIT, Dispatcher
from kspark.rounds.results import report_of, result_of
from kspark.shards import ShardFacts
from kspark.worker.tasks import ShardResult

WEIGHTS = np.arange(3, dtype="f4")
FACTS = ShardFacts("h", 1, 2, 0.5, 8, True, 0.0, 12, 12)


@pytest.fixture
def dispatcher():
    """Two tasks, which are connected."""
    made = Dispatcher([0, 1], timeout=60.0, idle_seconds=60.0)
    for shard in (0, 1):
        made.hello(shard, 0)
    return made


def ask(dispatcher, shard, done=0, attempt=0):
    answer, _ = dispatcher.report(shard, attempt, OrderRequest(done).to_json(), [])
    return Order.from_json(answer)


def bring(dispatcher, shard, number=1, attempt=0):
    """Send a result, and note that the order has been carried out, without waiting for another."""
    report, arrays = report_of(ShardResult(shard, 4, WEIGHTS + shard))
    dispatcher.report(shard, attempt, report.to_json(), arrays)
    return start_asking(dispatcher, shard, number)


def start_asking(dispatcher, shard, number=1):
    asking = threading.Thread(target=try_to_ask, args=(dispatcher, shard, number), daemon=True)
    asking.start()
    return asking


def try_to_ask(dispatcher, shard, number):
    with contextlib.suppress(FitEndedError):
        while ask(dispatcher, shard, number) == WAIT:
            pass


def test_every_task_gets_the_order_and_the_weights(dispatcher):
    assert dispatcher.post(Order(0, "train", 4, 0.5, (7,), True), WEIGHTS)
    for shard in (0, 1):
        assert ask(dispatcher, shard) == Order(1, "train", 4, 0.5, (7,), True)
        out = np.zeros(3, "f4")
        dispatcher.pull(shard, 0, out)
        np.testing.assert_array_equal(out, WEIGHTS)


def test_an_order_does_not_end_without_the_result_of_a_shard_whose_files_are_gone(dispatcher):
    """Also if both tasks ask for the next order before the driver looks."""
    dispatcher.post(Order(0, "train"), WEIGHTS)
    bring(dispatcher, 0).join(0.05)
    dispatcher.report(1, 0, MissingFilesReport(strayed=True).to_json(), [])
    assert ask(dispatcher, 1, done=1) == STOP
    assert dispatcher.wait(0.05) is None
    assert "shard 1 runs on an executor without its files" in dispatcher.obstacle


def test_an_order_ends_when_all_tasks_ask_for_the_next_one(dispatcher):
    dispatcher.post(Order(0, "train"), WEIGHTS)
    asking = [bring(dispatcher, 1)]
    assert dispatcher.wait(0.05) is None
    asking += [bring(dispatcher, 0)]
    results = dispatcher.wait(30.0)
    assert [(r.shard, r.num_examples, r.delta[0]) for r in results] == [(0, 4, 0.0), (1, 4, 1.0)]
    assert dispatcher.idle
    dispatcher.close()
    for thread in asking:
        thread.join(30.0)
        assert not thread.is_alive()


def test_orders_have_increasing_numbers(dispatcher):
    for number in (1, 2):
        dispatcher.post(Order(0, "evaluate"), WEIGHTS)
        assert ask(dispatcher, 0, done=number - 1).number == number


@pytest.mark.parametrize("timeout", [0.01, 60.0])
def test_a_task_that_asks_too_early_is_told_to_ask_again(monkeypatch, timeout):
    """Before its connection times out."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 5.0 if timeout < 1 else 0.01)
    dispatcher = Dispatcher([0], timeout)
    dispatcher.hello(0, 0)
    started = time.monotonic()
    assert ask(dispatcher, 0) == WAIT
    assert time.monotonic() - started < 4.0


def test_tasks_end_when_the_driver_says_so(dispatcher):
    dispatcher.end("The fit is over.")
    assert ask(dispatcher, 0) == STOP
    assert not dispatcher.post(Order(0, "train"), WEIGHTS)
    assert dispatcher.ending == "The fit is over."
    dispatcher.lost(0, 0, "closed")
    assert dispatcher.obstacle is None


def test_hosts_that_do_not_answer_are_told_from_tasks_that_end(dispatcher):
    dispatcher.lost(0, 0, "closed")
    dispatcher.lost(1, 0, "no answer", silent=True)
    assert dispatcher.silent == {1}


def test_an_order_is_carried_out_even_if_no_other_follows(dispatcher):
    """A task that starts late, because it had no slot, still trains its shard."""
    dispatcher.post(Order(0, "train"), WEIGHTS)
    dispatcher.end("The task of shard 1 has no slot.")
    assert ask(dispatcher, 1).work == "train"
    assert ask(dispatcher, 1, done=1) == STOP


def test_tasks_end_if_the_driver_is_busy_for_long(dispatcher):
    """They hold task slots, for which a callback's own Spark job may wait."""
    dispatcher._idle_seconds = 0.02
    dispatcher.post(Order(0, "train"), WEIGHTS)
    late = threading.Thread(target=ask, args=(dispatcher, 0, 1), daemon=True)
    late.start()
    assert ask(dispatcher, 1, done=1) == STOP
    late.join(30.0)
    assert "busy" in dispatcher.ending


def test_tasks_that_wait_for_others_do_not_end(dispatcher):
    dispatcher._answer_seconds = 0.1
    dispatcher._idle_seconds = 0.01
    dispatcher.post(Order(0, "train"), WEIGHTS)
    assert ask(dispatcher, 1, done=1) == WAIT  # the other one still trains
    assert dispatcher.ending is None


def test_tasks_that_have_not_started_are_counted_when_others_wait():
    dispatcher = Dispatcher([0, 1, 2], timeout=0.0, idle_seconds=0.0)
    dispatcher.hello(0, 0)
    dispatcher.post(Order(0, "train"), WEIGHTS)
    assert dispatcher.waiting_for_tasks() == 0
    ask(dispatcher, 0, done=1)
    assert dispatcher.waiting_for_tasks() == 2


@pytest.mark.parametrize(
    ("event", "obstacle"),
    [
        (lambda d: d.lost(1, 0, "Reset by peer."), "task of shard 1 ended: Reset by peer."),
        (
            lambda d: d.report(1, 0, MissingFilesReport(strayed=True).to_json(), []),
            "shard 1 runs on an executor without its files",
        ),
        (
            lambda d: d.report(1, 0, MissingFilesReport(False, stateless=True).to_json(), []),
            "shard 1 lacks the state of its shard, which the driver has kept",
        ),
        (lambda d: d.report(1, 0, ObstacleReport("Too large.").to_json(), []), "1: Too large."),
        (lambda d: second_task(d, 1), "second task of shard 1"),
    ],
)
def test_what_a_task_cannot_do_is_an_obstacle(dispatcher, event, obstacle):
    dispatcher.post(Order(0, "train"), WEIGHTS)
    event(dispatcher)
    assert dispatcher.wait(30.0) is None  # at once
    assert obstacle in dispatcher.obstacle
    assert ask(dispatcher, 0) == STOP  # also a task that has not begun
    assert not dispatcher.post(Order(0, "train"), WEIGHTS)
    assert ask(dispatcher, 0, done=1) == STOP


def second_task(dispatcher, shard):
    """The first one may have sent results, which must not be merged twice."""
    with pytest.raises(AggregationError, match="has a task already"):
        dispatcher.hello(shard, 5)


def test_an_unknown_shard_is_refused(dispatcher):
    with pytest.raises(AggregationError, match="Shard 7 is not part of this job"):
        dispatcher.hello(7, 0)
    assert dispatcher.obstacle is None


def test_a_failure_is_a_result(dispatcher):
    dispatcher.post(Order(0, "train"), WEIGHTS)
    failure = Failure(1, "h", 0, "ValueError", "bad", "")
    dispatcher.report(1, 0, FailureReport(failure).to_json(), [])
    asking = [start_asking(dispatcher, shard) for shard in (0, 1)]
    assert dispatcher.wait(30.0) == [failure]
    dispatcher.close()
    for thread in asking:
        thread.join(30.0)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (EpochEnd(0).to_json(), AggregationError),
        ({"kind": "order_request"}, ProtocolError),
        ({"kind": "result", "shard": "0"}, ProtocolError),
    ],
)
def test_other_reports_are_refused(dispatcher, document, error):
    with pytest.raises(error):
        dispatcher.report(0, 0, document, [])


def test_pushes_are_refused(dispatcher):
    for method in (dispatcher.push, dispatcher.reduce):
        with pytest.raises(AggregationError, match="no pushes"):
            method(0, 0)


def test_after_its_end_a_job_admits_nobody(dispatcher):
    dispatcher.close("the fit failed")
    with pytest.raises(FitEndedError, match="the fit failed"):
        dispatcher.hello(0, 1)


@pytest.mark.parametrize("delta", [None, WEIGHTS])
@pytest.mark.parametrize("state", [None, ([], []), ([WEIGHTS], [WEIGHTS, WEIGHTS])])
@pytest.mark.parametrize("files", [{}, {"state": WEIGHTS, "residual": WEIGHTS + 1}])
def test_a_result_arrives_as_it_was_sent(delta, state, files):
    given = {"state": state, "counters": (2, 1), "files": files}
    result = ShardResult(3, 8, delta, [WEIGHTS, WEIGHTS], FACTS, **given)
    report, arrays = report_of(result)
    assert isinstance(report, ResultReport)
    found = result_of(report, arrays)
    assert repr(found) == repr(result)


@pytest.mark.parametrize(
    "sizes", [(True, 2, 1), (False, 4, None), (False, 0, 4), (True, 1, 1, None, (), ("a",))]
)
def test_a_result_without_its_arrays_is_refused(dispatcher, sizes):
    document = ResultReport(0, 4, *sizes).to_json()
    with pytest.raises(ProtocolError, match="arrays that its report names"):
        dispatcher.report(0, 0, document, [WEIGHTS] * 3)
    assert dispatcher.wait(0.0) is None


def test_results_are_handed_over_once(dispatcher):
    """Their arrays take memory."""
    dispatcher.post(Order(0, "train"), WEIGHTS)
    asking = [bring(dispatcher, shard) for shard in (0, 1)]
    assert len(dispatcher.wait(30.0)) == 2
    assert dispatcher._results == []
    dispatcher.close()
    for thread in asking:
        thread.join(30.0)


def test_tasks_report_how_far_they_have_come(dispatcher):
    dispatcher.post(Order(0, "train", 3), WEIGHTS)
    for shard, done in ((0, 4), (1, 6), (0, 8)):
        report = ProgressReport(3, done, 10).to_json()
        assert dispatcher.report(shard, 0, report, [WEIGHTS]) == ({}, [])
    assert dispatcher.running.at(3).num_examples == 14
    assert len(dispatcher.running.at(3).metrics) == 2
    assert dispatcher.running.at(4).num_examples == 0
    assert dispatcher.wait(0.0) is None  # they are no results
    assert dispatcher.num_started == 2
