"""A compiled Keras model as plain data, and as a live replica in a process.

`ReplicaSpec` crosses to the executors; `building.build` makes a `Replica` there. Importing
this package does not import Keras: an executor has to choose Keras' backend first.
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
    """`Replica`, whose module imports Keras, only when it is asked for."""
    if name == "Replica":
        from kspark.replica.replica import Replica

        return Replica
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
