"""How deltas and gradients travel, and what all schemes have in common."""

from __future__ import annotations

import numpy as np
import pytest

from kspark.compression import Int8, Packing
from kspark.errors import ProtocolError
from kspark.weights import Changes, Whole

SCHEMES = {
    "whole": Whole,
    "changes": Changes.of,
    "compressed": lambda spec, gradients: Packing(Int8(), spec, gradients),
}


@pytest.fixture(params=SCHEMES)
def scheme_of(request):
    return SCHEMES[request.param]


@pytest.mark.parametrize("gradients", [False, True])
def test_what_is_packed_arrives(scheme_of, spec, vector, gradients):
    scheme = scheme_of(spec, gradients)
    assert (scheme.spec, scheme.gradients) == (spec, gradients)
    assert scheme.size == (spec.trainable_size if gradients else spec.size)
    delta = vector(scheme.size, _4=1.5)
    sent = scheme.packer().pack(delta)
    if sent.dtype == np.uint8:
        assert sent.size in scheme.sizes
        sent = scheme.unpack(sent, np.full(spec.size, 9, delta.dtype))
    np.testing.assert_allclose(sent, delta, atol=0.01)


def test_who_loses_something_has_a_residual_and_may_go_on_from_it(scheme_of, spec, vector):
    scheme = scheme_of(spec, False)
    packer = scheme.packer()
    assert (packer.residual is None) == scheme.lossless
    packer.pack(vector(scheme.size, _1=1.0, _2=0.001))
    kept = None if packer.residual is None else packer.residual.copy()
    other = scheme.packer()
    other.restore(kept)
    if kept is None:
        assert other.residual is None
    else:
        assert kept.any()
        assert other.residual.tolist() == kept.tolist()


def test_payloads_of_other_schemes_are_told_apart(spec):
    made = [make(spec, gradients) for make in SCHEMES.values() for gradients in (False, True)]
    whole = [scheme for scheme in made if isinstance(scheme, Whole)]
    others = [scheme for scheme in made if not isinstance(scheme, Whole)]
    assert {scheme.digest() for scheme in whole} == {spec.digest()}
    assert len({spec.digest(), *(scheme.digest() for scheme in others)}) == 5


def test_a_whole_vector_travels_as_it_is(spec, vector):
    scheme, delta = Whole(spec), vector(21, _4=1.5)
    assert scheme.packer().pack(delta) is delta
    assert (scheme.lossless, list(scheme.sizes)) == (True, [])


def test_whole_vectors_have_no_payloads(spec):
    out = np.full(21, 9, "f4")
    with pytest.raises(ProtocolError, match="Got a payload of 8 bytes, expected a whole vector"):
        Whole(spec).unpack(np.zeros(8, "u1"), out)
    assert (out == 9).all()
