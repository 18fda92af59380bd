"""Synchronous replicas meet, wait for each other, and start an epoch again."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kspark.errors import AggregationError, ConnectionLostError, Failure, IncompatibleDeltaError
from kspark.live.coordinator import gate
from kspark.live.wire import Instructions, Restart, Start, Welcome

TWO = {0: (10, 2), 1: (30, 2)}
"""Two shards of 10 and 30 examples, with two exchanges an epoch."""


def vector(*values):
    return np.array(values, "float32")


# -- meeting -----------------------------------------------------------------------------------


def test_the_first_welcome(live_fit):
    fit = live_fit(TWO, first_epoch=4)
    assert fit.hello(1) == Welcome(2, False, 0, Start(4), Instructions(), None)


def test_everybody_takes_the_same_away(live_fit):
    """(4, 0, 8) of 1 example and (8, 4, 0) of 3."""
    fit = live_fit(TWO)
    given = {0: (vector(4, 0, 8), 1), 1: (vector(8, 4, 0), 3)}
    assert fit.everybody(0, given) == [(Instructions(), [7, 3, 2])] * 2
    assert fit.pull(0) == [7, 3, 2]
    assert fit.everybody(1, given) == [(Instructions(), [14, 6, 4])] * 2


def test_gradients_come_back_in_the_trainable_parts_size_and_weights_at_last(live_fit):
    fit = live_fit(TWO, merge_gradients=True)
    gradients = {0: (vector(4, 0), 1), 1: (vector(8, 4), 3)}
    assert fit.everybody(0, gradients) == [(Instructions(), [7, 3])] * 2
    assert fit.everybody(1, {0: (vector(5, 6), 2), 1: (None, 0)})[1][1] == [5, 6]
    weights = {0: (vector(1, 2, 4), 10), 1: (vector(1, 2, 8), 30)}
    assert fit.everybody(2, weights) == [(Instructions(), [1, 2, 7])] * 2
    assert fit.pull(1) == [1, 2, 7]


def test_the_result_does_not_depend_on_who_comes_first(live_fit, waiters):
    rng = np.random.default_rng(0)
    plans = dict.fromkeys(range(5), (1, 1))
    given = {s: (rng.normal(size=3).astype("f4"), int(rng.integers(1, 9))) for s in plans}
    results = set()
    for trial in range(10):
        fit = live_fit(plans)
        order = rng.permutation(5) if trial else range(5)
        futures = []
        for arrived, shard in enumerate(order):
            futures.append(fit.later(fit.reduce, int(shard), 0, *given[int(shard)]))
            if arrived < 4:
                waiters()
        results |= {tuple(f.result(30)[1]) for f in futures}
    assert len(results) == 1
    vectors, counts = zip(*given.values(), strict=True)
    np.testing.assert_allclose(
        results.pop(), np.average(vectors, axis=0, weights=counts), rtol=1e-5
    )


def test_who_comes_to_another_exchange_than_the_others_is_told_both(live_fit):
    with pytest.raises(
        AggregationError,
        match="Shard 1 is at exchange 3 of the epoch, but the other shards are at exchange 0",
    ):
        live_fit(TWO).reduce(1, 3, vector(1, 1, 1))


def test_superseded_replicas_do_not_meet(live_fit):
    fit = live_fit(TWO)
    fit.hello(0, 1)
    with pytest.raises(AggregationError, match="Attempt 0 of shard 0 was superseded"):
        fit.reduce(0, 0, vector(1, 1, 1))
    assert not fit.shared._meetings._rendezvous.begun


@pytest.mark.parametrize(
    ("bad", "count", "kind"),
    [(vector(1, 1), 1, IncompatibleDeltaError), (None, 0, AggregationError)],
)
def test_what_cannot_be_merged_ends_the_fit_for_all(live_fit, waiters, bad, count, kind):
    fit = live_fit(TWO)
    first = fit.later(fit.reduce, 0, 0, None, 0)
    waiters()
    with pytest.raises(kind):
        fit.reduce(1, 0, bad, count)
    with pytest.raises(ConnectionLostError, match="The aggregator is closed"):
        first.result(30)
    with pytest.raises(kind):  # the driver hears the reason, not only that it is over
        fit.shared.wait_for_epoch(0, 0)


# -- waits end ---------------------------------------------------------------------------------


def test_close_ends_a_meeting(live_fit, waiters):
    fit = live_fit(TWO)
    waiting = fit.later(fit.reduce, 0, 0, vector(1, 1, 1))
    waiters()
    fit.shared.close("interrupted")
    with pytest.raises(ConnectionLostError, match="The aggregator is closed: interrupted"):
        waiting.result(30)


def test_a_failure_ends_a_meeting(live_fit, waiters):
    fit = live_fit(TWO)
    waiting = fit.later(fit.reduce, 0, 0, vector(1, 1, 1))
    waiters()
    failure = Failure(1, "h", 0, "ValueError", "bad", "")
    fit.report(1, "failure", failure=vars(failure))
    with pytest.raises(ConnectionLostError, match="shard 1 failed"):
        waiting.result(30)


def test_a_connected_replica_may_take_as_long_as_it_wants(live_fit, waiters):
    """Its guard ends it if it hangs."""
    fit = live_fit(TWO, timeout=0.001)
    first = fit.later(fit.reduce, 0, 0, vector(1, 1, 1))
    waiters()
    time.sleep(0.1)
    assert not first.done()
    fit.reduce(1, 0, vector(3, 3, 3))
    assert first.result(30)[1] == [2, 2, 2]


def test_a_lost_replica_gets_one_timeout(live_fit, monkeypatch):
    monkeypatch.setattr(gate, "LONGEST_NAP", 0.01)
    fit = live_fit(TWO, timeout=0.1)
    fit.shared.lost(1, 0, "killed")
    with pytest.raises(ConnectionLostError, match=r"Shards \[1\] were lost and did not come back"):
        fit.reduce(0, 0, vector(1, 1, 1))


def test_a_lost_replica_that_comes_back_in_time_is_no_loss(live_fit, waiters):
    fit = live_fit(TWO)
    fit.shared.lost(1, 0, "killed")
    first = fit.later(fit.reduce, 0, 0, vector(1, 1, 1))
    waiters()
    fit.hello(1, 1)
    assert first.result(30)[0].restart == Restart(0, 1)


# -- starting again ----------------------------------------------------------------------------


def test_a_replica_that_returns_makes_the_epoch_start_again_for_all(live_fit, waiters):
    fit = live_fit(TWO, first_epoch=6)
    fit.everybody(0, {s: (vector(5, 5, 5), 1) for s in (0, 1)})
    waiting = fit.later(fit.reduce, 0, 1, vector(1, 1, 1))
    waiters()
    welcome = fit.hello(1, 1)
    assert welcome.start == Start(6, generation=1)
    again = Instructions(restart=Restart(6, 1))
    assert waiting.result(30) == (again, None)
    assert fit.pull(0) == [0, 0, 0]
    # Whoever was still at work hears it when it comes.
    assert fit.reduce(0, 1, vector(1, 1, 1)) == (again, None)
    assert fit.finish(0, 6) == again
    # And the second try works, with the new attempt's number.
    futures = [
        fit.later(fit.reduce, 0, 0, vector(2, 2, 2), generation=1),
        fit.later(fit.reduce, 1, 0, vector(4, 4, 4), generation=1, attempt=1),
    ]
    assert [f.result(30)[1] for f in futures] == [[3, 3, 3]] * 2


def test_metrics_of_the_abandoned_try_do_not_count(live_fit):
    fit = live_fit(TWO)
    fit.everybody(0, {s: (vector(5, 5, 5), 1) for s in (0, 1)})
    fit.report_metrics(0, np.array([1.0]), 0)
    fit.hello(1, 1)
    assert fit.shared._progress.report_of(0).metrics == {}


def test_who_was_through_with_the_abandoned_try_has_to_do_it_again(live_fit, waiters):
    fit = live_fit({0: (1, 1), 1: (1, 1)})
    fit.everybody(0, {s: (vector(5, 5, 5), 1) for s in (0, 1)})
    held = fit.later(fit.finish, 0, 0)
    waiters()
    fit.hello(1, 1)
    assert held.result(30).restart == Restart(0, 1)
    futures = [
        fit.later(fit.reduce, s, 0, vector(1, 1, 1), attempt=s, generation=1) for s in (0, 1)
    ]
    assert [f.result(30)[1] for f in futures] == [[1, 1, 1]] * 2
    fit.later(fit.finish, 1, 0, attempt=1, generation=1)
    waiters()
    assert fit.shared.wait_for_epoch(0, 0) is None


def test_nothing_starts_again_before_anybody_has_met(live_fit):
    fit = live_fit(TWO)
    assert fit.hello(1, 1).start.generation == 0


def test_a_vector_brought_by_the_lost_replica_makes_the_epoch_start_again(live_fit, waiters):
    fit = live_fit(TWO)
    old = fit.later(fit.reduce, 1, 0, vector(9, 9, 9))
    waiters()
    assert fit.hello(1, 1).start.generation == 1
    assert old.result(30)[1] is None
