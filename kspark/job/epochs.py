"""What the driver does before and after each epoch: callbacks, validation, report."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kspark.cluster.bootstrap import ship
from kspark.cluster.failures import HINTS, NON_FINITE
from kspark.errors import NO_SHARD, Described, Failure, NonFiniteError, invalid
from kspark.job.checkpoints import keep_epoch
from kspark.job.fit import Fit
from kspark.job.optimizer_state import take_state
from kspark.job.report import EpochFacts
from kspark.live.coordinator.marks import Moment
from kspark.live.coordinator.running import Running
from kspark.optimizers import OneShot
from kspark.worker.tasks import ShardResult, State
from kspark.worker.watching import validate_shards

logger = logging.getLogger("kspark")


def open_epoch(fit: Fit, epoch: int) -> None:
    """Run the callbacks of an epoch's beginning, and adopt what they set."""
    fit.progress.display.clear()  # Callbacks may write.
    changed = fit.monitor.begin_epoch(epoch)
    if changed is not None:
        fit.aggregator.replace(changed)
    if fit.vocabularies is not None and fit.vocabularies.changed():
        share_vocabularies(fit, epoch, fit.vocabularies.digest)
    adopt_counters(fit, epoch)


def adopt_counters(fit: Fit, epoch: int) -> None:
    """Note the step counters that callbacks have set, for the replicas that train this epoch.

    Args:
        fit: `Fit`.
        epoch: Integer, the epoch that begins.

    Raises:
        ValueError: If the replicas are running already, or go on from the states in a checkpoint,
            so that they cannot get the counters.
    """
    found = fit.monitor.replica.counters
    fit.new_counters = None if found == fit.shown_counters else found
    fit.shown_counters = found
    if fit.new_counters is None or fit.plan.in_rounds:
        return
    if epoch > fit.plan.initial_epoch or fit.resumed:
        rule = (
            "free of callbacks that set the optimizer's `iterations` after the first epoch has "
            'begun, except with mode="synchronous" and frequency="epoch"'
        )
        raise invalid("callbacks", rule, Described(f"new step counters before epoch {epoch + 1}"))
    fit.share(fit.spec.renewed(fit.monitor.replica.model))


def share_vocabularies(fit: Fit, epoch: int, digest: str) -> None:
    """Send the model to the workers again, because a vocabulary has changed.

    The optimizer state of each shard stays as it is.

    Args:
        fit: `Fit`.
        epoch: Integer, the epoch that begins.
        digest: String, digest of the vocabularies.

    Raises:
        ValueError: If workers are training, so that the model cannot be sent again.
    """
    plan = fit.plan
    idle = plan.in_rounds and plan.straggler_timeout is None
    if epoch > plan.initial_epoch and not idle:
        rule = (
            "free of callbacks that set a vocabulary after the first epoch has begun, except "
            'with mode="synchronous", frequency="epoch" and no `straggler_timeout`'
        )
        raise invalid("callbacks", rule, Described(f"a new vocabulary before epoch {epoch + 1}"))
    spec = fit.spec.renewed(fit.monitor.replica.model)
    # Workers keep a replica as long as its digest is the same.
    fit.share(replace(spec, digest=f"{spec.digest[:32]}{digest}"))


def note_epoch(fit: Fit, facts: EpochFacts) -> None:
    """Add an epoch to the report, and log which shards lost their optimizer state."""
    fit.epochs.append(facts)
    lost = [worker["shard"] for worker in facts.workers if not worker.get("state_kept", True)]
    if lost:
        logger.warning(
            "Epoch %d: the hosts that kept the optimizer state of shards %s are gone. These "
            "shards continued with the merged weights and the initial optimizer state of the fit.",
            facts.epoch + 1,
            lost,
        )


def note_rest(fit: Fit, results: Sequence[ShardResult]) -> None:
    """Add what the workers of a live job used after their last report to the last epoch."""
    fit.epochs[-1] = fit.epochs[-1].with_rest({r.shard: r.rest for r in results if r.rest})


def close_epoch(
    fit: Fit,
    epoch: int,
    metrics: Sequence[list[np.ndarray]],
    num_examples: int,
    counters: Sequence[int] = (),
    states: Sequence[tuple[State, int]] = (),
) -> bool:
    """Validate the merged weights of an epoch, run the callbacks of its end, and keep it.

    Args:
        fit: `Fit`.
        epoch: Integer.
        metrics: Sequence of the metric states of the merged shards.
        num_examples: Integer, number of examples that these shards trained on.
        counters: Sequence of integers, the `counters` of the first of these shards. Callbacks see
            them in the driver's model. Defaults to `()`: the model keeps its own.
        states: Sequence, the optimizer states of these shards, see `take_state`. Defaults to
            `()`: they are fetched if callbacks need them.

    Returns:
        Boolean, whether training stops here.

    Raises:
        NonFiniteError: If a merged weight is NaN or infinite, see `on_nonfinite`. The driver's
            model keeps the weights of the epoch before.
    """
    check_weights(fit, epoch)
    fit.progress.display.clear()  # Callbacks may write.
    logs = fit.monitor.logs_of(metrics)
    if counters:
        fit.monitor.replica.counters = counters
    if fit.monitor.needs_optimizer_state:
        take_state(fit, states, epoch)
    fit.shown_counters = fit.monitor.replica.counters
    fit.rule_state = fit.aggregator.rule_state()
    replace_weights(fit, fit.monitor.end_batches(fit.aggregator.settled(), logs, fit.steps))
    logs |= validate(fit, epoch)
    merged = fit.aggregator.settled()
    replace_weights(fit, fit.monitor.end_epoch(epoch, merged, logs, num_examples))
    keep_epoch(fit, epoch)
    return fit.monitor.stopped or fit.last_epoch(epoch)


def check_weights(fit: Fit, epoch: int) -> None:
    """Check that the merged weights are finite, if the plan has `on_nonfinite="raise"`.

    The loss does not tell: the ReLU of TensorFlow makes 0 of NaN, so that NaN in the rows leaves
    the loss finite, but not the gradients. The sum of weights is finite only if all of them are.
    It may also be too large for their dtype.

    Raises:
        NonFiniteError: If a trainable weight is NaN or infinite.
    """
    if fit.plan.on_nonfinite != "raise":
        return
    weights = fit.aggregator.settled()[: fit.spec.weights.trainable_size]
    with np.errstate(all="ignore"):
        is_finite = np.isfinite(weights.sum()) or np.isfinite(weights).all()
    if not is_finite:
        text = f"Merged weights are NaN or infinite after epoch {epoch + 1}, although no loss is."
        failure = Failure(NO_SHARD, socket.gethostname(), 0, "NonFiniteWeights", text, "")
        raise NonFiniteError(failure, dict(HINTS)[NON_FINITE])


def replace_weights(fit: Fit, changed: np.ndarray | None) -> None:
    """Take over weights that callbacks have set; `None` if they have set none."""
    if changed is None:
        return
    fit.aggregator.replace(changed)
    if isinstance(fit.aggregator.optimizer, OneShot):
        logger.warning(
            "The workers do not get the weights that a callback has set, because they train apart "
            'until the fit ends (frequency="fit"). Each epoch\'s average replaces these weights.'
        )


def validate(fit: Fit, epoch: int) -> dict[str, float]:
    """Compute the metrics of the merged weights on the validation examples.

    Returns:
        Dictionary from metric name to value. Empty if the fit has no validation examples or
        does not validate after this epoch.
    """
    if not fit.validates or not fit.plan.validates(epoch):
        return {}
    weights = fit.monitor.begin_validation(fit.aggregator.settled())
    fit.progress.phase(f"Epoch {epoch + 1}/{fit.plan.epochs}, validation")
    results = fit.evaluate_live(weights)
    if results is None:
        results = evaluate_in_job(fit, epoch, weights)
    fit.progress.display.clear()
    return fit.monitor.end_validation([r.metrics for r in results])


def show_moment(fit: Fit, epoch: int, moment: Moment) -> None:
    """Show how far the shards have come in an epoch, with the metrics of all of them together."""
    metrics = partial(logs_of_moment, fit, moment)
    fit.progress.show_epoch(epoch, moment.num_examples, fit.examples_of(epoch), metrics)


def logs_of_moment(fit: Fit, moment: Moment) -> dict[str, Any]:
    """Compute the metrics of all shards together from what they have reported."""
    variables = fit.monitor.replica.model.metrics_variables
    shapes = [tuple(variable.shape) for variable in variables]
    states = [s for s in moment.metrics if [array.shape for array in s] == shapes]
    return fit.monitor.logs_of(states)


def run_batch_hooks(fit: Fit, epoch: int, running: Running) -> None:
    """Run the hooks of batches for each mark that the shards have reached since the last call.

    The mark at the end of the epoch is left to `close_epoch`, which has its final figures. On the
    live road, the model gets the latest merged weights; in rounds it has them already.
    """
    monitor = fit.monitor
    while (mark := running.next_mark(epoch)) is not None:
        if monitor.has_batch_hooks and mark.batches < fit.steps:
            fit.progress.display.clear()  # Callbacks may write.
            vector = None
            if not fit.plan.in_rounds:
                vector = np.empty_like(fit.aggregator.weights)
                fit.aggregator.pull(vector)
            monitor.pass_batches(mark.batches, vector, logs_of_moment(fit, mark))


def evaluate_in_job(fit: Fit, epoch: int, weights: np.ndarray) -> list[ShardResult]:
    """Evaluate the validation examples in a Spark job. Returns the results by shard."""
    with fit.sent_weights.share(weights) as (vector, _):
        shipped = ship(
            validate_shards,
            fit.plan.timeout,
            fit.validation_task(),
            shared=(fit.shared_spec, vector),
        )
        description = f"kspark: validate epoch {epoch + 1}"
        return fit.collect(fit.validating, shipped, description, fit.progress.watch)
