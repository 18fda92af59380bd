"""Adapters without Spark: shapes and dtypes, rows of RDDs, plans of tables, kinds of input."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from pyspark.ml.linalg import Vectors
from pyspark.mllib.linalg import Vectors as OldVectors
from pyspark.mllib.regression import LabeledPoint
from pyspark.sql import Row

from kspark import adapters
from kspark.adapters import Columns, adapt
from kspark.adapters.arrays import (
    chunk_of,
    slice_bounds,
)
from kspark.adapters.base import CHUNK_BYTES, CHUNK_ROWS, run_task
from kspark.adapters.chunks import conform_chunk, narrowed
from kspark.adapters.conform import Place, cast, conform, fit_shape, stack
from kspark.adapters.feeds import plan_frame
from kspark.adapters.rdd import RowReader, cut_partition
from kspark.adapters.sending import read_broadcasts, read_files
from kspark.adapters.structure import leaves
from kspark.adapters.tables import is_pandas
from kspark.shards import ArraySpec, Chunk, InputSpec, Shard, spool

PLACE = Place("`x`")
ONE = InputSpec((ArraySpec("x", (2,), "float32"),), (ArraySpec("y"),))
TWO = InputSpec(
    (ArraySpec("user", (), "int32"), ArraySpec("item", (2,), "float32")),
    (ArraySpec("rating"), ArraySpec("liked")),
    x_structure="dict",
    y_structure="list",
)
BARE = InputSpec(ONE.inputs)


# Shapes


@pytest.mark.parametrize(
    ("found", "expected", "result"),
    [
        ((784,), (784,), (784,)),
        ((784,), (28, 28, 1), (28, 28, 1)),
        ((28, 28), (28, 28, 1), (28, 28, 1)),
        ((28, 28, 1), (28, 28), (28, 28)),
        ((), (1,), (1,)),
        ((1,), (), ()),
        ((5,), None, (5,)),
        ((), None, ()),
        ((7,), (None,), (7,)),
        ((7,), (None, 1), (7, 1)),
        ((7, 1), (None,), (7,)),
        ((20,), (None, 5), (4, 5)),
        ((4, 5), (None, 5), (4, 5)),
        ((), (None,), (1,)),
        ((0,), (None,), (0,)),
        # and what must not be guessed
        ((783,), (784,), None),
        ((783,), (28, 28, 1), None),
        ((3, 32, 32), (32, 32, 3), None),
        ((28, 28), (784,), None),
        ((21,), (None, 5), None),
        ((20,), (None, None), None),
        ((4, 6), (None, 5), None),
        ((5,), (None, 0), None),
        ((2,), (), None),
    ],
)
def test_fit_shape_reshapes_only_what_is_unambiguous(found, expected, result):
    assert fit_shape(found, expected) == result


def test_flat_rows_are_reshaped_in_row_major_order():
    flat = np.arange(12.0).reshape(2, 6)
    images = conform(flat, ArraySpec("x", (3, 2, 1), "float64"), "float32", PLACE)
    assert images[1].tolist() == [[[6], [7]], [[8], [9]], [[10], [11]]]


def test_the_error_for_a_wrong_shape_names_both_shapes():
    with pytest.raises(
        ValueError,
        match=r"^`x` must hold examples of shape \(3,\)\. Received: "
        r"examples of shape \(2,\) of partition 4",
    ):
        conform(np.zeros((5, 2)), ArraySpec("x", (3,), ""), "float32", Place("`x`", 4))


# Dtypes


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.array([1, 2]), "float32", "float32"),
        (np.array([True]), "float32", "float32"),
        (np.array([1.0, 2.0]), "int32", "int32"),
        (np.array([1, 2], np.int64), "int32", "int32"),
        (np.array([0.0, 1.0]), "bool", "bool"),
        (np.array([1.5]), "", "float16"),
        (np.array([1, 2], np.uint8), "", "uint8"),
        (np.array([True]), "", "bool"),
        (np.array([1.5]), "bfloat16", "float32"),
        (np.array([Decimal("1.5"), 2, True], object), "float32", "float32"),
        (np.array([1, np.int64(2)], object), "", "int64"),
    ],
)
def test_values_are_cast_to_the_dtype_of_the_input(values, dtype, expected):
    result = cast(values, dtype, "float16", PLACE)
    assert result.dtype == expected
    assert result.tolist() == [float(v) for v in values.tolist()]


def test_unchanged_values_are_not_copied():
    values = np.zeros((3, 2), np.float32)
    assert conform(values, ONE.inputs[0], "float32", PLACE) is values


def test_nan_is_accepted_for_floats_only():
    assert np.isnan(cast(np.array([np.nan]), "float32", "float32", PLACE)).all()
    with pytest.raises(ValueError, match="whole numbers that fit int32. Received: nan in row 1"):
        cast(np.array([1, np.nan]), "int32", "float32", PLACE)


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        (np.array([[1.0, 2.0], [3.0, 2.5]]), "int32", "fit int32. Received: 2.5 in row 1"),
        (np.array([0, 2**40]), "int32", f"fit int32. Received: {2**40} in row 1"),
        (np.array([-1]), "uint8", "fit uint8. Received: -1 in row 0"),
        (np.array([0, 2]), "bool", "0 or 1. Received: 2 in row 1"),
        (np.array(["a"]), "float32", "numbers. Received: text"),
        (np.array([1]), "string", "text. Received: int64 values"),
        (np.array([1j]), "", "numbers. Received: complex128"),
        (
            np.array(["2020-01-01"], "datetime64[D]"),
            "float32",
            r"numbers. Received: datetime64\[D\]",
        ),
        (np.array([b"a"]), "string", r"text. Received: \|S1 values"),
        (np.array([1.0, None], object), "float32", "numbers, or text. Received: null in row 1"),
        (
            np.array([["a", 1], ["b", None]], object),
            "",
            "numbers, or text, and not both. Received: int in row 0",
        ),
        (np.array(["a b", None], object), "string", "numbers, or text. Received: null in row 1"),
        (np.array([2**70], object), "int64", "real numbers of 64 bits"),
    ],
)
def test_a_lossy_cast_is_refused(values, dtype, words):
    with pytest.raises(ValueError, match=words):
        cast(values, dtype, "float32", PLACE)


def test_text_becomes_an_object_array():
    for values in (np.array(["a", "bc"]), np.array(["a", "bc"], object)):
        text = conform(values, ArraySpec("x", (1,), "string"), "float32", PLACE)
        assert (text.dtype, text.tolist()) == (object, [["a"], ["bc"]])
    assert cast(np.array(["a"]), "", "float32", PLACE).dtype == object


def test_a_narrower_dtype_is_sent_unchanged_if_the_cast_is_lossless():
    def travels(values, dtype):
        return narrowed(np.asarray(values), ArraySpec("x", None, dtype), "float32", PLACE).dtype

    assert travels(np.array([1], np.uint8), "float32") == np.uint8
    assert travels(np.array([1.0]), "float32") == np.float32
    assert travels(np.array([1], np.int32), "float64") == np.int32
    assert travels(np.array([1], np.float16), "int32") == np.int32
    assert travels(np.array([1], np.int16), "float16") == np.float16
    assert travels(np.array([1.0]), "") == np.float32
    with pytest.raises(ValueError, match="whole numbers"):
        travels(np.array([0.5], np.float16), "int32")


# One value per row


def test_stack_joins_numbers_lists_arrays_and_vectors():
    assert stack([1, 2], PLACE).tolist() == [1, 2]
    assert stack([[1, 2], [3, 4]], PLACE).shape == (2, 2)
    assert stack([np.ones(3), np.zeros(3)], PLACE).shape == (2, 3)
    mixed = [Vectors.dense([1, 2]), OldVectors.sparse(2, {1: 5.0}), np.array([7.0, 8.0])]
    assert stack(mixed, PLACE).tolist() == [[1, 2], [0, 5], [7, 8]]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            [np.ones(3), np.ones(2)],
            r"one shape, \(3,\) as in row 10. Received: shape \(2,\) in row 11",
        ),
        (
            [[1, 2], [1, 2], [1]],
            r"one shape, \(2,\) as in row 10. Received: shape \(1,\) in row 12",
        ),
        ([1.0, [1.0]], r"one shape, \(\) as in row 10. Received: shape \(1,\) in row 11"),
        ([np.ones(2), None], "no nulls. Received: null in row 11"),
        ([None, np.ones(2)], "no nulls. Received: null in row 10"),
        ([[[1], [1, 2]]], "equal lengths. Received: lists of different lengths in row 10"),
    ],
)
def test_stack_refuses_ragged_rows(values, words):
    with pytest.raises(ValueError, match=words):
        stack(values, Place("`x`", 0, 10))


# Structures


def test_leaves_puts_parts_in_the_order_of_the_inputs():
    assert leaves("anything", ONE.inputs, "x") == ["anything"]
    assert leaves({"x": 1}, ONE.inputs, "x") == [1]
    assert leaves({"item": 2, "user": 1}, TWO.inputs, "x") == [1, 2]
    assert leaves((1, 2), TWO.inputs, "x") == [1, 2]
    with pytest.raises(
        ValueError, match=r"`x` must be a dictionary with the keys \['user', 'item'\]"
    ):
        leaves({"user": 1}, TWO.inputs, "x")
    with pytest.raises(ValueError, match="a list of 2 parts.*a list of 3"):
        leaves([1, 2, 3], TWO.inputs, "x")
    with pytest.raises(ValueError, match=r"a list of 2 parts.*a ndarray of shape \(2, 5\)"):
        leaves(np.zeros((2, 5)), TWO.inputs, "x")


# Rows of an RDD


def read(rows, spec=ONE, partition=0):
    return list(RowReader(spec, partition)(iter(rows)))


def test_rows_of_one_input_become_a_chunk():
    (chunk,) = read([([1, 2], 0), (np.array([3.0, 4.0]), 1), (Vectors.dense([5, 6]), 2)])
    assert chunk.x[0].dtype == np.float32
    assert chunk.x[0].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (chunk.y[0].dtype, chunk.y[0].tolist()) == (np.int64, [0, 1, 2])
    assert chunk.sample_weight == []


def test_weighted_rows_data_frame_rows_and_labeled_points_are_accepted():
    (chunk,) = read([([1, 2], 0, 0.5), ([3, 4], 1, 2)])
    assert (chunk.sample_weight[0].dtype, chunk.sample_weight[0].tolist()) == (np.float32, [0.5, 2])
    (chunk,) = read([Row(features=Vectors.dense([1, 2]), label=3.0)])
    assert (chunk.x[0].tolist(), chunk.y[0].tolist()) == ([[1, 2]], [3])
    (chunk,) = read([LabeledPoint(3.0, [1, 2])])
    assert (chunk.x[0].tolist(), chunk.y[0].tolist()) == ([[1, 2]], [3])


def test_rows_may_have_several_inputs_and_targets():
    rows = [
        (([7, [1, 2]]), (0.5, 1)),
        (({"item": [3, 4], "user": 8}), {"liked": 0, "rating": 1.5}),
    ]
    for row in rows:
        (chunk,) = read([row], TWO)
        assert [a.dtype for a in chunk.x] == [np.int32, np.float32]
    (chunk,) = read(rows, TWO)
    assert [a.tolist() for a in chunk.x] == [[7, 8], [[1, 2], [3, 4]]]
    assert [a.tolist() for a in chunk.y] == [[0.5, 1.5], [1, 0]]
    (chunk,) = read([(rows[0][0], rows[0][1], [1.0, 2.0])], TWO)
    assert [a.tolist() for a in chunk.sample_weight] == [[1], [2]]
    (chunk,) = read([(rows[0][0], rows[0][1], 3.0)], TWO)
    assert [a.tolist() for a in chunk.sample_weight] == [[3]]
    (chunk,) = read([(rows[0][0], rows[0][1], {"liked": 5.0, "rating": 4.0})], TWO)
    assert [a.tolist() for a in chunk.sample_weight] == [[4], [5]]


def test_rows_may_have_no_labels():
    (chunk,) = read([[1, 2], (3, 4)], BARE)
    assert (chunk.x[0].tolist(), chunk.y) == ([[1, 2], [3, 4]], [])


def test_large_integers_stay_exact():
    big = 2**31 - 1
    (chunk,) = read([((big, [0, 0]), (0, 0))], TWO)
    assert chunk.x[0].tolist() == [big]


def test_chunks_grow_to_their_size_and_keep_the_order():
    spec = InputSpec((ArraySpec("x", (), "int64"),), (ArraySpec("y"),))
    chunks = read(((i, -i) for i in range(10_000)), spec)
    assert [c.num_examples for c in chunks[:3]] == [64, CHUNK_ROWS, CHUNK_ROWS]
    ids = np.concatenate([c.x[0] for c in chunks])
    assert ids.tolist() == list(range(10_000))
    wide = InputSpec((ArraySpec("x", (100_000,), "float32"),))
    row = np.zeros(100_000, np.float32)
    assert [c.num_examples for c in read([row] * 100, wide)][1] == CHUNK_BYTES // 400_000


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([1, 2, 3], r"rows of \(x, y\).*Received: a list of 3 in row 70 of partition 5"),
        (5, "Received: a int in row 70"),
        (([1], 0), r"`x` must hold examples of one shape, \(2,\).*shape \(1,\) in row 70"),
        (([1, None], 0), "`x` must hold numbers, or text. Received: null in row 70"),
        (([1, "a"], 0), "`x` must hold numbers, or text, and not both. Received: str in row 70"),
        (([1, 2], None), "`y` must hold numbers, or text. Received: null in row 70"),
    ],
)
def test_an_invalid_row_is_named_in_the_error(row, words):
    rows = [([1, 2], 0)] * 70 + [row]
    with pytest.raises(ValueError, match=words):
        read(rows, partition=5)


def test_an_invalid_first_row_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"rows of \(x, y\).*a ndarray of shape \(2,\) in row 0"):
        read([np.zeros(2)])
    with pytest.raises(ValueError, match=r"`x` must hold examples of shape \(2,\).*\(3,\)"):
        read([(np.zeros(3), 0)])
    with pytest.raises(ValueError, match="`x of a row` must be a list of 2 parts"):
        read([(5, 0)], TWO)


def test_new_partitions_get_the_same_number_of_rows():
    spec = InputSpec((ArraySpec("x", (), "int64"),))
    for sizes, parts in (((100, 100), 3), ((1, 1, 1, 1), 4), ((7,), 10), ((64 + 4096 + 5,), 4)):
        at, seen = 0, [[] for _ in range(parts)]
        for index, size in enumerate(sizes):
            rows = range(at, at + size)
            at += size
            for (target, source, _), piece in cut_partition(spec, parts, index, iter(rows)):
                assert source == index
                seen[target] += piece[0][0].tolist()
        assert sorted(i for ids in seen for i in ids) == list(range(at))
        counts = [len(ids) for ids in seen]
        assert max(counts) - min(counts) <= 2


def test_a_task_reads_its_input_to_the_end():
    source = iter(range(10))

    def first(index, chunks):
        yield index, next(chunks)

    assert list(run_task(first, 3, source, lambda items: items)) == [(3, 0)]
    assert next(source, "nothing") == "nothing"


# Arrays


def test_chunk_of_accepts_arrays_and_lists():
    chunk = chunk_of(np.zeros((3, 2)), [0, 1, 2], np.ones(3), ONE)
    assert [a.shape for a in chunk.arrays] == [(3, 2), (3,), (3,)]
    assert chunk_of([[1, 2], [3, 4]], None, None, BARE).x[0].tolist() == [[1, 2], [3, 4]]
    assert chunk_of([np.zeros((3, 2))], None, None, BARE).x[0].shape == (3, 2)
    assert chunk_of({"x": np.zeros((3, 2))}, None, None, BARE).x[0].shape == (3, 2)
    both = chunk_of([np.arange(3), np.zeros((3, 2))], [np.zeros(3)] * 2, [np.ones(3)] * 2, TWO)
    assert [len(both.x), len(both.y), len(both.sample_weight)] == [2, 2, 2]
    shared = chunk_of([np.arange(3), np.zeros((3, 2))], [np.zeros(3)] * 2, np.ones(3), TWO)
    assert len(shared.sample_weight) == 1


@pytest.mark.parametrize("kind", [np.array, pd.Series, keras.ops.array])
def test_a_list_of_one_array_is_that_array(kind):
    spec = InputSpec((ArraySpec("x", (1,), "float32"),), ONE.targets)
    chunk = chunk_of([kind([1, 2, 3])], (kind([0, 1, 2]),), [kind([1, 1, 1])], spec)
    assert [a.tolist() for a in chunk.arrays] == [[[1], [2], [3]], [0, 1, 2], [1, 1, 1]]


@pytest.mark.parametrize("row", [[1, 2], (1, 2), Vectors.dense(1, 2), OldVectors.sparse(2, {1: 2})])
def test_a_list_of_one_row_is_a_row(row):
    chunk = chunk_of([row], [np.int64(5)], None, ONE)
    assert [a.shape for a in chunk.arrays] == [(1, 2), (1,)]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.zeros((3, 2)), np.zeros(4), r"same number of rows. Received: \[3, 4\]"),
        (np.zeros((0, 2)), None, "at least one example"),
        ([], None, r"examples of shape \(2,\)|at least one example"),
        (np.zeros((3, 5)), None, r"`x` must hold examples of shape \(2,\).*\(5,\)"),
        ([[1, 2], [3]], None, r"`x` must hold examples of one shape"),
    ],
)
def test_invalid_arrays_are_refused(x, y, words):
    with pytest.raises(ValueError, match=words):
        chunk_of(x, y, None, BARE if y is None else ONE)


@pytest.mark.parametrize("weights", [[1.0, np.nan], [np.inf, 1.0]])
def test_weights_that_are_not_finite_are_refused(weights):
    with pytest.raises(ValueError, match="`sample_weight` must be finite"):
        chunk_of(np.ones((2, 2)), np.ones(2), np.array(weights), ONE)


def test_string_tensors_are_text():
    """The only arrays of text that `keras.Model.fit` takes are tensors and pandas' strings."""
    spec = InputSpec((ArraySpec("x", (1,), "string"),))
    words = ["ä b", "c"]
    for text in (tf.constant(words), tf.constant(words)[:, None], pd.Series(words, dtype="string")):
        (array,) = chunk_of(text, None, None, spec).x
        assert array.tolist() == [["ä b"], ["c"]]
    with pytest.raises(ValueError, match="`x` must hold text in UTF-8"):
        chunk_of(tf.constant([b"\xff"]), None, None, spec)


def test_a_scalar_is_refused_as_input():
    with pytest.raises(TypeError, match="`x` must be an array with one row per example"):
        chunk_of(np.float32(3), None, None, BARE)


def test_labels_are_refused_for_a_model_without_targets():
    with pytest.raises(ValueError, match="`y` must be None"):
        chunk_of(np.zeros((3, 2)), np.zeros(3), None, BARE)


def test_missing_labels_are_refused_for_a_model_with_targets():
    with pytest.raises(ValueError, match=r"`y` must be labels for .*\['y'\]. Received: y=None"):
        chunk_of(np.zeros((3, 2)), None, None, ONE)


def test_conform_chunk_casts_every_group():
    chunk = Chunk([np.zeros((2, 2))], [np.array([1.0, 2.0])], [np.array([1, 2])])
    done = conform_chunk(chunk, ONE, 1, 0)
    assert [a.dtype for a in done.arrays] == [np.float32] * 3
    with pytest.raises(ValueError, match=r"`x\['user'\]` must hold whole .* 0.5 in row 11 of part"):
        conform_chunk(Chunk([np.array([0, 0.5]), np.zeros((2, 2))]), TWO, 1, 10)


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (3, 8), (7, 7), (1, 1), (48_000, 2)])
def test_slices_equal_those_of_array_split(count, parts):
    bounds = slice_bounds(count, parts)
    slices = [list(range(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]
    assert slices == [s.tolist() for s in np.array_split(np.arange(count), parts)]


def collect(index, chunks):
    yield index, [(c.x[0].tolist(), c.x[0].dtype.name) for c in chunks]


def test_slices_are_read_back_on_the_workers(tmp_path):
    rows = Chunk([np.arange(6, dtype=np.uint8).reshape(3, 2)])
    handle = spool([rows], 0, "run", directory=str(tmp_path))
    expected = [(4, [([[0, 1], [2, 3], [4, 5]], "float32")])]
    assert list(read_files(BARE, collect, 4, iter([handle.to_json()]))) == expected
    broadcast = SimpleNamespace(value=[rows])
    assert list(read_broadcasts(BARE, 4, broadcast, collect, iter([4]))) == expected
    assert Shard.open(handle).num_examples == 3


# Tables


def names_of(feeds):
    return [f.names for f in feeds]


def test_plan_frame_assigns_columns_to_inputs_and_targets():
    plan = plan_frame(Columns(), ONE)
    assert (names_of(plan.x), names_of(plan.y), plan.sample_weight) == (
        [("features",)],
        [("label",)],
        (),
    )
    plan = plan_frame(Columns(["a", "b"], "c", "w"), ONE)
    assert plan.names == ["a", "b", "c", "w"]
    assert (names_of(plan.x), names_of(plan.sample_weight)) == ([("a", "b")], [("w",)])
    plan = plan_frame(Columns({"item": ["a", "b"], "user": "u"}, ["r", "l"]), TWO)
    assert (names_of(plan.x), names_of(plan.y)) == ([("u",), ("a", "b")], [("r",), ("l",)])
    assert plan_frame(Columns(["u", "i"], {"liked": "l", "rating": "u"}), TWO).names == [
        "u",
        "i",
        "l",
    ]
    assert plan_frame(Columns(weight_col="w"), BARE).names == ["features"]
    assert plan_frame(Columns(label_col=None), ONE).names == ["features"]


def test_weight_columns_are_for_all_targets_or_one_each():
    features = ["u", "i"]
    (all_targets,) = plan_frame(Columns(features, ["r", "l"], "w"), TWO).sample_weight
    assert (all_targets.names, all_targets.spec.shape) == (("w",), None)
    for weights in (["v", "w"], {"rating": "v", "liked": "w"}):
        plan = plan_frame(Columns(features, ["r", "l"], weights), TWO)
        assert names_of(plan.sample_weight) == [("v",), ("w",)]
    (steps,) = plan_frame(Columns("a", "b", ["v", "w"]), ONE).sample_weight
    assert steps.names == ("v", "w")
    with pytest.raises(ValueError, match="`weight_col` must be a list of 2 columns"):
        plan_frame(Columns(features, ["r", "l"], ["w"]), TWO)


def test_a_column_of_arrays_becomes_weights_per_step():
    plan = plan_frame(Columns("a", "b", "w"), InputSpec((ArraySpec("x"),), (ArraySpec("y"),)))
    (chunk,) = plan.chunks(batch_of(a=[1], b=[2], w=[[0.5, 1.0]]), 0, 0)
    assert chunk.sample_weight[0].tolist() == [[0.5, 1.0]]


@pytest.mark.parametrize(
    ("columns", "spec", "words"),
    [
        (Columns("a"), TWO, "`features_col` must be a list of 2 columns, or a dictionary"),
        (Columns(["a"]), TWO, "`features_col` must be a list of 2 columns"),
        (Columns({"user": "a"}), TWO, r"dictionary with the keys \['user', 'item'\]"),
        (Columns(["u", "i"], "y"), TWO, "`label_col` must be a list of 2"),
        (Columns([]), ONE, "`features_col` must be one or several names"),
        (Columns(""), ONE, "`features_col` must be one or several names"),
    ],
)
def test_columns_that_do_not_match_the_model_are_refused(columns, spec, words):
    with pytest.raises(ValueError, match=words):
        plan_frame(columns, spec)


def batch_of(**columns):
    return pa.RecordBatch.from_arrays([pa.array(v) for v in columns.values()], list(columns))


def test_a_record_batch_becomes_a_chunk():
    plan = plan_frame(Columns(["a", "b"], "c", "w"), ONE)
    batch = batch_of(a=[1, 2], b=[0.5, 1.5], c=[7, 8], w=[1.0, 2.0])
    (chunk,) = plan.chunks(batch, 0, 0)
    assert chunk.x[0].tolist() == [[1, 0.5], [2, 1.5]]
    assert (chunk.y[0].tolist(), chunk.y[0].dtype) == ([7, 8], np.int64)
    assert (chunk.sample_weight[0].tolist(), chunk.sample_weight[0].dtype) == ([1, 2], np.float32)


def test_scalar_and_list_columns_are_joined():
    spec = InputSpec((ArraySpec("x", (4,), "float32"),))
    plan = plan_frame(Columns(["a", "v", "flag"]), spec)
    (chunk,) = plan.chunks(batch_of(a=[1, 2], v=[[3.0, 4.0], [5.0, 6.0]], flag=[True, False]), 0, 0)
    assert chunk.x[0].tolist() == [[1, 3, 4, 1], [2, 5, 6, 0]]


def test_large_batches_are_split_and_errors_count_rows_across_them():
    spec = InputSpec((ArraySpec("x", (1000,), "float32"),))
    values = np.zeros((4000, 1000))
    values[3999, 0] = 1
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 1000)
    plan = plan_frame(Columns("v"), spec)
    chunks = list(plan.chunks(pa.RecordBatch.from_arrays([column], ["v"]), 0, 0))
    assert [c.num_examples for c in chunks[:-1]] == [CHUNK_BYTES // 8000] * (len(chunks) - 1)
    assert sum(c.num_examples for c in chunks) == 4000
    assert chunks[-1].x[0][-1, 0] == 1
    ids = InputSpec((ArraySpec("x", (), "int32"),))
    with pytest.raises(
        ValueError, match="Column 'v' must hold whole.*0.5 in row 51 of partition 3"
    ):
        list(plan_frame(Columns("v"), ids).chunks(batch_of(v=[1, 0.5]), 3, 50))


def test_errors_of_several_columns_name_them():
    plan = plan_frame(Columns(["a", "b", "c"]), BARE)
    batch = batch_of(a=[1], b=[2], c=[3])
    with pytest.raises(
        ValueError, match=r"^Columns 'a', 'b', 'c' must hold examples of shape \(2,\)"
    ):
        list(plan.chunks(batch, 0, 0))
    with pytest.raises(ValueError, match="^Column 'b' must hold numbers. Received: text"):
        list(plan.chunks(batch_of(a=[1], b=["x"], c=[3]), 0, 0))
    with pytest.raises(ValueError, match="^Column 'b' must hold no nulls"):
        list(plan.chunks(batch_of(a=[1], b=[None], c=[1]), 0, 0))


def test_is_pandas_recognizes_data_frames():
    assert is_pandas(pd.DataFrame({"a": [1]}))
    assert not is_pandas(np.zeros(3))


# Kinds of input


def test_the_error_for_unknown_input_lists_the_accepted_kinds():
    with pytest.raises(TypeError, match="`x` must be numpy arrays.*RDD.*DataFrame.*<object"):
        adapt(None, object(), spec=ONE)
    with pytest.raises(TypeError, match="Received: x='text'"):
        adapt(None, "text", spec=ONE)


def test_num_workers_must_be_a_positive_integer():
    with pytest.raises(ValueError, match="`num_workers` must be an integer >= 1"):
        adapt(None, np.zeros((3, 2)), spec=ONE, num_workers=0)


def test_the_first_kind_that_matches_adapts_the_input(monkeypatch):
    asked = []

    def factory(*arguments):
        asked.append(arguments)
        return "examples"

    def matches(value):
        return isinstance(value, np.ndarray)

    monkeypatch.setattr(adapters, "KINDS", ((matches, factory), *adapters.KINDS))
    array = np.zeros((3, 2))
    assert adapt(None, array, "y", "w", spec=ONE) == "examples"
    assert asked == [(None, array, "y", "w", ONE, Columns())]


SOME = InputSpec(ONE.inputs, (ArraySpec("b"),), y_structure="list", outputs=("b", "a"))


@pytest.mark.parametrize("make", [np.array, list])
def test_labels_of_outputs_that_are_not_targets_are_ignored(make):
    x, wanted, other = np.zeros((2, 2), "f4"), make([1.0, 2.0]), make([3.0, 4.0])
    for y in (
        wanted,
        [wanted, other],
        (wanted, None),
        {"b": wanted},
        {"b": wanted, "a": other},
        {"b": wanted, "a": None},
    ):
        (found,) = chunk_of(x, y, None, SOME).y
        assert found.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"`y` must be a dictionary with the keys \['b'\]"):
        chunk_of(x, {"b": wanted, "c": other}, None, SOME)


def test_rows_may_have_labels_of_outputs_that_are_not_targets():
    x = [0.0, 0.0]
    for label in (1.0, {"b": 1.0, "a": 7.0}, (1.0, None)):
        (chunk,) = read([(x, label), (x, label)], SOME)
        assert chunk.y[0].tolist() == [1.0, 1.0]
    (chunk,) = read([(x, [5.0, 6.0])], SOME)  # one label of two numbers
    assert chunk.y[0].tolist() == [[5.0, 6.0]]


def test_label_columns_of_outputs_that_are_not_targets_are_ignored():
    plan = plan_frame(Columns("x", {"b": "wanted", "a": "other"}), SOME)
    assert [feed.names for feed in plan.y] == [("wanted",)]
    with pytest.raises(ValueError, match="`label_col` must be a dictionary with the keys"):
        plan_frame(Columns("x", {"b": "wanted", "c": "other"}), SOME)
