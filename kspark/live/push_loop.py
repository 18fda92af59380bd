"""The loops of replicas that do not wait for each other: asynchronous and hogwild."""

from __future__ import annotations

import time

import numpy as np

from kspark.errors import AggregationError
from kspark.live.run import LiveRun, train_exchanging
from kspark.live.shared_memory import SharedWeights
from kspark.live.transport import Reply
from kspark.live.wire import SharedOffer


class TrainingOver(Exception):
    """The driver is through: nobody counts the rest of this epoch."""


def run_pushes(run: LiveRun) -> None:
    """Push a delta after every `local` batches, go on from the weights that come back.

    A replica with weights of its own pushes those, gets the gap to the global ones, and
    goes on from where the rule moves it.
    """
    base = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    first = pulled(run, base)
    version, run.instructions = first.version, first.instructions
    start = run.welcome.start
    sequence, epoch, position = start.sequence, start.epoch, start.position
    own = run.own_weights()
    if own is not None:
        own.restore(base, sequence)
    started = time.perf_counter()

    def push(number: int, count: int, delta: np.ndarray) -> None:
        nonlocal sequence, version
        sequence += 1
        if number == run.exchanges - 1:
            run.report_metrics(epoch, started)
        out = base
        if own is not None:
            own.leave(delta, base)
            out = own.answer
        reply = run.client.push(
            run.outgoing(delta),
            sequence=sequence,
            base_version=version,
            num_examples=count,
            out=out,
        )
        version = reply.version
        if own is not None:
            own.move(base, delta, sequence)
        if reply.instructions.hold:  # too far ahead of others
            reply = pulled(run, out)
            version = reply.version if own is None else version
        if reply.instructions.stop:
            raise TrainingOver

    while epoch < run.task.stop_epoch and not run.stopped:
        started = time.perf_counter()
        run.begin(epoch)
        try:
            train_exchanging(run, epoch, position, base, push)
        except TrainingOver:
            return
        run.end(epoch, sequence=sequence)
        epoch, position = epoch + 1, 0


def pulled(run: LiveRun, out: np.ndarray) -> Reply:
    """The weights, once the driver lets the replica go on; no answer takes longer than it may."""
    reply = run.client.pull(out)
    while reply.instructions.hold and not reply.instructions.stop:
        reply = run.client.pull(out)
    return reply


def find_shared(run: LiveRun) -> tuple[SharedWeights, SharedOffer] | None:
    """The driver's shared weights, and what it says of this shard's part in them."""
    offer = run.welcome.shared
    if offer is None:
        return None
    mark = bytes.fromhex(offer.mark)
    found = SharedWeights.find(offer.path, mark, run.spec.weights, offer.num_shards)
    return None if found is None else (found, offer)


def run_shared(run: LiveRun, shared: SharedWeights, offer: SharedOffer) -> None:
    """Add scaled deltas into the shared weights after every `local` batches, without a lock.

    Weights that are not trained are averaged, so their deltas are scaled by the share.
    """
    base = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    slot, trainable = offer.slot, run.spec.weights.trainable_size
    scale, share = base.dtype.type(offer.scale), base.dtype.type(offer.share)
    # Attempts that ran on another host had to push over TCP.
    done = max(int(shared.pushes[slot]), run.welcome.start.sequence)
    shared.pushes[slot], shared.owners[slot] = done, run.attempt
    first = run.task.fit.plan.initial_epoch
    epoch, position = first + done // run.exchanges, done % run.exchanges
    if epoch > first:  # an earlier attempt may have died before it said so
        run.client.report({"kind": "epoch", "epoch": epoch - 1, "sequence": done})
    started = time.perf_counter()

    def add(number: int, count: int, delta: np.ndarray) -> None:
        nonlocal done
        if shared.owners[slot] != run.attempt:
            raise AggregationError(f"Another attempt at shard {run.shard.index} has taken over.")
        if number == run.exchanges - 1:
            run.report_metrics(epoch, started)
        delta[:trainable] *= scale
        delta[trainable:] *= share
        np.add(shared.vector, delta, out=shared.vector)
        done += 1
        shared.pushes[slot] = done
        np.copyto(base, shared.vector)

    while epoch < run.task.stop_epoch and not run.stopped:
        started = time.perf_counter()
        run.begin(epoch)
        np.copyto(base, shared.vector)
        train_exchanging(run, epoch, position, base, add)
        run.end(epoch, sequence=done)
        epoch, position = epoch + 1, 0
