"""A task of the live road: a replica that talks to the aggregator.

`train_live` is the entry; it connects and hands over to one of the loops:
`run_pushes` (asynchronous, hogwild over TCP), `run_shared` (hogwild on the
driver's own host) and `run_meetings` (synchronous).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from kspark.cluster.failures import failure_of, lost_too_often
from kspark.errors import Failure, KSparkError
from kspark.live.meeting_loop import run_meetings
from kspark.live.push_loop import find_shared, run_pushes, run_shared
from kspark.live.run import LiveRun, LiveTask
from kspark.live.transport import AggregatorClient
from kspark.live.wire import Welcome
from kspark.replica import ReplicaSpec
from kspark.shards import Shard, ShardHandle, SpoolMissingError
from kspark.worker.state import ShardState, Tries, replica_for
from kspark.worker.tasks import FINAL, Result, ShardResult, guarded, task_number, training_rows

ATTEMPTS_PER_SUBMISSION = 1 << 40
"""More tasks than an application has. A replica of a job that was submitted later is newer."""


def train_shards(
    task: LiveTask, spec: ReplicaSpec, index: int, handles: Iterable[bytes]
) -> Iterator[Result]:
    """Train the shards of one partition, talking to the aggregator meanwhile."""
    for document in list(handles):
        handle = ShardHandle.from_json(document)
        yield guarded(handle.index, partial(live_shard, task, spec, handle), handle.host)


def live_shard(task: LiveTask, spec: ReplicaSpec, handle: ShardHandle) -> Result:
    """Train one shard from where the aggregator says it stands."""
    if not task.fit.num_train.get(handle.index, 0):
        return ShardResult(handle.index, 0)
    with connection(task, spec, handle.index) as client:
        welcome = client.connect()
        try:
            return connected_shard(task, spec, handle, client, welcome)
        except SpoolMissingError:
            tell(client, {"kind": "missing"})
            raise
        except KSparkError as error:
            if not isinstance(error, FINAL):
                raise
            return reported(client, failure_of(handle.index, error))
        except Exception as error:  # noqa: BLE001 - the model's own: the driver hears it at once
            return reported(client, failure_of(handle.index, error))


def connection(task: LiveTask, spec: ReplicaSpec, shard: int) -> AggregatorClient:
    """A client for one shard, not connected yet."""
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
    """Train one shard over a connection that stands."""
    fit = task.fit
    num_examples = training_rows(fit, handle)
    shard = Shard.open(handle)
    state = ShardState(fit.fit_id, shard)
    tries = Tries(state, task.stop_epoch, fit.plan.max_failures)
    if tries.exhausted:
        return reported(client, lost_too_often(handle.index, tries.count))
    with tries:
        replica = replica_for(spec, fit.fit_id, fit.threads)
        run = LiveRun(task, spec, replica, shard, state, client, num_examples, welcome)
        choose_loop(run)
        rest = run.rest()
        kept = run.kept_state() if task.wants_state else None
    return ShardResult(handle.index, num_examples, rest=rest, state=kept)


def reported(client: AggregatorClient, failure: Failure) -> Failure:
    """Tell the driver of a failure over the live road; it also goes back as the task's result."""
    tell(client, {"kind": "failure", "failure": asdict(failure)})
    return failure


def tell(client: AggregatorClient, meta: dict[str, Any]) -> None:
    """Report, if there is still somebody to report to."""
    with contextlib.suppress(KSparkError):
        client.report(meta)


def choose_loop(run: LiveRun) -> None:
    """Run the loop of the plan's mode."""
    mode = run.task.fit.plan.mode
    if mode == "synchronous":
        run_meetings(run)
        return
    shared = find_shared(run)
    if shared is None:
        run_pushes(run)
    else:
        run_shared(run, *shared)
