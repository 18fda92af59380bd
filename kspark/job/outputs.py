"""The columns that predictions add to a DataFrame: one per output, with its name and type."""

from __future__ import annotations

import keras
from pyspark.sql.types import ArrayType, DataType, DoubleType, StringType, StructField

from kspark.errors import Described, invalid
from kspark.replica.labels import output_shapes
from kspark.replica.outputs import text_outputs
from kspark.replica.signature import output_names, unique


def output_fields(model: keras.Model, column: str) -> list[StructField]:
    """Return the columns for the outputs of a model.

    Args:
        model: A built `keras.Model`.
        column: String, the name of the column. A model with several outputs adds one column
            for each, `<column>_<name of the output>`. Names that Spark takes for the same, such
            as `a` and `A`, get a number.

    Raises:
        ValueError: If the shape of an output is unknown.
    """
    names, _ = output_names(model)
    shapes, text = output_shapes(model, names), text_outputs(model)
    if unknown := [name for name in names if name not in shapes]:
        rule = f"a model whose outputs have known shapes; that of {unknown} is unknown"
        raise invalid("model", rule, Described(f"the model {model.name!r}"))
    parts = [f"{column}_{name}" for name in unique(names, ignore_case=True)]
    titles = [column] if len(names) == 1 else parts
    return [
        StructField(
            title, output_type(shapes[name], StringType() if name in text else DoubleType())
        )
        for title, name in zip(titles, names, strict=True)
    ]


def output_type(shape: tuple[int | None, ...], element: DataType) -> DataType:
    """Return the column type of an output: the type of its elements, or (nested) arrays of them."""
    kind = element
    for _ in () if shape == (1,) else shape:
        kind = ArrayType(kind)
    return kind
