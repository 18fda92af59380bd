"""The flat vector of a model's weights."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark.errors import IncompatibleDeltaError
from kspark.weights import (
    FIXED,
    STATE,
    TRAINABLE,
    Weight,
    WeightSpec,
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
