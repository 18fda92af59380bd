"""A compiled Keras model as plain data, and as a replica in a process.

`ReplicaSpec` is sent to the executors, where `building.build` makes a `Replica` of it. Importing
this package does not import Keras, because an executor must choose Keras' backend first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kspark.replica.checks import check_gradient_merging
from kspark.replica.signature import build_model, input_spec
from kspark.replica.spec import ReplicaSpec
from kspark.replica.variables import weight_spec

if TYPE_CHECKING:
    from kspark.replica.replica import Replica

__all__ = [
    "Replica",
    "ReplicaSpec",
    "build_model",
    "check_gradient_merging",
    "input_spec",
    "weight_spec",
]


def __getattr__(name: str) -> Any:
    """Import `Replica` on first access, because its module imports Keras."""
    if name == "Replica":
        from kspark.replica.replica import Replica

        return Replica
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
