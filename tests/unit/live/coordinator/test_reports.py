"""What replicas report, how the driver waits for it, and how a live fit ends."""

from __future__ import annotations

import numpy as np
import pytest

from kspark.errors import AggregationError, ConnectionLostError, Failure, ProtocolError
from kspark.live.wire import Instructions

TWO = {0: (30, 3), 1: (10, 2)}


@pytest.fixture
def fit(live_fit):
    return live_fit(TWO, mode="asynchronous", rule="downpour", first_epoch=2)


def test_an_epoch_is_finished_when_every_shard_says_so(fit):
    assert fit.finish(0, 2) == Instructions()
    assert fit.finish(0, 3) == Instructions()  # nobody is held
    assert fit.shared.wait_for_epoch(2, 0) is None
    fit.finish(1, 2)
    assert fit.shared.wait_for_epoch(2, 0) is not None
    assert fit.shared.wait_for_epoch(3, 0) is None


def test_replicas_report_how_far_they_have_come(fit):
    for shard, done in ((0, 10), (1, 5), (0, 20)):
        report = fit.report(shard, "progress", np.ones(1), epoch=2, num_examples=done, total=30)
        assert report == ({}, [])
    assert fit.shared.running.at(2).num_examples == 25
    assert len(fit.shared.running.at(2).metrics) == 2
    assert fit.shared.wait_for_epoch(2, 0) is None
    with pytest.raises(ProtocolError):
        fit.report(0, "progress", epoch=2)


def wait_in_a_thread(fit, monkeypatch):
    """A driver that waits for the first epoch, for longer than any test takes."""
    import threading

    entered, changed = threading.Event(), fit.shared._gate.changed
    original = changed.wait_for

    def wait_for(over, seconds):
        entered.set()
        return original(over, seconds)

    monkeypatch.setattr(changed, "wait_for", wait_for)
    driver = fit.later(fit.shared.wait_for_epoch, 2, 100)
    assert entered.wait(20)
    return driver


def test_the_driver_is_woken_by_the_last_shard(fit, monkeypatch):
    driver = wait_in_a_thread(fit, monkeypatch)
    fit.finish(0, 2)
    fit.finish(1, 2)
    assert driver.result(30) is not None


def test_the_driver_is_woken_by_a_returning_replica_that_had_pushed_all(fit, monkeypatch):
    fit.finish(0, 2)
    for sequence in (1, 2):
        fit.push(1, sequence)
    driver = wait_in_a_thread(fit, monkeypatch)
    fit.hello(1, 1)
    assert driver.result(30) is not None


def test_the_driver_is_woken_by_the_end(fit, monkeypatch):
    driver = wait_in_a_thread(fit, monkeypatch)
    fit.shared.close()
    assert driver.result(30) is None


def test_the_driver_is_woken_by_a_failure(fit, monkeypatch):
    driver = wait_in_a_thread(fit, monkeypatch)
    fit.report(0, "failure", failure=vars(Failure(0, "h", 0, "E", "m", "")))
    assert driver.result(30) is None


def test_the_drivers_wait_ends_in_time(fit):
    assert fit.shared.wait_for_epoch(2, 0.01) is None


def test_metrics_facts_and_staleness_of_an_epoch(fit, tools):
    for shard in (0, 1):
        for _ in range(2):  # a retried task says it again
            state = np.array([shard, 2.0])
            answer = fit.report_metrics(shard, state, 2, seconds=shard)
            assert answer == ({}, [])
        fit.finish(shard, 2)
    fit.push(0, 1, base=0)
    fit.push(1, 1, base=0)
    report = fit.shared.wait_for_epoch(2, 0)
    metrics = {s: [a.tolist() for a in arrays] for s, arrays in report.metrics.items()}
    assert metrics == {0: [[0, 2]], 1: [[1, 2]]}
    assert report.facts == {s: tools.facts(host="h", pid=1, seconds=s) for s in (0, 1)}
    assert report.staleness == [0, 1]


def test_a_report_that_lacks_more_examples_does_not_replace_one(fit):
    """A process may die after its report, and before its last push, which another one repeats."""
    for state, uncounted in ((1.0, 8), (2.0, None), (3.0, 8), (4.0, None)):
        fit.report_metrics(0, np.array([state]), 2, uncounted=uncounted)
        fit.report_metrics(1, np.array([state]), 2, uncounted=uncounted and 4)
    for shard in (0, 1):
        fit.finish(shard, 2)
    report = fit.shared.wait_for_epoch(2, 0)
    assert [report.metrics[shard][0].item() for shard in (0, 1)] == [4.0, 4.0]
    assert [report.facts[shard].uncounted for shard in (0, 1)] == [None, None]
    fit.report_metrics(0, np.array([5.0]), 2, uncounted=8)
    assert report.metrics[0][0].item() == 4.0


def test_staleness_is_booked_to_the_epoch_of_the_push(fit):
    for sequence in (1, 2, 3):
        fit.push(1, sequence, base=sequence - 1)  # two exchanges an epoch
    fit.finish(0, 3)
    fit.finish(1, 3)
    reports = [fit.shared.wait_for_epoch(epoch, 0) for epoch in (2, 3)]
    assert [len(r.staleness) for r in reports] == [2, 1]


def test_reports_are_kept_by_epoch_and_forgotten_when_the_driver_closes_it(fit):
    for epoch in (2, 3):
        for shard in (0, 1):
            fit.report_metrics(shard, np.array([epoch]), epoch)
            fit.finish(shard, epoch)
    assert fit.shared.wait_for_epoch(2, 0).metrics[0][0] == 2
    fit.shared.close_epoch(2, stop=False, learning_rate=None)
    fit.report_metrics(0, np.array([2]), 2)  # a retried task may be late
    assert fit.shared.wait_for_epoch(2, 0).metrics == {}
    assert fit.shared.wait_for_epoch(3, 0).metrics[0][0] == 3


def test_the_drivers_word_reaches_replicas_with_every_answer(fit):
    fit.shared.close_epoch(2, stop=True, learning_rate=0.5)
    word = Instructions(stop=True, learning_rate=0.5)
    assert fit.push(0, 1)[1] == word
    assert fit.shared.pull(0, 0, np.empty(3, "f4"))[1] == word
    assert fit.finish(0, 2) == word
    assert fit.hello(0, 1).instructions == word


def test_the_leaders_state_is_kept_for_two_epochs(fit):
    for epoch in (2, 3, 4):
        assert fit.report(0, "state", np.array([epoch]), epoch=epoch) == ({}, [])
    fit.report(0, "state", np.array([40]), epoch=4)  # again, after a restart
    answers = [fit.report(1, "state_request", epoch=epoch) for epoch in (2, 3, 4)]
    assert answers[0] == ({}, [])
    assert [meta for meta, _ in answers] == [{}, {}, {}]
    assert [[a.item() for a in arrays] for _, arrays in answers] == [[], [3], [40]]


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"seconds": "1"}, "`seconds` of ShardFacts must be of type float or int"),
        ({"pid": True}, "`pid` of ShardFacts must be of type int"),
        ({"batches": 0.5}, "`batches` of ShardFacts must be of type int"),
        ({"mood": 1}, "ShardFacts must have the fields"),
    ],
)
def test_malformed_figures_are_refused(fit, figures, reason):
    with pytest.raises(ProtocolError, match=reason):
        fit.report_metrics(0, np.array([1.0]), 2, **figures)
    with pytest.raises(ProtocolError, match="MetricsReport must have the fields"):
        fit.report(0, "metrics", np.array([1.0]), epoch=2)
    assert fit.shared._progress.report_of(2).metrics == {}


@pytest.mark.parametrize(
    "failure",
    [
        None,
        {"shard": 1},
        {**vars(Failure(0, "h", 0, "E", "m", "")), "message": 3},
        {**vars(Failure(0, "h", 0, "E", "m", "")), "more": ""},
    ],
)
def test_a_malformed_failure_is_refused_and_is_none(fit, failure):
    with pytest.raises(ProtocolError, match="Failure"):
        fit.report(0, "failure", failure=failure)
    assert fit.shared.failure is None
    assert fit.push(0, 1)[0] == 1


def test_unknown_reports_are_refused(fit):
    with pytest.raises(AggregationError, match="A report of kind 'gossip' is unknown"):
        fit.report(0, "gossip")


def test_a_failure_ends_the_fit_and_the_first_one_is_kept(fit):
    failure = Failure(1, "node", 0, "ValueError", "bad", "trace")
    assert fit.report(1, "failure", failure=vars(failure)) == ({}, [])
    assert fit.shared.failure == failure
    calls = [
        lambda: fit.hello(0, 1),
        lambda: fit.push(0, 1),
        lambda: fit.finish(0, 2),
        lambda: fit.report(0, "failure", failure=vars(failure)),
    ]
    for call in calls:
        with pytest.raises(ConnectionLostError, match="aggregator is closed: shard 1 failed"):
            call()
    fit.shared.close("the fit failed")
    with pytest.raises(ConnectionLostError, match="shard 1 failed"):
        fit.pull(0)


def test_missing_files_are_told_and_forgotten_with_the_next_job(fit):
    assert fit.report(1, "missing", strayed=False) == ({}, [])
    assert fit.shared.missing == {1}
    fit.shared.begin_job(1000)
    assert fit.shared.missing == set()


def test_the_end_of_a_superseded_attempts_connection_says_nothing(fit):
    fit.hello(0, 1)
    for shard, attempt in ((0, 0), (9, 0)):
        fit.shared.lost(shard, attempt, "late")
    assert fit.shared._progress.lost(float("inf"), 0) == []
    fit.shared.lost(0, 1, "gone")
    assert fit.shared._progress.lost(float("inf"), 0) == [0]
    fit.hello(0, 2)
    assert fit.shared._progress.lost(float("inf"), 0) == []


@pytest.mark.parametrize(("mode", "merges"), [("synchronous", 3), ("asynchronous", 5)])
def test_an_epoch_has_a_merge_per_meeting_or_one_per_push(live_fit, mode, merges):
    assert live_fit({0: (30, 3), 1: (20, 2)}, mode=mode).shared.merges == merges
