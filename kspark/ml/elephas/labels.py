"""Convert the labels of an `ElephasEstimator`, as `categorical` and `nb_classes` say."""

from __future__ import annotations

import keras
from pyspark.sql import DataFrame
from pyspark.sql.types import NumericType

from kspark.adapters.dataframe import chosen_column
from kspark.errors import invalid
from kspark.ml.label_columns import with_labels
from kspark.ml.scoring import ClassifierFacts, compiled_loss, output_width
from kspark.replica.labels import NUMBERS, ONE_HOT, SPARSE, loss_name, reads_labels
from kspark.worker.scores import MULTICLASS


def with_encoded_labels(
    frame: DataFrame, column: str, model: keras.Model, *, categorical: bool, nb_classes: int
) -> DataFrame:
    """One-hot encode a column of class numbers if `categorical` is set and the loss takes that.

    Args:
        frame: DataFrame.
        column: String, the label column.
        model: The compiled `keras.Model` to train.
        categorical: Boolean.
        nb_classes: Integer, length of a one-hot label.

    Raises:
        ValueError: If the labels would not fit the loss and the output of the model.
    """
    loss = loss_name(compiled_loss(model))
    label = frame.select(chosen_column(frame, column, column, "label_col")).schema.fields[0]
    if isinstance(label.dataType, NumericType):
        check_encoding(model, loss, categorical, nb_classes)
    if not categorical or loss == SPARSE:
        return frame
    facts = ClassifierFacts(MULTICLASS, nb_classes, False, loss)
    return with_labels(frame, column, facts, always_one_hot=True)


def check_encoding(model: keras.Model, loss: str, categorical: bool, nb_classes: int) -> None:
    """Refuse settings with which class numbers do not fit a loss of Keras.

    Raises:
        ValueError: If they do not.
    """
    if not loss or loss in (SPARSE, *NUMBERS) or reads_labels(model):
        return
    if not categorical and loss in ONE_HOT:
        rule = f"True for the loss {loss!r}, which takes one-hot labels, and a column of numbers"
        raise invalid("categorical", rule, categorical)
    width = output_width(model)
    if not categorical or width == nb_classes:
        return
    if width == 1:
        rule = "False for a model of one output per row, which does not take one-hot labels"
        raise invalid("categorical", rule, categorical)
    rule = f"{width}, the number of the model's outputs, for one-hot labels (`categorical=True`)"
    raise invalid("nb_classes", rule, nb_classes)
