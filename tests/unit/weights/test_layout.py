"""Which parts of a vector may be left out, and vectors without them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kspark.errors import IncompatibleDeltaError, ProtocolError
from kspark.weights import STATE, TRAINABLE, Layout, Table, Weight, WeightSpec, layout
from kspark.weights.comparing import PIECE, any_in_rows

# Five rows of the table, and the two variables that are not trained.
NUM_BLOCKS, HEAD = 7, 8
DENSE = [0, 11, 12, 13]


@pytest.fixture
def whole(spec):
    return Layout.of(spec)


# -- which blocks there are ----------------------------------------------------------------------


def test_rows_of_tables_and_variables_that_are_not_trained_are_blocks(spec):
    assert Layout.of(spec) == Layout(
        21, np.dtype("f4"), (Table(1, 5, 2), Table(14, 1, 4), Table(18, 1, 3))
    )
    gradients = Layout.of(spec, stop=spec.trainable_size)
    assert gradients == Layout(14, np.dtype("f4"), (Table(1, 5, 2),))
    state = Layout.of(spec, spec.trainable_size)
    assert state == Layout(7, np.dtype("f4"), (Table(0, 1, 4), Table(4, 1, 3)))


def one(shape, role=TRAINABLE, dtype="float32"):
    return WeightSpec((Weight("w", shape, dtype, role), Weight("v", (9,), dtype, TRAINABLE)))


@pytest.mark.parametrize(
    ("shape", "role", "found"),
    [
        ((4, 3), TRAINABLE, (0, 4, 3)),
        ((4, 3, 2), TRAINABLE, (0, 4, 6)),
        ((3, 400), TRAINABLE, None),
        ((400,), TRAINABLE, None),
        ((400, 0), TRAINABLE, None),
        ((3, 4), STATE, (9, 1, 12)),
        ((), STATE, (9, 1, 1)),
        ((0, 4), STATE, None),
    ],
)
def test_what_is_a_block(shape, role, found):
    made = Layout.of(one(shape, role))
    assert (made and made.tables) == (found and (Table(*found),))


def test_few_blocks_are_not_worth_looking_at(monkeypatch):
    monkeypatch.setattr(layout, "LEAST_BYTES", 97)
    assert Layout.of(one((4, 6))) is None
    assert Layout.of(one((4, 6), dtype="float64")) is not None
    assert Layout.of(one((4, 7))) is not None


def test_the_constants_leave_ordinary_models_alone(monkeypatch):
    """Not patched: a wide perceptron with `BatchNormalization`, and a large embedding."""
    monkeypatch.undo()
    units = 2000
    perceptron = [
        Weight("kernel", (784, units), "float32", TRAINABLE),
        Weight("kernel", (units, units), "float32", TRAINABLE),
        Weight("mean", (units,), "float32", STATE),
        Weight("variance", (units,), "float32", STATE),
    ]
    assert Layout.of(WeightSpec(tuple(perceptron))) is None
    embedding = Weight("embeddings", (4096, 16), "float32", TRAINABLE)
    assert Layout.of(WeightSpec((*perceptron, embedding))).num_blocks == 4098


# -- by hand -------------------------------------------------------------------------------------


def test_a_payload_by_hand(whole, vector):
    """Rows 1 and 4 and the second state variable change: bits 1, 4 and 6."""
    given_ = vector(21, _4=1.5, _9=-2, _12=7, _19=3)
    payload = whole.pack(given_)
    values = [0, 0, 1.5, -2, 0, 0, 7, 0, 0, 3, 0]
    assert payload.tobytes() == bytes([0b1010010] + [0] * 7) + np.array(values, "f4").tobytes()
    out = np.full(21, 9, "f4")
    whole.unpack(payload, out)
    assert out.tolist() == given_.tolist()


def test_what_is_not_in_a_payload_stays(whole, vector):
    payload = whole.encode(np.arange(21, dtype="f4"), whole.changed(vector(21, _5=1, _14=1)))
    out = np.full(21, 99, "f4")
    whole.decode(payload, out)
    written = [*DENSE, 5, 6, 14, 15, 16, 17]
    assert out[written].tolist() == written
    assert (np.delete(out, written) == 99).all()


def test_a_vector_of_which_nothing_can_be_left_out_is_sent_itself(whole):
    """Without a row of two values the payload is as long as the vector, for its 8 bits."""
    full = np.ones(21, "f4")
    assert whole.pack(full) is full
    full[1:3] = 0
    assert whole.pack(full) is full
    full[3:5] = 0
    assert whole.pack(full).nbytes == full.nbytes - 8


@pytest.mark.parametrize("value", [np.nan, -0.0, np.inf, 1e-45, -np.nan])
@pytest.mark.parametrize("place", [1, 10, 14, 20])
def test_every_bit_counts(whole, value, place):
    given_ = np.zeros(21, "f4")
    given_[place] = value
    assert np.count_nonzero(whole.changed(given_)) == 1
    out = np.full(21, 9, "f4")
    whole.unpack(whole.pack(given_), out)
    assert out.tobytes() == given_.tobytes()


def test_blocks_are_compared_with_another_vector(whole):
    base = np.arange(21, dtype="f4")
    base[5] = np.nan
    later = base.copy()
    later[[2, 13, 17]] = -1
    assert np.flatnonzero(whole.changed(later, base)).tolist() == [0, 5]
    assert not whole.changed(base.copy(), base).any()  # the same NaN


@pytest.mark.parametrize("place", [0, PIECE - 1, PIECE, 3 * PIECE - 1])
@pytest.mark.parametrize("shape", [(3 * PIECE // 16, 16), (12, PIECE // 4)])
def test_tables_and_variables_of_many_pieces(shape, place):
    for role in (TRAINABLE, STATE):
        spec = WeightSpec((Weight("w", shape, "float32", role),))
        made, given_ = Layout.of(spec), np.zeros(3 * PIECE, "f4")
        given_[place] = 1
        rows = made.changed(given_)
        expected = [place // shape[1]] if role == TRAINABLE else [0]
        assert np.flatnonzero(rows).tolist() == expected
        assert not made.changed(given_, given_).any()


def test_where_all_that_is_looked_at_first_changed_nobody_looks_at_the_rest():
    """Rows that are taken for changed ones travel, and nothing is lost."""
    spec = WeightSpec((Weight("w", (2000, 4), "float32", TRAINABLE),))
    made, given_ = Layout.of(spec), np.ones(8000, "f4")
    given_[4:8] = 0  # the second row, of which only each eighth is looked at
    assert made.changed(given_).all()
    assert made.pack(given_) is given_
    given_[8 * 4 * 8 : 8 * 4 * 8 + 4] = 0
    assert np.flatnonzero(~made.changed(given_)).tolist() == [1, 64]
    assert not made.changed(given_, given_).any()


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8, 9, 12, 16, 33, 64, 72, 100])
def test_rows_of_any_width(width):
    """Each single place is its row's."""
    truths = np.eye(3 * width, dtype=bool).reshape(-1, 3, width)
    for place, matrix in enumerate(truths):
        out = np.ones(3, bool)
        any_in_rows(matrix, out)
        assert np.flatnonzero(out).tolist() == [place // width]


@pytest.mark.parametrize("wrong", [np.zeros(20, "f4"), np.zeros(21, "f8"), np.zeros((21, 1), "f4")])
def test_vectors_of_another_model_are_refused(whole, wrong):
    with pytest.raises(IncompatibleDeltaError, match="do not match"):
        whole.changed(wrong)
    with pytest.raises(IncompatibleDeltaError, match="do not match"):
        whole.changed(np.zeros(21, "f4"), wrong)


# -- payloads that come from anybody --------------------------------------------------------------


def malformed(payload):
    """Every way in which a payload can be wrong, and what is said of it."""
    bits = np.frombuffer(payload.tobytes(), "u1")
    more, fewer, padding, behind = (bits.copy() for _ in range(4))
    more[0] |= 0b1
    fewer[0] &= 0b11111101
    padding[0] |= 0b10000000
    behind[7] = 1
    return {
        "longer": (np.append(bits, np.zeros(4, "u1")), "expected 52"),
        "not whole numbers": (bits[:-1], "expected 52"),
        "shorter": (bits[:-4], "expected 52"),
        "only bits": (bits[:8], "expected 52"),
        "cut bits": (bits[:7], "expected 8 or more"),
        "nothing": (bits[:0], "expected 8 or more"),
        "a bit more": (more, "expected 60"),
        "a bit fewer": (fewer, "expected 44"),
        "a bit of no block": (padding, "bits for more than 7 blocks"),
        "a bit behind": (behind, "bits for more than 7 blocks"),
        "a vector": (bits.view("f4"), "Got a payload of"),
        "a matrix": (bits.reshape(2, -1), "Got a payload of"),
    }


@pytest.mark.parametrize("name", malformed(np.zeros(52, "u1")))
def test_a_malformed_payload_is_refused_and_nothing_is_written(whole, vector, name):
    good = whole.pack(vector(21, _4=1.5, _9=-2, _12=7, _19=3))
    wrong, reason = malformed(good)[name]
    for read in (whole.decode, whole.unpack):
        out = np.full(21, 9, "f4")
        with pytest.raises(ProtocolError, match=reason):
            read(wrong, out)
        assert out.tolist() == [9] * 21


# -- any model, any vector ------------------------------------------------------------------------


@st.composite
def specs(draw):
    dtype = draw(st.sampled_from(["float32", "float64"]))
    shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
    weights = draw(st.lists(st.tuples(shapes, st.sampled_from([TRAINABLE, STATE])), max_size=6))
    return WeightSpec(tuple(Weight(str(i), s, dtype, r) for i, (s, r) in enumerate(weights)))


def vectors(made):
    """Any bits at all, with long parts of zeros."""
    kind = np.dtype(f"u{made.dtype.itemsize}")
    bits = arrays.arrays(kind, made.size, fill=st.just(0), elements=st.integers(0, 2**31))
    return bits.map(lambda found: found.view(made.dtype))


@settings(max_examples=200)
@given(st.data())
def test_nothing_is_lost_and_nothing_is_longer(data):
    spec = data.draw(specs())
    made = Layout.of(spec)
    if made is None:
        return
    given_ = data.draw(vectors(made))
    payload = made.pack(given_)
    assert payload.nbytes <= given_.nbytes
    if payload is given_:
        return
    assert payload.size in made.sizes
    out = np.full(made.size, 9, made.dtype)
    made.unpack(payload, out)
    assert out.tobytes() == given_.tobytes()


@settings(max_examples=200)
@given(st.data())
def test_any_blocks_of_any_vector(data):
    """Those that are named are those of the vector; all others stay."""
    made = Layout.of(data.draw(specs()))
    if made is None:
        return
    given_, before = data.draw(vectors(made)), data.draw(vectors(made))
    changed = data.draw(arrays.arrays(bool, made.num_blocks))
    payload = made.encode(given_, changed)
    assert payload.nbytes == made.payload_size(changed)
    out = before.copy()
    made.decode(payload, out)
    start = 0
    expected = given_.copy()
    for table in made.tables:
        for row in range(table.rows):
            if not changed[start + row]:
                place = slice(
                    table.start + row * table.width, table.start + (row + 1) * table.width
                )
                expected[place] = before[place]
        start += table.rows
    assert out.tobytes() == expected.tobytes()


@settings(max_examples=200)
@given(st.binary(max_size=120))
def test_any_bytes_are_a_vector_or_refused(received):
    made = Layout(21, np.dtype("f4"), (Table(1, 5, 2), Table(14, 1, 4), Table(18, 1, 3)))
    out = np.full(21, 9, "f4")
    try:
        made.decode(np.frombuffer(received, "u1"), out)
    except ProtocolError:
        assert out.tolist() == [9] * 21
