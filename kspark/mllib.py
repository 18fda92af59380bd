"""Elephas' MLlib front: a model on RDDs of `LabeledPoint`, and conversions of MLlib's types."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from pyspark import RDD
from pyspark.mllib.linalg import Matrix, Vector
from pyspark.mllib.regression import LabeledPoint

from kspark.data import (
    from_labeled_point,
    from_matrix,
    from_vector,
    lp_to_simple_rdd,
    to_labeled_point,
    to_matrix,
    to_vector,
)
from kspark.spark_model import SparkModel

__all__ = [
    "SparkMLlibModel",
    "from_labeled_point",
    "from_matrix",
    "from_vector",
    "lp_to_simple_rdd",
    "to_labeled_point",
    "to_matrix",
    "to_vector",
]


class SparkMLlibModel(SparkModel):
    """A `SparkModel` that trains on RDDs of `LabeledPoint` and predicts MLlib's types.

    Takes the arguments of `SparkModel`.

    Example:

    ```python
    mllib_model = SparkMLlibModel(model)
    mllib_model.fit(labeled_points, epochs=5, categorical=True, nb_classes=10)
    predictions = mllib_model.predict(to_matrix(x))
    ```
    """

    saved_as = "SparkMLlibModel"

    def fit(  # type: ignore[override]
        self,
        labeled_points: RDD[LabeledPoint],
        epochs: int = 10,
        batch_size: int | None = None,
        verbose: str | int = 0,
        validation_split: float = 0.1,
        categorical: bool = False,
        nb_classes: int | None = None,
    ) -> keras.callbacks.History:
        """Train the model.

        Args:
            labeled_points: RDD of `LabeledPoint`.
            epochs: Integer.
            batch_size: Integer, examples per batch and worker. Defaults to that of the
                constructor.
            verbose: As for `SparkModel.fit`.
            validation_split: Float, part of every partition that validates.
            categorical: Boolean, whether the labels become one-hot.
            nb_classes: Integer, length of one-hot labels. Defaults to the largest label
                plus one.

        Returns:
            A Keras `History`.

        Raises:
            ValueError: If the data does not fit the model.
        """
        rows = lp_to_simple_rdd(labeled_points, categorical, nb_classes)
        return super().fit(
            rows,
            epochs=epochs,
            batch_size=batch_size,
            verbose=verbose,
            validation_split=validation_split,
        )

    train = fit

    def predict(self, mllib_data: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Outputs for the rows of a matrix, as a matrix; for a vector, as a vector.

        Args:
            mllib_data: MLlib matrix or vector; anything else as for `SparkModel.predict`.
            *args: Further arguments of `SparkModel.predict`.
            **kwargs: Further arguments of `SparkModel.predict`.
        """
        if isinstance(mllib_data, Matrix):
            return to_matrix(super().predict(from_matrix(mllib_data), *args, **kwargs))
        if isinstance(mllib_data, Vector):
            row = np.asarray(from_vector(mllib_data))[np.newaxis]
            return to_vector(np.asarray(super().predict(row, *args, **kwargs))[0])
        return super().predict(mllib_data, *args, **kwargs)
