"""Any sequence of changes of the aggregator, compared with whole numbers that a test adds up.

Deltas are whole numbers, and shares and means are exact, so that sums are compared bit by bit.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kspark.aggregator import Aggregator, Delta
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.optimizers import MergeContext, ServerOptimizer
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec

SPEC = WeightSpec((Weight("w", (3,), "float64", TRAINABLE), Weight("m", (2,), "float64", STATE)))
CUT = SPEC.trainable_size
NUMBERS = st.lists(st.integers(-50, 50), min_size=5, max_size=5)
SHARES = st.sampled_from([Fraction(1, 4), Fraction(1, 2), Fraction(1)])
COUNTS = {1: (4,), 2: (1, 3), 3: (1, 1, 2), 4: (1, 1, 1, 1)}
"""Examples of the shards of a merge: they add up to 4, by which all deltas can be divided."""


class Whole(ServerOptimizer):
    """Adds deltas unchanged, and keeps what it was told about them."""

    def __init__(self, keeps_replica_weights: bool) -> None:
        super().__init__()
        self.keeps = keeps_replica_weights
        self.contexts: list[MergeContext] = []

    @property
    def keeps_replica_weights(self) -> bool:
        return self.keeps

    def apply(self, weights, delta, context):
        self.contexts.append(context)
        weights += delta


class Changes(RuleBasedStateMachine):
    """An aggregator, and the sum of everything that was given to it, in fractions."""

    @initialize(
        start=NUMBERS,
        mode=st.sampled_from(["synchronous", "asynchronous", "hogwild"]),
        bounded=st.booleans(),
    )
    def begin(self, start, mode, bounded):
        self.rule = Whole(keeps_replica_weights=False)
        self.shared = Aggregator(SPEC, np.array(start, "f8"), self.rule, mode)
        self.bounded = bounded
        if bounded:
            self.shared.keep_constraints(lambda vector: np.minimum(vector, 100, out=vector))
        self.expected = [Fraction(number) for number in start]
        self.changes = self.applied = 0

    def changed(self, new):
        self.expected = [min(number, Fraction(100)) for number in new] if self.bounded else new
        self.changes += 1

    @rule(data=st.data(), parts=st.integers(1, 4), ignored=st.booleans())
    def merge(self, data, parts, ignored):
        """The mean by examples, in any order of arrival; deltas without examples do not count."""
        counts = COUNTS[parts]
        rows = [[4 * number for number in data.draw(NUMBERS)] for _ in counts]
        deltas = [Delta(k, np.array(rows[k], "f8"), n) for k, n in enumerate(counts)]
        deltas += [Delta(9, np.full(5, np.nan), 0)] if ignored else []
        version = self.shared.merge(data.draw(st.permutations(deltas)))
        mean = [
            Fraction(sum(n * row[i] for n, row in zip(counts, rows, strict=True)), 4)
            for i in range(5)
        ]
        self.changed([a + b for a, b in zip(self.expected, mean, strict=True)])
        self.applied += 1
        assert version == self.changes

    @rule(numbers=NUMBERS, share=SHARES, age=st.integers(-2, 5))
    def push(self, numbers, share, age):
        """The rule gets the trainable part, and the state moves by the share of the shard."""
        numbers = [4 * number for number in numbers]
        delta = np.array(numbers, "f8")
        base = max(0, self.changes - age)
        version, staleness = self.shared.push(delta, float(share), base)
        moved = numbers[:CUT] + [share * number for number in numbers[CUT:]]
        self.changed([a + b for a, b in zip(self.expected, moved, strict=True)])
        self.applied += 1
        assert version == self.changes
        assert staleness == self.rule.contexts[-1].staleness == max(0, self.changes - 1 - base)
        assert delta.tolist() == numbers

    @rule(numbers=NUMBERS, share=SHARES, applied=st.booleans())
    def exchange(self, numbers, share, applied):
        """The answer is the gap before the change. A repetition changes nothing."""
        numbers = [4 * number for number in numbers]
        before, out = list(self.expected), np.empty(5)
        version, _ = self.shared.exchange(
            np.array(numbers, "f8"), float(share), self.changes, out, applied=applied
        )
        gap = [number - old for number, old in zip(numbers[:CUT], before, strict=False)]
        assert out[:CUT].tolist() == gap
        if not applied:
            moved = gap + [share * number for number in numbers[CUT:]]
            self.changed([a + b for a, b in zip(before, moved, strict=True)])
            self.applied += 1
        assert version == self.changes
        assert out[CUT:].tolist() == self.expected[CUT:]

    @rule(numbers=NUMBERS)
    def replace(self, numbers):
        """Weights that were set are not projected again."""
        vector = np.array(numbers, "f8")
        assert self.shared.replace(vector) == self.changes + 1
        vector += 1
        self.expected = [Fraction(number) for number in numbers]
        self.changes += 1

    @rule(wrong=st.sampled_from([np.zeros(4), np.zeros(5, "f4"), np.zeros((5, 1))]))
    def refused(self, wrong):
        """What does not fit changes nothing, also beside deltas that do."""
        with pytest.raises(IncompatibleDeltaError):
            self.shared.push(wrong, 1.0, 0)
        with pytest.raises(IncompatibleDeltaError):
            self.shared.merge([Delta(0, np.ones(5), 1), Delta(1, wrong, 1)])
        with pytest.raises(IncompatibleDeltaError):
            self.shared.exchange(wrong, 1.0, 0, np.empty(5))
        with pytest.raises(IncompatibleDeltaError):
            self.shared.replace(wrong)
        with pytest.raises(AggregationError):
            self.shared.merge([Delta(0, np.ones(5), 0)])

    @invariant()
    def version_is_the_number_of_changes_and_the_weights_are_their_sum(self):
        out = np.empty(5)
        assert self.shared.pull(out) == self.shared.version == self.changes
        assert out.tolist() == self.shared.settled().tolist() == self.expected
        assert len(self.rule.contexts) == self.applied


def test_any_sequence_of_changes_has_the_result_of_their_sum():
    run_state_machine_as_test(Changes, settings=settings(max_examples=60, stateful_step_count=25))
