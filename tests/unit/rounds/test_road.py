"""When rounds take the live road, and what happens at an obstacle; without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from kspark.errors import ClusterError
from kspark.job.fit import Fit
from kspark.live.wire import Order
from kspark.plan import TrainingPlan
from kspark.rounds import road
from kspark.rounds.long_job import (
    Lost,
    Obstacle,
    Stateless,
    Unreachable,
    obstacle_of,
    validation_handles,
)
from kspark.rounds.long_task import Ended
from kspark.rounds.road import LongJobs, reason_for_jobs
from kspark.shards import ShardHandle

ORDER = Order(0, "train", 2)


def handle(index, host="h", rows=4):
    return ShardHandle(index, rows, f"/{index}", host, 0)


@pytest.fixture
def a_fit(monkeypatch):
    """Make a fit of two shards in a session with two task slots."""

    def make(slots=2, shards=2, size=3, reaches=True, grouping=None, **plan):
        plan = TrainingPlan.create(**{"epochs": 5, **plan})
        engine = SimpleNamespace(reaches_driver=reaches, application="app")
        monkeypatch.setattr(road, "engine_of", lambda spark: engine)
        monkeypatch.setattr(road, "task_slots", lambda spark: slots)
        monkeypatch.setattr(road, "slots_for", lambda spark, wanted: slots)
        monkeypatch.setattr(road, "delta_grouping_of", lambda fit: grouping)
        spec = SimpleNamespace(weights=SimpleNamespace(size=size), digest="a")
        aggregator = SimpleNamespace(weights=np.zeros(3, "f4"))
        fit = Fit(None, spec, plan, None, None, 0.0, aggregator, None)
        fit.num_train, fit.company = dict.fromkeys(range(shards), 4), None
        fit.train = SimpleNamespace(
            infos=[handle(index) for index in range(shards)], num_examples=4 * shards
        )
        return fit

    return make


class Job:
    """Stands for `LongJob`: a script has the outcomes of its orders."""

    started: list[Job] = []

    def __init__(self, fit, script):
        self.fit, self.script, self.closed = fit, script, 0
        self.digest = fit.spec.digest
        self.dispatcher = SimpleNamespace(ending=None, obstacle=None, idled=False, silent=set())

    @property
    def ready(self):
        return self.digest == self.fit.spec.digest and self.dispatcher.ending is None

    def train(self, order):
        outcome = self.script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    evaluate = keep = train

    def make_room(self):
        self.dispatcher.ending = self.dispatcher.ending or self.fit.company

    def finish(self):
        pass

    def close(self):
        self.closed += 1


@pytest.fixture
def jobs_of(monkeypatch):
    def make(fit, *scripts):
        scripts, started = list(scripts), []

        def start(fit):
            started.append(Job(fit, list(scripts.pop(0))))
            return started[-1]

        monkeypatch.setattr(road, "LongJob", SimpleNamespace(start=start))
        return LongJobs(fit), started

    return make


# -- which road ------------------------------------------------------------------------------


def test_rounds_are_live_where_all_workers_run_at_the_same_time(a_fit):
    fit = a_fit()
    LongJobs(fit)
    assert (fit.road, fit.road_reason) == ("live", "All workers run at the same time.")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"road": "rounds"}, 'road="rounds"'),
        ({"reaches": False}, "Spark Connect"),
        ({"size": 0}, "no weights"),
        ({"shards": 3}, "3 shards and 2 task slots"),
        ({"grouping": object()}, "average the deltas"),
        ({"epochs": 1}, "One epoch is one job"),
    ],
)
def test_otherwise_each_epoch_is_a_job(a_fit, settings, reason):
    fit = a_fit(**settings)
    LongJobs(fit)
    assert fit.road == "rounds"
    assert reason in fit.road_reason


def test_one_epoch_with_validation_is_live(a_fit):
    """Its tasks train, and then validate."""
    fit = a_fit(epochs=1)
    fit.num_train = {0: 3, 1: 3}
    assert reason_for_jobs(fit) is None


def test_one_epoch_is_live_if_a_bar_shows_it(a_fit):
    """The task of a Spark job per epoch cannot report."""
    fit = a_fit(epochs=1)
    fit.progress.display.moves = True
    assert reason_for_jobs(fit) is None


def test_the_live_road_can_be_forced(a_fit):
    fit = a_fit(road="live", epochs=1)
    LongJobs(fit)
    assert fit.road == "live"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"grouping": object()}, "average the deltas"),
        ({"shards": 3}, "3 shards and 2 task slots"),
    ],
)
def test_a_forced_road_that_is_not_possible_is_refused(a_fit, settings, reason):
    with pytest.raises(ClusterError, match=f'road="live" is not possible. .*{reason}'):
        LongJobs(a_fit(road="live", **settings))


def test_callbacks_every_needs_the_live_road(a_fit, jobs_of):
    fit = a_fit(callbacks_every=3, epochs=1)
    LongJobs(fit)
    assert fit.road == "live"
    with pytest.raises(ClusterError, match="callbacks_every=3 is not possible. .*3 shards and 2"):
        LongJobs(a_fit(callbacks_every=3, shards=3))
    jobs, _ = jobs_of(a_fit(callbacks_every=3), [Unreachable("No answer.")])
    with pytest.raises(ClusterError, match="callbacks_every=3 is not possible. Epoch 3: No answer"):
        jobs.train(ORDER)


def test_callbacks_every_is_told_when_the_connection_is_lost(a_fit, jobs_of, caplog):
    jobs, _ = jobs_of(a_fit(callbacks_every=3), [["first"], Obstacle("Another job.")])
    jobs.train(ORDER)
    assert jobs.train(ORDER) is None
    assert "Hooks of batches then run once per epoch. Epoch 3: Another job." in caplog.text


def test_an_obstacle_in_the_first_epoch_of_a_forced_road_is_an_error(a_fit, jobs_of):
    jobs, started = jobs_of(a_fit(road="live"), [Unreachable("No answer.")])
    with pytest.raises(ClusterError, match=r'road="live" is not possible. Epoch 3: No answer.'):
        jobs.train(ORDER)
    assert started[0].closed == 1


def test_an_obstacle_in_a_later_epoch_of_a_forced_road_is_not(a_fit, jobs_of, caplog):
    fit = a_fit(road="live")
    jobs, _ = jobs_of(fit, [["first"], Lost("A task is lost.")])
    jobs.train(ORDER)
    assert jobs.train(ORDER) is None
    assert fit.road == "rounds"
    assert "one Spark job per epoch. Epoch 3: A task is lost." in caplog.text


# -- obstacles -------------------------------------------------------------------------------


def test_an_epoch_starts_again_in_a_job_of_its_own_at_an_obstacle(a_fit, jobs_of):
    fit = a_fit()
    jobs, started = jobs_of(fit, [["first"], Obstacle("A task is lost.")])
    assert jobs.train(ORDER) == ["first"]
    assert jobs.train(ORDER) is None
    assert started[0].closed == 1  # its slots are free for the job
    assert (fit.road, fit.road_reason) == ("rounds", "Epoch 3: A task is lost.")
    assert jobs.train(ORDER) is None  # no further long job
    assert jobs.evaluate(None) is None


def test_the_live_road_goes_on_after_an_epoch_that_brings_a_state_to_its_shard(a_fit, jobs_of):
    fit = a_fit()
    jobs, started = jobs_of(fit, [Stateless("Shard 1 lacks its state.")], [["next"]])
    assert jobs.train(ORDER) is None
    assert (started[0].closed, fit.road) == (1, "live")
    assert jobs.train(ORDER) == ["next"]


@pytest.mark.parametrize("between_epochs", [LongJobs.evaluate, LongJobs.keep])
def test_a_validation_or_checkpoint_at_an_obstacle_is_a_job(a_fit, jobs_of, between_epochs):
    fit = a_fit()
    jobs, started = jobs_of(fit, [["first"], Obstacle("A task is lost.")])
    jobs.train(ORDER)
    assert between_epochs(jobs, None) is None
    assert started[0].closed == 1
    assert fit.road == "rounds"


def test_tasks_that_have_ended_because_callbacks_took_long_are_started_again(a_fit, jobs_of):
    """But only twice: callbacks that need the slots would wait after every epoch."""
    fit = a_fit()
    jobs, started = jobs_of(fit, [["1st"]], [["2nd"]], [["3rd"]])
    for result in ("1st", "2nd", "3rd"):
        assert jobs.train(ORDER) == [result]
        started[-1].dispatcher.ending = "The driver was busy between two epochs."
        started[-1].dispatcher.idled = True
        assert jobs.evaluate(None) is None
    assert jobs.train(ORDER) is None
    assert (fit.road, len(started)) == ("rounds", 3)
    assert "busy" in fit.road_reason


def test_with_other_jobs_in_the_session_each_epoch_is_a_job(a_fit, jobs_of):
    """They get slots between two epochs."""
    fit = a_fit()
    jobs, started = jobs_of(fit, [["1st"]])
    jobs.train(ORDER)
    fit.company = "Another Spark job of the session is running."
    assert jobs.train(ORDER) is None
    assert (fit.road, started[0].closed) == ("rounds", 1)


def test_a_task_that_is_lost_between_two_epochs_is_logged(a_fit, jobs_of, caplog):
    fit = a_fit()
    jobs, started = jobs_of(fit, [["1st"]])
    jobs.train(ORDER)
    started[0].dispatcher.ending = started[0].dispatcher.obstacle = "A task is lost."
    assert jobs.train(ORDER) is None
    assert "A task is lost." in caplog.text


def test_rounds_go_on_without_a_host_that_does_not_answer(a_fit, jobs_of, monkeypatch):
    fit, left = a_fit(), []
    jobs, started = jobs_of(fit, [["1st"], Lost("A host is silent.")])
    monkeypatch.setattr(road, "leave_lost_hosts", lambda *call: left.append(call))
    jobs.train(ORDER)
    started[0].dispatcher.silent = {1}
    assert jobs.train(ORDER) is None
    assert left == [(fit, {1})]
    assert (fit.road, started[0].closed) == ("rounds", 1)


def test_a_task_that_was_lost_on_a_host_that_answers_moves_nothing(a_fit, jobs_of, monkeypatch):
    jobs, _ = jobs_of(a_fit(), [["1st"], Lost("The process was killed.")])
    monkeypatch.setattr(road, "leave_lost_hosts", lambda *call: pytest.fail("moved"))
    jobs.train(ORDER)
    assert jobs.train(ORDER) is None


def test_a_driver_that_cannot_be_reached_is_not_tried_again(a_fit, jobs_of, monkeypatch):
    """The next fits of the session begin with rounds at once."""
    monkeypatch.setattr(road, "_unreachable", set())
    fit = a_fit()
    jobs, _ = jobs_of(fit, [Unreachable("The driver cannot be reached.")])
    assert jobs.train(ORDER) is None
    assert "could not connect to the driver in an earlier fit" in reason_for_jobs(a_fit())
    assert reason_for_jobs(a_fit(road="live")) is None


def test_a_changed_model_gets_a_new_long_job(a_fit, jobs_of):
    fit = a_fit()
    jobs, started = jobs_of(fit, [["first"]], [["second"]])
    jobs.train(ORDER)
    fit.spec.digest = "b"
    assert jobs.evaluate(None) is None
    assert jobs.train(ORDER) == ["second"]
    assert [job.closed for job in started] == [1, 0]
    assert fit.road == "live"


def test_a_job_that_makes_room_is_closed_also_if_its_worker_callbacks_fail(a_fit, jobs_of):
    jobs, started = jobs_of(a_fit(), [["first"]])
    jobs.end()
    jobs.train(ORDER)

    def fail():
        raise ClusterError("in a callback")

    started[0].finish = fail
    with pytest.raises(ClusterError, match="in a callback"):
        jobs.end()
    assert started[0].closed == 1


def test_a_port_that_is_taken_is_an_obstacle(a_fit, monkeypatch):
    fit = a_fit()
    jobs = LongJobs(fit)

    def start(fit):
        raise Obstacle("Port 4000 is taken.")

    monkeypatch.setattr(road, "LongJob", SimpleNamespace(start=start))
    assert jobs.train(ORDER) is None
    assert fit.road_reason == "Epoch 3: Port 4000 is taken."


# -- validation shards -----------------------------------------------------------------------


def test_validation_shards_are_divided_among_the_tasks_on_their_hosts(a_fit):
    fit = a_fit(shards=0)
    fit.train.infos = [handle(0, "a"), handle(1, "a"), handle(2, "b"), handle(3, "b", rows=0)]
    held_out = [handle(0, "a", 9), handle(1, "a", 2), handle(2, "a", 2), handle(3, "b", 5)]
    fit.held_out = SimpleNamespace(infos=held_out)
    found = validation_handles(fit)
    numbers = {s: [ShardHandle.from_json(d).index for d in ds] for s, ds in found.items()}
    assert numbers == {0: [0], 1: [1, 2], 2: [3]}


def test_a_host_with_validation_shards_only_is_an_obstacle(a_fit):
    fit = a_fit()
    fit.held_out = SimpleNamespace(infos=[handle(0, "elsewhere")])
    with pytest.raises(Obstacle, match="Host elsewhere has validation examples only"):
        validation_handles(fit)


def test_rows_held_out_of_the_training_shards_need_no_other_shards(a_fit):
    assert validation_handles(a_fit()) is None


def test_the_reason_of_a_job_that_has_ended():
    """Its tasks' own words, or Spark's error."""
    for connected, kind in ((True, Lost), (False, Unreachable)):
        ends = [Ended(""), Ended("No answer.", connected)]
        found = obstacle_of(SimpleNamespace(result=lambda ends=ends: ends))
        assert (type(found), str(found)) == (kind, "No answer.")

    def lost():
        raise ClusterError("Spark gave up.")

    assert str(obstacle_of(SimpleNamespace(result=lost))) == "Spark gave up."
    assert str(obstacle_of(SimpleNamespace(result=lambda: [Ended("")]))) == "The tasks ended."
