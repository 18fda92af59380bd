"""The flat vector and its arithmetic, by hand and against NumPy."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.weights import (
    FIXED,
    STATE,
    TRAINABLE,
    Weight,
    WeightedMean,
    WeightSpec,
    apply_delta,
    compute_delta,
    weighted_mean,
)

# As Keras orders them: a layer's own variables side by side, whatever their role.
MIXED = WeightSpec(
    (
        Weight("norm/mean", (3,), "float32", STATE),
        Weight("dense/kernel", (2, 3), "float32", TRAINABLE),
        Weight("dropout/seed", (2,), "uint32", FIXED),
        Weight("dense/bias", (3,), "float16", TRAINABLE),
        Weight("norm/scale", (), "float32", STATE),
    )
)
ARRAYS = [
    np.array([10, 11, 12], "float32"),
    np.arange(6, dtype="float32").reshape(2, 3),
    np.array([7, 8], "uint32"),
    np.array([6, 7, 8], "float16"),
    np.array(13, "float32"),
]

floats = st.floats(-1e3, 1e3, width=32)


def vectors(size: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, size, elements=floats)


# -- WeightSpec ---------------------------------------------------------------------------


def test_trainable_weights_come_first_then_state_and_fixed_ones_not_at_all():
    assert MIXED.order == (1, 3, 0, 4)
    assert MIXED.trainable_size == 9
    assert MIXED.size == 13
    assert MIXED.nbytes == 52
    slices = [(i, part.start, part.stop) for i, part in MIXED.parts]
    assert slices == [(1, 0, 6), (3, 6, 9), (0, 9, 12), (4, 12, 13)]


def test_flatten_writes_the_merged_weights_in_that_order():
    vector = MIXED.flatten(ARRAYS)
    assert vector.dtype == np.float32
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]


def test_flatten_into_a_given_vector():
    out = np.full(13, -1, "float32")
    assert MIXED.flatten(ARRAYS, out) is out
    assert out.tolist() == MIXED.flatten(ARRAYS).tolist()


@pytest.mark.parametrize("out", [np.empty(14, "float32"), np.empty(13, "float64")])
def test_flatten_refuses_another_out(out):
    with pytest.raises(IncompatibleDeltaError, match="The out vector has shape"):
        MIXED.flatten(ARRAYS, out)


def test_unflatten_gives_views_by_position():
    vector = MIXED.flatten(ARRAYS)
    views = MIXED.unflatten(vector)
    assert sorted(views) == [0, 1, 3, 4]
    for i, view in views.items():
        np.testing.assert_array_equal(view, ARRAYS[i])
        assert view.shape == ARRAYS[i].shape
    views[1][0, 0] = 99
    assert vector[0] == 99


def test_wrong_number_and_shapes_of_arrays_are_refused():
    with pytest.raises(IncompatibleDeltaError, match="Got 4 arrays, expected 5"):
        MIXED.flatten(ARRAYS[:4])
    wrong = [*ARRAYS[:3], np.zeros((3, 1), "float16"), ARRAYS[4]]
    with pytest.raises(IncompatibleDeltaError, match=r"'dense/bias' has shape \(3, 1\), expected"):
        MIXED.flatten(wrong)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("float16", "float16"), "float32"),
        (("float32", "float64"), "float64"),
        (("float64", "float32"), "float64"),
        (("bfloat16", "float32"), "float32"),
    ],
)
def test_the_vector_is_float64_only_if_a_merged_weight_is(dtypes, expected):
    roles = (TRAINABLE, STATE)
    weights = [Weight("w", (1,), d, r) for d, r in zip(dtypes, roles, strict=True)]
    assert WeightSpec((*weights, Weight("f", (1,), "float64", FIXED))).dtype == expected


def test_check_names_what_differs():
    MIXED.check(np.zeros(13, "float32"))
    for wrong in (np.zeros(12, "float32"), np.zeros((13, 1), "float32"), np.zeros(13)):
        with pytest.raises(IncompatibleDeltaError) as caught:
            MIXED.check(wrong, "delta of shard 3")
        assert f"The delta of shard 3 has shape {wrong.shape} and dtype" in str(caught.value)
        assert "expected (13,) and float32" in str(caught.value)
    with pytest.raises(IncompatibleDeltaError):
        MIXED.unflatten(np.zeros(14, "float32"))


def test_json_brings_the_spec_back():
    copy = WeightSpec.from_json(MIXED.to_json())
    assert copy == MIXED
    assert copy.digest() == MIXED.digest()
    assert len(MIXED.digest()) == 32


@pytest.mark.parametrize(
    "change", [{"shape": (3, 2)}, {"dtype": "float64"}, {"role": STATE}, {"name": "x"}]
)
def test_digest_tells_specs_apart(change):
    weights = list(MIXED.weights)
    weights[1] = replace(weights[1], **change)
    assert WeightSpec(tuple(weights)).digest() != MIXED.digest()


def test_digest_depends_on_the_order_of_the_weights():
    assert WeightSpec(MIXED.weights[::-1]).digest() != MIXED.digest()


def test_spec_is_picklable_also_after_use():
    MIXED.flatten(ARRAYS)
    assert pickle.loads(pickle.dumps(MIXED)) == MIXED


@given(st.data())
def test_flatten_and_unflatten_are_inverse(data):
    weights, arrays = [], []
    for i in range(data.draw(st.integers(1, 5))):
        shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
        role = data.draw(st.sampled_from([TRAINABLE, STATE, FIXED]))
        weights.append(Weight(str(i), shape, "float32", role))
        arrays.append(data.draw(hnp.arrays(np.float32, shape, elements=floats)))
    spec = WeightSpec(tuple(weights))
    views = spec.unflatten(spec.flatten(arrays))
    assert set(views) == {i for i, w in enumerate(weights) if w.role != FIXED}
    for i, view in views.items():
        np.testing.assert_array_equal(view, arrays[i])


# -- delta, apply_delta ------------------------------------------------------------------------


def test_delta_is_new_minus_old():
    new, old = np.array([3, 5], "float32"), np.array([1, 7], "float32")
    assert compute_delta(new, old).tolist() == [2, -2]
    assert compute_delta(new, old, out=new) is new
    assert new.tolist() == [2, -2]


def test_apply_delta_works_in_place_and_scales():
    weights, change = np.array([1, 2], "float32"), np.array([4, -8], "float32")
    apply_delta(weights, change)
    assert weights.tolist() == [5, -6]
    apply_delta(weights, change, 0.25)
    assert weights.tolist() == [6, -8]
    assert weights.dtype == np.float32
    assert change.tolist() == [4, -8]


@pytest.mark.parametrize(
    "other", [np.zeros(3, "float32"), np.zeros(1, "float32"), np.zeros(2), np.zeros((2, 1), "f4")]
)
def test_nothing_is_broadcast_or_cast(other):
    vector = np.ones(2, "float32")
    with pytest.raises(IncompatibleDeltaError, match="do not match"):
        compute_delta(vector, other)
    with pytest.raises(IncompatibleDeltaError, match="do not match"):
        apply_delta(vector, other)
    assert vector.tolist() == [1, 1]


# -- WeightedMean --------------------------------------------------------------------------------

pairs_of_vectors = st.lists(
    st.tuples(vectors(3), st.floats(0, 1e4)), min_size=1, max_size=6
).filter(lambda pairs: sum(w for _, w in pairs) > 1e-3)


def test_mean_by_hand():
    pairs = [(np.array([1, 0], "f4"), 1), (np.array([4, 4], "f4"), 2), (np.array([8, 8], "f4"), 1)]
    assert weighted_mean(pairs).tolist() == [4.25, 4.0]


@given(pairs_of_vectors)
def test_mean_equals_numpys(pairs):
    expected = np.average([v for v, _ in pairs], axis=0, weights=[w for _, w in pairs])
    mean = weighted_mean(pairs)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-6)


@given(vectors(4), st.lists(st.integers(1, 60_000), min_size=1, max_size=7))
def test_mean_of_identical_vectors_is_that_vector_to_the_bit(vector, counts):
    assert weighted_mean((vector, n) for n in counts).tobytes() == (vector + 0.0).tobytes()


def test_what_weighs_nothing_adds_nothing_not_even_nan():
    mean = WeightedMean()
    mean.add(np.array([np.nan, 1], "f4"), 0)
    mean.add(np.array([2, 3], "f4"), 5)
    assert mean.result().tolist() == [2, 3]
    assert (mean.total, mean.count) == (5, 1)


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(AggregationError, match="must be finite and >= 0. Received: weight="):
        WeightedMean().add(np.ones(1), weight)


def test_nothing_to_average_is_an_error():
    with pytest.raises(AggregationError, match="nothing to average"):
        weighted_mean([(np.ones(2), 0)])


def test_other_shapes_are_refused():
    mean = WeightedMean()
    mean.add(np.ones(2, "f4"), 1)
    with pytest.raises(IncompatibleDeltaError, match=r"\(1,\) does not match shape \(2,\)"):
        mean.add(np.ones(1, "f4"), 1)
    assert mean.result().tolist() == [1, 1]


def test_sums_in_float64():
    """In float32, 2**24 + 1 is 2**24."""
    pairs = [(np.array([2.0**24], "f4"), 1), *[(np.array([1.0], "f4"), 1)] * 4]
    assert weighted_mean(pairs).tolist() == [np.float32((2**24 + 4) / 5)]


def test_adding_does_not_change_what_is_added():
    vector = np.array([1, 2], "f4")
    mean = WeightedMean()
    mean.add(vector, 3)
    mean.add(vector, 3)
    assert vector.tolist() == [1, 2]
