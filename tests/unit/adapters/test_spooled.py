"""What models take of rows that were spooled before they were known."""

from __future__ import annotations

import numpy as np
import pytest

from kspark.adapters.base import Columns
from kspark.adapters.spooled import Group, Layout, Spooled, StoredPlan, adapt_spooled
from kspark.shards import ArraySpec, Chunk, InputSpec, Shard, spool

ONE = InputSpec((ArraySpec("x", (4,), "float32"),), (ArraySpec("out"),))
LABELLED = Layout(Group(("x",)), Group(("y",)))


def written(tmp_path, *arrays, weights=()):
    x, *y = arrays
    return spool([Chunk([x], list(y), list(weights))], 0, "run", directory=str(tmp_path))


def rows_of(plan, handle):
    (chunk,) = plan.chunks(Shard.open(handle), handle.num_examples)
    return chunk


def test_values_of_the_models_types_are_used_as_they_are(tmp_path):
    plan = StoredPlan.of(LABELLED, ONE)
    handle = written(tmp_path, np.ones((3, 4), np.float32), np.arange(3))
    assert plan.keeps_values(handle)
    assert plan.described(handle) == handle
    flat = InputSpec((ArraySpec("x", (2, 2), "float32"),), ONE.targets)
    assert StoredPlan.of(LABELLED, flat).keeps_values(handle)
    assert StoredPlan.of(LABELLED, flat).described(handle).x[0].shape == (2, 2)


def test_values_of_other_types_are_converted(tmp_path):
    plan = StoredPlan.of(LABELLED, ONE)
    handle = written(tmp_path, np.full((3, 4), 255, np.uint8), np.arange(3.0, dtype=np.float32))
    assert not plan.keeps_values(handle)
    assert plan.described(handle).x[0].dtype == "float32"
    rows = rows_of(plan, handle)
    assert rows.x[0].dtype == np.float32 and (rows.x[0] == 255).all()


def test_bytes_are_text_for_a_model_of_text_and_stay_bytes_for_others(tmp_path):
    handle = written(tmp_path, np.array([b"a", b"\xc3\xa9"], object))
    plans = {
        dtype: StoredPlan.of(Layout(Group(("x",))), InputSpec((ArraySpec("x", (), dtype),)))
        for dtype in ("string", "raw")
    }
    assert not plans["string"].keeps_values(handle) and plans["raw"].keeps_values(handle)
    assert plans["string"].described(handle).x[0].dtype == "string"
    assert rows_of(plans["string"], handle).x[0].tolist() == ["a", "\u00e9"]
    assert rows_of(plans["raw"], handle).x[0].tolist() == [b"a", b"\xc3\xa9"]


def test_arrays_are_matched_by_name_or_place(tmp_path):
    inputs = (ArraySpec("b", (1,), "float32"), ArraySpec("a", (1,), "float32"))
    handle = spool([Chunk([np.ones((2, 1)), np.zeros((2, 1))])], 0, "r", directory=str(tmp_path))
    named = StoredPlan.of(Layout(Group(("a", "b"), "dict")), InputSpec(inputs))
    assert [array[0, 0] for array in rows_of(named, handle).x] == [0, 1]
    listed = StoredPlan.of(Layout(Group(("x0", "x1"), "list")), InputSpec(inputs))
    assert [array[0, 0] for array in rows_of(listed, handle).x] == [1, 0]


def test_labels_without_a_target_and_outputs_without_a_loss_are_left_out(tmp_path):
    y = [np.zeros(2), np.ones(2)]
    handle = spool([Chunk([np.ones((2, 4))], y, [np.ones(2)])], 0, "r", directory=str(tmp_path))
    layout = Layout(Group(("x",)), Group(("y0", "y1"), "list"), Group(("sample_weight",)))
    bare = StoredPlan.of(layout, InputSpec(ONE.inputs))
    assert not rows_of(bare, handle).y and not rows_of(bare, handle).sample_weight
    one_of_two = InputSpec(ONE.inputs, (ArraySpec("second"),), outputs=("first", "second"))
    found = rows_of(StoredPlan.of(layout, one_of_two), handle)
    assert found.y[0].tolist() == [1, 1] and len(found.sample_weight) == 1


@pytest.mark.parametrize(
    ("layout", "spec", "message"),
    [
        (Layout(Group(("x",))), ONE, "`x` must be spooled rows with labels for .*'out'"),
        (
            Layout(Group(("x0", "x1"), "list"), Group(("y",))),
            ONE,
            r"`x` must be spooled rows with one array, .*Received: a list of 2 arrays",
        ),
        (
            LABELLED,
            InputSpec((ArraySpec("a"), ArraySpec("b")), ONE.targets),
            r"with 2 arrays, for \['a', 'b'\].*Received: one array",
        ),
        (
            Layout(Group(("a", "c"), "dict"), Group(("y",))),
            InputSpec((ArraySpec("a"), ArraySpec("b")), ONE.targets),
            "Received: a dictionary with the keys",
        ),
    ],
)
def test_other_numbers_of_arrays_are_refused(layout, spec, message):
    with pytest.raises(ValueError, match=message):
        StoredPlan.of(layout, spec)


@pytest.mark.parametrize(
    ("x", "spec", "message"),
    [
        (np.ones((3, 5)), ONE.inputs[0], r"`x` must hold examples of shape \(4,\).*\(5,\)"),
        (np.array(["a"] * 3, object), ONE.inputs[0], "`x` must hold numbers. Received: text"),
        (np.ones((3, 4)), ArraySpec("x", (4,), "string"), "`x` must hold text"),
        (np.ones((3, 4), "f4"), ArraySpec("x", (4,), "float64"), "float64 numbers.*set_floatx"),
    ],
)
def test_other_shapes_and_kinds_are_refused_without_reading(tmp_path, x, spec, message):
    handle = written(tmp_path, x)
    plan = StoredPlan.of(Layout(Group(("x",))), InputSpec((spec,)))
    Shard.remove(handle)
    with pytest.raises(ValueError, match=message):
        plan.described(handle)


def test_whole_numbers_that_were_rounded_are_refused(tmp_path):
    ids = np.array([1, 2**24 + 2], np.float32)
    plan = StoredPlan.of(Layout(Group(("x",))), InputSpec((ArraySpec("x", (), "int64"),)))
    with pytest.raises(ValueError, match="whole numbers up to 16777216.*16777218.*in row 1"):
        rows_of(plan, written(tmp_path, ids))
    assert rows_of(plan, written(tmp_path, ids[:1])).x[0].tolist() == [1]


class Rows(Spooled):
    columns = ()

    def check_open(self):
        pass

    def example(self):
        pass

    def first_row(self):
        pass

    def examples(self, spec):
        return spec


@pytest.mark.parametrize(
    ("given", "columns", "name"),
    [
        ((1, None), Columns(), "y"),
        ((None, 1), Columns(), "sample_weight"),
        ((None, None), Columns("pixels"), "features_col"),
        ((None, None), Columns(label_col="digit"), "label_col"),
        ((None, None), Columns(weight_col="w"), "weight_col"),
    ],
)
def test_arguments_that_belong_to_the_spooling_are_refused(given, columns, name):
    with pytest.raises(ValueError, match=f"`{name}` must be left out for spooled rows"):
        adapt_spooled(None, Rows(), *given, ONE, columns)
    assert adapt_spooled(None, Rows(), None, None, ONE, Columns(label_col=None)) is ONE
