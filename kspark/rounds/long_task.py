"""What a task of a long job does: carry out the orders of the driver, one after the other.

The work is that of the jobs that train or evaluate one epoch: `train_shard` in `task.py`, and
`evaluate_shard` in `kspark.worker.inference`. Orders come, and results go, over a connection to the
driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from kspark.errors import ClusterError, Failure, KSparkError
from kspark.live.transport import AggregatorClient
from kspark.live.wire import Order
from kspark.live.wire.reports import (
    FailureReport,
    MissingFilesReport,
    ObstacleReport,
    OrderRequest,
)
from kspark.replica import ReplicaSpec
from kspark.rounds.results import report_of
from kspark.rounds.task import RoundTask, train_shard
from kspark.shards import ShardHandle
from kspark.worker.inference import InferenceTask, evaluate_shard
from kspark.worker.kept_files import kept_files
from kspark.worker.progress import Reporter
from kspark.worker.tasks import (
    STATELESS,
    FitTask,
    MissingShard,
    Result,
    ShardResult,
    guarded,
    task_number,
    widened,
)
from kspark.worker.watching import watched

CONNECT_SECONDS = 5.0
"""Timeout for connecting to the driver. A firewall may drop packets without an answer."""


@dataclass(frozen=True)
class LongTask:
    """What the tasks of a long job need.

    Attributes:
        fit: `FitTask`.
        evaluation: `InferenceTask` of the validation examples.
        held_out: Mapping from shard to the handles of the validation shards that its task
            evaluates, as JSON. `None`: it evaluates the held-out rows of its own shard.
        host: String, address of the driver.
        port: Integer, port of the driver.
        token: Bytes, the secret of this job.
    """

    fit: FitTask
    evaluation: InferenceTask
    held_out: Mapping[int, tuple[bytes, ...]] | None
    host: str
    port: int
    token: bytes


@dataclass(frozen=True)
class Ended:
    """The end of the task of one shard.

    Attributes:
        reason: String, why it ended, as a sentence. Empty if the driver told it to.
        connected: Boolean, whether it has reached the driver. Defaults to `True`.
        failure: `Failure` of the worker callbacks at its end. Defaults to `None`.
    """

    reason: str
    connected: bool = True
    failure: Failure | None = None


def carry_out_orders(
    task: LongTask, spec: ReplicaSpec, index: int, handles: Iterable[bytes]
) -> Iterator[Ended]:
    """Carry out orders for the shards of one partition, until the driver has no more.

    Yields:
        `Ended`, one per shard with examples.
    """
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        if handle.num_examples:
            with watched(task.fit, handle):
                end = serve(task, spec, handle)
            yield end


def serve(task: LongTask, spec: ReplicaSpec, handle: ShardHandle) -> Ended:
    """Connect to the driver and carry out its orders.

    Errors of kspark do not fail the task, because Spark would then start it again: the driver
    goes on with a Spark job per epoch.
    """
    with client_of(task, spec, handle.index) as client:
        try:
            client.connect()
        except ClusterError as error:
            return Ended(str(error), connected=False)
        except KSparkError as error:
            return Ended(str(error))
        try:
            failure = carry_out(task, spec, handle, client)
        except KSparkError as error:
            return gave_up(client, str(error))
        except ValueError as error:  # A result is too large for the connection.
            return gave_up(client, f"The result cannot be sent: {error}")
    return Ended("", failure=failure)


def gave_up(client: AggregatorClient, reason: str) -> Ended:
    """Tell the driver why this task ends, unless the connection is gone."""
    with contextlib.suppress(KSparkError):
        client.report(ObstacleReport(reason).to_json())
    return Ended(reason)


def client_of(task: LongTask, spec: ReplicaSpec, shard: int) -> AggregatorClient:
    """Create a client for one shard, without connecting it."""
    return AggregatorClient(
        task.host,
        task.port,
        task.token,
        task.fit.plan.packing(spec.weights),
        shard,
        task_number(),
        task.fit.plan.timeout,
        connect_timeout=CONNECT_SECONDS,
    )


def carry_out(
    task: LongTask, spec: ReplicaSpec, handle: ShardHandle, client: AggregatorClient
) -> Failure | None:
    """Carry out orders with a connected client, until the driver says to stop.

    Returns:
        `Failure` of the worker callbacks for the end of training, or `None`.
    """
    weights, done = np.empty(spec.weights.size, spec.weights.dtype), 0
    reporter = Reporter.of(task.fit, handle.index, client.report)
    while (order := next_order(client, done)).work != "stop":
        if order.work == "wait":
            continue
        before = client.bytes_received
        client.pull(weights)
        received = client.bytes_received - before
        for result in results_of(task, spec, weights, handle, order, received, reporter):
            send(client, result)
        done = order.number
    failure: Failure | None = guarded(handle.index, reporter.callbacks.end, handle)
    return failure


def next_order(client: AggregatorClient, done: int) -> Order:
    """Ask the driver for the order after `done`."""
    answer, _ = client.report(OrderRequest(done).to_json())
    return Order.from_json(answer)


def results_of(
    task: LongTask,
    spec: ReplicaSpec,
    weights: np.ndarray,
    handle: ShardHandle,
    order: Order,
    received: int,
    reporter: Reporter,
) -> Iterator[Result]:
    """Carry out one order. Yields the same results as the job of one epoch."""
    if order.work == "train":
        work = RoundTask(
            task.fit,
            order.epoch,
            order.learning_rate,
            order.wants_state,
            received,
            order.counters,
            counts_deaths=False,
        )
        train = partial(train_shard, work, spec, weights, handle, reporter)
        yield guarded(handle.index, train, handle)
        return
    if order.work == "keep":
        keep = partial(kept_files, task.fit.fit_id, order.epoch, handle)
        yield guarded(handle.index, keep, handle)
        return
    for shard in evaluated_by(task, handle):
        evaluate = partial(evaluate_shard, task.evaluation, spec, weights, shard)
        yield guarded(shard.index, evaluate, shard)


def evaluated_by(task: LongTask, handle: ShardHandle) -> list[ShardHandle]:
    """Return the handles of the shards that the task of a shard evaluates."""
    if task.held_out is None:
        return [handle]
    return [ShardHandle.from_json(document) for document in task.held_out.get(handle.index, ())]


def send(client: AggregatorClient, result: Result) -> None:
    """Send a result to the driver."""
    if isinstance(result, ShardResult):
        report, arrays = report_of(result)
        client.report(report.to_json(), [widened(array) for array in arrays])
    elif isinstance(result, Failure):
        client.report(FailureReport(result).to_json())
    elif isinstance(result, MissingShard):
        lacks_state = result.lack == STATELESS
        client.report(MissingFilesReport(result.strayed, lacks_state).to_json())
