"""Error feedback and the layout: nothing is lost, and nothing but what is laid out is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark.compression import BFloat16, Compressor, Float16, Int8, Packing, TopK
from kspark.errors import IncompatibleDeltaError, ProtocolError
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec

CODECS = [Float16(), BFloat16(), Int8(), TopK(0.3)]


def spec(trainable=4, state=2, dtype="float32"):
    return WeightSpec(
        (Weight("w", (trainable,), dtype, TRAINABLE), Weight("mean", (state,), dtype, STATE))
    )


def names(codec):
    return codec.name


def sent(compressor, vector):
    """What the other end gets."""
    packing = compressor.packing
    payload = compressor.pack(vector)
    return packing.unpack(payload, np.full(packing.spec.size, 9, vector.dtype)).copy()


def test_what_was_not_sent_comes_later():
    compressor = Compressor(Packing(TopK(0.25), spec(4, 0)))
    first = np.array([3, 2, 1, 0], "f4")
    assert sent(compressor, first).tolist() == [3, 0, 0, 0]
    assert compressor.residual.tolist() == [0, 2, 1, 0]
    assert sent(compressor, np.array([1, 0, 0, 0], "f4")).tolist() == [0, 2, 0, 0]
    assert compressor.residual.tolist() == [1, 0, 1, 0]
    assert sent(compressor, np.zeros(4, "f4")).tolist() == [1, 0, 0, 0]
    assert sent(compressor, np.zeros(4, "f4")).tolist() == [0, 0, 1, 0]
    assert not compressor.residual.any()
    assert first.tolist() == [3, 2, 1, 0]


def test_what_is_too_small_for_one_push_comes_when_there_is_enough_of_it():
    compressor = Compressor(Packing(Float16(), spec(1, 0)))
    tiny = np.array([2.0**-27], "f4")  # half precision has nothing below 2**-24
    assert sum(sent(compressor, tiny)[0] for _ in range(64)) == pytest.approx(2.0**-21, rel=0.1)


@pytest.mark.parametrize("codec", CODECS, ids=names)
@given(st.data())
def test_what_was_sent_and_what_is_left_is_what_was_given(codec, data):
    steps = data.draw(st.integers(1, 12))
    whole = st.integers(-1000, 1000).map(float)  # so that float32 adds them without rounding
    deltas = data.draw(hnp.arrays("f8", (steps, 7), elements=whole))
    compressor = Compressor(Packing(codec, spec(7, 0, "float64")))
    total = sum(sent(compressor, delta) for delta in deltas)
    np.testing.assert_allclose(total + compressor.residual, deltas.sum(axis=0), atol=1e-6)


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_the_residual_stays_small(codec):
    """2,000 gradients: the residual does not grow with their number."""
    random = np.random.default_rng(0)
    compressor = Compressor(Packing(codec, spec(20, 0)))
    lengths = []
    for _ in range(2000):
        compressor.pack(random.normal(size=20).astype("f4"))
        lengths.append(float(np.abs(compressor.residual).max()))
    assert max(lengths[1000:]) < 2 * max(lengths[:1000]) < 40


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_state_travels_as_it_is(codec):
    compressor = Compressor(Packing(codec, spec(4, 2)))
    state = np.array([1.2345678, -1e-30], "f4")
    for _ in range(2):
        got = sent(compressor, np.concatenate([np.ones(4, "f4"), state]))
        assert got[4:].tobytes() == state.tobytes()
    assert compressor.residual.shape == (4,)


@pytest.mark.parametrize("codec", CODECS, ids=names)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_once(codec, bad):
    compressor = Compressor(Packing(codec, spec(4, 0)))
    assert not np.isfinite(sent(compressor, np.array([1, bad, 2, 3], "f4"))).all()
    assert np.isfinite(compressor.residual).all()
    assert np.isfinite(sent(compressor, np.ones(4, "f4"))).all()


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_a_model_without_trainable_weights(codec):
    compressor = Compressor(Packing(codec, spec(0, 2)))
    assert sent(compressor, np.array([1, 2], "f4")).tolist() == [1, 2]
    empty = Packing(codec, spec(0, 2), gradients=True)
    assert (empty.nbytes, Compressor(empty).pack(np.empty(0, "f4")).size) == (0, 0)


def test_gradients_have_no_state():
    packing = Packing(Int8(), spec(4, 2), gradients=True)
    assert (packing.size, packing.nbytes) == (4, 4 + 4)
    assert (Packing(Int8(), spec(4, 2)).size, Packing(Int8(), spec(4, 2)).nbytes) == (6, 8 + 4 + 4)
    out = np.full(6, 9, "f4")
    got = packing.unpack(Compressor(packing).pack(np.full(4, 127, "f4")), out)
    assert got.tolist() == [127] * 4
    assert out.tolist() == [127] * 4 + [9, 9]


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_of_state_that_does_not_change_only_a_bit_travels(codec):
    """A frozen layer of many weights, and the two statistics of another one."""
    frozen = Weight("frozen", (20_000,), "float32", STATE)
    made = WeightSpec((*spec(4, 2).weights, frozen))
    packing = Packing(codec, made)
    compressor, delta = Compressor(packing), np.zeros(20_006, "f4")
    assert packing.digest() != Packing(codec, spec(4, 2)).digest()
    delta[:4], delta[4:6] = [1, 2, 3, 4], [5, -6]
    payload = compressor.pack(delta)
    assert payload.size == 8 + 8 + packing.codec_bytes
    assert payload.size in packing.sizes
    assert packing.unpack(payload, np.full(20_006, 9, "f4"))[4:].tobytes() == delta[4:].tobytes()
    delta[-1] = np.nan
    payload = compressor.pack(delta)
    assert payload.size == packing.nbytes == packing.sizes[-1]
    assert packing.unpack(payload, np.full(20_006, 9, "f4"))[4:].tobytes() == delta[4:].tobytes()


@pytest.mark.parametrize("change", ["cut", "longer", "a bit"])
def test_malformed_state_is_refused_and_nothing_is_written(change):
    made = WeightSpec((*spec(4, 2).weights, Weight("frozen", (20_000,), "float32", STATE)))
    packing, out = Packing(Int8(), made), np.full(20_006, 9, "f4")
    payload = Compressor(packing).pack(np.append(np.ones(6, "f4"), np.zeros(20_000, "f4")))
    if change == "a bit":
        payload[7] = 1
    else:
        payload = payload[4:] if change == "cut" else np.append(np.zeros(4, "u1"), payload)
    with pytest.raises(ProtocolError):
        packing.unpack(payload, out)
    assert (out == 9).all()


def test_the_same_deltas_give_the_same_bytes():
    deltas = np.random.default_rng(3).normal(size=(5, 6)).astype("f4")
    runs = []
    for _ in range(2):
        compressor = Compressor(Packing(TopK(0.3), spec()))
        runs.append(b"".join(compressor.pack(delta).tobytes() for delta in deltas))
    assert runs[0] == runs[1]


def test_another_residual():
    compressor = Compressor(Packing(TopK(0.25), spec(4, 0)))
    kept = np.array([0, 5, 0, 0], "f4")
    compressor.restore(kept)
    assert sent(compressor, np.ones(4, "f4")).tolist() == [0, 6, 0, 0]
    assert kept.tolist() == [0, 5, 0, 0]
    compressor.restore(None)
    assert compressor.residual.tolist() == [0, 0, 0, 0]
    for wrong in (np.zeros(3, "f4"), np.zeros(4, "f8")):
        with pytest.raises(IncompatibleDeltaError, match="A residual of shape"):
            compressor.restore(wrong)


@pytest.mark.parametrize("wrong", [np.zeros(4, "f4"), np.zeros(7, "f4"), np.zeros(6, "f8")])
def test_a_delta_of_another_kind_is_refused(wrong):
    compressor = Compressor(Packing(Float16(), spec()))
    with pytest.raises(IncompatibleDeltaError, match=r"do not match shape \(6,\) and dtype float3"):
        compressor.pack(wrong)
    assert not compressor.residual.any()


def test_a_payload_of_another_layout_is_refused():
    packing = Packing(Float16(), spec())
    out = np.full(6, 9, "f4")
    for wrong in (np.zeros(15, "u1"), np.zeros(17, "u1"), np.zeros(16, "i1")):
        with pytest.raises(ProtocolError, match="bytes of a compressed vector, expected 16"):
            packing.unpack(wrong, out)
    assert out.tolist() == [9] * 6


def test_ends_that_agree_have_one_digest():
    layouts = [
        Packing(codec, weights, gradients)
        for codec in (*CODECS, TopK(0.31))
        for weights in (spec(), spec(3, 3))
        for gradients in (False, True)
    ]
    digests = {layout.digest() for layout in layouts}
    assert len(digests) == len(layouts)
    assert spec().digest() not in digests
    assert Packing(TopK(0.3), spec()).digest() == Packing(TopK(0.3), spec()).digest()
