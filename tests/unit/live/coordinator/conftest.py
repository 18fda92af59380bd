"""A live fit without sockets: replicas are calls, those that wait are calls in threads."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.live.coordinator import Coordinator, ShardPlan, clocks, coordinator, meetings
from kspark.live.coordinator.gate import Gate
from kspark.live.wire import Instructions
from kspark.optimizers import ServerOptimizer
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("mean", (1,), "float32", STATE)))
GENERATION = 1 << 32


class LiveFit:
    """What a replica can say to a coordinator, in short."""

    def __init__(self, shared: Coordinator, pool: ThreadPoolExecutor) -> None:
        self.shared = shared
        self.pool = pool

    def hello(self, shard, attempt=0):
        return self.shared.hello(shard, attempt)

    def pull(self, shard, attempt=0):
        out = np.empty(3, "f4")
        self.shared.pull(shard, attempt, out)
        return out.tolist()

    def push(self, shard, sequence, *, attempt=0, value=1.0, base=0, count=4):
        """Version, instructions, and the weights that came back."""
        out, delta = np.empty(3, "f4"), np.full(3, value, "f4")
        version, instructions = self.shared.push(shard, attempt, sequence, base, count, delta, out)
        return version, instructions, out.tolist()

    def reduce(self, shard, step, given, count=1, *, attempt=0, generation=0):
        """Instructions, and the merged vector or `None`."""
        out = np.full(3, -1, "f4")
        at = generation * GENERATION + step
        version, instructions, answer = self.shared.reduce(shard, attempt, at, count, given, out)
        assert version == self.shared.aggregator.version
        if not isinstance(answer, np.ndarray):
            answer = out[:answer]
        return instructions, answer.tolist() if answer.size else None

    def report(self, shard, kind, *arrays, attempt=0, **more):
        return self.shared.report(shard, attempt, {"kind": kind, **more}, list(arrays))

    def report_metrics(self, shard, metrics, epoch, **figures):
        """What a replica says of an epoch, with all figures that are not given 0."""
        facts = {"host": "h", "pid": 1, "batches": 0, "seconds": 0.0, "num_examples": 0}
        facts |= {"state_kept": True, "waiting": 0.0, "bytes_sent": 0, "bytes_received": 0}
        return self.report(shard, "metrics", metrics, epoch=epoch, facts={**facts, **figures})

    def finish(self, shard, epoch, *, attempt=0, generation=0, **more):
        """The driver's instructions at the end of an epoch."""
        more = {"epoch": epoch, "generation": generation, **more}
        answer, _ = self.report(shard, "epoch", attempt=attempt, **more)
        return Instructions.from_json(json.loads(json.dumps(answer)))

    def later(self, call, *args, **more) -> Future:
        """A call that waits for others."""
        return self.pool.submit(call, *args, **more)

    def everybody(self, step, given, **more):
        """All meet once. Answers in the order of `given`, which maps shards to (vector, count)."""
        calls = [self.later(self.reduce, s, step, v, n, **more) for s, (v, n) in given.items()]
        return [call.result(30) for call in calls]

    def through(self, epoch, steps, **more) -> list[Future]:
        """An epoch in which everybody adds 1 at each step; then they say so, and are held."""
        ones = np.ones(3, "f4")
        for step in range(steps):
            self.everybody(step, dict.fromkeys(self.shared.shards, (ones, 1)))
        return [self.later(self.finish, s, epoch, **more) for s in self.shared.shards]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def live_fit(pool):
    """Makes fits with the first attempt of every shard connected, and closes them at the end."""
    made = []

    def begin(plans, *, mode="synchronous", rule="average", timeout=30.0, connect=True, **more):
        optimizer = rule if isinstance(rule, ServerOptimizer) else optimizers.get(rule)
        aggregator = Aggregator(SPEC, np.zeros(3, "f4"), optimizer, mode)
        shards = {s: ShardPlan(*plan) for s, plan in plans.items()}
        fit = LiveFit(Coordinator(aggregator, shards, Whole(SPEC), timeout=timeout, **more), pool)
        made.append(fit)
        for shard in shards if connect else ():
            fit.hello(shard)
        return fit

    yield begin
    for fit in made:
        fit.shared.close()


@pytest.fixture
def waiters(monkeypatch):
    """Blocks until so many threads wait inside of a coordinator at the same time."""
    changed, inside, original = threading.Condition(), [], Gate.wait

    def wait(self, over, seconds, check=None):
        if over():
            return original(self, over, seconds, check)
        with changed:
            inside.append(threading.get_ident())
            changed.notify_all()
        try:
            return original(self, over, seconds, check)
        finally:
            with changed:
                inside.remove(threading.get_ident())

    monkeypatch.setattr(Gate, "wait", wait)

    def until(count=1):
        with changed:
            assert changed.wait_for(lambda: len(inside) >= count, 20), f"{len(inside)} wait"

    return until


# -- any order of calls ------------------------------------------------------------------------


class Clock:
    """The time as the coordinator sees it. It stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class StepGate(Gate):
    """A gate whose waits end when a test says so and they have a limit, not after a time."""

    def __init__(self) -> None:
        super().__init__()
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self.news = threading.Condition(lock)
        self.round = 0
        self.looked: dict[int, int] = {}
        self.expired: set[int] = set()

    def wait(self, over, seconds, check):
        caller = threading.get_ident()
        while not over():
            self.check_open()
            check()
            if caller in self.expired:
                self.expired.discard(caller)
                if seconds < math.inf:
                    return False
            self.looked[caller] = self.round
            self.news.notify_all()
            assert self.changed.wait(60), "The test has forgotten this call."
        return True


class Call:
    """A call in a thread of its own.

    Attributes:
        done: Boolean, whether the call has returned or raised.
        value: What it returned.
        error: What it raised, or `None`.
    """

    def __init__(self, gate: StepGate, function: Callable[..., Any], *args: Any) -> None:
        self._gate = gate
        self.done, self.value, self.error = False, None, None
        self._thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.value = function(*args)
        except Exception as error:  # noqa: BLE001 (the test looks at it)
            self.error = error
        finally:
            with self._gate.changed:
                self.done = True
                self._gate.news.notify_all()

    def looked(self) -> bool:
        """Whether the call waits, and has looked at the state of this round."""
        return self._gate.looked.get(self._thread.ident) == self._gate.round

    def expire(self) -> None:
        """Let the wait of the call take too long."""
        with self._gate.changed:
            self._gate.expired.add(self._thread.ident)


class Steps:
    """All calls to one coordinator."""

    def __init__(self, gate: StepGate) -> None:
        self.gate = gate
        self.open: list[Call] = []

    def call(self, function: Callable[..., Any], *args: Any) -> Call:
        """Begin a call. `settle` waits for it."""
        call = Call(self.gate, function, *args)
        self.open.append(call)
        return call

    def settle(self) -> list[Call]:
        """Wait until each call has ended or waits for another. Returns the calls that ended."""
        ended: list[Call] = []
        quiet = 0
        while quiet < 2:  # A call that looks last may let one go on that looked before.
            with self.gate.changed:
                self.gate.round += 1
                self.gate.changed.notify_all()
                settled = self.gate.news.wait_for(
                    lambda: all(call.done or call.looked() for call in self.open), 20
                )
                assert settled, "A call neither ends nor waits."
                now = [call for call in self.open if call.done]
            self.open = [call for call in self.open if not call.done]
            ended += now
            quiet = 0 if now else quiet + 1
        return ended


class Stepping:
    """Coordinators whose calls run one at a time."""

    def __init__(self) -> None:
        self.clock = Clock()

    def coordinator(self, *args: Any, **more: Any) -> tuple[Coordinator, Steps]:
        """A coordinator, and the calls to it."""
        shared = Coordinator(*args, **more)
        return shared, Steps(shared._gate)


@pytest.fixture
def stepping(monkeypatch):
    """See `Stepping`."""
    made = Stepping()
    monkeypatch.setattr(coordinator, "Gate", StepGate)
    for module in (clocks, coordinator, meetings):
        monkeypatch.setattr(module, "time", made.clock)
    return made
