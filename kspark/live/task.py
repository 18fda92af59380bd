"""Training on the live road, in a Spark task: a replica that exchanges with the aggregator.

`train_shards` is the entry. For each shard it connects to the aggregator (`live_shard`), restores
the replica (`connected_shard`), and runs the training loop of the plan's mode (`choose_loop`):

* `run_meetings`: synchronous.
* `run_pushes`: asynchronous, and hogwild over TCP.
* `run_shared`: hogwild on the driver's host.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from functools import partial

from kspark.cluster.activity import FILES, doing
from kspark.cluster.failures import failure_of, lost_too_often, task_attempt
from kspark.cluster.watch import last_words
from kspark.errors import Failure, KSparkError
from kspark.live.meeting_loop import run_meetings
from kspark.live.push_loop import find_shared, run_pushes, run_shared
from kspark.live.run import LiveRun, LiveTask
from kspark.live.transport import AggregatorClient, UnreachableError
from kspark.live.wire import Welcome
from kspark.live.wire.reports import FailureReport, MissingFilesReport, Report
from kspark.replica import ReplicaSpec
from kspark.shards import Shard, ShardHandle, SpoolMissingError, is_here
from kspark.worker.names import with_own_names
from kspark.worker.state import ShardState, Tries, note_of, replica_for
from kspark.worker.tasks import FINAL, Result, ShardResult, guarded, task_number, training_rows
from kspark.worker.watching import watched

logger = logging.getLogger("kspark")

ATTEMPTS_PER_SUBMISSION = 1 << 40
"""An upper bound of an application's tasks, so that attempts of later jobs have larger numbers."""

OPEN_SECONDS = 10.0
"""Seconds for which a worker tries again to open a connection. It tries at least twice, which takes
21 s if nothing answers."""

OPEN_PAUSE = 1.0


def train_shards(
    task: LiveTask, spec: ReplicaSpec, index: int, handles: Iterable[bytes]
) -> Iterator[Result]:
    """Train the shards of one partition, exchanging with the aggregator."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        with watched(task.fit, handle):
            result = guarded(handle.index, partial(live_shard, task, spec, handle), handle)
        yield result


def live_shard(task: LiveTask, spec: ReplicaSpec, handle: ShardHandle) -> Result:
    """Connect to the aggregator and train one shard. Report errors that end the fit."""
    if not task.fit.num_train.get(handle.index, 0):
        return ShardResult(handle.index, 0)
    with connection(task, spec, handle.index) as client:
        try:
            welcome = welcomed(client)
        except UnreachableError:
            if task.unreached is None or task.submission or task_attempt():
                raise  # It worked before, so it may work again.
            logger.warning("This worker cannot train.", exc_info=True)
            task.unreached.add(handle.index)
            return ShardResult(handle.index, 0)
        try:
            return connected_shard(task, spec, handle, client, welcome)
        except SpoolMissingError:
            try_to_report(client, MissingFilesReport(strayed=not is_here(handle)))
            raise
        except KSparkError as error:
            if not isinstance(error, FINAL):
                raise
            return reported(client, with_own_names(failure_of(handle.index, error), error))
        except Exception as error:  # noqa: BLE001 - Any error of the model's code ends the fit.
            return reported(client, with_own_names(failure_of(handle.index, error), error))


def welcomed(client: AggregatorClient) -> Welcome:
    """Connect. If no connection can be opened, try again for a while.

    Raises:
        UnreachableError: If none could be opened, again and again.
        KSparkError: If the handshake failed. Spark runs the task again.
    """
    begun, last = time.monotonic(), False
    while True:
        try:
            return client.connect()
        except UnreachableError:
            if last:
                raise
        time.sleep(OPEN_PAUSE)
        last = time.monotonic() - begun >= OPEN_SECONDS


def connection(task: LiveTask, spec: ReplicaSpec, shard: int) -> AggregatorClient:
    """Create a client for one shard, without connecting it."""
    return AggregatorClient(
        task.host,
        task.port,
        task.token,
        task.fit.plan.packing(spec.weights),
        shard,
        task.submission * ATTEMPTS_PER_SUBMISSION + task_number(),
        task.fit.plan.timeout,
    )


def connected_shard(
    task: LiveTask,
    spec: ReplicaSpec,
    handle: ShardHandle,
    client: AggregatorClient,
    welcome: Welcome,
) -> Result:
    """Train one shard with a connected client, from the position in the welcome."""
    fit = task.fit
    num_examples = training_rows(fit, handle)
    with doing(FILES):
        shard = Shard.open(handle)
        state = ShardState(fit.fit_id, shard)
        tries = Tries(state, task.stop_epoch, fit.plan.max_failures)
    if tries.exhausted:
        reason = last_words(note_of(state))
        return reported(client, lost_too_often(handle.index, tries.count, reason))
    with tries:
        replica = replica_for(spec, fit.fit_id, fit.threads)
        replica.alone = fit.alone
        run = LiveRun(task, spec, replica, shard, state, client, num_examples, welcome)
        choose_loop(run)
        run.reporter.callbacks.end()
        rest = run.rest()
        kept = run.kept_state() if task.wants_state else None
    return ShardResult(handle.index, num_examples, rest=rest, state=kept)


def choose_loop(run: LiveRun) -> None:
    """Run the training loop of the plan's mode."""
    mode = run.task.fit.plan.mode
    if mode == "synchronous":
        run_meetings(run)
        return
    shared = find_shared(run)
    if shared is None:
        run_pushes(run)
    else:
        run_shared(run, *shared)


def reported(client: AggregatorClient, failure: Failure) -> Failure:
    """Report a failure to the driver at once, and return it as the task's result."""
    try_to_report(client, FailureReport(failure))
    return failure


def try_to_report(client: AggregatorClient, report: Report) -> None:
    """Send a report, and ignore an error: the connection may have ended."""
    with contextlib.suppress(KSparkError):
        client.report(report.to_json())
