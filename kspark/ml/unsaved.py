"""Values of Params that are no plain data, and so are not saved with a stage.

Spark's writer of a cross-validation takes every value of the grid for JSON, except for
stages, which it asks to save themselves. These values answer to that, to say what is wrong.
"""

from __future__ import annotations

from typing import Any

from pyspark.ml import Transformer

from kspark.errors import invalid


class Unsaved:
    """A value that Spark asks to save itself, and that refuses."""

    argument = ""

    def save(self, path: str) -> None:
        """Refuse to be saved.

        Raises:
            ValueError: Always.
        """
        rule = "left out of a grid that is saved, because it is no plain data"
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
        """The callbacks, made anew."""
        return self.function()

    def __eq__(self, other: object) -> bool:
        return self.function == getattr(other, "function", other)

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return repr(self.function)


class CustomObjects(Unsaved, dict[str, Any]):
    """A dictionary from name to custom object."""

    argument = "custom_objects"
