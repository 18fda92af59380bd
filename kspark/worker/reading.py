"""Read the rows that a shard trains in an epoch."""

from __future__ import annotations

from collections.abc import Iterator

from kspark.plan import TrainingPlan
from kspark.shards import Shard, Window
from kspark.worker.tasks import FitTask


def windows_of(fit: FitTask, shard: Shard, epoch: int) -> Iterator[Window]:
    """Read the training rows of an epoch, window by window, with the plan's class weights.

    Args:
        fit: `FitTask`.
        shard: `Shard` with rows to train on.
        epoch: Integer.

    Yields:
        `Window`, whose `first_batch` counts the batches of this epoch.
    """
    plan, steps, done = fit.plan, fit.steps(shard.index), 0
    for number, start, stop in steps.ranges(epoch - plan.origin):
        rng = plan.generator(shard.index, plan.origin + number)
        windows = shard.windows(plan.batch_size, stop=steps.rows, rng=rng, batches=(start, stop))
        for window in windows:
            window.first_batch += done - start
            yield weighted(window, plan)
        done += stop - start


def weighted(window: Window, plan: TrainingPlan) -> Window:
    """Apply the plan's class weights to a window as sample weights."""
    if plan.class_weight is None:
        return window
    return window.with_class_weight(plan.class_weight)


def examples_in(window: Window, batch_size: int, start: int, stop: int) -> int:
    """Return the number of examples in batches `[start, stop)` of a window."""
    return min(stop * batch_size, window.num_examples) - start * batch_size
