"""The epochs that one Spark job of a live fit trains."""

from __future__ import annotations

from kspark.job.fit import Fit


def segment_end(fit: Fit, epoch: int) -> int:
    """Return the epoch before which the Spark job that starts at `epoch` ends.

    A job ends where the driver needs the task slots: after an epoch with validation, or after
    every epoch if callbacks or checkpoints need the state of the shards, which is fetched between
    jobs. It also ends where rows are mixed between the shards.
    """
    if fit.monitor.needs_optimizer_state or fit.checkpoints is not None:
        return epoch + 1
    plan, mixes = fit.plan, fit.unmixed is not None
    ends = (
        e + 1
        for e in range(epoch, plan.epochs)
        if (fit.validates and plan.validates(e))
        or (mixes and plan.period(e + 1) != plan.period(epoch))
    )
    return next(ends, plan.epochs)
