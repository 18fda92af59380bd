"""Go on without a host that does not answer, before Spark itself has noticed that.

Until Spark gives up an executor, which takes up to `spark.network.timeout`, it gives it tasks. They
never end, and there is no public way to tell Spark. But a slot is free only when its executor says
that the task has ended. So the slots of a lost executor stay taken: those of the fit's own tasks,
and the others after a *roll call*, a job with a task for each slot. Then the shards are written
again, and all their tasks run elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping

from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.cluster.interrupts import interruptible
from kspark.cluster.spark_job import SparkJob
from kspark.errors import ClusterError
from kspark.job.fit import Fit
from kspark.job.spooling import ShardsOnDisk
from kspark.shards import ShardHandle
from kspark.worker.roll_call import answer

logger = logging.getLogger("kspark")

ANSWER_SECONDS = 10.0
"""Seconds that an executor has to answer. Its slots may just become free."""

AGAIN_SECONDS = 0.5
"""Seconds between two looks at the answers."""

HOLD_SECONDS = 1.0
"""How long tasks that write shards again keep their slots: so, they use all slots. More than 0 also
means that rows of `kspark.data.spool` are written again, see `LinkedExamples.respool`."""


def leave_lost_hosts(fit: Fit, silent: Collection[int]) -> None:
    """Write shards on other executors if those of silent shards do not answer.

    Nothing happens if all of them answer, or if Spark itself has noticed that they are lost.

    Args:
        fit: `Fit` that has no task running.
        silent: Collection of the shards whose workers do not answer.

    Raises:
        ClusterError: If there are no other executors.
        ValueError: If the input has other rows than at the beginning of the fit.
        WorkerError: If a task failed.
    """
    executors = engine_of(fit.spark).addresses()
    suspects = {h.mark: h for h in fit.train.infos if h.index in silent and h.mark}
    lost = without_answer(fit, suspects.values(), executors)
    if not lost:
        return
    shards = [handle.index for handle in fit.train.infos if handle.mark in lost]
    names = hosts(shards, {handle.index: handle.host for handle in fit.train.infos})
    if len(executors) - 1 <= len(lost):  # One of the addresses is that of the driver.
        raise ClusterError(
            f"Workers were lost: there is no answer from {names}, and there are no other "
            "executors. The host or its network is down. To go on after such an error, write "
            "checkpoints: `fit(checkpoint=..., resume=True)`."
        )
    logger.warning("There is no answer from %s. Shards are written again elsewhere.", names)
    fit.states.unreachable = frozenset(shards)
    try:
        for spooled in written(fit):
            if any(handle.mark in lost for handle in spooled.infos):
                spooled.respool(HOLD_SECONDS)
    finally:
        fit.states.unreachable = frozenset()


def written(fit: Fit) -> list[ShardsOnDisk]:
    """Return all shards of a fit on disk, sources before what is made from them."""
    unmixed = None if fit.unmixed is None else fit.unmixed.shards
    return [shards for shards in (unmixed, fit.train, fit.held_out) if shards is not None]


def without_answer(
    fit: Fit, suspects: Collection[ShardHandle], executors: frozenset[str]
) -> set[str]:
    """Call the roll of executors, and return the marks of those that do not answer in time.

    Args:
        fit: `Fit`.
        suspects: Collection of `ShardHandle`, one per executor.
        executors: Set of the addresses that Spark knows.

    Returns:
        Set of marks. It is empty if Spark has meanwhile given up as many executors.
    """
    engine, context = engine_of(fit.spark), fit.spark.sparkContext
    answers = {handle.mark: context.accumulator(0) for handle in suspects}
    documents = [handle.to_json() for handle in suspects]
    ends = time.monotonic() + ANSWER_SECONDS
    job: SparkJob | None = None
    try:
        while lost := {mark for mark, count in answers.items() if not count.value}:
            gone = len(executors - engine.addresses())
            if gone >= len(lost):
                return set()
            if time.monotonic() > ends:
                return lost
            if job is None or job.finished.is_set():
                task = ship(answer, documents, list(answers.values()))
                job = SparkJob(fit.spark, engine.on_every_slot(task), "kspark: roll call").start()
            with interruptible():
                time.sleep(AGAIN_SECONDS)
    finally:
        if job is not None:
            job.cancel()
    return set()


def hosts(shards: Iterable[int], homes: Mapping[int, str]) -> str:
    """Name shards and their hosts, such as `"host b (shards 1, 3)"`."""
    by_host: dict[str, list[int]] = {}
    for shard in sorted(shards):
        by_host.setdefault(homes.get(shard, "unknown"), []).append(shard)
    named = (
        f"host {host} (shard{'s' if len(found) > 1 else ''} {', '.join(map(str, found))})"
        for host, found in sorted(by_host.items())
    )
    return ", ".join(named)
