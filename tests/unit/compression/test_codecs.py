"""Codecs: numbers worked by hand, exact bounds, and bytes that are no payload."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kspark.compression import BFloat16, Float16, Int8, TopK
from kspark.compression.int8 import BLOCK
from kspark.errors import IncompatibleDeltaError, ProtocolError

F4, F8 = np.dtype("float32"), np.dtype("float64")
CODECS = [Float16(), BFloat16(), Int8(), TopK(0.3)]
INF, NAN = float("inf"), float("nan")


def names(codec):
    return codec.name


def vectors(least=0, most=40, dtype=F4, **values):
    given = {"allow_nan": False, "allow_infinity": False, "width": 8 * dtype.itemsize, **values}
    return hnp.arrays(dtype, st.integers(least, most), elements=st.floats(**given))


def coded(codec, values, dtype=F4):
    """What comes out at the other end."""
    vector = np.asarray(values, dtype)
    before, out = vector.copy(), np.full(vector.shape, 99, dtype)
    codec.decode(codec.encode(vector), out)
    np.testing.assert_array_equal(vector, before)
    return out


# -- by hand ---------------------------------------------------------------------------------------


def test_half_precision_by_hand():
    # 0x3C00 is 1; the next number is 1 + 2**-10, and the middle goes to the even one.
    payload = Float16().encode(np.array([1, -2, 1 + 2**-11, 1 + 3 * 2**-11, 65504], "f4"))
    assert payload.view("u2").tolist() == [0x3C00, 0xC000, 0x3C00, 0x3C02, 0x7BFF]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(65520, 65504), (1e30, 65504), (-1e30, -65504), (INF, INF), (-INF, -INF), (NAN, NAN),
     (2**-24, 2**-24), (2**-25, 0), (1e-30, 0)],
)  # fmt: skip
def test_half_precision_at_its_ends(value, expected):
    np.testing.assert_array_equal(coded(Float16(), [value, 1]), np.array([expected, 1], "f4"))


def test_bfloat16_by_hand():
    # 0x3F80 is 1; the next number is 1 + 2**-7, and the middle goes to the even one.
    values = np.array([1, -2, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], "f4")
    payload = BFloat16().encode(values)
    assert payload.view("u2").tolist() == [0x3F80, 0xC000, 0x3F80, 0x3F82, 0x3F81]


@pytest.mark.parametrize("dtype", [F4, F8])
def test_bfloat16_at_its_ends(dtype):
    largest = float(np.array([0x7F7F0000], "u4").view("f4")[0])
    most = float(np.finfo(dtype).max)
    values, expected = [most, -most, INF, -INF, NAN], [largest, -largest, INF, -INF, NAN]
    np.testing.assert_array_equal(coded(BFloat16(), values, dtype), np.array(expected, dtype))


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
def test_every_nan_stays_one_in_bfloat16(bits):
    """Rounded as numbers, some would become infinite, and others zero."""
    (got,) = coded(BFloat16(), np.array([bits], "u4").view("f4"))
    assert np.isnan(got)


def test_int8_by_hand():
    # The largest is 127, so the scale is 1. 2.5 is in the middle, and goes to the even 2.
    values = np.array([127, -127, 2.5, 3.5, -0.4, 0, 1], "f4")
    payload = Int8().encode(values)
    assert payload[:4].view("f4").tolist() == [1.0]
    assert payload[4:].view("i1").tolist() == [127, -127, 2, 4, 0, 0, 1]
    assert coded(Int8(), values).tolist() == [127, -127, 2, 4, 0, 0, 1]


def test_int8_has_a_scale_for_every_block():
    values = np.full(2 * BLOCK + 1, 127, "f4")
    values[BLOCK : 2 * BLOCK] = 0
    values[-1] = 12.7
    payload = Int8().encode(values)
    assert payload.size == Int8().payload_size(values.size, F4) == 3 * 4 + values.size
    scales = payload[:12].view("f4")
    assert scales[:2].tolist() == [1, 0]
    assert scales[2] == pytest.approx(0.1, rel=2**-15)
    assert payload[12:].view("i1").tolist() == [127] * BLOCK + [0] * BLOCK + [127]


def test_int8_scales_are_rounded_up_to_sixteen_bits():
    (scale,) = Int8().encode(np.array([1.0], "f4"))[:4].view("f4")
    assert Fraction(1, 127) <= Fraction(float(scale)) <= Fraction(1, 127) * (1 + Fraction(1, 2**15))
    assert scale.view("u4") & 0xFF == 0


def test_int8_marks_what_is_not_finite_and_keeps_the_rest():
    values = np.array([NAN, 127, INF, -3, -INF], "f4")
    assert Int8().encode(values)[4:].view("i1").tolist() == [-128, 127, -128, -3, -128]
    np.testing.assert_array_equal(coded(Int8(), values), np.array([NAN, 127, NAN, -3, NAN], "f4"))


def test_int8_of_numbers_that_no_scale_holds():
    far = coded(Int8(), [1e300, 1, -1e300], F8)
    assert np.isfinite(far).all()
    assert far[0] == -far[2] == pytest.approx(3.4028e38, rel=1e-4)
    assert coded(Int8(), [1e-45, 0]).tolist() == [0, 0]
    most = np.finfo(F4).max
    assert coded(Int8(), [most, 0])[0] == pytest.approx(most, rel=1e-4)


def test_the_largest_values_by_hand():
    payload = TopK(0.4).encode(np.array([1, -5, 0, 4, 3], "f4"))
    assert payload[:8].view("f4").tolist() == [-5, 4]
    assert payload[8:].view("u4").tolist() == [1, 3]
    assert coded(TopK(0.4), [1, -5, 0, 4, 3]).tolist() == [0, -5, 0, 4, 0]


def test_of_equal_magnitudes_the_first_ones_are_sent():
    assert coded(TopK(0.5), [2, -2, 1, 2, -2, 3]).tolist() == [2, -2, 0, 0, 0, 3]
    assert coded(TopK(0.5), [0, 0, 0, 0]).tolist() == [0, 0, 0, 0]


def test_what_is_not_finite_is_sent_before_all_numbers():
    got = coded(TopK(0.5), [1e38, NAN, 7, -INF])
    np.testing.assert_array_equal(got, np.array([0, NAN, 0, -INF], "f4"))
    assert np.isnan(coded(TopK(0.01), [5, 6, NAN, 8])).any()


@pytest.mark.parametrize(
    ("fraction", "size", "count"),
    [(0.01, 0, 0), (0.01, 1, 1), (0.01, 100, 1), (0.01, 101, 2), (0.07, 100, 7), (1, 9, 9)],
)
def test_how_many_are_sent(fraction, size, count):
    assert TopK(fraction).count(size) == count
    assert TopK(fraction).payload_size(size, F4) == 8 * count
    assert TopK(fraction).payload_size(size, F8) == 12 * count


def test_positions_have_32_bits():
    assert TopK(1e-9).count(1 << 32) == 5
    with pytest.raises(ValueError, match='`compression` must be another codec than "top_k" for 4'):
        TopK(1e-9).count((1 << 32) + 1)


# -- bounds ----------------------------------------------------------------------------------------


@given(vectors(min_value=-65504, max_value=65504))
def test_half_precision_is_off_by_half_a_unit_at_most(vector):
    error = np.abs(coded(Float16(), vector).astype(F8) - vector)
    assert (error <= np.maximum(2.0**-11 * np.abs(vector.astype(F8)), 2.0**-25)).all()


@given(vectors())
def test_bfloat16_is_what_the_reference_rounds_to(vector):
    with np.errstate(over="ignore"):
        expected = vector.astype(ml_dtypes.bfloat16)
    got, finite = coded(BFloat16(), vector), np.isfinite(expected.astype(F4))
    np.testing.assert_array_equal(got[finite], expected.astype(F4)[finite])
    assert np.isfinite(got).all()
    normal = finite & (np.abs(vector) >= 2.0**-126)
    error = np.abs(got.astype(F8) - vector)[normal]
    assert (error <= 2.0**-8 * np.abs(vector.astype(F8)[normal])).all()


@given(vectors(dtype=F8, min_value=-1e38, max_value=1e38))
def test_bfloat16_of_doubles(vector):
    normal = np.abs(vector) >= 2.0**-126
    error = np.abs(coded(BFloat16(), vector, F8) - vector)[normal]
    assert (error <= (2.0**-8 + 2.0**-23) * np.abs(vector[normal])).all()


@given(vectors(1))
def test_int8_is_off_by_half_a_scale_at_most(vector):
    scale = Fraction(float(Int8().encode(vector)[:4].view(F4)[0]))
    for value, got in zip(vector.tolist(), coded(Int8(), vector).tolist(), strict=True):
        assert abs(Fraction(got) - Fraction(value)) <= scale / 2


@given(vectors(1, dtype=F8, min_value=-1e30, max_value=1e30))
def test_int8_of_doubles(vector):
    scale = Fraction(float(Int8().encode(vector)[:4].view(F4)[0]))
    for value, got in zip(vector.tolist(), coded(Int8(), vector, F8).tolist(), strict=True):
        assert abs(Fraction(got) - Fraction(value)) <= scale / 2 * (1 + Fraction(1, 2**40))


@given(vectors(1), st.floats(0.01, 1))
def test_the_largest_are_the_ones_that_sorting_finds(vector, fraction):
    codec = TopK(fraction)
    by_size = np.argsort(-np.abs(vector), kind="stable")[: codec.count(vector.size)]
    expected = np.zeros_like(vector)
    expected[by_size] = vector[by_size]
    np.testing.assert_array_equal(coded(codec, vector), expected)


@pytest.mark.parametrize("codec", CODECS, ids=names)
@pytest.mark.parametrize("dtype", [F4, F8])
def test_long_vectors_are_coded_as_their_parts_are(codec, dtype):
    """100,000 values: several pieces of work, several blocks, and a rest."""
    vector = np.random.default_rng(1).normal(size=100_000).astype(dtype)
    if codec.sparse:
        cut = np.sort(np.abs(vector))[-codec.count(vector.size)]
        expected = np.where(np.abs(vector) >= cut, vector, 0)
    else:
        cuts = range(0, vector.size, BLOCK)
        expected = np.concatenate([coded(codec, vector[c : c + BLOCK], dtype) for c in cuts])
    np.testing.assert_array_equal(coded(codec, vector, dtype), expected)


@pytest.mark.parametrize("codec", CODECS, ids=names)
@given(st.data())
def test_not_finite_stays_so_and_finite_stays_finite(codec, data):
    vector = data.draw(vectors(1, allow_nan=True, allow_infinity=True))
    got = coded(codec, vector)
    assert not np.isfinite(vector).all() or np.isfinite(got).all()
    assert np.isfinite(vector).all() or not np.isfinite(got).all()


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_an_infinity_beside_the_largest_number(codec):
    got = coded(codec, np.array([np.inf, np.finfo(F4).max], F4))
    assert not np.isfinite(got[0])


@pytest.mark.parametrize("codec", CODECS, ids=names)
@given(st.data())
def test_the_same_vector_gives_the_same_bytes(codec, data):
    vector = data.draw(vectors(dtype=data.draw(st.sampled_from([F4, F8]))))
    payload = codec.encode(vector)
    assert payload.tobytes() == codec.encode(vector.copy()).tobytes()
    assert payload.size == codec.payload_size(vector.size, vector.dtype)


# -- bytes that are no payload ---------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS, ids=names)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_payload_of_another_length_is_refused(codec, change):
    payload = np.zeros(codec.payload_size(10, F4) + change, "u1")
    out = np.full(10, 5, "f4")
    with pytest.raises(ProtocolError, match=f'bytes of "{codec.name}" for 10 elements, expected'):
        codec.decode(payload, out)
    assert out.tolist() == [5] * 10


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_a_place_of_another_length_is_refused(codec):
    with pytest.raises(IncompatibleDeltaError, match="The payload has 3 elements of uint8"):
        codec.encode(np.zeros(10, "f4"), np.zeros(3, "u1"))
    with pytest.raises(IncompatibleDeltaError, match="elements of float32"):
        codec.encode(np.zeros(10, "f4"), np.zeros(codec.payload_size(10, F4), "f4"))


@pytest.mark.parametrize("scale", [NAN, INF, -INF, -1.0, 2.7e36])
def test_scales_are_finite_and_not_negative(scale):
    payload = Int8().encode(np.ones(BLOCK + 2, "f4"))
    payload[4:8].view("f4")[0] = scale
    out = np.full(BLOCK + 2, 5, "f4")
    with pytest.raises(ProtocolError, match="A scale must be a number from 0 to 2.67"):
        Int8().decode(payload, out)
    assert set(out.tolist()) == {5}


@pytest.mark.parametrize(
    ("indices", "reason"),
    [
        ([1, 1, 3], "ascending"),
        ([3, 1, 4], "ascending"),
        ([0, 1, 10], "position 10, expected positions below 10"),
        ([0, 1, 2**32 - 1], "position 4294967295, expected"),
    ],
)
def test_positions_are_ascending_and_inside(indices, reason):
    payload = TopK(0.3).encode(np.arange(10, dtype="f4"))
    payload[12:].view("u4")[:] = indices
    out = np.full(10, 5, "f4")
    with pytest.raises(ProtocolError, match=reason):
        TopK(0.3).decode(payload, out)
    assert out.tolist() == [5] * 10


@pytest.mark.parametrize("codec", CODECS, ids=names)
@given(st.data())
def test_any_bytes_are_decoded_or_refused(codec, data):
    size = data.draw(st.integers(0, 30))
    length = codec.payload_size(size, F4)
    payload = np.frombuffer(data.draw(st.binary(min_size=length, max_size=length)), "u1")
    out = np.full(size + 1, 5, "f4")
    try:
        codec.decode(payload, out[:size])
    except ProtocolError:
        assert out.tolist() == [5] * (size + 1)
    assert out[-1] == 5
