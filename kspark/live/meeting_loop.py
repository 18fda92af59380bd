"""The loop of synchronous replicas, who meet at every exchange."""

from __future__ import annotations

import itertools
import time

import numpy as np

from kspark.live.coordinator.rendezvous import GENERATION_BITS
from kspark.live.run import LiveRun, train_exchanging
from kspark.live.transport import Reply
from kspark.live.wire import Instructions
from kspark.worker.own_weights import RoundWeights


class EpochRestart(Exception):
    """Another worker was lost and came back: an epoch starts again.

    Args:
        epoch: Integer, which one.
        generation: Integer, which try at it comes now.
    """

    def __init__(self, epoch: int, generation: int) -> None:
        super().__init__(f"Epoch {epoch + 1} starts again, try {generation + 1}.")
        self.epoch = epoch
        self.generation = generation


def run_meetings(run: LiveRun) -> None:
    """Meet all other replicas at every exchange; an epoch may have to start again."""
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
    """One epoch of exchanges, unless training is over.

    A replica that came between two epochs was welcomed with the driver's word on the one
    before; with the weights comes that on the one to begin.

    Raises:
        EpochRestart: If it starts again.
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
        run.client.report({"kind": "state", "epoch": epoch}, state)
    last = epoch + 1 >= run.task.stop_epoch
    check_restart(run.end(epoch, generation=generation, last=last))


def check_restart(instructions: Instructions) -> None:
    """Look for the driver's word that the epoch starts again.

    Raises:
        EpochRestart: If it does.
    """
    if (restart := instructions.restart) is not None:
        raise EpochRestart(restart.epoch, restart.generation)


def begin_together(run: LiveRun, epoch: int) -> None:
    """Begin an epoch; a replica that lost its state takes the leader's."""
    resumes = not run.continued and epoch > run.task.fit.plan.initial_epoch
    run.begin(epoch)
    if resumes and run.state.load(epoch - 1) is None:
        _, arrays = run.client.report({"kind": "state_request", "epoch": epoch - 1})
        if arrays:
            run.replica.set_optimizer_state(arrays)
            run.set_learning_rate()  # the leader's is that of the epoch before
            run.state_kept = True


def gradient_exchanges(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """One mean gradient, one optimizer step, on all replicas alike, batch for batch."""
    plan, steps = run.task.fit.plan, run.welcome.steps
    sequences = itertools.count(generation << GENERATION_BITS)
    merged = out[: run.spec.weights.trainable_size]

    def exchange(gradient: np.ndarray | None, count: int) -> np.ndarray:
        bring(run, gradient, next(sequences), count, out)
        return merged

    for window in run.windows(epoch):
        if window.first_batch == 0 and epoch == plan.initial_epoch:
            run.replica.check_gradient_merging(window, plan.batch_size)
        stop = plan.batches(window.num_examples)
        run.replica.train_merging(window, plan.batch_size, 0, stop, exchange)
    for _ in range(run.batches, steps):  # the longer shards go on: keep in step with them
        run.replica.apply_gradient(exchange(None, 0))
    meet(run, run.replica.get_vector(), next(sequences), run.num_examples, out, weights=True)
    run.replica.set_vector(out)


def delta_exchanges(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """Local batches, then one merge of everybody's deltas, as often as the longest shard needs."""
    at = generation << GENERATION_BITS

    def exchange(number: int, count: int, delta: np.ndarray | None) -> None:
        bring(run, delta, at + number, count, out)

    train_exchanging(run, epoch, 0, out, exchange)
    for number in range(run.exchanges, run.welcome.steps):
        exchange(number, 0, None)
    run.replica.set_vector(out)


def own_exchanges(
    run: LiveRun, own: RoundWeights, epoch: int, generation: int, out: np.ndarray
) -> None:
    """As `delta_exchanges`, by a replica that goes on from weights of its own.

    Everybody's gaps are those to the same centre: the weights of the meeting before.
    """
    at = generation << GENERATION_BITS
    base = own.restore(out)

    def exchange(number: int, count: int, delta: np.ndarray) -> None:
        own.leave(delta, base)
        bring(run, delta, at + number, count, own.centre)
        own.move(base, delta)

    train_exchanging(run, epoch, 0, base, exchange)
    for number in range(run.exchanges, run.welcome.steps):
        meet(run, None, at + number, 0, own.centre)
    own.save(base)


def bring(
    run: LiveRun, delta: np.ndarray | None, sequence: int, count: int, out: np.ndarray
) -> Reply:
    """Meet with a delta or a gradient, as it travels, or with none."""
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
    """One synchronous exchange, of deltas, gradients or weights.

    Raises:
        EpochRestart: If the epoch starts again.
    """
    reply = run.client.reduce(
        vector, sequence=sequence, num_examples=count, out=out, weights=weights
    )
    check_restart(reply.instructions)
    return reply
