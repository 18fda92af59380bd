"""Values of Params that are not plain data, and so are not saved with a stage.

When Spark saves a cross-validation, it writes the values of the grid as JSON, but calls `save` of
values that are stages. The values in this module count as stages, so that `save` can raise a clear
error.
"""

from __future__ import annotations

from typing import Any

from pyspark.ml import Transformer

from kspark.errors import invalid


class Unsaved:
    """A value that Spark tries to save by its method `save`, which raises."""

    argument = ""

    def save(self, path: str) -> None:
        """Raise an error, because the value cannot be saved.

        Raises:
            ValueError: Always.
        """
        rule = "left out of a grid that is saved, because it is not plain data"
        raise invalid(self.argument, rule, self)


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
