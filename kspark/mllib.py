"""Elephas' interface for MLlib: a model on RDDs of `LabeledPoint`, and conversions of types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from pyspark.mllib.linalg import Matrix, Vector

from kspark.classic import RDD
from kspark.data import (
    from_labeled_point,
    from_matrix,
    from_vector,
    lp_to_simple_rdd,
    to_labeled_point,
    to_matrix,
    to_vector,
)
from kspark.errors import invalid
from kspark.replica.labels import ONE_HOT, loss_name
from kspark.spark_model import SparkModel

if TYPE_CHECKING:
    from pyspark.mllib.regression import LabeledPoint

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

    It takes the same arguments as `SparkModel`.

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
        """Train the model for a number of epochs.

        Args:
            labeled_points: RDD of `LabeledPoint`.
            epochs: Integer >= 1, the epoch to train up to. Defaults to `10`.
            batch_size: Integer, number of examples per batch and worker. Defaults to `None`,
                the `batch_size` of the model.
            verbose: As for `SparkModel.fit`. Defaults to `0`.
            validation_split: Float in [0, 1), the fraction of every partition to validate on
                instead of training. Defaults to `0.1`.
            categorical: Boolean, whether to one-hot encode the labels. Defaults to `False`.
            nb_classes: Integer, length of a one-hot label. Defaults to `None`, the largest
                label plus one.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If the data does not fit the model.
        """
        self._check_categorical(categorical)
        rows = lp_to_simple_rdd(labeled_points, categorical, nb_classes)
        return super().fit(
            rows,
            epochs=epochs,
            batch_size=batch_size,
            verbose=verbose,
            validation_split=validation_split,
        )

    train = fit

    def _check_categorical(self, categorical: bool) -> None:
        """Refuse class numbers for a loss that takes one-hot labels."""
        loss = loss_name(self._model.loss)
        if loss in ONE_HOT and not categorical:
            rule = f"True for the loss {loss!r}, which takes one-hot labels"
            raise invalid("categorical", rule, categorical)

    def predict(self, mllib_data: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Compute the model's outputs for a matrix, a vector, or the data of `SparkModel.predict`.

        Args:
            mllib_data: MLlib matrix of one example per row, MLlib vector of one example, or
                data for `SparkModel.predict`.
            *args: Further arguments of `SparkModel.predict`.
            **kwargs: Further arguments of `SparkModel.predict`. `verbose` defaults to `0`.

        Returns:
            A matrix for a matrix, a vector for a vector, and otherwise the result of
            `SparkModel.predict`.
        """
        if len(args) < 2:
            kwargs.setdefault("verbose", 0)
        if isinstance(mllib_data, Matrix):
            return to_matrix(super().predict(from_matrix(mllib_data), *args, **kwargs))
        if isinstance(mllib_data, Vector):
            row = np.asarray(from_vector(mllib_data))[np.newaxis]
            return to_vector(np.asarray(super().predict(row, *args, **kwargs))[0])
        return super().predict(mllib_data, *args, **kwargs)
