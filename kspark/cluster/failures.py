"""A failure on a worker: plain data on its way to the driver, an error with a hint there."""

from __future__ import annotations

import json
import socket
import traceback
from dataclasses import asdict

from kspark.errors import (
    Failure,
    NonFiniteError,
    WorkerError,
)

NON_FINITE = "NonFiniteLoss"


WORKER_LOST = "WorkerLost"


UNFIT_LABELS = "UnfitLabels"


MAX_MESSAGE = 20_000


MAX_TRACEBACK = 100_000
"""Characters; TensorFlow tells whole graphs. A failure has to fit into one report."""


class UnfitLabelsError(ValueError):
    """The labels of rows that are read once do not fit the model's loss."""


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite."""


def task_attempt() -> int:
    """Spark's attempt number of the running task; 0 outside of Spark."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.attemptNumber() if context is not None else 0


def failure_of(shard: int, error: BaseException) -> Failure:
    """An exception as plain data."""
    told_as: dict[type[BaseException], str] = {
        NonFiniteLossError: NON_FINITE,
        UnfitLabelsError: UNFIT_LABELS,
    }
    kind = told_as.get(type(error), type(error).__qualname__)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    told = "".join(lines[-40:])[-MAX_TRACEBACK:]
    message = str(error)[:MAX_MESSAGE]
    return Failure(shard, socket.gethostname(), task_attempt(), kind, message, told)


def failure_json(shard: int, error: BaseException) -> bytes:
    """A failure where a shard handle is expected; `ShardHandle.from_json` is not for it."""
    return json.dumps({"failure": asdict(failure_of(shard, error))}).encode()


def lost_too_often(shard: int, tries: int) -> Failure:
    """The failure for a shard whose process keeps dying."""
    message = (
        f"The Python worker process ended {tries} times before this shard was trained: it was "
        "killed (for memory, or because another worker failed), or the model's code ended it."
    )
    return Failure(shard, socket.gethostname(), task_attempt(), WORKER_LOST, message, "")


HINTS = (
    ("ModuleNotFoundError", "install the module on every executor, or ship it with --archives."),
    ("ImportError", "install the module on every executor, or ship it with --archives."),
    ("MemoryError", "raise spark.executor.memoryOverhead, or use more and smaller partitions."),
    ("ResourceExhaustedError", "use a smaller batch_size, or raise spark.executor.memoryOverhead."),
    (
        WORKER_LOST,
        "if it was killed for memory, raise spark.executor.memoryOverhead or "
        "spark.executor.pyspark.memory.",
    ),
    (
        NON_FINITE,
        "try a smaller learning rate or `clipnorm`, and look for NaN in the data; "
        'on_nonfinite="ignore" goes on regardless.',
    ),
    ("InvalidArgumentError", "compare the data's shapes and label range with the model's."),
)


def lost_for_good(error: Exception) -> WorkerError:
    """The error for the user, when work that was lost is not submitted again."""
    return worker_error(failure_of(-1, error))


def worker_error(failure: Failure) -> WorkerError:
    """A failure as the exception the user sees."""
    hint = next((text for kind, text in HINTS if kind in failure.kind), None)
    kind = NonFiniteError if failure.kind == NON_FINITE else WorkerError
    return kind(failure, hint)
