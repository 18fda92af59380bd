"""Prepare a fit: spool the examples, divide them, share the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from kspark.adapters import Examples
from kspark.cluster.engine import engine_of
from kspark.cluster.slots import task_slots
from kspark.errors import NotEnoughSlotsError, inside, invalid
from kspark.job.fit import Fit
from kspark.job.sent_weights import SentWeights
from kspark.job.spooling import SpooledExamples
from kspark.plan import TrainingPlan
from kspark.replica.labels import check_labels

logger = logging.getLogger("kspark")


def divide_validation(counts: Mapping[int, int], fraction: float) -> dict[int, int]:
    """How many training examples each shard keeps when a fraction is held out.

    As many as Keras holds out of the whole are held out, spread over the
    shards by their size (largest remainder), always from a shard's end.

    Args:
        counts: Mapping from shard to its number of examples.
        fraction: Float in [0, 1).

    Returns:
        Mapping from shard to its number of training examples.
    """
    total = sum(counts.values())
    held_out = total - int(total * (1.0 - fraction))
    exact = {shard: n * held_out / total if total else 0.0 for shard, n in counts.items()}
    parts = {shard: int(value) for shard, value in exact.items()}
    missing = held_out - sum(parts.values())
    by_remainder = sorted(counts, key=lambda s: (parts[s] - exact[s], s))
    for shard in by_remainder[:missing]:
        parts[shard] += 1
    return {shard: counts[shard] - parts[shard] for shard in counts}


@contextmanager
def prepared(fit: Fit) -> Iterator[None]:
    """Spool the examples and share the model; everything is gone afterwards."""
    with ExitStack() as stack:
        fit.train = stack.enter_context(
            SpooledExamples(fit.spark, placed(fit, fit.examples), fit.fit_id)
        )
        if fit.validation is not None:
            spooled = SpooledExamples(fit.spark, fit.validation, f"{fit.fit_id}-validation")
            with inside("validation_data"):
                fit.held_out = stack.enter_context(spooled)
        divide(fit)
        fit.share(fit.spec)
        stack.callback(fit.unshare)
        fit.sent_weights = SentWeights(engine_of(fit.spark), fit.spec.weights)
        stack.callback(fit.sent_weights.close)
        fit.monitor.replica.prepare_metrics(fit.train.infos)
        yield


def placed(fit: Fit, examples: Examples) -> Examples:
    """The examples in as many partitions as there shall be workers.

    Raises:
        NotEnoughSlotsError: If workers that need each other cannot all run at once.
    """
    wanted = fit.plan.num_workers
    if fit.plan.at_the_same_time:
        slots = task_slots(fit.spark)
        if wanted is None:
            wanted = min(slots, max(examples.num_partitions, 1))
        if wanted > slots:
            raise NotEnoughSlotsError(
                f"{cause(fit.plan)} runs all workers at the same time: `num_workers` is {wanted}, "
                f"but the cluster has {slots} free task slots. Use fewer workers, or raise "
                "spark.executor.instances or "
                'spark.executor.cores; mode="synchronous" with frequency="epoch" runs with any '
                "number of slots, without a `straggler_timeout`."
            )
    if wanted is None or wanted == examples.num_partitions:
        return examples
    return examples.repartition(wanted)


def cause(plan: TrainingPlan) -> str:
    """What makes all workers run at the same time, for a message."""
    if plan.straggler_timeout is not None:
        return f"straggler_timeout={plan.straggler_timeout:g}"
    return f'mode="{plan.mode}" with frequency={plan.frequency!r}'


def divide(fit: Fit) -> None:
    """Which rows train and which validate; and whether the labels fit the model.

    Raises:
        ValueError: If there is nothing to train on, or nothing to validate on.
    """
    counts = fit.train.counts
    total = sum(counts.values())
    if not total:
        raise invalid("x", "a data set with at least one example", f"{total} examples")
    fit.num_train = divide_validation(counts, fit.validation_split)
    if not fit.num_examples or (fit.validation_split and fit.num_examples == total):
        rule = f"a fraction that leaves rows on both sides of {total} examples"
        raise invalid("validation_split", rule, fit.validation_split)
    if fit.held_out is not None and not fit.held_out.num_examples:
        raise invalid("validation_data", "a data set with at least one example", "0 examples")
    check_labels(fit.monitor.replica.model, fit.train.infos)
    if fit.held_out is not None:
        with inside("validation_data"):
            check_labels(fit.monitor.replica.model, fit.held_out.infos)
    log_plan(fit)


def log_plan(fit: Fit) -> None:
    """Tell how the work is divided, once per fit."""
    counts, plan = [n for n in fit.num_train.values() if n], fit.plan
    logger.info("Training on %s; mode %s, frequency %s.", fit.workload, plan.mode, plan.frequency)
    if plan.scaling is not None:
        logger.info(
            "Learning rate times %.4g (%s), after %g epochs of warm-up.",
            plan.scaling.full_factor(len(counts)),
            plan.scaling.rule,
            plan.scaling.warmup_epochs,
        )
    if plan.straggler_timeout is not None and (
        len(counts) < 3 or fit.last_epoch(plan.initial_epoch)
    ):
        logger.warning(
            "straggler_timeout has nothing to do: no more than half of the shards can be late, "
            "and the last round waits for all; there are %d shards and %d epochs to train.",
            len(counts),
            plan.epochs - plan.initial_epoch,
        )
    if min(counts) * 2 < max(counts):
        logger.warning(
            "The shards are uneven: from %d to %d examples. Repartition the data, or set "
            "`num_workers`, for even work.",
            min(counts),
            max(counts),
        )
