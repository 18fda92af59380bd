"""Synchronous replicas between two epochs, and between two jobs."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kspark.errors import ConnectionLostError
from kspark.live.wire import Instructions, Start

TWO = {0: (10, 2), 1: (30, 2)}
"""Two shards of 10 and 30 examples, with two exchanges an epoch."""


def vector(*values):
    return np.array(values, "float32")


# -- between two epochs ------------------------------------------------------------------------


def test_replicas_are_held_until_the_driver_closes_the_epoch(live_fit, waiters):
    fit = live_fit(TWO)
    held = fit.through(0, 2)
    waiters(2)
    assert fit.shared.wait_for_epoch(0, 30) is not None
    assert not any(f.done() for f in held)
    fit.shared.aggregator.replace(vector(7, 7, 7))  # as a callback may
    fit.shared.close_epoch(0, stop=False, learning_rate=0.25)
    assert [f.result(30) for f in held] == [Instructions(learning_rate=0.25)] * 2
    assert fit.pull(0) == [7, 7, 7]
    # The next epoch goes back to those weights if it starts again.
    fit.everybody(0, {s: (vector(1, 1, 1), 1) for s in (0, 1)})
    assert fit.hello(1, 1).start.epoch == 1
    assert fit.pull(0) == [7, 7, 7]


def test_a_replica_is_held_in_short_waits_so_that_callbacks_may_take_long(live_fit):
    fit = live_fit({0: (1, 1)}, timeout=0.02)
    fit.everybody(0, {0: (vector(1, 1, 1), 1)})
    assert fit.finish(0, 0) == Instructions(hold=True)
    fit.shared.close_epoch(0, stop=True, learning_rate=None)
    assert fit.finish(0, 0) == Instructions(stop=True)


def test_close_ends_the_hold(live_fit, waiters):
    fit = live_fit({0: (1, 1)})
    held = fit.through(0, 1)
    waiters()
    fit.shared.close()
    with pytest.raises(ConnectionLostError):
        held[0].result(30)


def test_after_its_jobs_last_epoch_nobody_waits_for_the_driver(live_fit, waiters):
    """It may need the task slots, to validate."""
    fit = live_fit(TWO)
    for step in range(2):
        fit.everybody(step, {s: (vector(1, 1, 1), 1) for s in (0, 1)})
    first = fit.later(fit.finish, 0, 0, last=True)
    waiters()
    assert not first.done()  # shard 1 may still need it
    assert fit.finish(1, 0, last=True) == Instructions()
    assert first.result(30) == Instructions()


def test_a_settled_epoch_never_starts_again(live_fit, waiters):
    """A worker that dies while the driver is in its callbacks has nothing left to lose."""
    fit = live_fit(TWO)
    held = fit.through(0, 2)
    waiters(2)
    fit.shared.lost(1, 0, "killed")
    welcome = fit.hello(1, 1)
    assert welcome.start == Start(1)
    # It gets no weights before the driver has settled on them.
    pulled = fit.later(fit.pull, 1, 1)
    waiters()
    assert not pulled.done()
    assert fit.shared.wait_for_epoch(0, 0) is not None
    fit.shared.aggregator.replace(vector(7, 7, 7))
    fit.shared.close_epoch(0, stop=False, learning_rate=None)
    assert pulled.result(30) == [7, 7, 7]
    assert held[0].result(30).restart is None
    futures = [fit.later(fit.reduce, s, 0, vector(1, 1, 1), attempt=s) for s in (0, 1)]
    assert [f.result(30)[1] for f in futures] == [[8, 8, 8]] * 2


def test_a_replica_lost_after_a_settled_epoch_is_not_waited_for_in_the_hold(live_fit):
    fit = live_fit(TWO, timeout=0.05)
    for held in fit.through(0, 2):
        assert held.result(30).hold
    fit.shared.lost(1, 0, "killed")
    assert [fit.finish(0, 0).hold for _ in range(2)] == [True, True]


def test_a_driver_that_closes_the_epoch_late(live_fit, waiters):
    """Its callbacks may take as long as they want: far longer than the timeout."""
    fit = live_fit({0: (1, 1)}, timeout=0.001)
    fit.everybody(0, {0: (vector(1, 1, 1), 1)})
    fit.finish(0, 0)
    pulling = fit.later(fit.pull, 0)
    waiters()
    time.sleep(0.1)
    assert not pulling.done()
    fit.shared.close_epoch(0, stop=False, learning_rate=None)
    assert pulling.result(30) == [1, 1, 1]


# -- jobs --------------------------------------------------------------------------------------


def test_a_new_job_starts_an_unfinished_epoch_again(live_fit):
    fit = live_fit(TWO, first_epoch=2)
    fit.everybody(0, {s: (vector(5, 5, 5), 1) for s in (0, 1)})
    fit.shared.begin_job(1000)
    assert fit.shared.aggregator.weights.tolist() == [0, 0, 0]
    for shard in (0, 1):
        welcome = fit.hello(shard, 1000)
        assert welcome.start == Start(2, generation=1)


def test_a_new_job_after_a_closed_epoch_starts_nothing_again(live_fit):
    fit = live_fit(TWO)
    held = fit.through(0, 2)
    fit.shared.wait_for_epoch(0, 30)
    fit.shared.close_epoch(0, stop=False, learning_rate=None)
    for future in held:
        future.result(30)
    for shard in (0, 1):
        fit.shared.lost(shard, 0, "its job is over")
    fit.shared.begin_job(1000)
    assert fit.shared.aggregator.weights.tolist() == [2, 2, 2]
    assert fit.hello(0, 1000).start.generation == 0
    assert fit.hello(1, 1000).start.epoch == 1
    # Those that left in peace are not missed.
    given = {s: (vector(1, 1, 1), 1) for s in (0, 1)}
    assert fit.everybody(0, given, attempt=1000)[0][1] == [3, 3, 3]


def test_a_new_job_keeps_a_settled_epoch(live_fit, waiters):
    """The driver's validation was lost, not the epoch."""
    fit = live_fit(TWO)
    for step in range(2):
        fit.everybody(step, {s: (vector(1, 1, 1), 1) for s in (0, 1)})
    for future in [fit.later(fit.finish, s, 0, last=True) for s in (0, 1)]:
        future.result(30)
    fit.shared.begin_job(1000)
    assert fit.shared.wait_for_epoch(0, 0) is not None
    assert fit.shared.aggregator.weights.tolist() == [2, 2, 2]
    assert fit.hello(0, 1000).start.epoch == 1
