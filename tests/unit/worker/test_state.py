"""What a Python worker keeps: one replica, each shard's state, and the tries at an epoch."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspark.cluster.failures import task_attempt
from kspark.shards import Chunk, Shard, spool
from kspark.worker import state as state_module
from kspark.worker.state import ShardState, Tries, note_of, release, replica_for


@pytest.fixture
def shard(tmp_path):
    return Shard(spool([Chunk([np.arange(3)])], 5, "run", directory=str(tmp_path)))


@pytest.fixture
def kept(shard, tools):
    """A shard's state of a fit whose replica was built here."""
    replica_for(tools.spec(), "fit", 1)
    return ShardState("fit", shard)


# -- the replica ---------------------------------------------------------------------------------


def test_a_replica_is_built_once_per_process_and_fit(tools):
    spec = tools.spec()
    first = replica_for(spec, "fit", 3)
    assert replica_for(spec, "fit", 3) is first
    assert replica_for(tools.spec(), "fit", 3) is first  # unpickled anew by each task
    assert spec.built == [3]


def test_another_model_is_built_anew_and_the_old_one_is_dropped(tools):
    """It may take half of the memory."""
    first = replica_for(tools.spec(), "fit", 1)
    second = replica_for(tools.spec(digest="changed"), "fit", 1)
    assert second is not first
    assert list(state_module._replicas) == ["fit"]
    assert replica_for(tools.spec(digest="changed"), "fit", 1) is second
    assert replica_for(tools.spec(), "other", 1) is not second
    assert list(state_module._replicas) == ["other"]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("renewable", [True, False])
def test_a_later_fit_of_the_same_model_takes_the_replica_over(tools, monkeypatch, ends, renewable):
    given = []
    monkeypatch.setattr(state_module, "renewed", lambda *both: given.append(both) or renewable)
    first, spec = replica_for(tools.spec(values=()), "fit", 1), tools.spec(values=())
    if ends:
        release("fit")
    assert (replica_for(spec, "other", 1) is first) == renewable
    assert given == [(first, spec)]
    assert list(state_module._replicas) == ["other"]


@pytest.mark.parametrize("values", [(), None])
def test_a_fit_that_is_over_leaves_at_most_a_replica_that_may_be_taken_over(tools, values):
    replica = replica_for(tools.spec(values=values), "fit", 1)
    release("other")
    assert list(state_module._replicas) == ["fit"]
    release("fit")
    release("fit")
    kept = [entry.replica for entry in state_module._replicas.values()]
    assert kept == ([] if values is None else [replica])
    assert replica.calls == ([] if values is None else ["forget_rows"])


def test_outside_of_spark_there_is_one_attempt():
    assert task_attempt() == 0


# -- the shard's state ---------------------------------------------------------------------------


def test_state_lies_beside_the_shards_files(shard):
    state = ShardState("fit", shard)
    assert state.folder.parent == Path(shard.handle.path).parent
    assert ShardState.of("fit", shard.handle).folder == state.folder
    assert ShardState("other", shard).folder != state.folder
    assert state.index == 5


def arrays(seed):
    """More than ten of each: their order must not be that of their names."""
    rng = np.random.default_rng(seed)
    optimizer = [rng.normal(size=i % 3) for i in range(12)]
    return [np.array(seed), *optimizer], [rng.integers(0, 9, 2, np.uint32) for _ in range(11)]


class Model:
    """A replica's state and nothing else."""

    def __init__(self, optimizer=(), fixed=()):
        self.optimizer, self.fixed, self.seeded = optimizer, fixed, []

    def get_optimizer_state(self):
        return self.optimizer

    def get_fixed(self):
        return self.fixed

    def set_optimizer_state(self, values):
        self.optimizer = values

    def set_fixed(self, values):
        self.fixed = values

    def reseed(self, *arguments):
        self.seeded.append(arguments)

    def advance_schedule(self, steps):
        self.advanced = steps


def same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
        assert a.shape == b.shape


def test_state_comes_back_whole_and_in_order(shard):
    state = ShardState("fit", shard)
    optimizer, fixed = arrays(1)
    state.save(Model(optimizer, fixed), 0)
    for mine, loaded in zip((optimizer, fixed), state.load(0), strict=True):
        same(mine, loaded)
    assert [p.name for p in state.folder.iterdir()] == ["0.state"]  # nothing half written


def test_bfloat16_comes_back_as_what_holds_it_exactly(shard):
    state = ShardState("fit", shard)
    values = np.array([1.0, -0.3333, 3e38], ml_dtypes.bfloat16)
    state.save(Model([values], [values]), 0)
    for loaded in state.load(0):
        same(loaded, [values.astype("float32")])


def test_state_of_the_last_two_epochs_is_kept(shard):
    state = ShardState("fit", shard)
    for epoch in range(4):
        state.save(Model(*arrays(epoch)), epoch)
    assert sorted(p.name for p in state.folder.iterdir()) == ["2.state", "3.state"]
    assert state.load(3)[0][0] == 3
    assert state.load(2)[0][0] == 2
    assert state.load(1) is None


def test_a_shard_that_missed_epochs_keeps_what_its_last_one_began_with(shard):
    """It may be run again."""
    state = ShardState("fit", shard)
    for epoch in (0, 3, 4, 7):
        state.save(Model(*arrays(epoch)), epoch)
        state.save_residual(np.full(2, epoch, "f4"), epoch)
    names = sorted(p.name for p in state.folder.iterdir())
    assert names == ["4.residual", "4.state", "7.residual", "7.state"]
    assert [state.residual_before(e).tolist() for e in (5, 7, 8, 12)] == [[4] * 2] * 2 + [
        [7] * 2
    ] * 2
    assert state.residual_before(4) is None
    assert state.load_residual(6) is None  # of that epoch and no other


def test_saving_again_replaces(shard):
    state = ShardState("fit", shard)
    state.save(Model(*arrays(1)), 0)
    state.save(Model(*arrays(2)), 0)
    assert state.load(0)[0][0] == 2


def test_a_replica_that_has_just_trained_the_shard_goes_on(shard, tools):
    state, model = ShardState("fit", shard), Model([np.array(1)], [np.array(2)])
    state.save(model, 3)
    model.fixed = [np.array(9)]  # an evaluation drew random numbers
    state.load = lambda epoch: pytest.fail("there is nothing to read")
    assert state.restore(model, 4, tools.plan(), 7)
    assert (model.optimizer, model.fixed) == ([np.array(1)], [np.array(2)])


@pytest.mark.parametrize("between", ["other shard", "other epoch", "training", "released"])
def test_any_other_replica_reads_the_shards_state(shard, tools, between):
    state, model = ShardState("fit", shard), Model([np.array(1)], [np.array(2)])
    state.save(model, 3)
    other = ShardState("fit", shard)
    if between == "other shard":
        other.index = 6
        other.save(model, 3)
    elif between == "other epoch":
        other.folder = shard.handle.path and state.folder.parent / "elsewhere"
        other.save(model, 4)
    elif between == "training":
        other.depart()
    else:
        release("fit")
    model.optimizer = [np.array(99)]
    state.restore(model, 4, tools.plan(), 7)
    assert model.optimizer == [np.array(1)]


@pytest.mark.parametrize("resumed", [False, True])
def test_only_a_fit_that_goes_on_misses_a_state_at_its_first_epoch(kept, tools, resumed):
    replica = replica_for(tools.spec(), "fit", 1)
    assert kept.restore(replica, 0, tools.plan(), 7, resumed) is not resumed


def test_a_shard_begins_with_the_models_own_state_and_seeds_of_its_own(kept, tools):
    replica = replica_for(tools.spec(), "fit", 1)
    replica.steps, replica.seeds = 99, (9, 9)  # another shard's, which ran here before
    assert not kept.restore(replica, 3, tools.plan(seed=17), 7)  # epoch 2's should be there
    assert replica.advanced == 21
    assert replica.steps == 0
    assert replica.seeds == (17, 5)  # the plan's seed, and the shard


def test_a_shard_goes_on_with_its_state_after_the_epoch_before(kept, tools):
    for epoch in (0, 1):
        kept.save(Model(*arrays(epoch)), epoch)
    model = Model()
    assert kept.restore(model, 1, tools.plan(), 7)
    assert model.optimizer[0] == 0
    kept.restore(model, 2, tools.plan(), 7)
    assert model.optimizer[0] == 1
    same(model.fixed, arrays(1)[1])
    assert model.seeded == []


def test_a_process_that_died_before_it_could_save_costs_an_epochs_state_not_all(kept, tools):
    kept.save(Model(*arrays(9)), 9)
    model = Model()
    kept.restore(model, 11, tools.plan(), 7)
    assert model.optimizer[0] == 9
    kept.save(Model(*arrays(10)), 10)  # by number, not by name
    kept.restore(model, 12, tools.plan(), 7)
    assert model.optimizer[0] == 10


def test_a_state_that_is_older_than_the_shard_is_not_taken(kept, tools):
    replica = replica_for(tools.spec(), "fit", 1)
    kept.save(Model(*arrays(4)), 4)
    kept.save_residual(np.ones(2, "f4"), 4)
    model = Model()
    assert kept.restore(model, 6, tools.plan(), 7, since=4)
    assert model.optimizer[0] == 4
    assert kept.residual_before(6, 4) is not None
    assert not kept.restore(replica, 6, tools.plan(), 7, since=5)
    assert replica.steps == 0
    assert kept.residual_before(6, 5) is None


def test_a_later_state_is_not_taken(kept, tools):
    """An epoch that starts again begins with the state before it."""
    replica = replica_for(tools.spec(), "fit", 1)
    kept.save(Model(*arrays(4)), 0)
    assert kept.restore(replica, 0, tools.plan(seed=3), 7)
    assert (replica.steps, replica.seeds) == (0, (3, 5))


# -- tries ---------------------------------------------------------------------------------------


def tries(shard, allowed=2, epoch=0):
    return Tries(ShardState("fit", shard), epoch, allowed)


def die(shard):
    """A process that is killed while it works."""
    tries(shard).__enter__()


def test_as_many_processes_may_die_as_allowed(shard):
    for died in range(4):
        found = tries(shard)
        assert found.count == died
        assert found.exhausted == (died > 2)
        die(shard)


def test_why_an_earlier_process_was_ended_does_not_explain_a_later_death(shard):
    die(shard)
    note = note_of(ShardState("fit", shard))
    note.write_text("The guard ended it.")
    assert tries(shard, epoch=8).count == 0
    tries(shard, epoch=8).__enter__()  # killed by the system
    assert not note.exists()


def test_success_clears_the_notes(shard):
    die(shard)
    with tries(shard) as found:
        assert found.count == 1
        assert tries(shard).count == 2
    assert tries(shard).count == 0


def test_an_exception_is_no_death(shard):
    """A replica whose connection was lost leaves by itself, and is not to blame."""
    die(shard)
    for _ in range(9):
        with pytest.raises(ConnectionError), tries(shard):
            raise ConnectionError
    assert tries(shard).count == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_is_a_death(shard, kind):
    with pytest.raises(kind), tries(shard):
        raise kind
    assert tries(shard).count == 1


def test_epochs_are_counted_by_themselves(shard):
    die(shard)
    assert tries(shard, epoch=1).count == 0


def test_a_fit_that_was_cleaned_up_meanwhile_is_no_second_error(shard):
    def work():
        with tries(shard):
            shard.delete()
            raise ConnectionError

    with pytest.raises(ConnectionError):
        work()


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["die", "raise", "done"]), max_size=12))
def test_notes_are_the_deaths_since_the_last_success(tmp_path_factory, fates):
    folder = str(tmp_path_factory.mktemp("spool"))
    shard, deaths = Shard(spool([Chunk([np.arange(1)])], 0, "run", directory=folder)), 0
    for fate in fates:
        if fate == "die":
            die(shard)
            deaths += 1
        elif fate == "raise":
            with pytest.raises(ValueError), tries(shard):
                raise ValueError
        else:
            with tries(shard):
                deaths = 0
        assert tries(shard).count == deaths
