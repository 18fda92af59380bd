"""The training loops of asynchronous and hogwild replicas."""

from __future__ import annotations

import time

import numpy as np

from kspark.live.exchanging import train_exchanging
from kspark.live.run import LiveRun
from kspark.live.shared_memory import SharedWeights
from kspark.live.transport import Reply
from kspark.live.wire import SharedOffer
from kspark.live.wire.reports import EpochEnd


class TrainingOver(Exception):
    """The driver has ended training, so the rest of this epoch is not trained."""


def run_pushes(run: LiveRun) -> None:
    """Push a delta after every `local` batches, and continue from the weights in the answer.

    A replica that keeps its own weights pushes those. The answer is the gap between its weights
    and the global weights, by which the rule moves the replica.
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
        if reply.instructions.hold:  # This replica is too far ahead of the slowest one.
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
        run.end(EpochEnd(epoch, sequence=sequence))
        epoch, position = epoch + 1, 0


def pulled(run: LiveRun, out: np.ndarray) -> Reply:
    """Pull the weights until the driver lets the replica continue.

    The driver answers each pull within the timeout, possibly with the instruction to hold.
    """
    reply = run.client.pull(out)
    while reply.instructions.hold and not reply.instructions.stop:
        reply = run.client.pull(out)
    return reply


def find_shared(run: LiveRun) -> tuple[SharedWeights, SharedOffer] | None:
    """Return the driver's shared weights and its offer, or `None` if they are not on this host."""
    offer = run.welcome.shared
    if offer is None:
        return None
    mark = bytes.fromhex(offer.mark)
    found = SharedWeights.find(offer.path, mark, run.spec.weights, len(offer.shards))
    return None if found is None else (found, offer)


def run_shared(run: LiveRun, shared: SharedWeights, offer: SharedOffer) -> None:
    """Add scaled deltas to the shared weights after every `local` batches, without a lock.

    Non-trainable weights are averaged, so their deltas are multiplied by the shard's share.
    """
    base = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    slot, trainable = offer.slot, run.spec.weights.trainable_size
    scale, share = base.dtype.type(offer.scale), base.dtype.type(offer.share)
    pulled(run, base)  # It waits until all replicas are there, as in `run_pushes`.
    # An earlier attempt may have run on another host, and have pushed over TCP.
    done = max(shared.admit(slot, run.attempt), run.welcome.start.sequence)
    shared.pushes[slot] = done
    first, start = run.task.fit.plan.initial_epoch, run.welcome.start
    epoch, position = start.epoch, done - start.sequence + start.position
    if run.num_exchanges_known:
        epoch, position = first + done // run.exchanges, done % run.exchanges
        if epoch > first:  # An earlier attempt may have died before it reported this epoch.
            run.client.report(EpochEnd(epoch - 1, sequence=done).to_json())
    started = time.perf_counter()

    def add(number: int, count: int, delta: np.ndarray) -> None:
        nonlocal done
        if number == run.exchanges - 1:
            run.report_metrics(epoch, started)
        delta[:trainable] *= scale
        delta[trainable:] *= share
        shared.add(slot, run.attempt, done + 1, delta)
        done += 1
        np.copyto(base, shared.vector)

    while epoch < run.task.stop_epoch and not run.stopped:
        started = time.perf_counter()
        run.begin(epoch)
        np.copyto(base, shared.vector)
        train_exchanging(run, epoch, position, base, add)
        run.end(EpochEnd(epoch, sequence=done))
        epoch, position = epoch + 1, 0
