"""Labels as the loss wants them, computed by Spark: class numbers, one-hot, or as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BooleanType, DataType, NumericType

from kspark.adapters.dataframe import chosen_column, is_vector_type
from kspark.errors import KSparkError
from kspark.labels import ONE_HOT, SPARSE
from kspark.ml.scoring import ClassifierFacts
from kspark.worker.scores import BINARY

REFUSAL = "`labelCol` must be a column of"


def with_labels(
    frame: DataFrame, name: str, facts: ClassifierFacts, *, always_one_hot: bool = False
) -> DataFrame:
    """The frame with its label column in the form that the classifier's loss takes.

    Args:
        frame: DataFrame.
        name: String, the label column: class numbers of any numeric type, or one-hot
            arrays or vectors.
        facts: `ClassifierFacts`.
        always_one_hot: Boolean, whether class numbers become one-hot for any loss.

    Raises:
        ValueError: If there is no such column.
    """
    label = chosen_column(frame, name, name)
    kind = frame.select(label).schema.fields[0].dataType
    if isinstance(kind, NumericType | BooleanType):
        if always_one_hot or facts.loss in ONE_HOT:
            return frame.withColumn(name, one_hot(label, name, facts))
        return frame
    if not isinstance(kind, ArrayType) and not is_vector_type(kind):
        return frame
    if facts.loss == SPARSE:
        return frame.withColumn(name, largest(as_array(label, kind)))
    if facts.kind == BINARY:
        return frame.withColumn(name, second(as_array(label, kind)))
    return frame


def as_array(label: Column, kind: DataType) -> Column:
    """A column of vectors or arrays as one of arrays."""
    return vector_to_array(label) if is_vector_type(kind) else label


def one_hot(label: Column, name: str, facts: ClassifierFacts) -> Column:
    """Class numbers as one-hot arrays; what is none fails when it is read."""
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


@contextmanager
def refused_labels() -> Iterator[None]:
    """Around a fit: what `one_hot` has to say, as the `ValueError` that a wrong label is.

    Raises:
        ValueError: In place of Spark's error, if a label was refused.
    """
    try:
        yield
    except KSparkError as error:
        if (text := refusal(error)) is None:
            raise
        raise ValueError(text) from error


def refusal(error: KSparkError) -> str | None:
    """What `one_hot` had to say, if that is why Spark gave up."""
    found = re.search(re.escape(REFUSAL) + r".*? Received: .*? with \S*\.(?=\s|$)", str(error))
    return found[0].rstrip(".") if found else None


def largest(values: Column) -> Column:
    """The place of the largest value: the class of a one-hot array."""
    return (F.array_position(values, F.array_max(values)) - 1).cast("double")


def second(values: Column) -> Column:
    """For a single output: the only value, or that for class 1 of a one-hot pair."""
    return F.element_at(values, F.size(values))
