"""Who is there when replicas begin, and who was lost for too long."""

import math

import numpy as np
import pytest

from kspark.live.coordinator import gate

TWO = {0: (8, 2), 1: (8, 2)}


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_replicas_begin_when_all_have_connected(live_fit, waiters, mode):
    fit = live_fit(TWO, mode=mode, connect=False)
    fit.shared.begin_job(0, 3, together=True)
    fit.hello(0)
    first = fit.later(fit.pull, 0)
    waiters()
    assert not first.done()
    fit.hello(1)
    assert first.result(30) == fit.pull(1) == [0, 0, 0]


def test_a_replica_asks_again_if_the_others_take_long(live_fit, monkeypatch):
    monkeypatch.setattr(gate, "LONGEST_NAP", 0.001)
    fit = live_fit(TWO, mode="asynchronous", connect=False, timeout=0.01)
    fit.shared.begin_job(0, 3, together=True)
    fit.hello(0)
    out = np.empty(3, "f4")
    assert fit.shared.pull(0, 0, out)[1].hold
    fit.hello(1)
    assert not fit.shared.pull(0, 0, out)[1].hold


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_lost_replicas_with_work_left_are_told(live_fit, mode):
    fit = live_fit(TWO, mode=mode)
    fit.shared.begin_job(0, 1)
    for shard in (0, 1):
        fit.hello(shard, 1)
    assert fit.shared.attendance.lost() == []
    fit.shared.lost(1, 1, "gone")
    assert fit.shared.attendance.lost() == []
    fit.shared._progress.shards[1].lost_since = -math.inf
    assert fit.shared.attendance.lost() == [1]
    fit.hello(1, 2)
    assert fit.shared.attendance.lost() == []


def test_replicas_that_have_done_their_work_may_go(live_fit):
    fit = live_fit(TWO, mode="asynchronous")
    fit.shared.begin_job(0, 1)
    for shard in (0, 1):
        fit.hello(shard, 1)
    fit.report(1, "epoch", attempt=1, epoch=0, sequence=0)
    fit.shared.lost(1, 1, "done")
    fit.shared._progress.shards[1].lost_since = -math.inf
    assert fit.shared.attendance.lost() == []


def test_nobody_is_lost_when_the_fit_is_over(live_fit):
    fit = live_fit(TWO)
    fit.shared.lost(1, 0, "gone")
    fit.shared._progress.shards[1].lost_since = -math.inf
    assert fit.shared.attendance.lost() == [1]
    fit.shared.close()
    assert fit.shared.attendance.lost() == []
