"""Asynchronous replicas that push, get lost, come back and repeat themselves in any order.

Deltas are whole numbers that are all different, so that the weights say which were applied.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kspark.aggregator import Aggregator
from kspark.errors import AggregationError
from kspark.live.coordinator import ShardPlan
from kspark.live.wire import Start
from kspark.optimizers import ServerOptimizer
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (2,), "float64", TRAINABLE), Weight("m", (1,), "float64", STATE)))
TIMEOUT = 60.0
EXAMPLES = {1: (4,), 2: (2, 2), 3: (2, 1, 1)}
"""Examples per shard, of 4 together: all shares of deltas that 4 divides are whole numbers."""

OUT, PULL, FREE, ASKED = "not connected", "must pull", "may continue", "waits for an answer"


def some_are(*phases):
    """A rule for replicas in one of these phases. There must be one."""
    return precondition(lambda self: any(phase in phases for phase in self.phase.values()))


class Sum(ServerOptimizer):
    """Adds deltas unchanged, and can do something in the middle of it."""

    def __init__(self) -> None:
        super().__init__()
        self.during = None

    def apply(self, weights, delta, context):
        during, self.during = self.during, None
        if during is not None:
            during()
        weights += delta


class Replicas(RuleBasedStateMachine):
    """A coordinator, and what each replica and the driver know about it."""

    stepping = None
    """Set by the test."""

    @initialize(
        exchanges=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        bound=st.sampled_from([None, 0, 1, 2]),
        mode=st.sampled_from(["asynchronous", "asynchronous", "hogwild"]),
        first=st.sampled_from([0, 3]),
    )
    def begin(self, exchanges, bound, mode, first):
        self.clock = self.stepping.clock
        self.exchanges, self.first = exchanges, first
        self.bound = bound if mode == "asynchronous" else None
        examples = EXAMPLES[len(exchanges)]
        plans = {k: ShardPlan(examples[k], n) for k, n in enumerate(exchanges)}
        self.shares = [n / 4 for n in examples]
        self.rule = Sum()
        self.aggregator = Aggregator(SPEC, np.zeros(3), self.rule, mode)
        self.shared, self.steps = self.stepping.coordinator(
            self.aggregator,
            plans,
            Whole(SPEC),
            first_epoch=first,
            max_staleness=self.bound,
            timeout=TIMEOUT,
        )
        self.shards = list(plans)
        self.attempts = itertools.count()
        self.numbers = itertools.count(1)
        self.attempt = dict.fromkeys(plans, -1)
        self.phase = dict.fromkeys(plans, OUT)
        self.calls = {}
        self.base = dict.fromkeys(plans, 0)
        self.applied = dict.fromkeys(plans, 0)
        self.reported = dict.fromkeys(plans, 0)
        self.started = set()
        self.lost_since = {}
        self.closed = first
        self.sum = np.zeros(3)
        self.zombies = []

    def teardown(self):
        if hasattr(self, "shared"):
            self.shared.close()
            self.steps.settle()
            assert not self.steps.open

    # -- what the documentation of `clocks` says ---------------------------------------------

    def ticks(self, shard):
        epochs, rest = divmod(self.applied[shard], self.exchanges[shard])
        return epochs * max(self.exchanges) + rest - (shard not in self.started)

    def slowest(self):
        """The slowest shard that the others wait for."""
        gone = {
            shard
            for shard, since in self.lost_since.items()
            if self.clock.now - since > TIMEOUT and self.phase[shard] != ASKED
        }
        return min(self.ticks(shard) for shard in self.shards if shard not in gone)

    def may_continue(self, shard):
        return self.bound is None or self.ticks(shard) <= self.slowest() + self.bound

    # -- calls -------------------------------------------------------------------------------

    def ask(self, shard, function, *args):
        """Begin a pull or a push of a shard's newest attempt."""
        out = np.empty(3)
        self.phase[shard] = ASKED
        self.started.add(shard)
        self.calls[shard] = (self.steps.call(function, shard, self.attempt[shard], *args, out), out)

    def settle(self):
        """Let everything happen that can happen, and look at the answers."""
        self.steps.settle()
        answers = set()
        for shard, (call, out) in list(self.calls.items()):
            if not call.done:
                assert not self.may_continue(shard), f"Shard {shard} waits for nobody."
                continue
            del self.calls[shard]
            assert call.error is None, call.error
            version, instructions = call.value
            if instructions.hold:
                self.phase[shard] = PULL
                self.started.discard(shard)
                continue
            self.phase[shard], self.base[shard] = FREE, version
            assert self.may_continue(shard), f"Shard {shard} is too far ahead."
            answers.add((version, *out.tolist()))
        # Whoever continues at the same moment continues from the same weights.
        assert answers <= {(sum(self.applied.values()), *self.sum.tolist())}
        # Nobody reads the answers to calls of older attempts.
        self.zombies = [zombie for zombie in self.zombies if not zombie.done]

    def delta(self, shard):
        """A delta that no other one equals, and what it adds to the weights."""
        value = 4.0 * next(self.numbers) ** 2
        return np.full(3, value), np.array([value, value, value * self.shares[shard]])

    def in_phase(self, data, *phases):
        return data.draw(st.sampled_from([s for s in self.shards if self.phase[s] in phases]))

    # -- replicas ----------------------------------------------------------------------------

    @rule(data=st.data())
    def hello(self, data):
        """A first or a further attempt. It continues after the last push that was applied."""
        shard = data.draw(st.sampled_from(self.shards))
        self.admit(shard, next(self.attempts))
        self.settle()

    def admit(self, shard, attempt):
        welcome = self.shared.hello(shard, attempt)
        self.attempt[shard], self.phase[shard] = attempt, PULL
        self.lost_since.pop(shard, None)
        if shard in self.calls:
            self.zombies.append(self.calls.pop(shard)[0])
        epochs, position = divmod(self.applied[shard], self.exchanges[shard])
        assert welcome.start == Start(self.first + epochs, self.applied[shard], position)
        assert welcome.version == sum(self.applied.values())
        self.reported[shard] = max(self.reported[shard], epochs)

    @some_are(PULL)
    @rule(data=st.data())
    def pull(self, data):
        self.ask(self.in_phase(data, PULL), self.shared.pull)
        self.settle()

    @some_are(FREE)
    @rule(data=st.data())
    def push(self, data):
        shard = self.in_phase(data, FREE)
        delta, moved = self.delta(shard)
        self.applied[shard] += 1
        self.sum += moved
        self.ask(shard, self.shared.push, self.applied[shard], self.base[shard], 1, delta)
        self.settle()

    @some_are(FREE, PULL)
    @rule(data=st.data(), back=st.integers(0, 3))
    def repeat(self, data, back):
        """A push whose answer was lost is sent again, by this attempt or by the next one."""
        shard = self.in_phase(data, FREE, PULL)
        delta, _ = self.delta(shard)
        sequence = max(0, self.applied[shard] - back)
        self.ask(shard, self.shared.push, sequence, 0, 1, delta)
        self.settle()

    @some_are(FREE, PULL)
    @rule(data=st.data(), gap=st.integers(2, 4))
    def skip(self, data, gap):
        """A push before which another one is missing is refused."""
        shard = self.in_phase(data, FREE, PULL)
        args = (shard, self.attempt[shard], self.applied[shard] + gap, 0, 1)
        with pytest.raises(AggregationError, match="sent push"):
            self.shared.push(*args, np.ones(3), np.empty(3))

    @precondition(lambda self: max(self.attempt.values()) > 0)
    @rule(data=st.data())
    def stale(self, data):
        """An attempt that another one has replaced changes nothing."""
        shard = data.draw(st.sampled_from([s for s in self.shards if self.attempt[s] > 0]))
        attempt = data.draw(st.integers(0, self.attempt[shard] - 1))
        delta, _ = self.delta(shard)
        for call in (
            lambda: self.shared.push(shard, attempt, self.applied[shard] + 1, 0, 1, delta, delta),
            lambda: self.shared.pull(shard, attempt, delta),
            lambda: self.shared.hello(shard, attempt),
        ):
            with pytest.raises(AggregationError, match="superseded"):
                call()
        self.shared.lost(shard, attempt, "the connection of an older attempt")
        self.settle()

    @some_are(FREE)
    @precondition(lambda self: self.aggregator.mode == "hogwild")
    @rule(data=st.data())
    def replaced_in_the_middle_of_a_push(self, data):
        """The next attempt is admitted, and pushes the same number, while a push is applied.

        Only in hogwild mode: elsewhere a lock keeps the others out.
        """
        shard = self.in_phase(data, FREE)
        sequence, attempt = self.applied[shard] + 1, next(self.attempts)
        delta, moved = self.delta(shard)
        other, moved_by_other = self.delta(shard)
        later = []

        def meanwhile():
            self.admit(shard, attempt)
            call = self.steps.call(
                self.shared.push, shard, attempt, sequence, 0, 1, other, np.empty(3)
            )
            later.append(call)

        self.rule.during = meanwhile
        self.shared.push(shard, self.attempt[shard], sequence, 0, 1, delta, np.empty(3))
        self.applied[shard] += 1
        self.sum += moved
        self.steps.settle()
        assert later[0].done
        assert later[0].error is None
        self.phase[shard] = PULL

    @some_are(FREE)
    @rule(data=st.data())
    def finish(self, data):
        """A replica says that it has made all pushes of an epoch."""
        shard = self.in_phase(data, FREE)
        epochs, rest = divmod(self.applied[shard], self.exchanges[shard])
        if rest or not epochs:
            return
        epoch = self.first + epochs - 1
        meta = {"kind": "epoch", "epoch": epoch, "sequence": self.applied[shard]}
        self.shared.report(shard, self.attempt[shard], meta, [])
        self.reported[shard] = max(self.reported[shard], epochs)
        self.settle()

    @some_are(FREE, PULL)
    @rule(data=st.data())
    def lose(self, data):
        """The connection of a replica ends while it trains."""
        shard = self.in_phase(data, FREE, PULL)
        self.shared.lost(shard, self.attempt[shard], "gone")
        self.phase[shard] = OUT
        self.lost_since[shard] = self.clock.now
        self.settle()

    @some_are(ASKED)
    @rule(data=st.data())
    def answer_late(self, data):
        """The wait of a replica takes too long. It is told to ask again."""
        shard = self.in_phase(data, ASKED)
        self.calls[shard][0].expire()
        self.settle()
        assert self.phase[shard] == PULL

    # -- the driver --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 2 * TIMEOUT]))
    def time_passes(self, seconds):
        """After the timeout, the others continue without replicas that were lost."""
        self.clock.now += seconds
        self.settle()

    @precondition(lambda self: min(self.reported.values()) > self.closed - self.first)
    @rule()
    def close(self):
        """Every push of the epoch is in its report, once."""
        report = self.shared.wait_for_epoch(self.closed, 0)
        assert len(report.staleness) == sum(self.exchanges)
        self.shared.close_epoch(self.closed, stop=False, learning_rate=None)
        self.closed += 1
        self.settle()

    @rule()
    def next_job(self):
        """Spark has given up on the job. Nobody of it may speak any more."""
        self.shared.begin_job(next(self.attempts))
        self.zombies += [call for call, _ in self.calls.values()]
        self.calls.clear()
        self.started.clear()
        self.lost_since.clear()
        for shard in self.shards:
            self.attempt[shard], self.phase[shard] = -1, OUT
        self.settle()

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def every_push_was_applied_once(self):
        assert self.aggregator.version == sum(self.applied.values())
        assert self.aggregator.weights.tolist() == self.sum.tolist()

    @invariant()
    def an_epoch_is_over_when_all_have_finished_it(self):
        over = min(self.reported.values()) > self.closed - self.first
        assert (self.shared.wait_for_epoch(self.closed, 0) is not None) == over


def test_no_push_is_applied_twice_or_lost_and_nobody_is_too_far_ahead(stepping):
    machine = type("Machine", (Replicas,), {"stepping": stepping})
    run_state_machine_as_test(machine, settings=settings(max_examples=80, stateful_step_count=40))
