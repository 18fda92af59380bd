"""Train an epoch with an exchange after every few batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from kspark.live.run import LiveRun
from kspark.shards import Window
from kspark.weights import compute_delta
from kspark.worker.reading import examples_in

DeltaExchange = Callable[[int, int, np.ndarray], None]
"""Function of the number of an exchange, its number of examples, and a delta."""


def train_exchanging(
    run: LiveRun, epoch: int, position: int, base: np.ndarray, exchange: DeltaExchange
) -> None:
    """Train the rest of an epoch, with an exchange after every `local` batches.

    The replica's compiled loop calls the exchanges. Where worker callbacks run after the last batch
    before an exchange, it is done outside the loop, so that it contains what they have changed.

    Args:
        run: `LiveRun`.
        epoch: Integer.
        position: Integer, number of exchanges of this epoch that are done.
        base: Vector, the weights to start from. `exchange` overwrites it with the weights to
            continue from.
        exchange: Function of the exchange's number in the epoch, the number of examples since
            the last exchange, and the delta. It may overwrite the delta, and it may raise.
    """
    batch_size, delta = run.task.fit.plan.batch_size, np.empty_like(base)
    number, carried = position, 0
    stops_here: deque[bool] = deque()

    def at_stop(vector: np.ndarray, count: int) -> np.ndarray | None:
        nonlocal number, carried
        if not stops_here.popleft():
            carried += count
            return None
        exchange(number, carried + count, compute_delta(vector, base, out=delta))
        number, carried = number + 1, 0
        return base

    run.replica.set_vector(base)
    total = run.examples(epoch)
    done, callbacks = position * run.local, run.reporter.callbacks
    run.uncounted = min(done * batch_size, total)
    run.reporter.begin(epoch, total, run.uncounted, done)
    for window, start, stops, end in spans(run, epoch, position):
        last = stops[-1] if stops else start
        for first, stop in run.reporter.pieces(start, last):
            due = [s for s in stops if first < s <= stop]
            # A piece that ends between two exchanges stops in the same loop, so that no other
            # one is compiled for it.
            ends = due if stop in due else [*due, stop]
            trained = window.first_batch + stop
            later = stop in due and callbacks.precede(last=trained == run.batches)
            stops_here.extend(s in due and not (later and s == stop) for s in ends)
            run.replica.train_exchanging(window, batch_size, first, ends, at_stop)
            run.reporter.trained(run.replica, examples_in(window, batch_size, first, stop))
            if later:
                if trained == run.batches:
                    callbacks.end_epoch()
                exchange(number, carried, compute_delta(run.replica.get_vector(), base, out=delta))
                number, carried = number + 1, 0
                run.replica.set_vector(base)
        for first, stop in run.reporter.pieces(last, end):  # They end in the next window.
            run.replica.train(window, batch_size, first, stop)
            carried += examples_in(window, batch_size, first, stop)
            run.reporter.trained(run.replica, examples_in(window, batch_size, first, stop))


def spans(run: LiveRun, epoch: int, position: int) -> Iterator[tuple[Window, int, list[int], int]]:
    """Divide an epoch into windows, and each window at its exchanges.

    Batches before exchange `position` are omitted.

    Yields:
        Tuples of the window, its first batch to train, the batches before which to exchange, and
        the end. All numbers count batches of the window.
    """
    plan, local = run.task.fit.plan, run.local
    for window in run.windows(epoch):
        first = window.first_batch
        last = first + plan.batches(window.num_examples)
        start = max(first, position * local)
        if start >= last:
            continue
        stops = list(range((start // local + 1) * local, last + 1, local))
        if last == run.batches and last % local:
            stops.append(last)
        yield window, start - first, [stop - first for stop in stops], last - first
