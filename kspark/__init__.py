"""kspark: Keras 3 on Apache Spark.

`SparkModel` trains a compiled Keras model on Spark workers; `load_spark_model`
reads a saved one; `check_cluster` looks at the workers' environment;
`kspark.session.local_session` starts a local Spark.

Names are imported when they are first used: an executor that only writes rows
to disk must not wait for Keras. Importing kspark hides the messages of TensorFlow;
the environment variable `KSPARK_LOG=1` shows them. It also lets backends take the
memory of GPUs as they need it, so that the driver leaves some for local workers. It
raises `BackendError` if Keras has no backend on the driver.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kspark import logs
from kspark.cluster.accelerators import grow_memory
from kspark.cluster.backend import check_backend
from kspark.version import __version__

if TYPE_CHECKING:
    from kspark.cluster.check import check_cluster
    from kspark.loading import load_spark_model
    from kspark.spark_model import SparkModel

_LAZY = {
    "SparkModel": "kspark.spark_model",
    "load_spark_model": "kspark.loading",
    "check_cluster": "kspark.cluster.check",
}

__all__ = ["SparkModel", "__version__", "check_cluster", "load_spark_model"]

logs.hide_tensorflow()
grow_memory()
check_backend()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'kspark' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
