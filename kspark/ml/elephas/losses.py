"""Classify losses by what a model predicts, numbers or classes, as Elephas does."""

from __future__ import annotations

from enum import Enum
from typing import Any

from kspark.replica.labels import loss_name

REGRESSION_LOSSES = (
    *("mean_squared_error", "mean_absolute_error", "mse", "mae", "cosine_proximity"),
    *("mean_absolute_percentage_error", "mean_squared_logarithmic_error", "logcosh"),
    *("mape", "msle", "log_cosh", "huber", "poisson", "cosine_similarity", "tversky"),
)
CLASSIFICATION_LOSSES = (
    *("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"),
    *("binary_focal_crossentropy", "categorical_focal_crossentropy", "kl_divergence"),
    *("hinge", "squared_hinge", "categorical_hinge"),
)


class ModelType(Enum):
    """What a model predicts.

    Example:

    ```python
    kind = LossModelTypeMapper().get_model_type("mse")  # ModelType.REGRESSION
    ```
    """

    CLASSIFICATION = 1
    REGRESSION = 2


class LossModelTypeMapper:
    """Maps a loss to what a model with it predicts. All instances share registered losses.

    Example:

    ```python
    mapper = LossModelTypeMapper()
    mapper.register_loss(my_loss, ModelType.REGRESSION)
    ```
    """

    _types: dict[str, ModelType] = {
        **dict.fromkeys(REGRESSION_LOSSES, ModelType.REGRESSION),
        **dict.fromkeys(CLASSIFICATION_LOSSES, ModelType.CLASSIFICATION),
    }

    def get_model_type(self, loss: Any) -> ModelType | None:
        """Return the model type of a loss, or `None` if the loss is unknown.

        Args:
            loss: String, function or `keras.losses.Loss`.
        """
        if isinstance(loss, str) and loss in self._types:
            return self._types[loss]
        return self._types.get(name_of(loss)) or self._types.get(loss_name(loss))

    def register_loss(self, loss: Any, model_type: ModelType) -> None:
        """Register what models with a custom loss predict.

        Args:
            loss: String, function or `keras.losses.Loss`.
            model_type: `ModelType`.
        """
        self._types[name_of(loss)] = model_type


def name_of(loss: Any) -> str:
    """Return the name of a custom loss."""
    if isinstance(loss, str):
        return loss
    return str(getattr(loss, "__name__", None) or type(loss).__name__)
