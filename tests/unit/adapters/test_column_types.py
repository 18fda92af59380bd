"""Columns of a DataFrame are checked by their types alone."""

from __future__ import annotations

import re

import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import types as T

from kspark.adapters import Columns
from kspark.adapters.column_types import check_types, summary_of_schema
from kspark.adapters.feeds import plan_frame
from kspark.shards import TEXT, ArraySpec, InputSpec, LabelStats

NUMBERS = ArraySpec("x", (3,), "float32")
WORDS = ArraySpec("x", (1,), TEXT)
ANY = ArraySpec("x")
STRUCT = T.StructType([T.StructField("year", T.IntegerType())])


def check(spec, features="a", **types):
    """Check columns a, b, c; further names are labels and weights."""
    inputs = InputSpec((spec,), (ArraySpec("y"),))
    plan = plan_frame(Columns(features, "label", "weight"), inputs)
    given = {"label": T.DoubleType(), "weight": T.DoubleType(), **types}
    check_types(plan, given)


@pytest.mark.parametrize(
    "kind",
    [
        T.IntegerType(),
        T.BooleanType(),
        T.DecimalType(10, 2),
        VectorUDT(),
        T.ArrayType(T.ArrayType(T.FloatType())),
    ],
)
def test_numbers_are_accepted(kind):
    check(NUMBERS, a=kind)
    check(ANY, a=kind)


def test_text_is_accepted_where_the_model_takes_it():
    check(WORDS, a=T.StringType())
    check(ANY, a=T.ArrayType(T.StringType()))
    check(ANY, ["a", "b"], a=T.StringType(), b=T.StringType())
    check(NUMBERS, a=T.DoubleType(), label=T.StringType())  # the loss may be the user's own


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            T.StringType(),
            "Received: type string. Pass `preprocess`, .* or encode it as .* StringIndexer",
        ),
        (T.ArrayType(T.StringType()), "type array<string>. Pass `preprocess`, which"),
        (T.DateType(), "type date. Convert it to numbers, for example with `unix_timestamp`"),
        (T.TimestampType(), "type timestamp. Convert it to numbers"),
        (STRUCT, "type struct<year:int>. Name one of its fields, such as 'b.year'"),
        (T.MapType(T.StringType(), T.IntegerType()), "Select its values as columns"),
        (T.BinaryType(), "type binary. Pass `preprocess`, which gets the bytes, or name"),
    ],
)
@pytest.mark.parametrize("spec", [NUMBERS, ANY])
def test_a_column_among_several_is_refused_by_name(spec, kind, words):
    with pytest.raises(ValueError) as caught:
        check(spec, ["a", "b", "c"], a=T.DoubleType(), b=kind, c=T.DoubleType())
    assert str(caught.value).startswith("Column 'b' must hold numbers, vectors, or arrays of these")
    assert re.search(words, str(caught.value))
    assert "`features_col`" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "kind"), [("label", T.DateType()), ("weight", T.StringType()), ("weight", STRUCT)]
)
def test_labels_and_weights_are_refused_with_their_argument(column, kind):
    words = f"Column '{column}' must hold .*Received: type .*`{column}_col`"
    with pytest.raises(ValueError, match=words):
        check(NUMBERS, a=T.DoubleType(), **{column: kind})


def test_numbers_are_refused_where_the_model_takes_text():
    with pytest.raises(ValueError, match=r"Column 'a' must hold text.*int.*cast\(\"string\"\)"):
        check(WORDS, a=T.IntegerType())
    with pytest.raises(ValueError, match="Column 'b' must hold text"):
        check(ANY, ["a", "b"], a=T.StringType(), b=T.IntegerType())


def summary(label, **types):
    plan = plan_frame(Columns("a", label, "weight"), InputSpec((ANY,), (ArraySpec("y"),)))
    return summary_of_schema(plan, {"a": T.DoubleType(), "weight": T.DoubleType(), **types})


def test_the_schema_tells_the_shapes_of_columns_of_numbers():
    one = summary("y", y=T.IntegerType())
    assert [(a.shape, a.is_text) for a in (*one.y, *one.sample_weight)] == [((), False)] * 2
    assert one.stats == (LabelStats(),)
    assert summary(["y", "z"], y=T.IntegerType(), z=T.DoubleType()).y[0].shape == (2,)


@pytest.mark.parametrize("kind", [T.StringType(), T.ArrayType(T.DoubleType()), VectorUDT()])
def test_the_schema_does_not_tell_the_shapes_of_other_columns(kind):
    assert summary("y", y=kind).stats == (None,)
    assert summary("y", y=T.DoubleType(), weight=kind).sample_weight == ()
