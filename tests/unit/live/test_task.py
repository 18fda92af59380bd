"""A live task over a real connection on loopback, from its handle to its result."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kspark.errors import (
    AggregationError,
    ClusterError,
    ConnectionLostError,
    EnvironmentMismatchError,
    Failure,
    ProtocolError,
)
from kspark.live import task as live
from kspark.live.task import train_shards
from kspark.live.transport import AggregatorServer, UnreachableError
from kspark.live.transport import client as client_module
from kspark.shards import Shard
from kspark.weights import Whole
from kspark.worker.state import ShardState, Tries, release
from kspark.worker.tasks import MissingShard, ShardResult

TOKEN = b"secret of this fit"


class Served:
    """A world whose coordinator listens."""

    def __init__(self, world):
        self.world = world
        self.coordinator = world.coordinator
        self.server = AggregatorServer(
            world.coordinator, Whole(world.aggregator.spec), TOKEN, host="127.0.0.1", timeout=30
        )
        self.server.start()

    def task(self, **more):
        host, port = self.server.address
        return self.world.task(host=host, port=port, token=TOKEN, **more)

    def train(self, spec, *shards, **more):
        """The task of one partition."""
        documents = [self.world.handles[s].to_json() for s in shards]
        return list(train_shards(self.task(**more), spec, 0, iter(documents)))


@pytest.fixture
def served(tools):
    """Makes worlds that listen; closes them at the end."""
    open_worlds, servers = [], []

    def serve(counts, mode="asynchronous", frequency="batch", **more):
        context = tools.world(counts, tools.plan(mode, frequency, **more))
        open_worlds.append(context)
        servers.append(Served(context.__enter__()))
        return servers[-1]

    yield serve
    for made in servers:
        made.coordinator.close()
        made.server.close()
    for context in open_worlds:
        context.__exit__(None, None, None)


@pytest.fixture
def replica_per_thread(monkeypatch, tools):
    """As in Spark, where each task has a process."""
    local = threading.local()

    def replica_of(spec, key, threads):
        if not hasattr(local, "replica"):
            local.replica = tools.replica()
        return local.replica

    monkeypatch.setattr(live, "replica_for", replica_of)


@pytest.mark.parametrize(
    ("mode", "frequency"),
    [
        ("asynchronous", "epoch"),
        ("asynchronous", 2),
        ("hogwild", "batch"),
        ("synchronous", "batch"),
        ("synchronous", 2),
    ],
)
@pytest.mark.usefixtures("replica_per_thread")
def test_two_tasks_train_over_loopback(served, tools, mode, frequency):
    fit = served([13, 6], mode, frequency)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fit.train, tools.spec(), shard) for shard in (0, 1)]
        reports = fit.world.drive(futures)
        results = [future.result(30)[0] for future in futures]
    for report in reports:
        np.testing.assert_array_equal(fit.world.seen(report), fit.world.all_ids)
        for facts in report.facts.values():
            assert facts.bytes_sent > 0 < facts.bytes_received
            assert facts.waiting > 0
    assert [(r.shard, r.num_examples, r.delta) for r in results] == [(0, 13, None), (1, 6, None)]


@pytest.mark.parametrize(
    ("mode", "frequency"), [("asynchronous", "epoch"), ("asynchronous", 2), ("synchronous", 2)]
)
@pytest.mark.usefixtures("replica_per_thread")
def test_reports_and_rest_are_all_that_a_connection_counts(
    served, tools, monkeypatch, mode, frequency
):
    """The last exchange, which no report can tell of, is in the task's result."""
    clients, connection = {}, live.connection

    def noted(task, spec, shard):
        clients[shard] = connection(task, spec, shard)
        return clients[shard]

    monkeypatch.setattr(live, "connection", noted)
    fit = served([13, 6], mode, frequency)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fit.train, tools.spec(), shard) for shard in (0, 1)]
        reports = fit.world.drive(futures)
        rest = {result.shard: result.rest for future in futures for result in future.result(30)}
    for shard, client in clients.items():
        told = [report.facts[shard] for report in reports] + [rest[shard]]
        assert client.bytes_sent == sum(facts.bytes_sent for facts in told)
        assert client.bytes_received == sum(facts.bytes_received for facts in told)
        assert client.seconds_waiting == pytest.approx(sum(facts.waiting for facts in told))
        # With two numbers and a mean, a push or delta is 12 bytes and a header of 48.
        assert rest[shard].bytes_sent > 60 < rest[shard].bytes_received


def test_one_partition_may_hold_several_shards(served, tools):
    """Not in synchronous mode, which runs as many tasks as it has shards."""
    fit = served([5, 0, 3])
    results = fit.train(tools.spec(), 0, 1, 2)
    assert [(r.shard, r.num_examples) for r in results] == [(0, 5), (1, 0), (2, 3)]
    assert fit.coordinator.wait_for_epoch(1, 0) is not None


def test_a_shard_without_training_rows_does_not_connect(served, tools):
    fit = served([5, 4])
    fit.world.counts[1] = 0
    assert fit.train(tools.spec(), 1) == [ShardResult(1, 0)]
    assert fit.coordinator.attendance.never_connected() == [0, 1]


def test_state_comes_back_if_it_is_asked_for(served, tools):
    fit = served([8, 4])
    (result,) = fit.train(tools.spec(), 0, wants_state=True)
    optimizer, fixed = result.state
    assert optimizer[0] == 2 * 2
    assert fixed[0].tolist() == [1, 0]
    # A retried task, in a process that has trained another shard since, gives the same.
    fit.train(tools.spec(), 1)
    (again,) = fit.train(tools.spec(), 0, wants_state=True)
    assert again.state[0][0] == 4


def test_attempts_of_later_jobs_are_newer(served, tools):
    fit = served([8])
    fit.train(tools.spec(), 0, submission=2)
    with pytest.raises(AggregationError, match="Attempt [0-9]+ of shard 0 was superseded"):
        fit.train(tools.spec(), 0, submission=1)


def test_the_replica_gets_the_threads_of_the_plan(served, tools):
    fit, spec = served([8]), tools.spec()
    release("fit")
    fit.train(spec, 0)
    assert spec.built == [1]


# -- when something is wrong -------------------------------------------------------------------


def failing(monkeypatch, tools, error):
    def train(self, *_):
        raise error

    monkeypatch.setattr(tools.replica, "train", train)


@pytest.mark.parametrize("error", [ZeroDivisionError("layer"), EnvironmentMismatchError("layer")])
def test_a_models_exception_is_told_at_once_and_comes_back_as_a_value(
    served, tools, monkeypatch, error
):
    failing(monkeypatch, tools, error)
    fit = served([8])
    (failure,) = fit.train(tools.spec(), 0)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (type(error).__name__, "layer")
    assert fit.coordinator.failure == failure
    assert "in train\n" in failure.traceback


def test_a_failure_after_the_aggregator_is_gone_still_comes_back(served, tools, monkeypatch):
    fit = served([8])

    def train(self, *_):
        fit.coordinator.close("another shard failed")
        raise ZeroDivisionError

    monkeypatch.setattr(tools.replica, "train", train)
    (failure,) = fit.train(tools.spec(), 0)
    assert failure.kind == "ZeroDivisionError"


def test_a_lost_connection_fails_the_task_and_is_not_held_against_it(served, tools, monkeypatch):
    failing(monkeypatch, tools, ConnectionLostError("gone"))
    fit = served([8], max_failures=0)
    for _ in range(4):
        with pytest.raises(ConnectionLostError, match="gone"):
            fit.train(tools.spec(), 0)
    assert fit.coordinator.failure is None


def test_a_closed_aggregator_fails_the_task(served, tools):
    fit = served([8])
    fit.coordinator.close("interrupted")
    with pytest.raises(ConnectionLostError, match="interrupted"):
        fit.train(tools.spec(), 0)


def test_a_process_that_keeps_dying_is_given_up(served, tools):
    fit = served([8], max_failures=2)
    state = ShardState("fit", Shard(fit.world.handles[0]))
    for _ in range(3):
        Tries(state, 2, 2).__enter__()
    (failure,) = fit.train(tools.spec(), 0)
    assert (failure.kind, failure.shard) == ("WorkerLost", 0)
    assert "ended 3 times" in failure.message
    assert fit.coordinator.failure == failure


def test_a_job_that_succeeds_forgives(served, tools):
    fit = served([8], max_failures=2)
    state = ShardState("fit", Shard(fit.world.handles[0]))
    Tries(state, 2, 2).__enter__()
    fit.train(tools.spec(), 0)
    assert Tries(state, 2, 2).count == 0


def test_files_that_are_gone_are_told_to_the_driver(served, tools):
    """The others wait for this shard; only the driver can have it written again."""
    fit = served([8, 4])
    Shard.remove(fit.world.handles[1])
    (result,) = fit.train(tools.spec(), 1)
    assert isinstance(result, MissingShard)
    assert fit.coordinator.missing == {1}
    assert fit.coordinator.failure is None


def test_a_shard_that_came_back_with_fewer_rows_is_a_failure(served, tools):
    fit = served([8])
    fit.world.counts[0] = 9
    (failure,) = fit.train(tools.spec(), 0)
    assert failure.kind == "ValueError"
    assert fit.coordinator.failure == failure


def test_a_loss_that_is_not_finite(served, tools, monkeypatch):
    monkeypatch.setattr(tools.replica, "loss_is_finite", lambda self: False)
    fit = served([8])
    (failure,) = fit.train(tools.spec(), 0)
    assert failure.kind == "NonFiniteLoss"
    assert fit.coordinator.failure == failure


def test_the_connection_ends_with_the_task(served, tools):
    fit = served([8])
    ended = threading.Event()
    original = fit.coordinator.lost

    def lost(*arguments):
        original(*arguments)
        ended.set()

    fit.coordinator.lost = lost
    fit.train(tools.spec(), 0)
    assert ended.wait(20)


# -- connections ---------------------------------------------------------------------------------


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(live, "OPEN_SECONDS", 0.0)
    monkeypatch.setattr(live, "OPEN_PAUSE", 0.0)


class Noted:
    """The shards of workers that cannot reach the driver."""

    def __init__(self):
        self.shards = []

    def add(self, shard):
        self.shards.append(shard)


def failing_first(monkeypatch, module, name, times, error):
    """Let the first calls of a function raise an error. Returns the list of those."""
    calls, function = [], getattr(module, name)

    def called(*arguments, **more):
        if len(calls) < times:
            calls.append(arguments)
            raise error
        return function(*arguments, **more)

    monkeypatch.setattr(module, name, called)
    return calls


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("times", [1, 2])
def test_a_connection_that_cannot_be_opened_is_tried_again(served, tools, monkeypatch, times):
    fit, noted = served([8]), Noted()
    refused = ConnectionRefusedError("refused")
    calls = failing_first(monkeypatch, client_module.socket, "create_connection", times, refused)
    (result,) = fit.train(tools.spec(), 0, unreached=noted)
    assert len(calls) == times
    assert (result.num_examples, noted.shards) == ((8, []) if times == 1 else (0, [0]))


@pytest.mark.usefixtures("no_pause")
def test_a_later_job_that_cannot_open_a_connection_fails(served, tools, monkeypatch):
    """It could before, so the driver leaves it to Spark."""
    fit, noted = served([8]), Noted()
    refused = ConnectionRefusedError("refused")
    failing_first(monkeypatch, client_module.socket, "create_connection", 2, refused)
    with pytest.raises(UnreachableError, match="refused"):
        fit.train(tools.spec(), 0, unreached=noted, submission=1)
    assert noted.shards == []


@pytest.mark.parametrize("error", [ConnectionLostError("slow"), ProtocolError("other token")])
def test_a_handshake_that_fails_is_left_to_spark(served, tools, monkeypatch, error):
    """The driver was busy, for instance. Its port is open."""
    fit, noted = served([8]), Noted()
    failing_first(monkeypatch, client_module, "introduce", 1, error)
    with pytest.raises(ClusterError, match="is not the aggregator of this fit"):
        fit.train(tools.spec(), 0, unreached=noted)
    assert noted.shards == []
    (result,) = fit.train(tools.spec(), 0, unreached=noted)
    assert (result.num_examples, noted.shards) == (8, [])


# -- which loop ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "offered", "loop"),
    [
        ("synchronous", False, "run_meetings"),
        ("asynchronous", False, "run_pushes"),
        ("hogwild", False, "run_pushes"),
        ("hogwild", True, "run_shared"),
    ],
)
def test_the_loop_of_the_mode(tools, monkeypatch, mode, offered, loop):
    called = []
    for name in ("run_meetings", "run_pushes", "run_shared"):
        monkeypatch.setattr(live, name, lambda *args, name=name: called.append((name, args[1:])))
    monkeypatch.setattr(live, "find_shared", lambda run: ("shared", 0, 0.5) if offered else None)
    with tools.world([8], tools.plan(mode)) as world:
        live.choose_loop(world.run(0))
    assert called == [(loop, ("shared", 0, 0.5) if offered else ())]


def test_a_replica_built_for_the_fit_serves_all_of_its_shards(served, tools):
    fit, spec = served([8, 4]), tools.spec()
    release("fit")
    fit.train(spec, 0, 1)
    assert spec.built == [1]
