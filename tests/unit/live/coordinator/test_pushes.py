"""Replicas that do not wait for each other: who may speak, pushes, and where a retry goes on."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from kspark.errors import AggregationError
from kspark.live.wire import Instructions, SharedOffer, Start, Welcome
from kspark.optimizers import ServerOptimizer

TWO = {0: (30, 3), 1: (10, 2)}
"""Two shards of 30 and 10 examples, with three and two exchanges an epoch."""


@pytest.fixture
def fit_of(live_fit):
    def begin(plans=TWO, *, mode="asynchronous", rule="downpour", **more):
        return live_fit(plans, mode=mode, rule=rule, **more)

    return begin


# -- who may speak -----------------------------------------------------------------------------


def test_the_first_welcome(fit_of):
    fit = fit_of(first_epoch=3, connect=False)
    offer = SharedOffer("p", "00", (0, 1), 1, 0.25, 1.0)
    fit.shared.offers = {1: offer}
    assert fit.hello(1) == Welcome(3, False, 0, Start(3), Instructions(), offer)
    assert fit.hello(0).leader is True
    assert fit.hello(0).shared is None


def test_steps_are_those_of_the_longest_shard_and_the_first_one_leads(fit_of):
    fit = fit_of({4: (1, 7), 2: (9, 2)}, connect=False)
    assert [fit.hello(s).steps for s in (4, 2)] == [7, 7]
    assert [fit.hello(s).leader for s in (4, 2)] == [False, True]
    assert fit.shared.total_examples == 10


def test_unknown_shards_are_refused(fit_of):
    with pytest.raises(AggregationError, match="Shard 7 does not belong to this fit"):
        fit_of().hello(7)


def test_a_newer_attempt_supersedes_the_older_one_in_everything(fit_of):
    fit = fit_of()
    fit.hello(0, 1)
    fit.hello(0, 2)
    calls = [
        lambda: fit.hello(0, 1),
        lambda: fit.pull(0, attempt=1),
        lambda: fit.push(0, 1, attempt=1),
        lambda: fit.finish(0, 0, attempt=1),
    ]
    for call in calls:
        with pytest.raises(AggregationError, match="Attempt 1 of shard 0 was superseded"):
            call()
    assert fit.shared.aggregator.version == 0
    assert fit.push(0, 1, attempt=2)[0] == 1


def test_a_new_job_shuts_out_all_attempts_of_the_job_before(fit_of):
    fit = fit_of(connect=False)
    fit.hello(0, 5)
    assert fit.shared.attendance.never_connected() == [1]
    fit.shared.begin_job(1000)
    for call in (lambda: fit.hello(0, 999), lambda: fit.push(0, 1, attempt=5)):
        with pytest.raises(AggregationError, match="superseded"):
            call()
    assert fit.shared.attendance.never_connected() == [0, 1]
    fit.hello(1, 1000)
    assert fit.shared.attendance.never_connected() == [0]


def test_nobody_meets_when_nobody_waits(fit_of):
    with pytest.raises(AggregationError, match='Replicas do not meet in mode "asynchronous"'):
        fit_of().reduce(0, 0, None)


# -- pushes ------------------------------------------------------------------------------------


def test_a_push_is_applied_and_answered_with_the_weights_after_it(fit_of):
    fit = fit_of()
    fit.push(1, 1, value=8)
    # State is no business of the rule: it moves by the share of the shard, 1/4 and 3/4.
    assert fit.push(0, 1, value=4) == (2, Instructions(), [12, 12, 5])


def test_a_push_counts_by_its_shards_part_of_all_examples(fit_of):
    fit = fit_of(rule="average")
    assert fit.push(0, 1, value=4)[2] == [3, 3, 3]
    assert fit.push(1, 1, value=4)[2] == [4, 4, 4]


@pytest.mark.parametrize(("batch_size", "moved"), [(4, 2.0), (None, 6.0)])
def test_the_rule_is_told_how_many_batches_are_behind_a_push(fit_of, batch_size, moved):
    """ADAG divides by them: 10 examples are three batches of 4."""
    fit = fit_of(rule="adag", batch_size=batch_size)
    assert fit.push(0, 1, value=6, count=10)[2][0] == moved


def test_a_push_that_was_applied_before_is_answered_and_not_applied(fit_of):
    fit = fit_of({0: (1, 9)})
    fit.push(0, 1, value=5)
    fit.hello(0, 1)
    for sequence in (1, 0):
        version, _, weights = fit.push(0, sequence, attempt=1, value=5)
        assert (version, weights) == (1, [5, 5, 5])
    assert fit.push(0, 2, attempt=1, value=1)[2] == [6, 6, 6]


def test_a_gap_in_the_sequence_is_refused(fit_of):
    fit = fit_of()
    fit.push(0, 1)
    with pytest.raises(AggregationError, match="Shard 0 sent push 3 after push 1"):
        fit.push(0, 3)
    assert fit.shared.aggregator.version == 1


def test_pull_gives_weights_version_and_the_drivers_word(fit_of):
    fit = fit_of({0: (1, 9)})
    fit.push(0, 1, value=3)
    out = np.empty(3, "f4")
    assert fit.shared.pull(0, 0, out) == (1, Instructions())
    assert out.tolist() == [3, 3, 3]


@pytest.mark.parametrize("mode", ["asynchronous", "hogwild"])
def test_concurrent_pushes_of_all_shards_lose_nothing(fit_of, mode):
    """Without a lock, hogwild may lose parts of vectors, but no push in the books."""
    shards, pushes = 6, 60
    fit = fit_of(dict.fromkeys(range(shards), (10, pushes)), mode=mode)
    start = threading.Barrier(shards)

    def work(shard):
        start.wait(30)
        base = 0
        for sequence in range(1, pushes + 1):
            base = fit.push(shard, sequence, value=shard + 1, base=base)[0]
        fit.finish(shard, 0)

    for future in [fit.later(work, shard) for shard in range(shards)]:
        future.result(60)
    assert len(fit.shared.wait_for_epoch(0, 0).staleness) == shards * pushes
    assert [fit.hello(s, 1).start.sequence for s in range(shards)] == [pushes] * shards
    if mode == "asynchronous":
        total = pushes * sum(range(1, shards + 1))
        assert fit.shared.aggregator.weights[:2].tolist() == [total] * 2
        assert fit.shared.aggregator.version == shards * pushes


class Held(ServerOptimizer):
    """Adds deltas; can be held inside of `apply`."""

    def __init__(self):
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()

    def apply(self, weights, delta, context):
        self.entered.set()
        assert self.go.wait(30)
        weights += delta


class Turnstile:
    """A lock that tells of everybody who comes to it."""

    def __init__(self):
        self.lock, self.knocks = threading.Lock(), threading.Semaphore(0)

    def __enter__(self):
        self.knocks.release()
        return self.lock.__enter__()

    def __exit__(self, *exc_info):
        self.lock.__exit__(*exc_info)


@pytest.fixture
def held(fit_of):
    """A fit whose first push is inside of the rule, and the turnstile of its shard."""
    rule = Held()
    fit = fit_of({0: (10, 3)}, rule=rule)
    turn = fit.shared._progress.shards[0].turn = Turnstile()
    first = fit.later(fit.push, 0, 1)
    assert rule.entered.wait(20)
    assert turn.knocks.acquire(timeout=20)
    yield fit, rule, turn, first
    rule.go.set()


def test_a_push_under_way_and_its_repetition_by_a_new_attempt_count_once(held):
    """The task was given up while its push waited; the new attempt was told to begin with it."""
    fit, rule, turn, first = held
    assert fit.hello(0, 1).start.sequence == 0
    again = fit.later(fit.push, 0, 1, attempt=1)
    assert turn.knocks.acquire(timeout=20)
    rule.go.set()
    first.result(30)
    assert again.result(30)[2] == [1, 1, 1]
    assert fit.shared.aggregator.version == 1
    assert fit.hello(0, 2).start.sequence == 1


def test_a_superseded_push_that_waited_for_its_turn_is_refused(held):
    fit, rule, turn, first = held
    second = fit.later(fit.push, 0, 2)
    assert turn.knocks.acquire(timeout=20)
    fit.hello(0, 1)
    rule.go.set()
    first.result(30)
    with pytest.raises(AggregationError, match="superseded"):
        second.result(30)
    assert fit.shared.aggregator.version == 1


# -- where a returning replica goes on ------------------------------------------------------------


@pytest.mark.parametrize(
    ("pushes", "epoch", "position"), [(0, 5, 0), (2, 5, 2), (3, 6, 0), (4, 6, 1), (6, 7, 0)]
)
def test_a_returning_replica_goes_on_after_its_last_push(fit_of, pushes, epoch, position):
    fit = fit_of(first_epoch=5)  # three exchanges an epoch
    for sequence in range(1, pushes + 1):
        fit.push(0, sequence)
    fit.shared.lost(0, 0, "killed")
    welcome = fit.hello(0, 1)
    assert welcome.start == Start(epoch, pushes, position)
    assert welcome.version == pushes


def test_an_epoch_whose_last_push_came_is_done_even_if_nobody_lived_to_say_so(fit_of):
    fit = fit_of()
    for shard, pushes in ((0, 3), (1, 2)):
        for sequence in range(1, pushes + 1):
            fit.push(shard, sequence)
    fit.finish(1, 0)
    assert fit.shared.wait_for_epoch(0, 0) is None
    fit.hello(0, 1)
    assert fit.shared.wait_for_epoch(0, 0) is not None
    assert fit.shared.wait_for_epoch(1, 0) is None


def test_what_was_said_to_be_done_is_not_taken_back(fit_of):
    """Pushes into shared memory are known by what the replica says of them."""
    fit = fit_of({0: (10, 3)}, mode="hogwild")
    fit.finish(0, 1, sequence=6)
    fit.finish(0, 0, sequence=3)
    assert fit.hello(0, 1).start.sequence == 6
    assert fit.shared.wait_for_epoch(1, 0) is not None
    fit.finish(0, 2, attempt=1)  # nothing said of pushes
    assert fit.hello(0, 1).start.sequence == 6
    assert fit.shared.wait_for_epoch(2, 0) is not None


def test_a_second_job_goes_on_where_the_first_was_lost(fit_of):
    fit = fit_of({0: (10, 3)})
    fit.push(0, 1)
    fit.shared.begin_job(1000)
    assert fit.hello(0, 1000).start.position == 1
    assert fit.push(0, 2, attempt=1000)[2] == [2, 2, 2]
