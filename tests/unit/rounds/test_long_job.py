"""A long job over real connections. Threads stand for its tasks; without Spark."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from kspark.cluster.spark_job import JobLostError
from kspark.errors import ConnectionLostError, WorkerError
from kspark.job.fit import Fit
from kspark.live.wire import Order
from kspark.plan import TrainingPlan
from kspark.rounds import dispatcher, long_job, long_task
from kspark.rounds.long_job import LongJob, Lost, Obstacle, Stateless, Unreachable
from kspark.shards import ShardFacts, ShardHandle
from kspark.weights import TRAINABLE, Weight, WeightSpec
from kspark.worker.tasks import STATELESS, FitTask, MissingShard, ShardResult

SPEC = WeightSpec((Weight("w", (3,), "float32", TRAINABLE),))
FACTS = ShardFacts("h", 1, 2, 0.5, 8, True, 0.0, 12, 12)


class Tasks:
    """Stands for a Spark job: each shard's task is a thread that carries out orders."""

    def __init__(self, shards, slots):
        self.shards, self.slots = shards, threading.Semaphore(slots)
        self.finished, self.results, self.error, self.cancelled = threading.Event(), [], None, False
        self.threads, self.lock = [], threading.Lock()
        self.counts, self.company = False, False

    def start(self, task, spec):
        self.threads = [
            threading.Thread(target=self.run, args=(task, spec, handle), daemon=True)
            for handle in self.shards
        ]
        for thread in self.threads:
            thread.start()
        threading.Thread(target=self.watch, daemon=True).start()
        return self

    def run(self, task, spec, handle):
        with self.slots:
            found = list(long_task.carry_out_orders(task, spec, 0, [handle.to_json()]))
        with self.lock:
            self.results += found

    def watch(self):
        for thread in self.threads:
            thread.join()
        self.finished.set()

    def result(self):
        assert self.finished.wait(30.0)
        if self.error is not None:
            raise self.error
        return self.results

    def active_tasks(self):
        return sum(thread.is_alive() for thread in self.threads) if self.counts else 1

    def has_company(self):
        return self.company

    def cancel(self):
        self.cancelled = True


def spooled(infos, **attributes):
    counts = {handle.index: handle.num_examples for handle in infos}
    return SimpleNamespace(infos=infos, counts=counts, **attributes)


@pytest.fixture
def world(monkeypatch):
    """Make a long job of a fit with some shards. `world.train` is what a task does."""
    made = SimpleNamespace(jobs=[], tasks=[], trained=[], monkeypatch=monkeypatch)

    def train(work, spec, weights, handle):
        made.trained.append((handle.index, work.epoch, work.learning_rate, work.counters))
        state = ([weights * 2], [weights * 3]) if work.wants_state else None
        return ShardResult(handle.index, 4, weights + handle.index, [weights], FACTS, state=state)

    def evaluate(task, spec, weights, handle):
        return ShardResult(handle.index, handle.num_examples, metrics=[weights])

    made.train, made.evaluate = train, evaluate

    def start(shards=2, slots=2, held_out=None, **plan):
        fit = Fit(
            SimpleNamespace(),
            SimpleNamespace(weights=SPEC, digest="a"),
            TrainingPlan.create(epochs=3, **{"timeout": 10.0, **plan}),
            *(None, None, 0.0),
            SimpleNamespace(weights=np.arange(3, dtype="f4")),
            None,
        )
        infos = [ShardHandle(index, 4, f"/{index}", "h", 0) for index in range(shards)]
        infos.append(ShardHandle(shards, 0, "/empty", "h", 0))
        fit.train = spooled(infos, handles=SimpleNamespace())
        fit.held_out = None if held_out is None else spooled(held_out)
        fit.num_train = dict.fromkeys(range(shards), 4)
        tasks = Tasks(infos[:shards], slots)
        fit.train.handles.mapPartitionsWithIndex = lambda task: task
        monkeypatch.setattr(
            Fit, "task", lambda fit: FitTask("fit", fit.plan, fit.train.counts, 1, reports=True)
        )
        monkeypatch.setattr(long_job, "ship", lambda function, task, shared: task)
        monkeypatch.setattr("kspark.job.fit.threads_per_task", lambda spark: 1)
        for name in ("bind_host", "advertised_host"):
            monkeypatch.setattr(long_job, name, lambda *_: "127.0.0.1")

        def spark_job(spark, task, description):
            return SimpleNamespace(start=lambda: tasks.start(made.seen_by(task), fit.spec))

        monkeypatch.setattr(long_job, "SparkJob", spark_job)
        monkeypatch.setattr(long_task, "train_shard", lambda *args: made.train(*args[:4]))
        monkeypatch.setattr(long_task, "evaluate_shard", lambda *args: made.evaluate(*args))
        monkeypatch.setattr(long_job, "POLL_SECONDS", 0.02)
        job = LongJob.start(fit)
        made.jobs.append(job)
        made.tasks.append(tasks)
        return job

    made.start, made.seen_by = start, lambda task: task
    yield made
    for job, tasks in zip(made.jobs, made.tasks, strict=True):
        job.close()
        for thread in tasks.threads:
            thread.join(30.0)
            assert not thread.is_alive()


def order(epoch=0, **more):
    return Order(0, "train", epoch, **more)


def test_the_tasks_train_one_epoch_after_the_other(world):
    job = world.start()
    for epoch in range(3):
        results = job.train(order(epoch, learning_rate=0.1 * epoch, counters=(epoch,)))
        assert [(r.shard, r.num_examples, list(r.delta)) for r in results] == [
            (0, 4, [0.0, 1.0, 2.0]),
            (1, 4, [1.0, 2.0, 3.0]),
        ]
        assert results[0].facts == FACTS
        assert results[0].state is None
    assert sorted(world.trained) == [(s, e, 0.1 * e, (e,)) for s in (0, 1) for e in range(3)]
    assert job.ready


def test_the_tasks_get_the_weights_of_each_epoch(world):
    job = world.start()
    for step in range(1, 4):
        job.fit.aggregator.weights += step
        found = job.train(order(step, wants_state=True))[0]
        np.testing.assert_array_equal(found.delta, job.fit.aggregator.weights)
        np.testing.assert_array_equal(found.state[0][0], job.fit.aggregator.weights * 2)
        np.testing.assert_array_equal(found.state[1][0], job.fit.aggregator.weights * 3)


def test_the_tasks_evaluate_their_own_rows(world):
    job = world.start()
    job.train(order())
    weights = np.full(3, 7, "f4")
    results = job.evaluate(weights)
    assert [(r.shard, r.num_examples) for r in results] == [(0, 4), (1, 4)]
    np.testing.assert_array_equal(results[1].metrics[0], weights)


def test_the_tasks_evaluate_the_shards_that_are_held_out(world):
    held_out = [ShardHandle(index, 2 + index, f"/v{index}", "h", 0) for index in range(3)]
    job = world.start(held_out=held_out)
    job.train(order())
    results = job.evaluate(np.zeros(3, "f4"))
    assert [(r.shard, r.num_examples) for r in results] == [(0, 2), (1, 3), (2, 4)]


def test_the_end_of_a_fit_ends_the_tasks(world):
    job = world.start()
    job.train(order())
    job.close()
    assert world.tasks[0].result() == [long_task.Ended("")] * 2
    with pytest.raises(Obstacle, match="The fit is over"):
        job.train(order(1))


def test_an_error_of_the_model_is_that_of_the_first_shard(world):
    def train(work, spec, weights, handle):
        raise ZeroDivisionError(f"shard {handle.index}")

    world.train = train
    with pytest.raises(WorkerError, match=r"(?s)Shard 0 failed.*ZeroDivisionError.*Traceback"):
        world.start().train(order())


def test_missing_files_are_an_obstacle(world):
    world.train = lambda work, spec, weights, handle: MissingShard(handle.index, "here", "there")
    with pytest.raises(Obstacle, match="task of shard . runs on an executor without its files"):
        world.start().train(order())


def test_a_missing_state_is_an_obstacle_of_its_own(world):
    world.train = lambda work, spec, weights, handle: MissingShard(handle.index, "", "", STATELESS)
    with pytest.raises(Stateless, match="task of shard . lacks the state of its shard"):
        world.start().train(order())


def test_a_task_that_cannot_go_on_says_why(world):
    """An error of kspark for which Spark would start the task again."""

    def train(work, spec, weights, handle):
        raise ConnectionLostError("The process was killed.")

    world.train = train
    with pytest.raises(Lost, match="Shard .: The process was killed"):
        world.start().train(order())


def test_a_driver_that_cannot_be_reached_is_an_obstacle(world):
    def seen_by(task):
        return long_task.LongTask(
            task.fit, task.evaluation, task.held_out, "127.0.0.1", 1, task.token
        )

    world.seen_by = seen_by
    with pytest.raises(Unreachable, match=r"cannot be reached at 127\.0\.0\.1:1"):
        world.start().train(order())


def test_a_job_that_spark_gives_up_is_an_obstacle(world):
    world.seen_by = lambda task: task
    job = world.start()
    world.tasks[0].shards = []
    world.tasks[0].error = JobLostError("Spark gave up on the job: stage failed.")
    with pytest.raises(Obstacle, match="Spark gave up on the job"):
        job.train(order())


def test_a_job_that_ends_with_its_last_result_is_no_obstacle(world):
    """The last task may end between two looks of the driver."""
    job, seen = world.start(), []
    wait = job.dispatcher.wait

    def wait_for_the_end(seconds):
        if seen:
            return seen.pop()
        seen.append(wait(30.0))
        job.dispatcher.end("The test ends the tasks.")
        assert world.tasks[0].finished.wait(30.0)
        return None

    job.dispatcher.wait = wait_for_the_end
    assert [result.shard for result in job.train(order())] == [0, 1]


def test_tasks_that_wait_for_others_without_a_slot_make_room(world, monkeypatch):
    """The epoch ends; the next ones need jobs of their own."""
    monkeypatch.setattr(dispatcher, "IDLE_SECONDS", 0.05)
    job = world.start(slots=1)
    job.dispatcher._idle_seconds = 0.05
    assert [r.shard for r in job.train(order())] == [0, 1]
    assert not job.ready
    assert job.dispatcher.ending == "1 of the tasks have no task slot."


def test_a_result_that_cannot_be_sent_is_an_obstacle(world):
    def train(work, spec, weights, handle):
        return ShardResult(handle.index, 4, np.zeros(3, "complex64"), [], FACTS)

    world.train = train
    with pytest.raises(Lost, match=r"Shard .: The result cannot be sent: `arrays` must be"):
        world.start().train(order())


def test_bytes_that_the_connection_does_not_know_are_sent_as_float32(world):
    import ml_dtypes

    float8 = np.ones(2, ml_dtypes.float8_e4m3fn)

    def train(work, spec, weights, handle):
        return ShardResult(handle.index, 4, weights, [], FACTS, state=([float8], []))

    world.train = train
    found = world.start().train(order(wants_state=True))[0].state[0][0]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [1, 1])


def test_an_empty_shard_has_no_task_to_wait_for(world):
    """A task that starts late is waited for, if it has a slot."""
    job = world.start()
    world.tasks[0].counts = True
    job.dispatcher._idle_seconds = 0.02
    late = threading.Event()
    threading.Timer(0.5, late.set).start()
    connect = long_task.client_of

    def connect_late(task, spec, shard):
        assert shard == 0 or late.wait(30.0)
        return connect(task, spec, shard)

    world.monkeypatch.setattr(long_task, "client_of", connect_late)
    job.train(order())
    assert job.dispatcher.ending in (None, "The driver was busy between two epochs.")


def test_other_jobs_of_the_session_get_the_slots(world):
    job = world.start()
    job.train(order())
    job.make_room()
    assert job.ready
    world.tasks[0].company = True
    job.make_room()
    assert not job.ready
    assert "Another Spark job" in job.dispatcher.ending
    assert world.tasks[0].finished.wait(30.0)


def test_a_small_timeout_is_no_obstacle(world):
    """A task that waits for a slower one is told to ask again before its connection times out."""
    job = world.start(timeout=0.05)
    train = world.train

    def slowly(work, spec, weights, handle):
        if handle.index == 1:
            threading.Event().wait(1.0)
        return train(work, spec, weights, handle)

    world.train = slowly
    assert len(job.train(order())) == 2


def test_the_spark_job_is_cancelled_even_if_the_server_does_not_close(world, monkeypatch):
    job = world.start()
    job.train(order())
    close = job.server.close

    def interrupted():
        close()
        raise KeyboardInterrupt

    monkeypatch.setattr(job.server, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.close()
    assert world.tasks[0].cancelled
    monkeypatch.setattr(job.server, "close", close)


def test_a_port_that_is_taken_is_an_obstacle(world):
    first = world.start()
    with pytest.raises(Obstacle, match="port"):
        world.start(port=first.server.address[1])


def test_a_changed_model_needs_another_job(world):
    job = world.start()
    job.train(order())
    job.fit.spec.digest = "b"
    assert not job.ready
