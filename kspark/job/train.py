"""The main path of a fit, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kspark.job.fit import Fit, prepared
from kspark.job.live import train_live
from kspark.job.rounds import train_rounds
from kspark.job.straggling import train_straggling
from kspark.plan import LIVE, TrainingPlan


def fit(job: Fit) -> None:
    """Train; afterwards the aggregator and the monitor's model hold the merged weights.

    Raises:
        WorkerError: If a replica failed.
        ClusterError: If the cluster cannot run the plan.
        ValueError: If the data does not fit the model or the plan.
    """
    with prepared(job):
        begin(job)
        if job.plan.initial_epoch < job.plan.epochs:
            road_of(job.plan)(job)
        job.monitor.end()


def road_of(plan: TrainingPlan) -> Callable[[Fit], None]:
    """What trains."""
    if plan.road == LIVE:
        return train_live
    return train_rounds if plan.straggler_timeout is None else train_straggling


def begin(job: Fit) -> None:
    """Callbacks of the beginning: a fit starts from the model and the epoch that they leave."""
    monitor = job.monitor
    changed = monitor.begin()
    if changed is not None:
        job.aggregator.replace(changed)
    if monitor.restored:
        job.share(job.spec.renewed(monitor.replica.model))
    job.plan = replace(job.plan, initial_epoch=monitor.initial_epoch)
