"""Many columns of numbers become one, in the type that NumPy gives to them side by side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql.types import ArrayType, DoubleType, StructType

from kspark.adapters import Columns
from kspark.adapters.column_names import missing
from kspark.adapters.feeds import Packing, plan_frame
from kspark.adapters.frame_columns import MANY, FrameColumns, packed_plan
from kspark.shards import ArraySpec, InputSpec


def frame_of(*fields, **settings):
    """A DataFrame of which only the schema is read."""
    schema = StructType()
    for name, kind in fields:
        schema.add(name, kind)
    conf = SimpleNamespace(get=lambda name, default: settings.get("case", default))
    return SimpleNamespace(schema=schema, sparkSession=SimpleNamespace(conf=conf))


def plan_of(count, dtype="float32", names=None):
    names = names or [f"c{i}" for i in range(count)]
    spec = InputSpec((ArraySpec("x", (count,), dtype),))
    return plan_frame(Columns(names, None), spec)


def packed(kinds, dtype="float32"):
    names = [f"c{i}" for i in range(MANY)]
    columns = FrameColumns(frame_of(*((n, kinds[i % len(kinds)]) for i, n in enumerate(names))))
    plan = packed_plan(plan_of(MANY, dtype), columns.types_of(plan_of(MANY).arguments))
    packing = plan.x[0].packed
    return "" if packing is None else packing.kind


@pytest.mark.parametrize(
    ("kinds", "dtype", "expected"),
    [
        (["double"], "float32", "float"),
        (["double"], "float64", "double"),
        (["double"], "int32", "double"),
        (["double"], "", "double"),
        (["boolean"], "float32", "boolean"),
        (["boolean", "byte"], "", "tinyint"),
        (["short", "float"], "", "float"),
        (["integer", "float"], "", "double"),
        (["integer"], "float32", "int"),
        (["long"], "float32", "float"),
        (["long", "double"], "int64", "double"),
        (["decimal(9,3)", "boolean"], "", "double"),
        (["string"], "", ""),
        (["double", ArrayType(DoubleType())], "float32", ""),
    ],
)
def test_the_type_of_the_numbers(kinds, dtype, expected):
    assert packed(kinds, dtype) == expected


def test_few_columns_stay_columns():
    columns = FrameColumns(frame_of(*((f"c{i}", "double") for i in range(MANY - 1))))
    plan = plan_of(MANY - 1)
    assert packed_plan(plan, columns.types_of(plan.arguments)) == plan
    assert list(plan.sources) == [(f"c{i}",) for i in range(MANY - 1)]


def test_values_are_those_of_columns_and_a_null_has_the_name_of_its_column():
    names = [f"c{i}" for i in range(MANY)]
    columns = FrameColumns(frame_of(*((name, "double") for name in names)))
    plan = packed_plan(plan_of(MANY), columns.types_of(plan_of(MANY).arguments))
    assert plan.sources == {tuple(names): Packing("float", (tuple(range(MANY)),))}
    rows = np.arange(3.0 * MANY).reshape(3, MANY)
    batch = pa.record_batch([pa.array(rows.tolist(), pa.list_(pa.float32()))], ["c0"])
    (chunk,) = plan.chunks(batch.slice(1), 0, 0)
    np.testing.assert_array_equal(chunk.x[0], rows[1:])
    assert chunk.x[0].dtype == "float32"
    values = rows.tolist()
    values[2][41] = None
    batch = pa.record_batch([pa.array(values, pa.list_(pa.float32()))], ["c0"])
    message = "Column 'c41' must hold no nulls. Received: null in row 7 of partition 4"
    with pytest.raises(ValueError, match=message):
        list(plan.chunks(batch, 4, 5))


def test_values_of_columns_of_several_types_come_in_groups():
    names = [f"c{i}" for i in range(MANY)]
    columns = FrameColumns(
        frame_of(*((n, "double" if i % 3 else "integer") for i, n in enumerate(names)))
    )
    plan = packed_plan(plan_of(MANY), columns.types_of(plan_of(MANY).arguments))
    order = sorted(range(MANY), key=lambda at: at % 3 > 0)
    assert plan.x[0].packed.positions.tolist() == order
    rows = np.arange(3.0 * MANY).reshape(3, MANY)
    values = rows[:, order].tolist()
    batch = pa.record_batch([pa.array(values, pa.list_(pa.float32()))], ["c0"])
    (chunk,) = plan.chunks(batch, None, 0)
    np.testing.assert_array_equal(chunk.x[0], rows)
    values[1][order.index(50)] = None
    batch = pa.record_batch([pa.array(values, pa.list_(pa.float32()))], ["c0"])
    with pytest.raises(
        ValueError, match="Column 'c50' must hold no nulls. Received: null in row 1"
    ):
        list(plan.chunks(batch, None, 0))


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_value_that_does_not_fit_has_the_name_of_its_column(is_packed):
    names = [f"c{i}" for i in range(MANY)]
    columns = FrameColumns(frame_of(*((name, "double") for name in names)))
    plan = plan_of(MANY, "int32")
    rows = np.arange(3.0 * MANY).reshape(3, MANY)
    rows[1, 7] = 0.5
    arrays = [pa.array(column) for column in rows.T]
    if is_packed:
        plan = packed_plan(plan, columns.types_of(plan.arguments))
        arrays = [pa.array(rows.tolist())]
    batch = pa.record_batch(arrays, [f"a{i}" for i in range(len(arrays))])
    with pytest.raises(ValueError, match=r"Column 'c7' must hold whole numbers.*0.5 in row 1"):
        list(plan.chunks(batch, None, 0))


def test_names_are_found_in_any_case_and_quoted():
    inner = StructType().add("x", "integer")
    columns = FrameColumns(frame_of(("Age", "double"), ("a`.b", "integer"), ("s", inner)))
    assert columns.own_name("age") == "Age"
    assert columns.reference("AGE") == "`Age`"
    assert columns.reference("a`.b") == "`a``.b`"
    assert columns.reference("s.x") == "`s`.`x`"
    exact = FrameColumns(frame_of(("Age", "double"), case="true"))
    assert exact.own_name("age") is None
    with pytest.raises(ValueError, match=r"no column 'age', which `a` names. The columns are"):
        exact.reference("age", "a")


def test_errors_list_few_of_many_names():
    names = [f"c{i}" for i in range(5000)]
    text = str(missing("c49999", names, "features_col"))
    assert "5000 columns begin with" in text and "'c4999'" in text and len(text) < 500
    text = str(missing("unlike", names))
    assert "nearest" not in text and text.endswith("]")
    assert "(5000 columns)" in plan_of(5000).x[0].title
