"""Synchronous replicas that meet, get lost and come back in any order.

Vectors are whole numbers that are all different, so that the weights say which were merged.
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

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.errors import AggregationError, ConnectionLostError
from kspark.live.coordinator import ShardPlan
from kspark.live.wire import Instructions, Restart, Start
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (2,), "float64", TRAINABLE), Weight("m", (1,), "float64", STATE)))
GENERATION = 1 << 32
TIMEOUT = 60.0

OUT, PULL, PULLING = "not connected", "must pull", "waits for the weights"
TRAINS, MEETS = "trains", "waits for the others"
ENDS, HELD = "has trained the epoch", "waits for the driver"


def some_are(*phases):
    """A rule for replicas in one of these phases. There must be one."""
    return precondition(lambda self: any(phase in phases for phase in self.phase.values()))


class Replicas(RuleBasedStateMachine):
    """A coordinator, and what each replica and the driver know about it."""

    stepping = None
    """Set by the test."""

    @initialize(
        exchanges=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        known=st.booleans(),
        gradients=st.booleans(),
        first=st.sampled_from([0, 3]),
    )
    def begin(self, exchanges, known, gradients, first):
        self.exchanges, self.known, self.gradients = exchanges, known, gradients
        plans = {k: ShardPlan(1, n if known else 0) for k, n in enumerate(exchanges)}
        self.aggregator = Aggregator(SPEC, np.zeros(3), optimizers.get("average"), "synchronous")
        self.shared, self.steps = self.stepping.coordinator(
            self.aggregator,
            plans,
            Whole(SPEC),
            first_epoch=first,
            merge_gradients=gradients,
            timeout=TIMEOUT,
        )
        self.shards = list(plans)
        self.attempts, self.numbers = itertools.count(), itertools.count(1)
        self.attempt = dict.fromkeys(plans, -1)
        self.phase = dict.fromkeys(plans, OUT)
        self.place = dict.fromkeys(plans, 0)
        self.try_of = dict.fromkeys(plans, 0)
        self.calls = {}
        self.lost_since = {}
        self.first, self.epoch, self.generation, self.step = first, first, 0, 0
        self.given, self.over = {}, False
        self.finished = set()
        self.weights, self.at_first = np.zeros(3), np.zeros(3)
        self.version = 0
        self.results = {}
        self.zombies = []

    def teardown(self):
        if hasattr(self, "shared"):
            self.shared.close()
            self.steps.settle()
            assert not self.steps.open

    # -- what must be ------------------------------------------------------------------------

    @property
    def settled(self):
        return len(self.finished) == len(self.shards)

    @property
    def about_gradients(self):
        """Whether the meeting at the current step averages gradients."""
        return self.gradients and not self.is_over(self.step)

    def is_over(self, step):
        """Whether nobody has a batch left at a step."""
        return step >= max(self.exchanges) + (not self.known)

    def restart(self):
        if not self.settled and (self.step or self.given):
            self.generation += 1
            self.step, self.given = 0, {}
            self.finished.clear()
            self.weights = self.at_first.copy()
            self.version += 1

    def gone(self):
        now = self.stepping.clock.now
        return [s for s, since in self.lost_since.items() if now - since > TIMEOUT]

    def merge(self):
        """All have come: what they take away."""
        vectors = [vector for vector in self.given.values() if vector is not None]
        merged = np.mean(vectors, axis=0) if vectors else np.empty(0)
        if vectors and not self.about_gradients:
            self.weights = merged if self.gradients else self.weights + merged
            self.version += 1
            merged = self.weights
        self.results[self.generation, self.epoch, self.step] = merged.tolist()
        self.step, self.given = self.step + 1, {}

    # -- calls -------------------------------------------------------------------------------

    def ask(self, shard, phase, function, *args):
        self.phase[shard] = phase
        call = self.steps.call(function, shard, self.attempt[shard], *args)
        self.calls[shard] = (call, args)

    def settle(self):
        """Let everything happen that can happen, and look at the answers."""
        self.steps.settle()
        for shard, (call, args) in list(self.calls.items()):
            if call.done:
                del self.calls[shard]
                self.take(shard, call, args)
            else:
                self.check_waits(shard)
        self.zombies = [zombie for zombie in self.zombies if not zombie.done]

    def check_waits(self, shard):
        """Nobody waits without a reason."""
        assert self.try_of[shard] == self.generation or self.phase[shard] == PULLING
        if self.phase[shard] == MEETS:
            assert self.step == self.place[shard]
            assert shard in self.given
        else:
            assert self.settled == (self.phase[shard] == PULLING) or self.phase[shard] == HELD
        assert not self.gone() or self.settled

    def take(self, shard, call, args):
        """The answer to a shard's call."""
        phase = self.phase[shard]
        if call.error is not None:
            assert isinstance(call.error, ConnectionLostError), call.error
            assert self.gone()
            assert not self.settled
            self.end(shard)
        elif phase == PULLING:
            assert args[0].tolist() == self.weights.tolist()
            self.phase[shard], self.place[shard] = TRAINS, 0
            self.try_of[shard] = self.generation
        elif phase == MEETS:
            version, instructions, answer = call.value
            if not self.restarted(shard, instructions):
                found = answer if isinstance(answer, np.ndarray) else args[-1][:answer]
                step = self.place[shard]
                expected = self.results[self.generation, self.epoch, step]
                np.testing.assert_allclose(found, expected, rtol=1e-12)
                assert instructions.over == (not self.known and step == max(self.exchanges))
                self.place[shard] = step + 1
                last = step + 1 == max(self.exchanges) + (not self.known) + self.gradients
                self.phase[shard] = ENDS if last else TRAINS
        else:
            instructions = Instructions.from_json(call.value[0])
            if not self.restarted(shard, instructions):
                self.phase[shard] = ENDS if instructions.hold else PULL

    def restarted(self, shard, instructions):
        """Whether the shard was told to start again, which it must be after a restart only."""
        old = self.try_of[shard] != self.generation
        expected = Restart(self.epoch, self.generation) if old else None
        assert instructions.restart == expected
        if old:
            self.phase[shard] = PULL
        return old

    def end(self, shard):
        """The replica is lost."""
        self.shared.lost(shard, self.attempt[shard], "gone")
        self.phase[shard] = OUT
        self.lost_since[shard] = self.stepping.clock.now

    def in_phase(self, data, *phases):
        return data.draw(st.sampled_from([s for s in self.shards if self.phase[s] in phases]))

    # -- replicas ----------------------------------------------------------------------------

    @rule(data=st.data())
    def hello(self, data):
        """A first or a further attempt, at whatever moment."""
        self.admit(data.draw(st.sampled_from(self.shards)))

    @precondition(lambda self: OUT in self.phase.values())
    @rule()
    def everybody_comes(self):
        for shard in self.shards:
            if self.phase[shard] == OUT:
                self.admit(shard)

    def admit(self, shard):
        returning, attempt = self.attempt[shard] >= 0, next(self.attempts)
        welcome = self.shared.hello(shard, attempt)
        if returning:
            self.restart()
        self.attempt[shard], self.phase[shard] = attempt, PULL
        self.lost_since.pop(shard, None)
        if shard in self.calls:
            self.zombies.append(self.calls.pop(shard)[0])
        start = self.epoch + self.settled
        assert welcome.start == Start(start, generation=self.generation)
        self.settle()

    @some_are(PULL)
    @rule(data=st.data())
    def pull(self, data):
        self.ask(self.in_phase(data, PULL), PULLING, self.shared.pull, np.empty(3))
        self.settle()

    @precondition(lambda self: PULL in self.phase.values())
    @rule()
    def everybody_pulls(self):
        for shard in self.shards:
            if self.phase[shard] == PULL:
                self.ask(shard, PULLING, self.shared.pull, np.empty(3))
                self.settle()

    @some_are(TRAINS)
    @rule(data=st.data())
    def meet(self, data):
        self.bring(self.in_phase(data, TRAINS))

    @precondition(lambda self: all(phase in (TRAINS, MEETS) for phase in self.phase.values()))
    @rule(data=st.data())
    def everybody_meets(self, data):
        for shard in data.draw(st.permutations(self.shards)):
            if self.phase[shard] == TRAINS:
                self.bring(shard)

    @precondition(lambda self: all(phase in (TRAINS, MEETS) for phase in self.phase.values()))
    @rule()
    def everybody_trains_the_epoch(self):
        """All come to all meetings that are left, or learn that the epoch starts again."""
        while trains := [shard for shard in self.shards if self.phase[shard] == TRAINS]:
            self.bring(trains[0])

    def bring(self, shard):
        step, generation = self.place[shard], self.try_of[shard]
        vector, number = None, 6.0 * next(self.numbers) ** 2
        if self.gradients and self.is_over(step):
            vector = np.array([step, step, number])  # The trainable part is equal everywhere.
        elif step < self.exchanges[shard]:
            vector = np.full(2 if self.gradients else 3, number)
        if generation == self.generation:
            assert step == self.step
            assert shard not in self.given
            self.given[shard] = vector
            if len(self.given) == len(self.shards):
                self.merge()
        sequence = generation * GENERATION + step
        args = (sequence, int(vector is not None), vector, np.empty(3))
        self.ask(shard, MEETS, self.shared.reduce, *args)
        self.settle()

    @some_are(ENDS)
    @rule(data=st.data())
    def finish(self, data):
        """A replica says that it has trained the epoch, and waits for the driver."""
        self.report_end(self.in_phase(data, ENDS))

    @precondition(lambda self: ENDS in self.phase.values())
    @rule()
    def everybody_finishes(self):
        for shard in self.shards:
            if self.phase[shard] == ENDS:
                self.report_end(shard)

    def report_end(self, shard):
        if self.try_of[shard] == self.generation:
            self.finished.add(shard)
        meta = {"kind": "epoch", "epoch": self.epoch, "generation": self.try_of[shard]}
        self.ask(shard, HELD, self.shared.report, meta, [])
        self.settle()

    @some_are(PULL, TRAINS, ENDS)
    @rule(data=st.data())
    def lose(self, data):
        """The connection of a replica ends while it trains."""
        self.end(self.in_phase(data, PULL, TRAINS, ENDS))
        self.settle()

    @some_are(HELD)
    @rule(data=st.data())
    def wait_long(self, data):
        """A replica waits for the driver for as long as one request may: it asks again."""
        call, _ = self.calls[self.in_phase(data, HELD)]
        call.expire()
        self.settle()

    @some_are(MEETS)
    @rule(data=st.data())
    def wait_for_another(self, data):
        """A replica waits for a slow one for longer than the timeout: it goes on waiting."""
        shard = self.in_phase(data, MEETS)
        call, _ = self.calls[shard]
        call.expire()
        self.steps.settle()
        assert shard in self.calls
        assert call.error is None

    @precondition(lambda self: max(self.attempt.values()) > 0)
    @rule(data=st.data())
    def stale(self, data):
        """An attempt that another one has replaced changes nothing."""
        shard = data.draw(st.sampled_from([s for s in self.shards if self.attempt[s] > 0]))
        attempt = data.draw(st.integers(0, self.attempt[shard] - 1))
        sequence = self.generation * GENERATION + self.step
        end = {"kind": "epoch", "epoch": self.epoch, "generation": self.generation}
        for call in (
            lambda: self.shared.reduce(shard, attempt, sequence, 1, np.ones(3), np.empty(3)),
            lambda: self.shared.pull(shard, attempt, np.empty(3)),
            lambda: self.shared.report(shard, attempt, end, []),
            lambda: self.shared.hello(shard, attempt),
        ):
            with pytest.raises(AggregationError, match="superseded"):
                call()
        self.settle()

    # -- the driver --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 2 * TIMEOUT]))
    def time_passes(self, seconds):
        self.stepping.clock.now += seconds
        self.steps.settle()
        self.settle()

    @precondition(lambda self: self.settled)
    @rule(number=st.sampled_from([None, 7.0]))
    def close(self, number):
        """Callbacks may set the weights. Then the next epoch begins with these."""
        assert self.shared.wait_for_epoch(self.epoch, 0) is not None
        if number is not None:
            self.weights = np.full(3, number)
            self.aggregator.replace(self.weights)
            self.version += 1
        self.at_first = self.weights.copy()
        self.epoch, self.step, self.given = self.epoch + 1, 0, {}
        self.finished.clear()
        self.shared.close_epoch(self.epoch - 1, stop=False, learning_rate=None)
        self.settle()

    @rule()
    def next_job(self):
        """Spark has given up on the job. Nobody of it may speak any more."""
        self.restart()
        self.shared.begin_job(next(self.attempts))
        self.zombies += [call for call, _ in self.calls.values()]
        self.calls.clear()
        self.lost_since.clear()
        for shard in self.shards:
            self.attempt[shard], self.phase[shard] = -1, OUT
        self.settle()

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def the_weights_are_those_of_complete_meetings(self):
        """Each has every shard once, with what the newest attempt brought in the newest try."""
        np.testing.assert_allclose(self.aggregator.weights, self.weights, rtol=1e-12)
        assert self.aggregator.version == self.version
        states = self.shared._progress.shards
        done = self.epoch - self.first
        assert self.finished == {s for s, state in states.items() if state.epochs_done > done}


def test_every_merge_has_each_shard_once_also_after_restarts(stepping):
    machine = type("Machine", (Replicas,), {"stepping": stepping})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=50))
