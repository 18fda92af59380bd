"""`TrainingPlan`: what it accepts, what it says, and how the epochs are cut."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.compression import Packing, TopK
from kspark.job.preparing import divide_validation
from kspark.plan import TrainingPlan
from kspark.plan.checks import check_fraction
from kspark.weights import STATE, TRAINABLE, Changes, Weight, WeightSpec, Whole

SPEC = WeightSpec((Weight("w", (4,), "float32", TRAINABLE),))


def plan(**arguments):
    return TrainingPlan.create(**{"mode": "synchronous", "frequency": "epoch", **arguments})


def test_defaults_are_keras_own():
    made = plan(seed=1)
    assert made == TrainingPlan(
        mode="synchronous", frequency="epoch", epochs=1, initial_epoch=0, batch_size=32,
        shuffle=True, class_weight=None, validation_freq=1, seed=1, timeout=60.0,
        max_failures=2, on_nonfinite="raise", port=0, max_staleness=None,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_codec_is_plain_data_of_the_plan():
    made = plan(compression="top_k", seed=1)
    assert made.compression == TopK(0.01)
    assert pickle.loads(pickle.dumps(made)) == made
    assert plan(compression=None).packing(SPEC) == Whole(SPEC)
    assert plan(compression=None, frequency="batch").packing(SPEC) == Whole(SPEC, gradients=True)
    assert made.packing(SPEC) == Packing(TopK(0.01), SPEC, gradients=False)
    merging = plan(compression=TopK(0.5), frequency="batch")
    assert merging.packing(SPEC) == Packing(TopK(0.5), SPEC, gradients=True)


@pytest.mark.parametrize("frequency", ["epoch", "batch"])
def test_without_a_codec_only_what_changed_travels(frequency):
    """A large table and a frozen layer; a model that has neither sends all."""
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


def test_hogwild_has_nothing_to_compress():
    with pytest.raises(
        ValueError, match=r"`compression` must be None with mode=\"hogwild\", .*Int8"
    ):
        plan(mode="hogwild", compression="int8")
    assert plan(mode="hogwild", compression=None).compression is None


@pytest.mark.parametrize(
    ("name", "value", "kind", "rule"),
    [
        ("mode", "sync", ValueError, 'one of "synchronous", "asynchronous", "hogwild"'),
        ("frequency", "step", ValueError, '"epoch", "batch" or an integer >= 1'),
        ("frequency", 0, ValueError, '"epoch", "batch" or an integer >= 1'),
        ("frequency", True, ValueError, '"epoch", "batch" or an integer >= 1'),
        ("frequency", 2.0, ValueError, '"epoch", "batch" or an integer >= 1'),
        ("epochs", 0, ValueError, "an integer >= 1"),
        ("epochs", 1.5, TypeError, "an integer >= 1"),
        ("epochs", True, TypeError, "an integer >= 1"),
        ("initial_epoch", -1, ValueError, "an integer >= 0"),
        ("initial_epoch", 2, ValueError, r"<= epochs \(1\)"),
        ("initial_epoch", "0", TypeError, "an integer >= 0"),
        ("batch_size", 0, ValueError, "an integer >= 1"),
        ("batch_size", None, TypeError, "an integer >= 1"),
        ("shuffle", 1, TypeError, "True or False"),
        ("seed", -1, ValueError, "an integer >= 0"),
        ("seed", 1.0, TypeError, "an integer >= 0"),
        ("timeout", 0, ValueError, "a finite number of seconds > 0"),
        ("timeout", float("inf"), ValueError, "a finite number of seconds > 0"),
        ("timeout", float("nan"), ValueError, "a finite number of seconds > 0"),
        ("timeout", "60", TypeError, "a number of seconds > 0"),
        ("timeout", True, TypeError, "a number of seconds > 0"),
        ("max_failures", -1, ValueError, "an integer >= 0"),
        ("max_failures", 0.5, TypeError, "an integer >= 0"),
        ("on_nonfinite", "warn", ValueError, 'one of "raise", "ignore"'),
        ("compression", "int7", ValueError, 'None or one of .*"int8" is the nearest'),
        ("compression", 8, TypeError, "None, a codec's name"),
        ("port", -1, ValueError, "a port from 0 to 65535"),
        ("port", 65536, ValueError, "a port from 0 to 65535"),
        ("port", "80", TypeError, "a port from 0 to 65535"),
        ("port", True, TypeError, "a port from 0 to 65535"),
        ("port", (0, 10), ValueError, r"a pair \(first, last\) of ports"),
        ("port", (10, 9), ValueError, r"a pair \(first, last\) of ports"),
        ("port", (10, 65536), ValueError, r"a pair \(first, last\) of ports"),
        ("port", (1, 2, 3), TypeError, r"a pair \(first, last\) of ports"),
        ("class_weight", {}, TypeError, "a non-empty mapping"),
        ("class_weight", [1.0], TypeError, "a non-empty mapping"),
        ("class_weight", {-1: 1.0}, ValueError, "keyed by class indices >= 0"),
        ("class_weight", {True: 1.0}, ValueError, "keyed by class indices >= 0"),
        ("class_weight", {"a": 1.0}, ValueError, "keyed by class indices >= 0"),
        ("class_weight", {0: -1.0}, ValueError, "a mapping to finite weights >= 0"),
        ("class_weight", {0: float("nan")}, ValueError, "a mapping to finite weights >= 0"),
        ("class_weight", {0: float("inf")}, ValueError, "a mapping to finite weights >= 0"),
        ("class_weight", {0: "1"}, ValueError, "a mapping to finite weights >= 0"),
        ("validation_freq", 0, ValueError, "an integer >= 1"),
        ("validation_freq", [1, 0], ValueError, "an integer >= 1"),
        ("validation_freq", 0.5, TypeError, "an integer >= 1"),
    ],
)
def test_wrong_arguments_are_named(name, value, kind, rule):
    with pytest.raises(kind, match=f"^`{name}` must be .*{rule}.*Received: {name}="):
        plan(**{name: value})


@pytest.mark.parametrize(
    ("mode", "value", "kind", "rule"),
    [
        ("asynchronous", -1, ValueError, "an integer >= 0"),
        ("asynchronous", True, TypeError, "an integer >= 0"),
        ("asynchronous", 1.0, TypeError, "an integer >= 0"),
        ("synchronous", 0, ValueError, 'None with mode="synchronous", .*at every exchange'),
        ("hogwild", 0, ValueError, 'None with mode="hogwild", .*shared memory'),
    ],
)
@pytest.mark.parametrize("frequency", ["epoch", 3])
def test_a_bound_of_the_staleness_is_for_asynchronous_replicas(mode, value, kind, rule, frequency):
    assert plan(mode=mode, frequency=frequency).max_staleness is None
    with pytest.raises(kind, match=f"^`max_staleness` must be {rule}.*Received: max_staleness="):
        plan(mode=mode, frequency=frequency, max_staleness=value)


@pytest.mark.parametrize(
    ("given", "value", "kind", "rule"),
    [
        ({}, 0, ValueError, "a finite number of seconds > 0"),
        ({}, -1.5, ValueError, "a finite number of seconds > 0"),
        ({}, float("inf"), ValueError, "a finite number of seconds > 0"),
        ({}, "3", TypeError, "a number of seconds > 0"),
        ({}, True, TypeError, "a number of seconds > 0"),
        ({"mode": "asynchronous"}, 3, ValueError, 'None with mode="asynchronous", .* slow one'),
        ({"mode": "hogwild"}, 3, ValueError, 'None with mode="hogwild", .* slow one'),
        ({"frequency": "batch"}, 3, ValueError, "None with frequency='batch', .* exchange"),
        ({"frequency": 4}, 3, ValueError, "None with frequency=4, .* exchange"),
    ],
)
def test_only_rounds_have_stragglers(given, value, kind, rule):
    assert plan(**given).straggler_timeout is None
    told = f"^`straggler_timeout` must be {rule}.*Received: straggler_timeout="
    with pytest.raises(kind, match=told):
        plan(**given, straggler_timeout=value)


def test_who_needs_a_slot_for_every_shard():
    patient = plan(straggler_timeout=np.float32(2.5))
    assert (patient.straggler_timeout, type(patient.straggler_timeout)) == (2.5, float)
    assert patient.at_the_same_time
    assert not plan().at_the_same_time
    assert plan(frequency="batch").at_the_same_time


@pytest.mark.parametrize("given", [0, 7, np.int64(3)])
def test_a_bound_of_the_staleness_becomes_a_plain_number(given):
    bound = plan(mode="asynchronous", max_staleness=given).max_staleness
    assert (bound, type(bound)) == (given, int)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0, 0),
        (np.int64(8080), 8080),
        ((5000, 5010), (5000, 5010)),
        ([5000, 5010], (5000, 5010)),  # as JSON gives it back
        ((np.int32(1), 65535), (1, 65535)),
    ],
)
def test_ports_are_kept_as_plain_integers(given, kept):
    port = plan(port=given).port
    assert port == kept
    assert {type(p) for p in (port if isinstance(port, tuple) else (port,))} == {int}


def test_numpy_numbers_become_plain():
    made = plan(
        frequency=np.int64(5), epochs=np.int32(3), initial_epoch=np.int8(2), batch_size=np.int64(8),
        seed=np.uint32(7), shuffle=np.bool_(False), timeout=np.float32(2), max_failures=np.int16(1),
        class_weight={np.int64(1): np.float32(0.5), 0: 2}, validation_freq=np.int64(2),
    )  # fmt: skip
    numbers = ("frequency", "epochs", "initial_epoch", "batch_size", "seed", "max_failures")
    assert {type(getattr(made, name)) for name in numbers} == {int}
    assert (type(made.shuffle), type(made.timeout)) == (bool, float)
    assert made.class_weight == {1: 0.5, 0: 2.0}
    assert {type(v) for pair in made.class_weight.items() for v in pair} == {int, float}
    assert type(made.validation_freq) is int


def test_last_allowed_values():
    made = plan(epochs=2, initial_epoch=2, batch_size=1, max_failures=0, seed=0, port=65535)
    assert (made.initial_epoch, made.max_failures, made.seed, made.port) == (2, 0, 0, 65535)
    assert plan(on_nonfinite="ignore").on_nonfinite == "ignore"
    assert plan(class_weight={0: 0}).class_weight == {0: 0.0}
    assert plan(frequency=1).frequency == 1


def test_seed_comes_from_numpys_global_generator():
    """Which `keras.utils.set_random_seed` sets."""
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
def test_cutting_an_epoch(frequency, num_examples, batches, local, exchanges):
    made = plan(mode="asynchronous", frequency=frequency, batch_size=4)
    assert made.batches(num_examples) == batches
    assert made.local_batches(batches) == local
    assert made.exchanges(num_examples) == exchanges


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 30))
def test_exchanges_hold_all_batches_and_none_is_empty(num_examples, batch_size, frequency):
    made = plan(mode="asynchronous", frequency=frequency, batch_size=batch_size)
    batches, exchanges = made.batches(num_examples), made.exchanges(num_examples)
    assert (batches - 1) * batch_size < num_examples <= batches * batch_size
    assert (exchanges - 1) * frequency < batches <= exchanges * frequency


@pytest.mark.parametrize(
    ("freq", "epochs"),
    [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [3]), ([1, 5], [0, 4]), ((2,), [1]), ({3}, [2])],
)
def test_validates_after_the_epochs_that_keras_does(freq, epochs):
    made = plan(validation_freq=freq)
    assert [e for e in range(6) if made.validates(e)] == epochs


def test_epochs_to_validate_are_sorted():
    assert plan(validation_freq=[3, 1]).validation_freq == (1, 3)
    assert plan(validation_freq=range(1, 4)).validation_freq == (1, 2, 3)


def test_shuffling_is_the_same_again_and_another_for_each_shard_epoch_and_seed():
    made = plan(seed=5)
    order = made.generator(1, 2).permutation(100).tolist()
    assert made.generator(1, 2).permutation(100).tolist() == order
    others = [made.generator(2, 1), made.generator(1, 3), plan(seed=6).generator(1, 2)]
    assert all(rng.permutation(100).tolist() != order for rng in others)
    assert plan(shuffle=False).generator(1, 2) is None


@pytest.mark.parametrize("value", [0, 0.0, 0.5, np.float32(0.25)])
def test_fractions(value):
    check_fraction("validation_split", value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1.0, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("0.1", TypeError),
     (None, TypeError), (False, TypeError)],
)  # fmt: skip
def test_no_fractions(value, kind):
    with pytest.raises(kind, match="`validation_split` must be a number >= 0 and < 1"):
        check_fraction("validation_split", value)


# -- divide_validation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "fraction", "train"),
    [
        ({0: 10}, 0.0, {0: 10}),
        ({0: 10}, 0.25, {0: 7}),  # as Keras: int(10 * 0.75) = 7 train
        ({0: 50, 1: 50}, 0.1, {0: 45, 1: 45}),
        ({0: 30, 1: 10}, 0.5, {0: 15, 1: 5}),
        ({0: 3, 1: 3, 2: 3}, 0.34, {0: 1, 1: 2, 2: 2}),  # 4 held out, one each and one left
        ({0: 1, 1: 8}, 0.34, {0: 1, 1: 4}),  # 4 * 8/9 = 3.56 has the larger remainder
        ({0: 0, 1: 4}, 0.25, {0: 0, 1: 3}),
        ({}, 0.5, {}),
    ],
)
def test_held_out_rows_by_hand(counts, fraction, train):
    assert divide_validation(counts, fraction) == train


counts_of_shards = st.dictionaries(st.integers(0, 20), st.integers(0, 5000), min_size=1)


@given(counts_of_shards, st.floats(0, 0.999))
def test_as_many_are_held_out_as_keras_would_and_spread_by_size(counts, fraction):
    total = sum(counts.values())
    train = divide_validation(counts, fraction)
    held_out = {shard: counts[shard] - train[shard] for shard in counts}
    # Keras trains on the first int(math.floor(n * (1.0 - validation_split))) examples.
    assert sum(train.values()) == int(np.floor(total * (1.0 - fraction)))
    assert all(0 <= held_out[s] <= counts[s] for s in counts)
    for shard, n in counts.items():
        exact = Fraction(n * sum(held_out.values()), total or 1)
        assert abs(held_out[shard] - exact) < 1
