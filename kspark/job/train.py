"""The main path of a fit, read from top to bottom."""

from __future__ import annotations

from kspark.job.fit import Fit, prepared
from kspark.job.live import train_live
from kspark.job.rounds import train_rounds
from kspark.plan import LIVE


def fit(job: Fit) -> None:
    """Train; afterwards the aggregator and the monitor's model hold the merged weights.

    Raises:
        WorkerError: If a replica failed.
        ClusterError: If the cluster cannot run the plan.
        ValueError: If the data does not fit the model or the plan.
    """
    with prepared(job):
        changed = job.monitor.begin()
        if changed is not None:
            job.aggregator.replace(changed)
        train = train_live if job.plan.road == LIVE else train_rounds
        train(job)
        job.monitor.end()
