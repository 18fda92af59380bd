"""Carry a worker's failure to the driver as plain data, and raise it there with a hint."""

from __future__ import annotations

import json
import re
import socket
import traceback
from dataclasses import asdict

from kspark.errors import (
    Failure,
    NonFiniteError,
    WorkerError,
)
from kspark.tracebacks import from_first_other

NON_FINITE = "NonFiniteLoss"
WORKER_LOST = "WorkerLost"
WORKER_HUNG = "WorkerHung"
UNFIT_LABELS = "UnfitLabels"

MAX_MESSAGE = 20_000
MAX_TRACEBACK = 100_000
"""Limits in characters. TensorFlow's errors can hold a whole graph; a failure must fit into one
message to the driver."""


class UnfitLabelsError(ValueError):
    """The labels do not fit the model's loss; found while the rows are read for evaluation."""


class FactoryError(RuntimeError):
    """The user's function that makes a worker's data, or the data itself, raised an exception.

    It is raised from that exception.
    """


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite."""


def task_attempt() -> int:
    """Return the attempt number of the running Spark task, 0 outside of Spark."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return context.attemptNumber() if context is not None else 0


BOLD = re.compile(r"(?:\x1b|\\x1b)\[\d*m")
"""Codes that switch bold text on and off, also in the `repr` of a message."""


def failure_of(shard: int, error: BaseException) -> Failure:
    """Describe an exception as plain data."""
    names: dict[type[BaseException], str] = {
        NonFiniteLossError: NON_FINITE,
        UnfitLabelsError: UNFIT_LABELS,
    }
    source = ""
    if isinstance(error, FactoryError) and error.__cause__ is not None:
        error, source = error.__cause__, f"The data function of worker {shard}"
    kind = names.get(type(error), type(error).__qualname__)
    shown = from_first_other(error.__traceback__) if source else error.__traceback__
    lines = traceback.format_exception(type(error), error, shown)
    # Keras sets parts of its messages in bold, with codes that only a terminal understands.
    trace = BOLD.sub("", "".join(lines[-40:]))[-MAX_TRACEBACK:]
    message = BOLD.sub("", str(error))[:MAX_MESSAGE]
    return Failure(shard, socket.gethostname(), task_attempt(), kind, message, trace, source)


def failure_json(shard: int, error: BaseException) -> bytes:
    """Encode a failure as JSON, to be sent in place of a shard handle's JSON."""
    return json.dumps({"failure": asdict(failure_of(shard, error))}).encode()


def lost_too_often(shard: int, tries: int, reason: str = "") -> Failure:
    """Return the failure of a shard whose worker process ended again and again.

    Args:
        shard: Integer.
        tries: Integer, number of processes that ended.
        reason: String, a sentence that says why kspark ended the last one. Defaults to `""`: it
            did not.
    """
    message = f"The Python worker process ended {tries} times before this shard was trained. "
    message += reason or (
        "It was killed (for its memory use, or because another worker failed), or the model's code "
        "ended it."
    )
    kind = WORKER_HUNG if reason else WORKER_LOST
    return Failure(shard, socket.gethostname(), task_attempt(), kind, message, "")


HINTS = (
    ("ModuleNotFoundError", "install the module on every executor, or ship it with --archives."),
    ("ImportError", "install the module on every executor, or ship it with --archives."),
    ("MemoryError", "raise spark.executor.memoryOverhead, or use more and smaller partitions."),
    ("ResourceExhaustedError", "use a smaller batch_size, or raise spark.executor.memoryOverhead."),
    (
        WORKER_LOST,
        "if it was killed for its memory use, raise spark.executor.memoryOverhead. If "
        "spark.executor.pyspark.memory is set, which limits addresses, leave it out.",
    ),
    (
        WORKER_HUNG,
        "if it was slow only, raise `timeout` or `step_timeout`. Otherwise look at the memory and "
        "the file systems of its host.",
    ),
    (
        NON_FINITE,
        "try a smaller learning rate or `clipnorm`, and look for NaN in the data. "
        'To continue in spite of it, set on_nonfinite="ignore".',
    ),
    ("InvalidArgumentError", "compare the data's shapes and label range with the model's."),
)


def worker_error(failure: Failure) -> WorkerError:
    """Return the exception to raise on the driver for a failure, with a hint if there is one."""
    hint = next((text for kind, text in HINTS if kind in failure.kind), None)
    kind = NonFiniteError if failure.kind == NON_FINITE else WorkerError
    return kind(failure, hint)
