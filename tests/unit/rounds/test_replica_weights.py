"""Synchronous elastic averaging: replicas keep their own weights from round to round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark import optimizers
from kspark.aggregator import Aggregator, Delta
from kspark.live.task import choose_loop
from kspark.rounds.task import RoundTask, train_round
from kspark.shards import Chunk, ShardHandle
from kspark.worker.spooling import spool_shard
from kspark.worker.state import ShardState
from kspark.worker.tasks import FitTask

CENTRE = (2.5, 7.75, 2)
"""Of rows 0 to 7 in batches of 4, rho = 1/4, after two meetings; after the first (1, 1.5, 1)."""
OWN = [(3, 4.5), (5.5, 20.25)]
"""Likewise: after the first, and after the second."""


def elastic(rho=0.25, momentum=0.0):
    return optimizers.ElasticAverage(rho, momentum)


def own_of(run, epoch):
    """A shard's own weights after an epoch, from their file; NaN where there are none."""
    return run.round_weights(epoch + 1).restore(np.full(3, np.nan, "f4"))[:2]


def bases(run):
    """What the replica was set to: the pulled weights, then where local training began."""
    return [tuple(values) for kind, values in run.replica.calls if kind == "set_vector"]


def by_the_paper(world, epochs, rho, momentum):
    """Centre, state and every replica's weights after so many epochs, in float64.

    Rounds of equations 5 and 6, with a spring of rho n_k / n; of Algorithm 2's momentum.
    """
    plan, total = world.plan, sum(world.counts.values())
    counts = {k: n for k, n in world.counts.items() if n}
    centre, state = np.zeros(2), 0.0
    x = {k: np.zeros(2) for k in counts}
    v = {k: np.zeros(2) for k in counts}
    begin = {k: np.zeros(2) for k in counts}  # Nesterov's point: x + momentum v
    for _ in range(epochs):
        for step in range(max(plan.exchanges(plan.batches(n)) for n in counts.values())):
            pulled, moved, seen = np.zeros(2), 0.0, 0
            for k, n in counts.items():
                rows = plan.local_batches(plan.batches(n)) * plan.batch_size
                ids = world.ids[k][step * rows : (step + 1) * rows]
                if not len(ids):
                    continue
                d = np.array([len(ids), ids.sum()], "f8")
                reached = begin[k] + d
                e = rho * n / total * (reached - centre)
                v[k] = momentum * v[k] + d
                x[k] = reached - e
                begin[k] = x[k] + momentum * v[k]
                pulled += e
                moved, seen = moved + n * plan.batches(len(ids)), seen + n
            centre, state = centre + pulled, state + moved / seen
    return centre, state, begin


# -- meetings ----------------------------------------------------------------------------------


def test_replica_and_centre_move_by_the_same_amount(tools):
    plan = tools.plan("synchronous", 1, epochs=1, shuffle=False)
    with tools.world([8], plan, rule=elastic()) as world:
        world.train()
        (run,) = world.runs
        assert world.aggregator.weights.tolist() == list(CENTRE)
        # the pull, the beginning of training, after each meeting
        assert bases(run)[:4] == [(0, 0, 0), (0, 0, 0), (*OWN[0], 1), (*OWN[1], 2)]
        assert own_of(run, 0).tolist() == list(OWN[1])


skewed = st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any)


@settings(max_examples=25)
@given(skewed, st.integers(1, 5), st.integers(1, 7), st.sampled_from([0.0, 0.5]),
       st.sampled_from([0.25, 1.0]))  # fmt: skip
def test_meetings_are_rounds_of_the_paper(tools, sizes, frequency, batch_size, momentum, rho):
    plan = tools.plan("synchronous", frequency, batch_size=batch_size, shuffle=False)
    with tools.world(sizes, plan, rule=elastic(rho, momentum)) as world:
        for report in world.train():
            np.testing.assert_array_equal(world.seen(report), world.all_ids)
        centre, state, own = by_the_paper(world, 2, rho, momentum)
        np.testing.assert_allclose(world.aggregator.weights, [*centre, state], rtol=1e-4)
        for run in world.runs:
            np.testing.assert_allclose(own_of(run, 1), own[run.shard.index], rtol=1e-4)


MOMENTS = [
    (kind, number, when)
    for kind, last in (("reduce", 6), ("pull", 2), ("metrics", 2), ("epoch", 2))
    for number in range(1, last + 1)
    for when in ("before", "after")
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: "-".join(map(str, m)))
def test_a_replica_that_dies_changes_nothing(tools, moment):
    """Not the centre, and nobody's own weights: they are those of the epoch's beginning again."""

    def train(disturb):
        plan = tools.plan("synchronous", 1)
        with tools.world([12, 8], plan, rule=elastic(0.5, momentum=0.5)) as world:
            reports = world.train(disturb)
            seen = [world.seen(report).tolist() for report in reports]
            own = [own_of(run, 1).tobytes() for run in world.runs]
            return world.aggregator.weights.tobytes(), own, seen

    disturb = tools.at(*moment)
    expected = train({})
    assert train({0: disturb}) == expected
    assert disturb.hits


def test_lost_with_its_host_it_goes_on_from_the_centre(tools):
    plan = tools.plan("synchronous", 2, shuffle=False)
    with tools.world([8, 8], plan, rule=elastic()) as world:
        folder = world.run(1).state.folder

        def lose(kind, number, when):
            if (kind, number, when) == ("reduce", 2, "before"):  # of the second epoch
                (folder / "own-weights-0").unlink()
                raise tools.lost

        world.coordinator.begin_job(0)
        world.train({1: lose})
        # Rows 0 to 7 and 8 to 15, alpha = 1/8: gaps (8, 28) and (8, 92), then the centre is
        # at (2, 15), and x_0 at (7, 24.5).
        assert bases(world.runs[1])[:2] == [(2, 15, 2), (2, 15, 2)]
        assert (7, 24.5, 2) in bases(world.runs[0])
        # From there gaps are (13, 37.5) and (8, 92).
        assert own_of(world.runs[0], 1).tolist() == [15 - 13 / 8, 52.5 - 37.5 / 8]
        assert own_of(world.runs[1], 1).tolist() == [10 - 8 / 8, 107 - 92 / 8]
        assert world.aggregator.weights[:2].tolist() == [2 + 21 / 8, 15 + 129.5 / 8]


def test_own_weights_survive_the_job_and_old_ones_are_removed(tools):
    plan = tools.plan("synchronous", 2, epochs=4, shuffle=False)
    with tools.world([8], plan, rule=elastic()) as world:
        for epoch in range(4):
            world.coordinator.begin_job(1000 * epoch)
            run = world.run(0, 1000 * epoch, stop=epoch + 1)
            choose_loop(run)
            world.coordinator.close_epoch(epoch, stop=False, learning_rate=None)
            kept = sorted(file.name for file in run.state.folder.glob("*own*"))
            assert kept == [f"own-weights-{e}" for e in range(max(epoch - 1, 0), epoch + 1)]
        centre, state, _ = by_the_paper(world, 4, 0.25, 0.0)
        np.testing.assert_allclose(world.aggregator.weights, [*centre, state], rtol=1e-5)


# -- rounds ------------------------------------------------------------------------------------


@pytest.fixture
def rounds(tools, tmp_path, monkeypatch):
    """Rounds of two shards, rows 0 to 7 and 8 to 11, and the centre they begin with."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return Rounds(tools)


class Rounds:
    counts = {0: 8, 1: 4}

    def __init__(self, tools, rule=None):
        self.tools, self.rule = tools, rule or elastic(0.75)
        chunks = [Chunk([np.arange(8)]), Chunk([np.arange(8, 12)])]
        self.documents = [
            next(iter(spool_shard("fit", False, i, iter([c])))) for i, c in enumerate(chunks)
        ]
        spec = tools.spec().weights
        self.aggregator = Aggregator(spec, np.zeros(3, "f4"), self.rule, "synchronous")

    def folder(self, shard):
        return ShardState.of("fit", ShardHandle.from_json(self.documents[shard])).folder

    def train(self, epoch, shards=(0, 1), **plan):
        made = self.tools.plan("synchronous", "epoch", shuffle=False, **plan)
        task = RoundTask(
            FitTask("fit", made, self.counts, 1, self.rule.clone()), epoch, None, False
        )
        vector = self.aggregator.weights.copy()
        given = iter([self.documents[shard] for shard in shards])
        return list(train_round(task, self.tools.spec(), vector, 0, given))

    def merge(self, results):
        self.aggregator.merge([Delta(r.shard, r.delta, r.num_examples) for r in results])
        return self.aggregator.weights.tolist()


def test_a_round_by_hand(rounds):
    """Springs of 3/4 * 2/3 = 1/2 and 3/4 * 1/3 = 1/4."""
    first = rounds.train(0)
    assert [r.delta.tolist() for r in first] == [[8, 28, 2], [4, 38, 1]]
    # centre: (8, 28) / 2 + (4, 38) / 4; state is the mean by examples.
    assert rounds.merge(first) == [5, 23.5, np.float32(5 / 3)]
    # x_0 = (8, 28) / 2, x_1 = (4, 38) * 3/4. They train on, and measure to the centre.
    second = rounds.train(1)
    assert second[0].delta[:2].tolist() == [4 + 8 - 5, 14 + 28 - 23.5]
    assert second[1].delta[:2].tolist() == [3 + 4 - 5, 28.5 + 38 - 23.5]
    np.testing.assert_allclose([r.delta[2] for r in second], [2, 1], rtol=1e-6)
    assert rounds.merge(second)[:2] == [5 + 7 / 2 + 2 / 4, 23.5 + 18.5 / 2 + 43 / 4]


def test_momentum_is_kept_from_round_to_round(tools, rounds):
    rounds = Rounds(tools, elastic(0.75, momentum=0.5))
    rounds.merge(rounds.train(0))
    # v = d = (8, 28): from (4, 14) + v/2. Then x = (8, 28) + (8, 28), v = (12, 42).
    (second,) = rounds.train(1, [0])
    assert second.delta[:2].tolist() == [16 - 5, 56 - 23.5]
    (third,) = rounds.train(2, [0])  # (16, 56) - (11, 32.5) / 2 + (12, 42) / 2, and trained
    assert third.delta[:2].tolist() == [16 - 5.5 + 6 + 8 - 5, 56 - 16.25 + 21 + 28 - 23.5]


def test_a_round_that_is_run_again_begins_with_the_own_weights_of_the_round_before(rounds):
    """Its result was lost, after its own weights were written: they must not move twice."""
    rounds.merge(rounds.train(0))
    second = rounds.train(1)
    again = rounds.train(1, [1, 0])
    assert [r.delta.tolist() for r in reversed(again)] == [r.delta.tolist() for r in second]
    rounds.merge(second)
    third = rounds.train(2)
    assert third[0].delta[:2].tolist() == [
        *(np.array([12 - 3.5 + 8, 42 - 9.25 + 28]) - rounds.aggregator.weights[:2])
    ]


def test_the_first_round_that_is_run_again_begins_at_the_centre(rounds):
    first, again = rounds.train(0), rounds.train(0)
    assert [r.delta.tolist() for r in first] == [r.delta.tolist() for r in again]


@pytest.mark.parametrize("renamed", [None, "own-weights-1"])
def test_a_shard_that_lost_its_own_weights_goes_on_from_the_centre(rounds, renamed):
    """Also where the host has those of an earlier round: the shard was elsewhere meanwhile."""
    rounds.merge(rounds.train(0))
    kept = rounds.folder(0) / "own-weights-0"
    if renamed:
        kept.rename(kept.with_name(renamed))
    else:
        kept.unlink()
    first, second = rounds.train(2 if renamed else 1)
    assert first.delta[:2].tolist() == [8, 28]
    if not renamed:
        assert second.delta[:2].tolist() == [3 + 4 - 5, 28.5 + 38 - 23.5]


def test_own_weights_of_two_rounds_are_kept(rounds):
    for epoch in range(4):
        rounds.train(epoch)
    for shard in (0, 1):
        kept = sorted(file.name for file in rounds.folder(shard).glob("*own*"))
        assert kept == ["own-weights-2", "own-weights-3"]


def test_without_such_a_rule_nothing_is_kept(tools, rounds):
    task = FitTask("fit", tools.plan("synchronous", "epoch"), {0: 8}, 1)
    given = iter(rounds.documents[:1])
    vector = np.array([1, 1, 1], "f4")
    (result,) = train_round(RoundTask(task, 0, None, False), tools.spec(), vector, 0, given)
    assert result.delta.tolist() == [8, 28, 2]
    assert not list(rounds.folder(0).glob("*own*"))
