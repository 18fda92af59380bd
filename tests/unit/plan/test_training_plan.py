"""`TrainingPlan`: its defaults, its seed, and how it divides an epoch."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.compression import Packing, TopK
from kspark.plan import TrainingPlan
from kspark.weights import STATE, TRAINABLE, Changes, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (4,), "float32", TRAINABLE),))


def plan(**arguments):
    return TrainingPlan.create(**{"mode": "synchronous", "frequency": "epoch", **arguments})


def test_a_plan_has_the_documented_defaults():
    made = plan(seed=1)
    assert made == TrainingPlan(
        mode="synchronous", frequency="epoch", epochs=1, initial_epoch=0, batch_size=32,
        shuffle=True, class_weight=None, validation_freq=1, seed=1, timeout=60.0,
        max_failures=2, on_nonfinite="raise", port=0, max_staleness=None,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(made)) == made


def test_validation_has_the_batch_size_of_training_unless_it_has_its_own():
    assert plan(batch_size=8).validation_batch_size == 8
    assert plan(batch_size=8, validation_batch_size=5).validation_batch_size == 5


def test_a_codec_is_part_of_the_plan_and_can_be_pickled():
    made = plan(compression="top_k", seed=1)
    assert made.compression == TopK(0.01)
    assert pickle.loads(pickle.dumps(made)) == made
    assert plan(compression=None).packing(SPEC) == Whole(SPEC)
    assert plan(compression=None, frequency="batch").packing(SPEC) == Whole(SPEC, gradients=True)
    assert made.packing(SPEC) == Packing(TopK(0.01), SPEC, gradients=False)
    merging = plan(compression=TopK(0.5), frequency="batch")
    assert merging.packing(SPEC) == Packing(TopK(0.5), SPEC, gradients=True)


@pytest.mark.parametrize("frequency", ["epoch", "batch"])
def test_only_changed_values_are_sent_without_a_codec(frequency):
    """For a large table and a frozen layer; a model that has neither sends all values."""
    weights = (Weight("t", (5000, 4), "float32", TRAINABLE), Weight("f", (2,), "float32", STATE))
    spec, made = WeightSpec(weights), plan(frequency=frequency)
    packing = made.packing(spec)
    assert packing == Changes.of(spec, gradients=frequency == "batch")
    delta = np.zeros(packing.size, "f4")
    delta[7] = 3
    sent = packing.packer().pack(delta)
    assert sent.nbytes < 800
    assert made.unpacked(sent, spec).tobytes() == delta.tobytes()
    assert made.unpacked(delta, spec) is delta


def test_straggler_timeout_and_live_modes_need_a_slot_for_every_shard():
    patient = plan(straggler_timeout=np.float32(2.5))
    assert (patient.straggler_timeout, type(patient.straggler_timeout)) == (2.5, float)
    assert patient.at_the_same_time
    assert not plan().at_the_same_time
    assert plan(frequency="batch").at_the_same_time


def test_the_seed_comes_from_the_global_generator_of_numpy():
    """`keras.utils.set_random_seed` seeds that generator."""
    seeds = []
    for start in (3, 3, 4):
        np.random.seed(start)
        seeds.append(plan().seed)
    assert seeds[0] == seeds[1] != seeds[2]
    assert plan(seed=12).seed == 12


@pytest.mark.parametrize(
    ("mode", "frequency", "in_rounds", "gradients"),
    [
        ("synchronous", "epoch", True, False),
        ("synchronous", "batch", False, True),
        ("synchronous", 1, False, False),
        ("asynchronous", "epoch", False, False),
        ("asynchronous", "batch", False, False),
        ("hogwild", "epoch", False, False),
    ],
)
def test_mode_and_frequency_decide_about_rounds_and_gradients(
    mode, frequency, in_rounds, gradients
):
    made = plan(mode=mode, frequency=frequency)
    assert made.in_rounds == in_rounds
    assert made.merges_gradients == gradients


@pytest.mark.parametrize(
    ("frequency", "num_examples", "batches", "local", "exchanges"),
    [
        # 10 examples in batches of 4: 4, 4, 2
        ("epoch", 10, 3, 3, 1),
        ("batch", 10, 3, 1, 3),
        (1, 10, 3, 1, 3),
        (2, 10, 3, 2, 2),
        (3, 10, 3, 3, 1),
        (99, 10, 3, 99, 1),
        ("epoch", 8, 2, 2, 1),
        ("batch", 8, 2, 1, 2),
        ("epoch", 1, 1, 1, 1),
        ("epoch", 0, 0, 1, 0),
        (2, 0, 0, 2, 0),
    ],
)
def test_an_epoch_is_divided_into_batches_and_exchanges(
    frequency, num_examples, batches, local, exchanges
):
    made = plan(mode="asynchronous", frequency=frequency, batch_size=4)
    assert made.batches(num_examples) == batches
    assert made.local_batches(batches) == local
    assert made.exchanges(batches) == exchanges


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 30))
def test_exchanges_hold_all_batches_and_none_is_empty(num_examples, batch_size, frequency):
    made = plan(mode="asynchronous", frequency=frequency, batch_size=batch_size)
    batches = made.batches(num_examples)
    exchanges = made.exchanges(batches)
    assert (batches - 1) * batch_size < num_examples <= batches * batch_size
    assert (exchanges - 1) * frequency < batches <= exchanges * frequency


@pytest.mark.parametrize(
    ("freq", "epochs"),
    [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3]), ([1, 5], [0, 4]), ((2,), [1]), ({3}, [2])],
)
def test_validation_follows_the_same_epochs_as_in_keras(freq, epochs):
    made = plan(validation_freq=freq)
    assert [e for e in range(6) if made.validates(e)] == epochs


def test_shuffling_is_reproducible_and_differs_by_shard_epoch_and_seed():
    made = plan(seed=5)
    order = made.generator(1, 2).permutation(100).tolist()
    assert made.generator(1, 2).permutation(100).tolist() == order
    others = [made.generator(2, 1), made.generator(1, 3), plan(seed=6).generator(1, 2)]
    assert all(rng.permutation(100).tolist() != order for rng in others)
    assert plan(shuffle=False).generator(1, 2) is None
    seed = made.backend_seed(1, 2)
    assert made.backend_seed(1, 2) == seed
    assert seed not in (made.backend_seed(2, 1), made.backend_seed(1, 3))
