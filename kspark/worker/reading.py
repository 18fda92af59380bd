"""Read the rows that a shard trains in an epoch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from kspark.cluster.activity import reading
from kspark.plan import ShardSteps, TrainingPlan
from kspark.shards import Shard, Window
from kspark.worker.streaming import stream_windows
from kspark.worker.tasks import FitTask


class EpochRows:
    """The training rows of a shard in an epoch. Iterate over them once.

    Args:
        fit: `FitTask`.
        shard: `Shard` with rows to train on.
        epoch: Integer.
        check: Function that is called with each window of rows which nobody has looked at before.
            Defaults to `None`.

    Attributes:
        batches: Integer, batches of the epoch; `UNKNOWN` until the last window is read.
        num_examples: Integer, examples of the epoch. If the rows are not on disk, it is what
            `Steps.num_examples` returns until the last window is read.
    """

    def __init__(
        self,
        fit: FitTask,
        shard: Shard,
        epoch: int,
        check: Callable[[Window], None] | None = None,
    ) -> None:
        steps = fit.steps(shard.index)
        self.batches = steps.batches
        self.num_examples = steps.num_examples(epoch - fit.plan.origin)
        self._fit = fit
        self._shard = shard
        self._epoch = epoch
        self._check = check

    def __iter__(self) -> Iterator[Window]:
        """Yield `Window`, whose `first_batch` counts the batches of this epoch."""
        plan, steps = self._fit.plan, self._fit.steps(self._shard.index)
        windows = (
            spooled_windows(plan, steps, self._shard, self._epoch)
            if isinstance(steps, ShardSteps)
            else self._streamed()
        )
        with closing(windows):  # The user's data may hold files, which are closed with it.
            for window in windows:
                yield weighted(window, plan)

    def _streamed(self) -> Generator[Window, None, None]:
        """Read one window ahead, to know which one is the last."""
        batches = rows = 0
        ahead: Window | None = None
        with closing(stream_windows(self._fit, self._shard.index, self._epoch)) as windows:
            for window in windows:
                if self._check is not None:
                    self._check(window)
                if ahead is not None:
                    yield ahead
                ahead, window.first_batch = window, batches
                batches += self._fit.plan.batches(window.num_examples)
                rows += window.num_examples
        self.batches, self.num_examples = batches, rows
        if ahead is not None:
            yield ahead


def spooled_windows(
    plan: TrainingPlan, steps: ShardSteps, shard: Shard, epoch: int
) -> Generator[Window, None, None]:
    """Read the training rows of an epoch that are on disk, window by window."""
    done = 0
    for number, start, stop in steps.ranges(epoch - plan.origin):
        rng = plan.generator(shard.index, plan.origin + number)
        windows = shard.windows(plan.batch_size, stop=steps.rows, rng=rng, batches=(start, stop))
        for window in reading(windows):
            window.first_batch += done - start
            yield window
        done += stop - start


def weighted(window: Window, plan: TrainingPlan) -> Window:
    """Apply the plan's class weights to a window as sample weights."""
    if plan.class_weight is None:
        return window
    return window.with_class_weight(plan.class_weight)


def examples_in(window: Window, batch_size: int, start: int, stop: int) -> int:
    """Return the number of examples in batches `[start, stop)` of a window."""
    return min(stop * batch_size, window.num_examples) - start * batch_size
