"""What happens around an epoch on the driver: callbacks, validation, figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from kspark.cluster.bootstrap import ship
from kspark.cluster.slots import threads_per_task
from kspark.job.fit import Fit
from kspark.job.optimizer_state import take_state
from kspark.job.report import EpochFacts
from kspark.worker import inference as inference_worker
from kspark.worker.inference import InferenceTask
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")


def validate(fit: Fit, epoch: int) -> dict[str, float]:
    """Metrics of the merged model on the validation rows, or nothing if it is not their turn."""
    if not fit.validates or not fit.plan.validates(epoch):
        return {}
    held_out, skip = fit.train, fit.num_train
    if fit.held_out is not None:
        held_out, skip = fit.held_out, {}
    task = InferenceTask(fit.fit_id, fit.plan.batch_size, threads_per_task(fit.spark), skip)
    weights = fit.monitor.begin_validation(fit.aggregator.weights)
    with fit.sent_weights.share(weights) as (vector, _):
        shipped = ship(inference_worker.evaluate_shards, task, shared=(fit.shared_spec, vector))
        results = fit.collect(held_out, shipped, f"kspark: validate epoch {epoch + 1}")
    return fit.monitor.end_validation([r.metrics for r in results])


def open_epoch(fit: Fit, epoch: int) -> None:
    """Callbacks of an epoch that is about to begin; it starts from the weights they leave."""
    changed = fit.monitor.begin_epoch(epoch)
    if changed is not None:
        fit.aggregator.replace(changed)


def note_epoch(fit: Fit, facts: EpochFacts) -> None:
    """Keep an epoch's figures, and tell of optimizer state that is lost."""
    fit.epochs.append(facts)
    anew = [worker["shard"] for worker in facts.workers if not worker.get("state_kept", True)]
    if anew:
        logger.warning(
            "Epoch %d: the hosts that kept the optimizer state of shards %s are gone. These "
            "shards went on from the merged weights, with the optimizer state of the fit's start.",
            facts.epoch + 1,
            anew,
        )


def note_rest(fit: Fit, results: Sequence[ShardResult]) -> None:
    """Add what the workers of a live job did after their last report to its last epoch."""
    fit.epochs[-1] = fit.epochs[-1].with_rest({r.shard: r.rest for r in results if r.rest})


def close_epoch(
    fit: Fit, epoch: int, metrics: Sequence[list[np.ndarray]], num_examples: int
) -> bool:
    """Logs, validation and callbacks of an epoch whose weights are merged.

    Args:
        fit: `Fit`.
        epoch: Integer.
        metrics: Sequence of the metric states of the shards that were merged.
        num_examples: Integer, examples that these trained on.

    Returns:
        Boolean, whether training shall stop.
    """
    logs = fit.monitor.logs_of(metrics)
    if fit.monitor.needs_optimizer_state:
        take_state(fit, [], epoch)
    fit.rule_state = fit.aggregator.rule_state()
    logs |= validate(fit, epoch)
    changed = fit.monitor.end_epoch(epoch, fit.aggregator.weights, logs, num_examples)
    if changed is not None:
        fit.aggregator.replace(changed)
    return fit.monitor.stopped or fit.last_epoch(epoch)
