"""A model that counts its rows, real shards on disk, and clients without sockets."""

from __future__ import annotations

import itertools
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.errors import ConnectionLostError
from kspark.live.coordinator import Coordinator, ShardPlan
from kspark.live.driver import planned
from kspark.live.run import LiveRun, LiveTask
from kspark.live.shared_gradients import SharedGradients
from kspark.live.task import choose_loop
from kspark.live.transport import Reply
from kspark.live.wire import SharedOffer
from kspark.plan import TrainingPlan, shard_steps
from kspark.replica.building import build
from kspark.shards import Chunk, Shard, ShardFacts, spool
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec
from kspark.worker import predictors as predictors_module
from kspark.worker import state as state_module
from kspark.worker.state import ShardState
from kspark.worker.tasks import FitTask

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("mean", (1,), "float32", STATE)))
NUM_IDS = 512


class CountingReplica:
    """Its weights are (rows trained, sum of their ids, batches), its metric counts every id.

    All numbers are small integers, which float32 holds exactly. Gradients are (1, mean id).
    """

    model = SimpleNamespace(loss=None)
    projection = None

    def __init__(self):
        self.spec = SPEC
        self.vector = np.zeros(3, "f4")
        self.seen = np.zeros(NUM_IDS)
        self.steps, self.seeds = 0, (7, 7)
        self.learning_rate = 0.5
        self.finite = True
        self.calls = []
        self.backend_seeds = []

    def forget_rows(self):
        self.calls.append("forget_rows")

    def get_vector(self, out=None):
        out = np.empty(3, "f4") if out is None else out
        out[:] = self.vector
        return out

    def set_vector(self, vector):
        self.vector = np.array(vector)
        self.calls.append(("set_vector", vector.tolist()))

    def _ids(self, window, batch_size, batch):
        ids = window.x[0] if window.order is None else window.x[0][window.order]
        return ids[batch * batch_size : (batch + 1) * batch_size]

    def train(self, window, batch_size, start=0, stop=None):
        last = -(-window.num_examples // batch_size)
        for batch in range(start, last if stop is None else stop):
            ids = self._ids(window, batch_size, batch)
            assert len(ids), "an empty batch"
            self.seen[ids] += 1
            self.vector += np.array([len(ids), ids.sum(), 1], "f4")
            self.steps += 1

    def train_exchanging(self, window, batch_size, start, stops, exchange):
        for stop in stops:
            self.train(window, batch_size, start, stop)
            count = min(stop * batch_size, window.num_examples) - start * batch_size
            answer = exchange(self.vector.copy(), count)
            if answer is not None:
                self.set_vector(answer)
            start = stop

    def train_merging(self, window, batch_size, start, stop, exchange):
        for batch in range(start, stop):
            self.apply_gradient(exchange(*self._gradient(window, batch_size, batch)))

    def _gradient(self, window, batch_size, index):
        ids = self._ids(window, batch_size, index)
        self.seen[ids] += 1
        self.vector[2] += 1
        return np.array([1, ids.mean()], "f4"), len(ids)

    def apply_gradient(self, vector):
        self.vector[:2] -= np.float32(self.learning_rate) * vector
        self.steps += 1

    def check_gradient_merging(self, window, batch_size):
        self.calls.append(("check_gradient_merging", window.num_examples))

    def check_summable(self, window, batch_size):
        self.calls.append(("check_summable", window.num_examples))

    def evaluate(self, window, batch_size):
        self.seen[window.x[0]] += 1

    def predict(self, window, batch_size):
        return [window.x[0] * self.vector[0]]

    def seed_backend(self, value):
        self.backend_seeds.append(value)

    def reset_metrics(self):
        self.seen = np.zeros(NUM_IDS)

    def metric_state(self):
        return [self.seen.copy()]

    def get_optimizer_state(self):
        return [np.array(self.steps), np.array([1.5])]

    def set_optimizer_state(self, values):
        self.steps = int(values[0])

    @property
    def counters(self):
        return (self.steps,)

    def get_fixed(self):
        return [np.array(self.seeds)]

    def set_fixed(self, values):
        self.seeds = tuple(values[0].tolist())

    def reseed(self, seed, shard):
        self.seeds = (seed, shard)

    def advance_schedule(self, steps):
        self.advanced = steps

    def loss_is_finite(self):
        return self.finite


@dataclass(frozen=True)
class CountingSpec:
    """Stands for a `ReplicaSpec`."""

    weights: WeightSpec = SPEC
    digest: str = "counting"
    built: list = field(default_factory=list, compare=False)
    values: tuple | None = None
    names: tuple = ()


class Lost(ConnectionLostError):
    """What a test's client raises to take its replica down."""


class DirectClient:
    """An `AggregatorClient` without a socket. `disturb(kind, number, when)` may raise."""

    def __init__(self, coordinator, shard, attempt=0, disturb=None, packing=None):
        self._coordinator = coordinator
        self._packing = packing
        self.sent = []
        self._who = (shard, attempt)
        self.attempt = attempt
        self._disturb = disturb or (lambda *_: None)
        self._numbers = {}
        self.seconds_waiting, self.bytes_sent, self.bytes_received = 0.0, 0, 0
        self.reports = []

    def connect(self):
        return self._coordinator.hello(*self._who)

    def _ask(self, kind, call, *args):
        number = self._numbers[kind] = self._numbers.get(kind, 0) + 1
        self._disturb(kind, number, "before")
        self.bytes_sent += 10
        answer = call(*self._who, *args)
        self._disturb(kind, number, "after")
        self.bytes_received += 100
        self.seconds_waiting += 1.0
        return answer

    def pull(self, out):
        return Reply(*self._ask("pull", self._coordinator.pull, out), out.size)

    def push(self, delta, *, sequence, base_version, num_examples, out):
        args = (sequence, base_version, num_examples, self._arrived(delta), out)
        return Reply(*self._ask("push", self._coordinator.push, *args), out.size)

    def reduce(self, vector, *, sequence, num_examples, out, weights=False):
        given = None if vector is None else self._arrived(vector)
        args = (sequence, num_examples, given, np.empty(3, "f4"))
        version, instructions, answer = self._ask("reduce", self._coordinator.reduce, *args)
        if not isinstance(answer, np.ndarray):
            answer = args[3][:answer]
        if answer.dtype == "u1":
            return Reply(version, instructions, self._packing.unpack(answer, out).size)
        out[: answer.size] = answer
        return Reply(version, instructions, answer.size)

    def _arrived(self, vector):
        """A vector as the server hands it on."""
        self.sent.append(vector.copy())
        if vector.dtype != "u1":
            return vector.copy()
        return self._packing.unpack(vector, np.empty(3, "f4"))

    def report(self, meta, arrays=()):
        self.reports.append(meta)
        return self._ask(meta["kind"], self._coordinator.report, meta, arrays)

    def close(self):
        self._coordinator.lost(*self._who, "closed")


class SmallWindows(Shard):
    """A shard that is read a few rows at a time."""

    rows = 10**9

    def windows(self, batch_size, **more):
        return super().windows(batch_size, window_bytes=int(self.rows * self.row_bytes), **more)


class CountedRows:
    """Stands for `FactoryRows`: ids in batches of three, in an order that depends on the seed.

    Each call of `chunks` stands for one of the user's function.
    """

    def __init__(self, ids):
        self.ids, self.num_workers = ids, len(ids)
        self.seeds = {shard: [] for shard in ids}

    def chunks(self, worker, seed, *, limited=False):
        self.seeds[worker].append(seed)
        ids = np.random.default_rng(seed).permutation(self.ids[worker])
        for start in range(0, len(ids), 3):
            yield Chunk([ids[start : start + 3]])


class World:
    """Shards of the given sizes on disk, whose rows are numbered through; an aggregator.

    With `streams`, the rows are not on disk, but come from `CountedRows`.
    """

    def __init__(
        self, folder, counts, plan, rule="average", window_rows=10**9, near=False, streams=False
    ):
        plan = replace(plan, streams=streams)
        self.plan, self.folder, self.window_rows = plan, folder, window_rows
        self.counts = dict(enumerate(counts))
        ends = itertools.accumulate(counts)
        self.ids = {s: np.arange(e - counts[s], e) for s, e in enumerate(ends)}
        self.handles = {
            s: spool([Chunk([ids])] if len(ids) else [], s, "run", directory=folder)
            for s, ids in self.ids.items()
        }
        shards = {
            s: ShardPlan(n, plan.exchanges(plan.batches(n))) for s, n in self.counts.items() if n
        }
        stream = CountedRows(self.ids) if streams else None
        if streams:
            self.handles = {
                s: replace(h, num_examples=1, first_batch=3) for s, h in self.handles.items()
            }
            steps = shard_steps(plan, self.counts)
            shards = {s: planned(plan, steps[s]) for s in self.counts}
        self.aggregator = Aggregator(SPEC, np.zeros(3, "f4"), optimizers.get(rule), plan.mode)
        self.coordinator = Coordinator(
            self.aggregator,
            shards,
            plan.packing(SPEC),
            first_epoch=plan.initial_epoch,
            merge_gradients=plan.merges_gradients,
            batch_size=plan.batch_size,
            max_staleness=plan.max_staleness,
            timeout=plan.timeout,
        )
        self.shared = self.share_gradients() if near else None
        own = self.aggregator.optimizer
        own = own.clone() if own.keeps_replica_weights else None
        self.fit_task = FitTask("fit", plan, self.counts, 1, own, stream=stream)
        initial = CountingReplica()
        kept = (initial.get_optimizer_state(), initial.get_fixed())
        state_module._replicas["fit"] = state_module.Kept("counting", initial, kept, False)

    def share_gradients(self):
        """What the driver does if all replicas are on its host."""
        shards = tuple(self.coordinator.shards)
        shared = SharedGradients.create(SPEC, len(shards))
        for slot, shard in enumerate(shards):
            self.coordinator.offers[shard] = SharedOffer(
                shared.path, shared.mark.hex(), shards, slot
            )
        self.coordinator.rendezvous.meet_apart()
        return shared

    @property
    def all_ids(self):
        """How often each row is to be seen in an epoch."""
        return np.bincount(np.concatenate(list(self.ids.values())), minlength=NUM_IDS)

    def task(self, stop=None, **more):
        stop = self.plan.epochs if stop is None else stop
        return replace(LiveTask(self.fit_task, stop, 0, "", 0, b"", None, False), **more)

    def shard(self, index):
        made = SmallWindows(self.handles[index])
        made.rows = self.window_rows
        return made

    def run(self, index, attempt=0, disturb=None, client=None, **more):
        """A replica of one shard that has connected."""
        packing = self.plan.packing(SPEC)
        client = client or DirectClient(self.coordinator, index, attempt, disturb, packing)
        shard = self.shard(index)
        return LiveRun(
            self.task(**more), CountingSpec(), CountingReplica(), shard, ShardState("fit", shard),
            client, self.counts[index], client.connect(),
        )  # fmt: skip

    def work(self, index, disturb=None, attempts=5, **more):
        """One shard's task, tried again when its connection is lost."""
        for attempt in range(attempts):
            run = None
            try:
                run = self.run(index, attempt, disturb if attempt == 0 else None, **more)
                choose_loop(run)
                return run
            except Lost:
                self.coordinator.lost(index, attempt, "a test took it down")
        raise AssertionError("lost too often")

    def drive(self, futures, stop_after=None):
        """What the driver does: a report per epoch."""
        reports = []
        for epoch in range(self.plan.initial_epoch, self.plan.epochs):
            report = None
            while report is None:
                report = self.coordinator.wait_for_epoch(epoch, 0.05)
                for future in futures:
                    if future.done():
                        future.result()
            reports.append(report)
            stop = epoch == stop_after
            self.coordinator.close_epoch(epoch, stop=stop, learning_rate=None)
            if stop:
                break
        return reports

    def train(self, disturb=None, stop_after=None, **more):
        """All shards in threads, `disturb` on the first attempt of the shards it names."""
        shards = list(self.coordinator.shards)
        disturb = disturb or {}
        with ThreadPoolExecutor(len(shards)) as pool:
            try:
                futures = [pool.submit(self.work, s, disturb.get(s), **more) for s in shards]
                reports = self.drive(futures, stop_after)
                self.runs = [f.result(30) for f in futures]
            finally:
                self.coordinator.close()
        return reports

    def train_in_jobs(self, stops):
        """One job up to each epoch of `stops`, as for epochs with validation.

        The driver closes the last epoch of a job when all task slots are free.

        Returns the final weights, and the optimizers' steps of the last job.
        """
        first = 0
        with ThreadPoolExecutor(len(self.coordinator.shards)) as pool:
            for job, stop in enumerate(stops):
                self.coordinator.begin_job(1000 * job)
                runs = [self.run(s, 1000 * job, stop=stop) for s in self.coordinator.shards]
                futures = [pool.submit(choose_loop, run) for run in runs]
                for epoch in range(first, stop):
                    if epoch == stop - 1:
                        for future in futures:
                            future.result(30)
                    assert self.coordinator.wait_for_epoch(epoch, 30) is not None
                    self.coordinator.close_epoch(epoch, stop=False, learning_rate=None)
                first = stop
        return self.aggregator.weights.tobytes(), [run.replica.steps for run in runs]

    def seen(self, report):
        """How often each row was trained on in an epoch."""
        return sum(arrays[0] for arrays in report.metrics.values())


def at(kind, number, when="before"):
    """A disturbance: the replica goes down at its n-th message of a kind."""
    hits = []

    def disturb(*event):
        if event == (kind, number, when) and not hits:
            hits.append(event)
            raise Lost(f"{event}")

    disturb.hits = hits
    return disturb


@dataclass(frozen=True)
class Tools:
    """What the tests of workers, rounds and live fits share; fixtures cannot be imported."""

    replica = CountingReplica
    spec = CountingSpec
    client = DirectClient
    small_windows = SmallWindows
    lost = Lost
    at = staticmethod(at)
    num_ids = NUM_IDS
    weights = SPEC

    @staticmethod
    def facts(**told):
        """Figures of a shard's epoch; those that are not told are 0."""
        numbers = dict.fromkeys(("pid", "batches", "num_examples", "bytes_sent"), 0)
        floats = {"seconds": 0.0, "waiting": 0.0, "bytes_received": 0}
        return ShardFacts(**{"host": "host", "state_kept": True, **numbers, **floats, **told})

    @staticmethod
    def plan(mode="asynchronous", frequency="batch", **more):
        given = {"epochs": 2, "batch_size": 4, "seed": 1, "timeout": 30.0, **more}
        return TrainingPlan.create(mode=mode, frequency=frequency, **given)

    @staticmethod
    @contextmanager
    def world(counts, plan, **more):
        with tempfile.TemporaryDirectory() as folder:
            made = World(folder, counts, plan, **more)
            yield made
            if made.shared is not None:
                made.shared.unlink()


@pytest.fixture(scope="session")
def tools():
    return Tools()


def build_counting(spec, threads):
    """Stands for `kspark.replica.building.build`."""
    if not isinstance(spec, CountingSpec):
        return build(spec, threads)
    spec.built.append(threads)
    return CountingReplica()


@pytest.fixture
def clean_process(monkeypatch):
    """A process without a replica, before and after; and without threads of a test."""
    monkeypatch.setattr(state_module, "build", build_counting)
    monkeypatch.setattr(predictors_module, "build", build_counting)
    state_module._replicas.clear()
    threads = set(threading.enumerate())
    yield
    state_module._replicas.clear()
    assert {t for t in threading.enumerate() if not t.daemon} <= threads
