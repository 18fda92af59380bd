"""The user's function that makes the data of a worker, as bytes that travel with the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kspark.replica.pickling import dump, load

NAME = "x"


@dataclass(frozen=True)
class DataFunction:
    """A pickled function of a worker's number and the number of workers.

    Attributes:
        pickled: Bytes that `dump` returned.
    """

    pickled: bytes

    @classmethod
    def of(cls, function: Any) -> DataFunction:
        """Pickle a function; one of the user's own modules by value.

        Raises:
            ValueError: If it cannot be pickled.
        """
        try:
            return cls(dump({NAME: function}))
        except ValueError as error:
            advice = "Open files and make data sets inside the function, which runs on the workers."
            text = str(error).rstrip(".")
            raise ValueError(
                f"In the function of `(worker, num_workers)`: {text}. {advice}"
            ) from error

    def __call__(self, worker: int, num_workers: int, seed: int | None = None) -> Any:
        """Call the function, with the generators of Python, NumPy and the backend seeded.

        The caller restores them.

        Args:
            worker: Integer.
            num_workers: Integer.
            seed: Integer. Defaults to `None`: the generators stay as they are.
        """
        function = load(self.pickled)[NAME]
        if seed is not None:
            import keras

            keras.utils.set_random_seed(seed)
        return function(worker, num_workers)
