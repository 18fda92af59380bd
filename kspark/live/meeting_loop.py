"""The training loop of synchronous replicas, which all meet at every exchange."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from kspark.cluster.activity import WAITING, doing
from kspark.live.exchanging import train_exchanging
from kspark.live.run import LiveRun
from kspark.live.shared_gradients import SharedGradients
from kspark.live.transport import Reply
from kspark.live.wire import Instructions, SharedOffer
from kspark.live.wire.documents import GENERATION_BITS
from kspark.live.wire.reports import EpochEnd, StateReport, StateRequest, WaitingReport
from kspark.worker.own_weights import RoundWeights
from kspark.worker.reading import examples_in

Near = tuple[SharedGradients, SharedOffer]
"""The gradients of all replicas in shared memory, and a replica's place among them."""


class EpochRestart(Exception):
    """An epoch starts again, because another replica was lost and came back.

    Args:
        epoch: Integer, the epoch to restart.
        generation: Integer, number of the new try at the epoch.
    """

    def __init__(self, epoch: int, generation: int) -> None:
        super().__init__(f"Epoch {epoch + 1} starts again, try {generation + 1}.")
        self.epoch = epoch
        self.generation = generation


def run_meetings(run: LiveRun) -> None:
    """Train all epochs, and restart an epoch if another replica was lost in it."""
    epoch, generation = run.welcome.start.epoch, run.welcome.start.generation
    out = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    while epoch < run.task.stop_epoch and not run.stopped:
        try:
            synchronous_epoch(run, epoch, generation, out)
            epoch += 1
        except EpochRestart as restart:
            epoch, generation = restart.epoch, restart.generation
            run.continued = False


def synchronous_epoch(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """Train one epoch, unless training is over.

    The instructions come with the weights. The ones in a replica's welcome may belong to the
    epoch before, if it connected between two epochs.

    Raises:
        EpochRestart: If the epoch starts again.
    """
    started = time.perf_counter()
    run.instructions = run.client.pull(out).instructions
    if run.stopped:
        return
    begin_together(run, epoch)
    run.replica.set_vector(out)
    own = run.round_weights(epoch)
    if own is not None:
        own_exchanges(run, own, epoch, generation, out)
    elif run.task.fit.plan.merges_gradients:
        gradient_exchanges(run, epoch, generation, out)
    else:
        delta_exchanges(run, epoch, generation, out)
    run.report_metrics(epoch, started)
    if run.welcome.leader:
        state = run.replica.get_optimizer_state()
        run.client.report(StateReport(epoch).to_json(), state)
    last = epoch + 1 >= run.task.stop_epoch
    check_restart(run.end(EpochEnd(epoch, generation=generation, last=last)))


def check_restart(instructions: Instructions) -> None:
    """Check whether the driver restarts the epoch.

    Raises:
        EpochRestart: If the epoch starts again.
    """
    if (restart := instructions.restart) is not None:
        raise EpochRestart(restart.epoch, restart.generation)


def begin_together(run: LiveRun, epoch: int) -> None:
    """Begin an epoch. A replica without its optimizer state takes over the leader's."""
    resumes = not run.continued and epoch > run.task.fit.plan.initial_epoch
    run.begin(epoch)
    if resumes and run.state.load(epoch - 1) is None:
        _, arrays = run.client.report(StateRequest(epoch - 1).to_json())
        if arrays:
            run.replica.set_optimizer_state(arrays)
            run.set_learning_rate()  # The leader's state has the rate of the epoch before.
            run.state_kept = True


def gradient_exchanges(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """Apply the mean gradient of all replicas at every batch, so that they stay equal."""
    plan, steps = run.task.fit.plan, run.welcome.steps
    at = generation << GENERATION_BITS
    sequences = itertools.count(at)
    merged = out[: run.spec.weights.trainable_size]
    near = find_gradients(run, generation)
    first = (epoch - plan.initial_epoch) * steps
    if near is not None and not steps:
        first = near[0].reached_by(near[1].slot)

    def exchange(gradient: np.ndarray | None, count: int) -> np.ndarray:
        sequence = next(sequences)
        if near is None:
            bring(run, gradient, sequence, count, out)
        else:
            bring_near(run, near, gradient, first + sequence, count, merged)
        return merged

    def follow() -> None:
        gradient = exchange(None, 0)
        if not run.over:
            run.replica.apply_gradient(gradient)

    run.reporter.begin(epoch, run.examples(epoch))
    for window in run.windows(epoch):
        if window.first_batch == 0 and epoch == plan.initial_epoch:
            run.replica.check_gradient_merging(window, plan.batch_size)
        for start, stop in run.reporter.pieces(0, plan.batches(window.num_examples)):
            run.replica.train_merging(window, plan.batch_size, start, stop, exchange)
            run.reporter.trained(run.replica, examples_in(window, plan.batch_size, start, stop))
    follow_others(run, run.batches, follow)
    run.reporter.callbacks.end_epoch()
    # Without a number of exchanges, the driver does not know how many took place near each other.
    last = at if near is not None and not steps else next(sequences)
    meet(run, run.replica.get_vector(), last, run.examples(epoch), out, weights=True)
    run.replica.set_vector(out)


def follow_others(run: LiveRun, done: int, follow: Callable[[], object]) -> None:
    """Meet the replicas that have more batches, until none has any left.

    If nobody knew the numbers of batches before, the replicas bring nothing to one last meeting.

    Args:
        run: `LiveRun`.
        done: Integer, number of exchanges of this epoch that are done.
        follow: Function without arguments that meets without examples.
    """
    run.over = False
    if run.welcome.steps:
        for _ in range(done, run.welcome.steps):
            follow()
        return
    while not run.over:
        follow()


def find_gradients(run: LiveRun, generation: int) -> Near | None:
    """Return the gradients of all replicas in shared memory, or `None` if they meet at the driver.

    That is so if replicas are on other hosts, and after an epoch that started again: a replica that
    was lost might still write to the shared memory.

    Raises:
        EpochRestart: If the driver has shared memory, but this replica does not find it.
    """
    offer = run.welcome.shared
    if offer is None or generation:
        return None
    mark = bytes.fromhex(offer.mark)
    found = SharedGradients.find(offer.path, mark, run.spec.weights, len(offer.shards))
    if found is None:
        ask_to_wait(run, found=False)
        return None
    return found, offer


def ask_to_wait(run: LiveRun, *, found: bool) -> None:
    """Ask the driver whether to wait for the gradients of other replicas.

    Raises:
        EpochRestart: If the epoch starts again.
        ConnectionLostError: If another replica was lost and did not come back.
    """
    answer, _ = run.client.report(WaitingReport(0, found).to_json())
    check_restart(Instructions.from_json(answer))


def bring_near(
    run: LiveRun,
    near: Near,
    gradient: np.ndarray | None,
    number: int,
    count: int,
    out: np.ndarray,
) -> None:
    """Meet the other replicas in shared memory, and write the mean gradient into `out`.

    Raises:
        EpochRestart: If the epoch starts again.
        ConnectionLostError: If another replica was lost and did not come back.
    """
    shared, offer = near

    ask, may_end = partial(ask_to_wait, run, found=True), not run.welcome.steps
    with doing(WAITING):
        waited = shared.exchange(offer.slot, number, gradient, count, out, ask, may_end=may_end)
    run.over = waited is None
    run.waited += waited or 0.0


def delta_exchanges(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """Merge the deltas of all replicas after every `local` batches of the longest shard."""
    at = generation << GENERATION_BITS

    def exchange(number: int, count: int, delta: np.ndarray | None) -> None:
        bring(run, delta, at + number, count, out)

    train_exchanging(run, epoch, 0, out, exchange)
    numbers = itertools.count(run.exchanges)
    follow_others(run, run.exchanges, lambda: exchange(next(numbers), 0, None))
    run.replica.set_vector(out)


def own_exchanges(
    run: LiveRun, own: RoundWeights, epoch: int, generation: int, out: np.ndarray
) -> None:
    """Merge as `delta_exchanges` does, in a replica that keeps its own weights.

    All replicas measure their gaps to the same centre, the weights of the previous meeting.
    """
    at = generation << GENERATION_BITS
    base = own.restore(out)

    def exchange(number: int, count: int, delta: np.ndarray) -> None:
        own.leave(delta, base)
        bring(run, delta, at + number, count, own.centre)
        own.move(base, delta)

    train_exchanging(run, epoch, 0, base, exchange)
    numbers = itertools.count(at + run.exchanges)
    follow_others(run, run.exchanges, lambda: meet(run, None, next(numbers), 0, own.centre))
    own.save(base)


def bring(
    run: LiveRun, delta: np.ndarray | None, sequence: int, count: int, out: np.ndarray
) -> Reply:
    """Meet with a packed delta or gradient, or without one."""
    return meet(run, None if delta is None else run.outgoing(delta), sequence, count, out)


def meet(
    run: LiveRun,
    vector: np.ndarray | None,
    sequence: int,
    count: int,
    out: np.ndarray,
    *,
    weights: bool = False,
) -> Reply:
    """Exchange deltas, gradients or weights with all other replicas.

    Raises:
        EpochRestart: If the epoch starts again.
    """
    reply = run.client.reduce(
        vector, sequence=sequence, num_examples=count, out=out, weights=weights
    )
    check_restart(reply.instructions)
    run.over = reply.instructions.over
    return reply
