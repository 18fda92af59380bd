"""Meetings: who came, what they take away, and how an epoch starts again. No threads here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark import optimizers
from kspark.aggregator import Aggregator
from kspark.compression import Compressor, Packing, TopK
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.live.coordinator.rendezvous import Meeting, Rendezvous, steps_of
from kspark.optimizers import ServerOptimizer
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (2,), "float32", TRAINABLE), Weight("mean", (1,), "float32", STATE)))
GENERATION = 1 << 32
WHOLE = Whole(SPEC).packer()


def vector(*values):
    return np.array(values, "float32")


def rendezvous(examples, steps=2, gradients=False, rule="average", batch_size=None):
    start = vector(1, 1, 1)
    optimizer = rule if isinstance(rule, ServerOptimizer) else optimizers.get(rule)
    aggregator = Aggregator(SPEC, start, optimizer, "synchronous")
    return Rendezvous(aggregator, examples, steps, gradients, WHOLE, batch_size), aggregator


def meet(place, given):
    """Everybody comes, in the order of `given`. What they take away."""
    meeting = place.meeting
    complete = [place.take(meeting, shard, v, n) for shard, (v, n) in given.items()]
    assert complete == [False] * (len(given) - 1) + [True]
    return meeting.merged


def test_a_sequence_number_holds_generation_and_step():
    meeting = Meeting(3 * GENERATION + 5)
    assert (meeting.generation, meeting.step) == (3, 5)


def test_deltas_are_merged_into_the_weights_and_the_next_meeting_opens():
    place, aggregator = rendezvous({0: 10, 1: 30})
    merged = meet(place, {1: (vector(8, 4, 0), 3), 0: (vector(4, 0, 8), 1)})
    assert merged.tolist() == aggregator.weights.tolist() == [8, 4, 3]
    assert place.meeting.sequence == 1
    assert place.meeting.given == {}


def test_who_has_no_batches_left_takes_the_result_away_too():
    place, _ = rendezvous({0: 10, 1: 30})
    assert meet(place, {0: (None, 0), 1: (vector(1, 2, 3), 4)}).tolist() == [2, 3, 4]


@given(
    hnp.arrays(np.float32, (3, 3), elements=st.floats(-10, 10, width=32)),
    st.lists(st.integers(1, 99), min_size=3, max_size=3),
    st.booleans(),
)
def test_the_result_is_the_mean_to_the_bit_in_any_order_of_arrival(rows, counts, gradients):
    results = set()
    width = 2 if gradients else 3
    given = {k: (rows[k, :width].copy(), counts[k]) for k in range(3)}
    for order in itertools.permutations(given):
        place, _ = rendezvous({0: 1, 1: 1, 2: 1}, gradients=gradients)
        merged = meet(place, {k: given[k] for k in order})
        results.add(merged.tobytes())
    assert len(results) == 1
    mean = np.average(rows[:, :width], axis=0, weights=counts)
    np.testing.assert_allclose(merged - (0 if gradients else 1), mean, rtol=1e-5, atol=1e-4)


def test_mean_gradients_are_answered_packed_and_what_is_lost_comes_later():
    """The mean is (4, 1); one of two values is sent, the other one is kept."""
    packing = Packing(TopK(0.5), SPEC, gradients=True)
    aggregator = Aggregator(SPEC, vector(1, 1, 1), optimizers.get("average"), "synchronous")
    place = Rendezvous(aggregator, {0: 1, 1: 1}, 3, True, Compressor(packing))

    def answer(*given):
        merged = meet(place, {k: (vector(*v), 1) for k, v in enumerate(given)})
        return (
            packing.unpack(merged, np.empty(2, "f4")).tolist() if merged.dtype == "u1" else merged
        )

    assert answer((4, 0), (4, 2)) == [4, 0]
    place.begin_epoch()
    assert answer((0, 4), (0, 0)) == [0, 3]
    place.restart_epoch()  # what was kept when the epoch began is kept again
    assert answer((0, 4), (0, 0)) == [0, 3]
    assert answer((1, 0), (1, 0)) == [1, 0]
    assert answer((1, 0), (1, 0)) == [1, 0]
    # Weights are not compressed.
    assert answer((7, 8, 2), (7, 8, 4)).tolist() == [7, 8, 3]
    assert aggregator.weights.tolist() == [7, 8, 3]


def test_gradients_are_averaged_and_leave_the_weights_alone():
    place, aggregator = rendezvous({0: 10, 1: 30}, gradients=True)
    assert meet(place, {0: (vector(4, 0), 1), 1: (vector(8, 4), 3)}).tolist() == [7, 3]
    assert aggregator.weights.tolist() == [1, 1, 1]
    assert aggregator.version == 0


def test_the_last_meeting_of_gradients_settles_the_weights():
    """Trainable ones from the first replica, state weighted by the shards' examples."""
    place, aggregator = rendezvous({2: 10, 5: 30}, steps=1, gradients=True)
    meet(place, {2: (vector(0, 0), 1), 5: (vector(0, 0), 1)})
    first = vector(3, 4, 8)
    merged = meet(place, {5: (vector(3, 4, 16), 30), 2: (first, 10)})
    assert merged.tolist() == aggregator.weights.tolist() == [3, 4, 14]
    assert aggregator.version == 1
    assert first.tolist() == [3, 4, 8]


def test_what_is_alike_on_all_replicas_is_settled_to_the_bit():
    """As frozen layers are: a mean of theirs in float32 would change them."""
    frozen = np.random.default_rng(0).normal(size=1000).astype("f4")
    spec = WeightSpec((Weight("frozen", (1000,), "float32", STATE),))
    for counts in ({0: 5, 1: 5, 2: 5}, {0: 1001, 1: 999}):
        aggregator = Aggregator(spec, frozen.copy(), optimizers.get("average"), "synchronous")
        place = Rendezvous(aggregator, counts, 0, True, WHOLE)
        merged = meet(place, {shard: (frozen.copy(), n) for shard, n in counts.items()})
        assert merged.tobytes() == frozen.tobytes()


def test_settling_without_state():
    spec = WeightSpec((Weight("w", (2,), "float32", TRAINABLE),))
    aggregator = Aggregator(spec, vector(0, 0), optimizers.get("average"), "synchronous")
    place = Rendezvous(aggregator, {0: 1}, 0, True, WHOLE)
    assert meet(place, {0: (vector(5, 6), 1)}).tolist() == [5, 6]


def test_settling_without_the_first_replicas_weights_is_an_error():
    place, _ = rendezvous({0: 1}, steps=0, gradients=True)
    with pytest.raises(AggregationError, match="first replica sent no weights"):
        place.take(place.meeting, 0, None, 0)


@pytest.mark.parametrize(
    ("gradients", "step", "size"), [(False, 0, 3), (True, 0, 2), (True, 1, 2), (True, 2, 3)]
)
def test_each_meeting_is_about_one_size(gradients, step, size):
    place, _ = rendezvous({0: 1, 1: 1}, gradients=gradients)
    for _ in range(step):
        meet(place, {0: (vector(*[0] * (2 if gradients else 3)), 1), 1: (None, 0)})
    for wrong in (np.zeros(5 - size, "f4"), np.zeros(size), np.zeros((size, 1), "f4")):
        with pytest.raises(IncompatibleDeltaError, match=f"Shard 1 sent .* exchange {step},"):
            place.take(place.meeting, 1, wrong, 1)
    assert not place.meeting.given
    assert not place.take(place.meeting, 1, np.zeros(size, "f4"), 1)


def test_begun_once_anybody_has_come():
    place, _ = rendezvous({0: 1, 1: 1})
    assert not place.begun
    place.take(place.meeting, 0, vector(0, 0, 0), 1)
    assert place.begun
    place.take(place.meeting, 1, vector(0, 0, 0), 1)
    assert place.begun  # nobody is in this meeting, but one is over
    place.begin_epoch()
    assert not place.begun


def test_restart_goes_back_to_the_weights_the_epoch_began_with():
    place, aggregator = rendezvous({0: 1})
    meet(place, {0: (vector(1, 1, 1), 1)})
    place.begin_epoch()
    meet(place, {0: (vector(5, 5, 5), 1)})
    meet(place, {0: (vector(5, 5, 5), 1)})
    place.restart_epoch()
    assert aggregator.weights.tolist() == [2, 2, 2]
    assert (place.generation, place.meeting.sequence) == (1, GENERATION)
    assert not place.begun


def test_a_callbacks_weights_are_what_the_next_epoch_begins_with():
    place, aggregator = rendezvous({0: 1})
    meet(place, {0: (vector(1, 1, 1), 1)})
    aggregator.replace(vector(9, 9, 9))
    place.begin_epoch()
    place.restart_epoch()
    assert aggregator.weights.tolist() == [9, 9, 9]


def test_generations_go_on_from_epoch_to_epoch():
    place, _ = rendezvous({0: 1})
    place.restart_epoch()
    meet(place, {0: (vector(1, 1, 1), 1)})
    place.begin_epoch()
    assert place.meeting.sequence == GENERATION
    place.restart_epoch()
    assert place.meeting.sequence == 2 * GENERATION


def test_restart_takes_the_rule_back_as_well():
    """Else momentum of the abandoned try would move the weights in the next one."""
    rule = {"class_name": "sgd", "config": {"learning_rate": 1.0, "momentum": 0.5}}

    def run(broken):
        place, aggregator = rendezvous({0: 1}, rule=optimizers.get(rule))
        meet(place, {0: (vector(1, 2, 3), 1)})
        place.begin_epoch()
        if broken:
            meet(place, {0: (vector(100, 100, 100), 1)})
            place.restart_epoch()
        meet(place, {0: (vector(4, 5, 6), 1)})
        return aggregator.weights.tolist()

    assert run(broken=True) == run(broken=False)


def test_gaps_count_by_the_shards_part_of_all_examples():
    """Springs of 0.8 * 10/40 and 0.8 * 30/40, whoever else comes and however many rows it had."""
    place, aggregator = rendezvous({0: 10, 1: 30}, rule=optimizers.ElasticAverage(0.8))
    given = {0: (vector(10, 0, 4), 7), 1: (vector(10, 5, 8), 1)}
    merged = meet(place, given)
    np.testing.assert_allclose(merged, [1 + 2 + 6, 1 + 0 + 3, 1 + 1 + 6], rtol=1e-6)
    meet(place, {0: (vector(10, 0, 4), 7), 1: (None, 0)})
    np.testing.assert_allclose(aggregator.weights, [9 + 2, 4, 8 + 4], rtol=1e-6)


class Steps(ServerOptimizer):
    """Remembers the local batches behind each merge."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def apply(self, weights, delta, context):
        self.seen.append(context.num_steps)


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 3), (None, 1)])
def test_the_rule_is_told_the_batches_of_the_longest_delta(batch_size, steps):
    rule = Steps()
    place, _ = rendezvous({0: 1, 1: 1, 2: 1}, rule=rule, batch_size=batch_size)
    meet(place, {0: (vector(0, 0, 0), 4), 1: (vector(0, 0, 0), 9), 2: (None, 0)})
    assert rule.seen == [steps]


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "expected"), [(8, 4, 2), (9, 4, 3), (0, 4, 1), (100, None, 1)]
)
def test_batches_behind_a_delta(num_examples, batch_size, expected):
    assert steps_of(num_examples, batch_size) == expected
