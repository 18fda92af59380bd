"""The result of a shard as a report with arrays, which a task of a long job sends to the driver."""

from __future__ import annotations

import numpy as np

from kspark.errors import ProtocolError
from kspark.live.wire.reports import ResultReport
from kspark.worker.tasks import ShardResult


def result_of(report: ResultReport, arrays: list[np.ndarray]) -> ShardResult:
    """Return the result of a shard that a task has sent; the inverse of `report_of`.

    Raises:
        ProtocolError: If there are fewer arrays than the report says.
    """
    count = report.num_optimizer
    if len(arrays) < report.has_delta + report.num_metrics + (count or 0) + len(report.files):
        raise ProtocolError("A result must have the arrays that its report names.")
    cut = len(arrays) - len(report.files)
    rest, files = arrays[:cut], arrays[cut:]
    delta = rest.pop(0) if report.has_delta else None
    # All arrays are views of one buffer. The metrics are kept longer than the delta.
    metrics = [array.copy() for array in rest[: report.num_metrics]]
    rest = rest[report.num_metrics :]
    return ShardResult(
        report.shard,
        report.num_examples,
        delta,
        metrics,
        report.facts,
        state=None if count is None else (rest[:count], rest[count:]),
        counters=report.counters,
        files=dict(zip(report.files, files, strict=True)),
    )


def report_of(result: ShardResult) -> tuple[ResultReport, list[np.ndarray]]:
    """Return the report and the arrays with which a task sends the result of a shard."""
    arrays = [] if result.delta is None else [result.delta]
    arrays += result.metrics
    num_optimizer = None
    if result.state is not None:
        optimizer, fixed = result.state
        num_optimizer = len(optimizer)
        arrays += [*optimizer, *fixed]
    arrays += result.files.values()
    report = ResultReport(
        result.shard,
        result.num_examples,
        result.delta is not None,
        len(result.metrics),
        num_optimizer,
        result.facts,
        result.counters,
        tuple(result.files),
    )
    return report, arrays
