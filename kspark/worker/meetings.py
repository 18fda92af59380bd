"""The loop of synchronous replicas, who meet at every exchange."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from kspark.rendezvous import GENERATION_BITS
from kspark.transport import Reply
from kspark.worker.live_run import LiveRun, local_deltas, pieces


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
    epoch, generation = int(run.welcome["epoch"]), int(run.welcome["generation"])
    out = np.empty(run.spec.weights.size, run.spec.weights.dtype)
    while epoch < run.task.stop_epoch and not run.stopped:
        try:
            synchronous_epoch(run, epoch, generation, out)
            epoch += 1
        except EpochRestart as restart:
            epoch, generation = restart.epoch, restart.generation
            run.continued = False


def synchronous_epoch(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """One epoch of exchanges.

    Raises:
        EpochRestart: If it starts again.
    """
    started = time.perf_counter()
    run.client.pull(out)
    begin_together(run, epoch)
    run.replica.set_vector(out)
    merge_gradients = run.task.fit.plan.merges_gradients
    exchange = gradient_exchanges if merge_gradients else delta_exchanges
    exchange(run, epoch, generation, out)
    run.report_metrics(epoch, started)
    if run.welcome["leader"]:
        state = run.replica.get_optimizer_state()
        run.client.report({"kind": "state", "epoch": epoch}, state)
    last = epoch + 1 >= run.task.stop_epoch
    check_restart(run.end(epoch, generation=generation, last=last))


def check_restart(control: dict[str, Any]) -> None:
    """Look for the driver's word that the epoch starts again.

    Raises:
        EpochRestart: If it does.
    """
    if control.get("restart"):
        raise EpochRestart(int(control["epoch"]), int(control["generation"]))


def begin_together(run: LiveRun, epoch: int) -> None:
    """Begin an epoch; a replica that lost its state takes the leader's."""
    resumes = not run.continued and epoch > run.task.fit.plan.initial_epoch
    run.begin(epoch)
    if resumes and run.state.load(epoch - 1) is None:
        _, arrays = run.client.report({"kind": "state_request", "epoch": epoch - 1})
        if arrays:
            run.replica.set_optimizer_state(arrays)


def gradient_exchanges(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """One mean gradient, one optimizer step, on all replicas alike, batch for batch."""
    steps, batch_size = int(run.welcome["steps"]), run.task.fit.plan.batch_size
    at = generation << GENERATION_BITS
    gradient_out = out[: run.spec.weights.trainable_size]
    step, unchecked = 0, epoch == run.task.fit.plan.initial_epoch
    for window, start, stop, _, _ in pieces(run, epoch, 0):
        if unchecked:
            run.replica.check_gradient_merging(window, batch_size)
            unchecked = False
        for batch in range(start, stop):
            gradient, count = run.replica.gradient(window, batch_size, batch)
            meet(run, gradient, at + step, count, out)
            run.replica.apply_gradient(gradient_out)
            step += 1
    for rest in range(step, steps):  # the longer shards go on: keep in step with them
        meet(run, None, at + rest, 0, out)
        run.replica.apply_gradient(gradient_out)
    meet(run, run.replica.get_vector(), at + steps, run.num_examples, out)
    run.replica.set_vector(out)


def delta_exchanges(run: LiveRun, epoch: int, generation: int, out: np.ndarray) -> None:
    """Local batches, then one merge of everybody's deltas, as often as the longest shard needs."""
    at = generation << GENERATION_BITS
    for number, count, change in local_deltas(run, epoch, 0, out):
        meet(run, change, at + number, count, out)
    for rest in range(run.exchanges, int(run.welcome["steps"])):
        meet(run, None, at + rest, 0, out)
    run.replica.set_vector(out)


def meet(
    run: LiveRun, vector: np.ndarray | None, sequence: int, count: int, out: np.ndarray
) -> Reply:
    """One synchronous exchange.

    Raises:
        EpochRestart: If the epoch starts again.
    """
    reply = run.client.reduce(vector, sequence=sequence, num_examples=count, out=out)
    check_restart(reply.meta)
    return reply
