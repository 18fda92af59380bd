"""Which losses are for numbers and which for classes, as Elephas' users ask for it."""

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
    """Tells by the loss what a model predicts. All instances share what is registered.

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
        """The type for a loss: a name, a function or a `keras.losses.Loss`; else `None`.

        Args:
            loss: String, function or `keras.losses.Loss`.
        """
        if isinstance(loss, str) and loss in self._types:
            return self._types[loss]
        return self._types.get(name_of(loss)) or self._types.get(loss_name(loss))

    def register_loss(self, loss: Any, model_type: ModelType) -> None:
        """Tell what models with a loss of the user's own predict.

        Args:
            loss: String, function or `keras.losses.Loss`.
            model_type: `ModelType`.
        """
        self._types[name_of(loss)] = model_type


def name_of(loss: Any) -> str:
    """The name of a loss that Keras does not know."""
    if isinstance(loss, str):
        return loss
    return str(getattr(loss, "__name__", None) or type(loss).__name__)
