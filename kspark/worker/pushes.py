"""The loops of replicas that do not wait for each other: asynchronous and hogwild."""

from __future__ import annotations

import time

import numpy as np

from kspark.shared_memory import SharedWeights
from kspark.worker.live_run import LiveRun, local_deltas


def run_pushes(run: LiveRun) -> None:
    """Push a delta after every `local` batches, go on from the weights that come back."""
    base = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    reply = run.client.pull(base)
    sequence = int(run.welcome["sequence"])
    epoch, position = int(run.welcome["epoch"]), int(run.welcome["position"])
    while epoch < run.task.stop_epoch and not run.stopped:
        started = time.perf_counter()
        run.begin(epoch)
        for number, count, change in local_deltas(run, epoch, position, base):
            sequence += 1
            if number == run.exchanges - 1:
                run.report_metrics(epoch, started)
            reply = run.client.push(
                change,
                sequence=sequence,
                base_version=reply.version,
                num_examples=count,
                out=base,
            )
            if reply.meta.get("stop"):  # the driver is through: nobody counts this epoch
                return
        run.end(epoch, sequence=sequence)
        epoch, position = epoch + 1, 0


def find_shared(run: LiveRun) -> tuple[SharedWeights, int, float] | None:
    """The driver's shared weights, this shard's place in them, and the factor of its deltas."""
    offer = run.welcome.get("shared")
    if not offer:
        return None
    found = SharedWeights.find(
        offer["path"], bytes.fromhex(offer["mark"]), run.spec.weights, offer["num_shards"]
    )
    return None if found is None else (found, int(offer["slot"]), float(offer["scale"]))


def run_shared(run: LiveRun, shared: SharedWeights, slot: int, scale: float) -> None:
    """Add `scale * delta` into the shared weights after every `local` batches, without a lock."""
    base = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    factor = base.dtype.type(scale)
    # Attempts that ran on another host had to push over TCP.
    done = max(int(shared.pushes[slot]), int(run.welcome["sequence"]))
    shared.pushes[slot] = done
    first = run.task.fit.plan.initial_epoch
    epoch, position = first + done // run.exchanges, done % run.exchanges
    if epoch > first:  # an earlier attempt may have died before it said so
        run.client.report({"kind": "epoch", "epoch": epoch - 1, "sequence": done})
    while epoch < run.task.stop_epoch and not run.stopped:
        started = time.perf_counter()
        run.begin(epoch)
        np.copyto(base, shared.vector)
        for number, _, change in local_deltas(run, epoch, position, base):
            if number == run.exchanges - 1:
                run.report_metrics(epoch, started)
            change *= factor
            np.add(shared.vector, change, out=shared.vector)
            shared.pushes[slot] += 1
            np.copyto(base, shared.vector)
        run.end(epoch, sequence=int(shared.pushes[slot]))
        epoch, position = epoch + 1, 0
