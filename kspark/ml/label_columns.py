"""Convert a column of labels to the form that a loss takes: class numbers, or one-hot arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BooleanType, DataType, NumericType

from kspark.adapters.column_types import is_vector_type
from kspark.adapters.dataframe import chosen_column
from kspark.errors import KSparkError, invalid
from kspark.ml.scoring import ClassifierFacts
from kspark.replica.labels import BINARY as BINARY_LOSSES
from kspark.replica.labels import NUMBERS, ONE_HOT, SPARSE
from kspark.worker.scores import BINARY, MULTICLASS, MULTILABEL

REFUSAL = "`labelCol` must be a column of"


def with_labels(
    frame: DataFrame, name: str, facts: ClassifierFacts, *, always_one_hot: bool = False
) -> DataFrame:
    """Convert the label column of a DataFrame to the form that the loss of a classifier takes.

    Args:
        frame: DataFrame.
        name: String, the label column: class numbers of any numeric type, or one-hot
            arrays or vectors.
        facts: `ClassifierFacts`.
        always_one_hot: Boolean, whether to one-hot encode class numbers for any loss. Defaults
            to `False`.

    Raises:
        ValueError: If there is no such column, or it has class numbers although each row has
            several labels.
    """
    label = chosen_column(frame, name, name, "label_col")
    kind = frame.select(label).schema.fields[0].dataType
    if isinstance(kind, NumericType | BooleanType):
        if always_one_hot or wants_one_hot(name, kind, facts):
            return frame.withColumn(name, one_hot(label, name, facts))
        if facts.kind == BINARY and facts.loss and not facts.own_step:
            return frame.withColumn(name, degree(label, name, facts))
        return frame
    if not is_flat(kind):
        return frame
    if facts.loss == SPARSE:
        return frame.withColumn(name, largest(as_array(label, kind), name, facts))
    if facts.kind == BINARY:
        return frame.withColumn(name, second(as_array(label, kind), name))
    return frame


def wants_one_hot(name: str, kind: DataType, facts: ClassifierFacts) -> bool:
    """Whether class numbers must be one-hot encoded: never for the user's own loss or train step.

    Raises:
        ValueError: If each row has several labels, which a class number cannot represent.
    """
    if facts.loss in ONE_HOT:
        return True
    if not facts.loss or facts.own_step or facts.loss in (SPARSE, *NUMBERS):
        return False
    if facts.kind == MULTILABEL:
        rule = (
            f"a column of arrays or vectors of {facts.num_classes} values, one 0 or 1 per label, "
            f'for the loss {facts.loss!r} (or set `classification="multiclass"` for class numbers)'
        )
        raise invalid("labelCol", rule, f"{name}: {kind.simpleString()}")
    return facts.kind == MULTICLASS


def is_flat(kind: DataType) -> bool:
    """Whether a type is a vector type, or an array type that is not nested."""
    if isinstance(kind, ArrayType):
        return not isinstance(kind.elementType, ArrayType)
    return is_vector_type(kind)


def as_array(label: Column, kind: DataType) -> Column:
    """Convert a column of vectors or arrays to arrays."""
    return vector_to_array(label) if is_vector_type(kind) else label


def one_hot(label: Column, name: str, facts: ClassifierFacts) -> Column:
    """One-hot encode class numbers. Other values raise an error when Spark computes the row."""
    classes = facts.num_classes
    number = label.cast("double")
    is_class = (number >= 0) & (number < classes) & (number == F.floor(number))
    row = F.transform(
        F.sequence(F.lit(0), F.lit(classes - 1)), lambda i: (number == i).cast("float")
    )
    text = (
        f"{REFUSAL} class numbers from 0 to {classes - 1} for the loss "
        f"{facts.loss!r} of a model of {classes} classes. Received: labelCol={name!r} with "
    )
    found = F.coalesce(label.cast("string"), F.lit("null"))
    return F.when(is_class, row).otherwise(F.raise_error(F.concat(F.lit(text), found, F.lit("."))))


def degree(label: Column, name: str, facts: ClassifierFacts) -> Column:
    """Return the label for a single output: from 0 to 1 for a cross-entropy, else from -1 to 1."""
    lowest = 0 if facts.loss in BINARY_LOSSES else -1
    text = (
        f"{REFUSAL} numbers from {lowest} to 1 for the loss {facts.loss!r} of a model of one "
        f"output (for other numbers, use `KerasRegressor`). Received: labelCol={name!r} with "
    )
    refused = F.raise_error(F.concat(F.lit(text), label.cast("string"), F.lit(".")))
    number = label.cast("double")
    return F.when((number < lowest) | (number > 1), refused).otherwise(label)


@contextmanager
def refused_labels() -> Iterator[None]:
    """Turn the error with which Spark reports a refused label into a `ValueError`.

    Raises:
        ValueError: In place of Spark's error, if a label was refused inside the block.
    """
    try:
        yield
    except KSparkError as error:
        if (text := refusal(error)) is None:
            raise
        raise ValueError(text) from None  # Spark's error says the same in a hundred lines.


def refusal(error: KSparkError) -> str | None:
    """Extract the message about a refused label from Spark's error; `None` for other errors."""
    pattern = r".*? Received: .*? with \S*(?: values(?:, none above 0)?)?\.(?=\s|$)"
    found = re.search(re.escape(REFUSAL) + pattern, str(error))
    return found[0].rstrip(".") if found else None


def largest(values: Column, name: str, facts: ClassifierFacts) -> Column:
    """Return the index of the largest value in a one-hot array. A single value is the class itself.

    An array of zeros is refused: `OneHotEncoder` writes it for the category that it drops.
    """
    classes = facts.num_classes
    # Called by name, because `F.array_position` does not take a column before Spark 4.
    place = F.call_function("array_position", values, F.array_max(values)) - 1
    text = (
        f"{REFUSAL} class numbers, or of one-hot arrays or vectors of {classes} values, one of "
        f"them above 0 (of OneHotEncoder with dropLast=False). Received: labelCol={name!r} with "
    )
    return (
        F.when(F.size(values) == 1, F.element_at(values, -1).cast("double"))
        .when((F.size(values) == classes) & has_positive(values), place.cast("double"))
        .otherwise(refused_size(text, values))
    )


def second(values: Column, name: str) -> Column:
    """Return the label for a single output: the only value, or the second of a one-hot pair."""
    text = (
        f"{REFUSAL} numbers, or of arrays or vectors of 1 or 2 values (of 2, one above 0), "
        f"for a model of one output. Received: labelCol={name!r} with "
    )
    fits = (F.size(values) == 1) | ((F.size(values) == 2) & has_positive(values))
    return F.when(fits, F.element_at(values, -1)).otherwise(refused_size(text, values))


def has_positive(values: Column) -> Column:
    """Whether any value of an array is > 0. The values may be booleans or nulls."""
    return F.coalesce(F.array_max(values.cast("array<double>")) > 0, F.lit(False))


def refused_size(text: str, values: Column) -> Column:
    """Raise an error with the number of values in a label, and whether one of them is > 0."""
    found = F.when(values.isNull(), "null").otherwise(
        F.concat(
            F.size(values).cast("string"),
            F.when(has_positive(values), " values").otherwise(" values, none above 0"),
        )
    )
    return F.raise_error(F.concat(F.lit(text), found, F.lit(".")))
