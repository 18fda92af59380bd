"""Asynchronous replicas that may run ahead of each other only so far."""

from __future__ import annotations

import logging
import math

import pytest

from kspark.errors import AggregationError, ConnectionLostError, Failure
from kspark.live.coordinator import gate
from kspark.live.wire import Instructions

EVEN = {0: (10, 4), 1: (10, 4)}
"""Two shards with four exchanges an epoch."""


@pytest.fixture
def bounded(live_fit, monkeypatch):
    """A fit whose replicas have taken the weights they begin with; waits end when they are told."""
    monkeypatch.setattr(gate, "LONGEST_NAP", 300.0)

    def begin(plans=EVEN, bound=1, *, rule="downpour", begun=True, **more):
        fit = live_fit(plans, mode="asynchronous", rule=rule, max_staleness=bound, **more)
        if begun:
            for pulled in [fit.later(fit.pull, shard) for shard in plans]:
                pulled.result(30)
        return fit

    return begin


def told(fit, shard, sequence, **more):
    """The driver's word to a push that does not wait."""
    return fit.later(fit.push, shard, sequence, **more).result(30)[1]


# -- who waits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_a_replica_waits_when_it_is_more_than_the_bound_ahead(bounded, waiters, bound):
    fit = bounded(bound=bound)
    for sequence in range(1, bound + 1):
        assert told(fit, 0, sequence) == Instructions()
    ahead = fit.later(fit.push, 0, bound + 1)
    waiters()
    assert not ahead.done()
    assert fit.shared.aggregator.version == bound + 1  # its push counts already
    assert told(fit, 1, 1) == Instructions()
    version, instructions, weights = ahead.result(30)
    assert (version, instructions, weights[0]) == (bound + 2, Instructions(), bound + 2)


def test_the_slowest_of_several_counts(bounded, waiters):
    fit = bounded(dict.fromkeys(range(3), (10, 4)), 0)
    calls = [fit.later(fit.push, shard, 1) for shard in (0, 2)]
    waiters(2)
    assert not any(call.done() for call in calls)
    fit.push(1, 1)
    assert {call.result(30)[0] for call in calls} == {3}


def test_the_staleness_of_a_push_reaches_its_bound_and_no_more(bounded, waiters):
    """Twice the bound and one, of one other shard: it may have been as far behind as ahead."""
    fit = bounded(bound=1)
    base = fit.push(0, 1)[0]
    for sequence in (1, 2):
        told(fit, 1, sequence)
    last = fit.later(fit.push, 1, 3)
    waiters()
    assert not last.done()
    fit.push(0, 2, base=base)
    last.result(30)
    for shard, sequence in ((0, 3), (1, 4), (0, 4)):
        fit.push(shard, sequence, base=99)
    for shard in (0, 1):
        fit.finish(shard, 0)
    assert max(fit.shared.wait_for_epoch(0, 0).staleness) == 3


def test_without_a_bound_nobody_waits(bounded):
    fit = bounded(bound=None)
    for sequence in range(1, 9):
        assert told(fit, 0, sequence) == Instructions()


def test_a_bound_of_zero_is_lock_step(bounded):
    """All go on from the same weights: those with everybody's pushes up to then, and no other."""
    shards, pushes = 4, 40
    fit = bounded(dict.fromkeys(range(shards), (10, 10)), 0, begun=False)

    def work(shard):
        return [fit.pull(shard), *(fit.push(shard, n, value=n)[2] for n in range(1, pushes + 1))]

    sums = [shards * n * (n + 1) // 2 for n in range(pushes + 1)]
    for future in [fit.later(work, shard) for shard in range(shards)]:
        assert [weights[0] for weights in future.result(60)] == sums


@pytest.mark.parametrize("bound", [0, 2])
def test_whoever_goes_on_is_within_the_bound(bounded, bound):
    shards, pushes = 4, 30
    fit = bounded(dict.fromkeys(range(shards), (10, pushes)), bound)
    states = fit.shared._progress.shards

    def work(shard):
        base, found = 0, []
        for n in range(1, pushes + 1):
            base = fit.push(shard, n, base=base)[0]
            found.append(n - min(state.sequence for state in states.values()))
        fit.finish(shard, 0)
        return max(found)

    ahead = [f.result(60) for f in [fit.later(work, shard) for shard in range(shards)]]
    assert max(ahead) <= bound
    report = fit.shared.wait_for_epoch(0, 0)
    assert max(report.staleness) <= (shards - 1) * (2 * bound + 1)


# -- shards that are short, or end -----------------------------------------------------------------


def test_a_short_shard_waits_at_the_end_of_its_epoch_and_holds_nobody_up(bounded, waiters):
    fit = bounded({0: (30, 3), 1: (10, 1)}, 0)
    short = fit.later(fit.push, 1, 1)
    waiters()
    for sequence in (1, 2):
        assert told(fit, 0, sequence) == Instructions()
    assert not short.done()
    assert told(fit, 0, 3) == Instructions()
    assert short.result(30)[0] == 4
    assert fit.shared.steps == 3


def test_a_short_shard_is_let_into_the_next_epoch_when_the_others_are_near_its_end(
    bounded, waiters
):
    fit = bounded({0: (30, 3), 1: (10, 1)}, 1)
    short = fit.later(fit.push, 1, 1)
    waiters()
    told(fit, 0, 1)
    assert not short.done()
    told(fit, 0, 2)
    short.result(30)


def test_who_is_through_with_its_job_neither_waits_nor_holds_anybody_up(bounded):
    fit = bounded({0: (10, 2), 1: (10, 2)}, 0, first_epoch=5, connect=False, begun=False)
    fit.shared.begin_job(0, 6)
    for pulled in [fit.later(lambda s: (fit.hello(s), fit.pull(s)), s) for s in (0, 1)]:
        pulled.result(30)
    first = fit.later(fit.push, 0, 1)
    told(fit, 1, 1)
    first.result(30)
    assert told(fit, 0, 2) == Instructions()
    fit.finish(0, 5)
    fit.shared.lost(0, 0, "it has ended")
    assert told(fit, 1, 2) == Instructions()


def test_the_next_job_waits_again(bounded, waiters):
    """A replica begins one tick behind: in lock step nobody pushes before all have begun."""
    fit = bounded({0: (10, 2), 1: (10, 2)}, 0)
    fit.shared.begin_job(1000, 1)
    for shard in (0, 1):
        fit.hello(shard, 1000)
    first = fit.later(fit.pull, 0, 1000)
    waiters()
    assert not first.done()
    assert fit.pull(1, 1000) == first.result(30)


def test_a_new_job_ends_the_waits_of_the_one_before(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    fit.shared.begin_job(1000, 1)
    with pytest.raises(AggregationError, match="superseded"):
        waiting.result(30)


# -- failures and retries --------------------------------------------------------------------------


def test_a_shard_that_comes_back_has_the_clock_of_its_pushes(bounded, waiters):
    fit = bounded(bound=0)
    first = fit.later(fit.push, 0, 1)
    waiters()
    fit.push(1, 1)
    first.result(30)
    ahead = fit.later(fit.push, 0, 2)
    waiters()
    fit.shared.lost(1, 0, "killed")
    assert fit.hello(1, 1).start.sequence == 1
    assert fit.pull(1, 1) == [3, 3, 1.5]  # behind the other one: it does not wait
    assert not ahead.done()
    fit.push(1, 2, attempt=1)
    assert ahead.result(30)[0] == 4


def test_who_waits_is_superseded_by_its_next_attempt_which_waits_too(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    fit.hello(0, 1)
    with pytest.raises(AggregationError, match="Attempt 0 of shard 0 was superseded"):
        waiting.result(30)
    again = fit.later(fit.pull, 0, 1)
    waiters()
    assert not again.done()
    fit.push(1, 1)
    assert again.result(30) == [2, 2, 1]


def test_a_push_that_comes_twice_is_applied_once_and_waits_twice(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    fit.hello(0, 1)
    again = fit.later(fit.push, 0, 1, attempt=1)
    with pytest.raises(AggregationError, match="superseded"):
        waiting.result(30)
    waiters()
    assert not again.done()
    fit.push(1, 1)
    assert (again.result(30)[0], fit.shared.aggregator.version) == (2, 2)


def test_a_shard_that_is_lost_for_long_is_not_waited_for_until_it_is_back(
    bounded, waiters, caplog, monkeypatch
):
    fit = bounded(bound=0, timeout=17.0)
    monkeypatch.setattr(gate, "LONGEST_NAP", 0.01)  # nobody tells that time has passed
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    fit.shared.lost(1, 0, "killed")
    assert not waiting.done()
    with caplog.at_level(logging.WARNING, "kspark"):
        fit.shared._progress.shards[1].lost_since = -math.inf
        assert waiting.result(30)[1] == Instructions()
        told(fit, 0, 2)
    assert [r.getMessage() for r in caplog.records] == [
        "Shard 1 was lost and did not come back within 17 s. The other shards continue without "
        "waiting for it."
    ]
    fit.hello(1, 1)
    waiting = fit.later(fit.push, 0, 3)
    waiters()
    fit.pull(1, 1)
    for sequence in (1, 2):
        told(fit, 1, sequence, attempt=1)
    assert not waiting.done()
    told(fit, 1, 3, attempt=1)
    waiting.result(30)


@pytest.mark.parametrize("end", ["failure", "close"])
def test_the_end_of_the_fit_ends_the_wait(bounded, waiters, end):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    if end == "failure":
        failure = Failure(1, "host", 0, "ValueError", "no", "")
        fit.report(1, "failure", failure=vars(failure))
    else:
        fit.shared.close("interrupted")
    with pytest.raises(ConnectionLostError, match="shard 1 failed|interrupted"):
        waiting.result(30)
    with pytest.raises(ConnectionLostError):
        fit.pull(1)


def test_when_training_is_over_nobody_waits(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    fit.shared.close_epoch(0, stop=False, learning_rate=0.5)
    assert not waiting.done()
    fit.shared.close_epoch(1, stop=True, learning_rate=None)
    assert waiting.result(30)[1] == Instructions(stop=True)
    assert told(fit, 0, 2).stop is True


# -- long waits, and replicas with weights of their own --------------------------------------------


def test_a_long_wait_is_cut_into_answers(bounded):
    fit = bounded(bound=0, timeout=0.02)
    assert fit.push(0, 1)[1] == Instructions(hold=True)
    out = [fit.shared.pull(0, 0, fit.shared.aggregator.weights.copy()) for _ in range(2)]
    assert out == [(1, Instructions(hold=True))] * 2
    fit.hello(0, 1)
    assert fit.push(0, 1, attempt=1)[:2] == (1, Instructions(hold=True))
    assert fit.shared.aggregator.version == 1


def test_in_lock_step_the_others_wait_for_who_has_still_to_ask_again(bounded):
    """It would miss the weights that all begin with."""
    fit = bounded(bound=0, timeout=0.02)
    assert fit.push(0, 1)[1].hold
    assert fit.push(1, 1)[1].hold
    fit.shared._clocks._timeout = 30.0
    both = [fit.later(fit.pull, shard) for shard in (0, 1)]
    assert [pulled.result(30) for pulled in both] == [[2, 2, 1]] * 2


def test_the_gap_to_the_centre_is_that_of_the_exchange(bounded, waiters):
    rule = {"class_name": "elastic_average", "config": {"rho": 0.5}}
    fit = bounded(bound=0, rule=rule)
    waiting = fit.later(fit.push, 0, 1, value=8)
    waiters()
    assert fit.push(1, 1, value=4)[2] == [2, 2, 6]  # the centre was at 8 * 1/4
    assert waiting.result(30)[::2] == (1, [8, 8, 4])


# -- attempts that overtake each other -------------------------------------------------------------


def test_the_end_of_a_superseded_attempts_wait_does_not_end_the_wait_of_the_next(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    with fit.shared._gate.changed:  # the next attempt asks before the first one wakes up
        fit.hello(0, 1)
        again = fit.shared._clocks.enter(0, lambda: 7)
    with pytest.raises(AggregationError, match="Attempt 0 of shard 0 was superseded"):
        waiting.result(30)
    assert again.version is None
    fit.push(1, 1)
    assert again.version == 7


def test_an_answer_that_is_taken_late_does_not_end_the_wait_of_the_next_attempt(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    with fit.shared._gate.changed:  # the next attempt pushes before the first one wakes up
        fit.push(1, 1)
        fit.hello(0, 1)
        fit.shared._progress.shards[0].sequence = 2
        again = fit.shared._clocks.enter(0, lambda: 7)
    assert waiting.result(30)[0] == 2
    assert again.version is None
    fit.push(1, 2)
    assert again.version == 7


def test_a_superseded_attempt_is_refused_although_all_other_replicas_are_gone(bounded, waiters):
    fit = bounded(bound=0)
    waiting = fit.later(fit.push, 0, 1)
    waiters()
    with fit.shared._gate.changed:  # the next attempt comes and goes before the first one wakes up
        fit.hello(0, 1)
        fit.shared.close_epoch(0, stop=True, learning_rate=None)
        clocks = fit.shared._clocks
        assert clocks.wait(clocks.enter(0, lambda: 7), lambda: None) == 7
        for shard, attempt in ((0, 1), (1, 0)):
            fit.shared.lost(shard, attempt, "it has ended")
            fit.shared._progress.shards[shard].lost_since = -math.inf
    with pytest.raises(AggregationError, match="Attempt 0 of shard 0 was superseded"):
        waiting.result(30)
