"""Values of Params that are not plain data, and so are not saved with a stage.

When Spark saves a cross-validation, it writes the values of the grid as JSON, but calls `save` of
values that are stages. The values in this module count as stages, so that `save` can raise a clear
error.
"""

from __future__ import annotations

from typing import Any

from pyspark.ml import Transformer
from pyspark.ml.param import Params

from kspark.errors import invalid


class Unsaved:
    """A value that Spark tries to save by its method `save`, which raises."""

    argument = ""
    rule = "left out of a grid that is saved, because it is not plain data"

    def save(self, path: str) -> None:
        """Raise an error, because the value cannot be saved.

        Raises:
            ValueError: Always.
        """
        raise invalid(self.argument, self.rule, self)


Transformer.register(Unsaved)


class Callbacks(Unsaved, list[Any]):
    """A list of Keras callbacks."""

    argument = "callbacks"


class CallbackMaker(Unsaved):
    """A function that returns a list of Keras callbacks.

    Args:
        function: Callable without arguments.
    """

    argument = "callbacks"

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self) -> Any:
        """Call the function, which makes new callbacks."""
        return self.function()

    def __eq__(self, other: object) -> bool:
        return self.function == getattr(other, "function", other)

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return repr(self.function)


class CustomObjects(Unsaved, dict[str, Any]):
    """A dictionary from names to custom objects."""

    argument = "custom_objects"


class StepValue(Unsaved):
    """A function of a batch, or a layer, which stages save themselves, but grids cannot.

    Args:
        argument: String, `"preprocess"` or `"augment"`.
        step: The function or the layer.
    """

    rule = (
        'the import name "module:name" of a function in a grid that is saved, because Spark saves '
        "the values of a grid as plain data"
    )

    def __init__(self, argument: str, step: Any) -> None:
        self.argument = argument
        self.step = step

    def __eq__(self, other: object) -> bool:
        return self.step == getattr(other, "step", other)

    def __hash__(self) -> int:
        return hash(self.step)

    def __repr__(self) -> str:
        return repr(self.step)


class HoldsSteps(Params):
    """Params that give users the function or the layer of a `StepValue`."""

    def getOrDefault(self, param: Any) -> Any:
        """Return the value of a Param or its default, as in Spark.

        Args:
            param: `Param`, or its name.
        """
        value = super().getOrDefault(param)
        return value.step if isinstance(value, StepValue) else value
