"""Deltas and gradients of models, as both ends of a fit see them."""

from __future__ import annotations

import numpy as np
import pytest

from kspark.errors import ProtocolError
from kspark.weights import TRAINABLE, Changes, Weight, WeightSpec


@pytest.mark.parametrize(("gradients", "size"), [(False, 21), (True, 14)])
def test_a_round_trip(spec, vector, gradients, size):
    changes = Changes.of(spec, gradients)
    assert (changes.size, changes.gradients, changes.lossless) == (size, gradients, True)
    delta = vector(size, _4=1.5, _12=7)
    payload = changes.pack(delta)
    assert payload.size in changes.sizes
    out = np.full(21, 9, "f4")
    found = changes.unpack(payload, out)
    assert found.base is out
    assert found.tobytes() == delta.tobytes()
    assert (out[size:] == 9).all()


def test_a_malformed_payload_changes_nothing(spec, vector):
    changes, out = Changes.of(spec), np.full(21, 9, "f4")
    with pytest.raises(ProtocolError):
        changes.unpack(changes.pack(vector(21, _4=1))[:-4], out)
    assert (out == 9).all()


def test_a_model_without_blocks_has_none():
    spec = WeightSpec((Weight("kernel", (3, 9), "float32", TRAINABLE),))
    assert Changes.of(spec) is None


def test_gradients_have_no_state(spec):
    assert [t.start for t in Changes.of(spec, gradients=True).layout.tables] == [1]


def test_both_ends_must_mean_the_same(spec):
    other = WeightSpec(spec.weights[1:])
    made = [Changes.of(spec), Changes.of(spec, True), Changes.of(other)]
    assert len({spec.digest(), *(changes.digest() for changes in made)}) == 4
    assert Changes.of(spec).digest() == made[0].digest()
