"""The arrays that the user gave, before a model is known, and their structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kspark.shards import STORABLE, ArraySpec, InputSpec

ANY = ArraySpec("", None, STORABLE)
"""Takes the values as they are, except that floating point numbers become `floatx`."""


@dataclass(frozen=True)
class Group:
    """The arrays that the user gave as `x`, `y` or `sample_weight`, and their structure.

    Attributes:
        names: Tuple of strings, one per array; the keys of a dictionary.
        structure: String: `"single"`, `"list"` or `"dict"`.
        columns: Tuple of strings, the columns of a table of which the only array was made; empty
            for other data.
    """

    names: tuple[str, ...] = ()
    structure: str = "single"
    columns: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[ArraySpec, ...]:
        """One `ArraySpec` per array, which takes any values."""
        return tuple(replace(ANY, name=name) for name in self.names)

    @property
    def positions(self) -> Any:
        """The position of each array, as an array of its own, in the structure of the group."""
        return self.arranged([np.array([position]) for position in range(len(self.names))])

    def arranged(self, arrays: Sequence[Any]) -> Any:
        """Return one array per name in the structure of the group."""
        if self.structure == "dict":
            return dict(zip(self.names, arrays, strict=True))
        return list(arrays) if self.structure == "list" else arrays[0]

    def __str__(self) -> str:
        if self.structure == "dict":
            return f"a dictionary with the keys {list(self.names)}"
        return "one array" if self.structure == "single" else f"a list of {len(self.names)} arrays"


@dataclass(frozen=True)
class Layout:
    """The arrays of spooled rows.

    Attributes:
        x: `Group` of the features.
        y: `Group` of the labels; without names if there are none.
        sample_weight: `Group` of the sample weights; without names if there are none.
        floatx: String, the dtype of their floating point numbers.
    """

    x: Group
    y: Group = Group()
    sample_weight: Group = Group()
    floatx: str = "float32"

    @property
    def spec(self) -> InputSpec:
        """The `InputSpec` with which rows are spooled for any model. Labels cannot be bytes."""
        labels = tuple(replace(one, dtype="") for one in self.y.specs)
        return InputSpec(self.x.specs, labels, floatx=self.floatx)
