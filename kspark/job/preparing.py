"""Prepare a fit: spool the examples, hold out validation examples, broadcast the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from kspark.adapters import Examples
from kspark.adapters.factories import FactoryExamples
from kspark.adapters.files import FileExamples
from kspark.cluster.engine import engine_of
from kspark.cluster.remote import is_connect
from kspark.cluster.slot_wait import slots_for
from kspark.cluster.slots import executors_may_go, task_slots
from kspark.errors import Described, NotEnoughSlotsError, inside, invalid
from kspark.job.fit import Fit
from kspark.job.mixing import check_mixable
from kspark.job.sent_weights import SentWeights
from kspark.job.spooling import SpooledExamples, StreamedExamples, Unmixed
from kspark.job.stored import spooled_for
from kspark.job.tables import plural
from kspark.plan import TrainingPlan, mixed_sizes, shard_steps
from kspark.plan.apportioning import apportioned
from kspark.replica.labels import check_labels

logger = logging.getLogger("kspark")


@contextmanager
def prepared(fit: Fit) -> Iterator[None]:
    """Spool the examples and broadcast the model; delete both at the end of the block."""
    with ExitStack() as stack:
        fit.progress.phase("Reading the rows")
        fit.train = stack.enter_context(training_shards(fit, placed(fit, fit.examples)))
        fit.train.states = fit.states
        fit.states.travels = fit.plan.in_rounds and executors_may_go(fit.spark)
        stack.callback(fit.states.close)
        if fit.validation is not None:
            fit.progress.phase("Reading the validation rows")
            spooled = shards_of(fit, fit.validation, f"{fit.fit_id}-validation")
            with inside("validation_data"):
                fit.held_out = stack.enter_context(spooled)
        fit.progress.display.clear()  # Warnings may be logged.
        if isinstance(fit.train, StreamedExamples):
            fit.plan = replace(fit.plan, batch_size=fit.train.batch_size, streams=True)
        divide(fit)
        stack.callback(close_mixed, fit)
        fit.share(fit.spec)
        stack.callback(fit.unshare)
        fit.sent_weights = SentWeights(engine_of(fit.spark), fit.spec.weights)
        stack.callback(fit.sent_weights.close)
        fit.monitor.replica.prepare_metrics(fit.train.infos)
        stack.callback(fit.progress.finish)
        yield


def training_shards(fit: Fit, examples: Examples) -> SpooledExamples:
    """Return the shards of a fit: on disk, or of rows that a function of the user makes."""
    if isinstance(examples, FactoryExamples):
        fit.stream, watch = examples.rows, fit.progress.watch
        return StreamedExamples(fit.spark, examples, fit.fit_id, fit.plan, watch)
    return shards_of(fit, examples, fit.fit_id)


def shards_of(fit: Fit, examples: Examples, run_id: str) -> SpooledExamples:
    """Return the shards of some examples of a fit, on disk."""
    is_loose, watch = fit.spec.rows.is_loose, fit.progress.watch
    return spooled_for(fit.spark, examples, run_id, watch, is_loose=is_loose)


def close_mixed(fit: Fit) -> None:
    """Delete the shards of mixed rows, if there are any yet."""
    if fit.unmixed is not None and fit.train is not fit.unmixed.shards:
        fit.train.close()


def placed(fit: Fit, examples: Examples) -> Examples:
    """Return the examples in one partition per worker.

    Raises:
        NotEnoughSlotsError: If all workers must run at the same time, but there are fewer slots.
    """
    wanted = fit.plan.num_workers
    check_steps(fit.plan, examples)
    if fit.plan.at_the_same_time:
        if wanted is None:
            # The present slots: what dynamic allocation may add has no limit by default.
            wanted = min(task_slots(fit.spark), max(examples.num_partitions, 1))
        check_slots(fit.plan, wanted, awaited_slots(fit, wanted))
    elif fit.plan.connection_setting:
        needed = wanted or examples.num_partitions
        check_slots(fit.plan, needed, awaited_slots(fit, needed))
    if wanted is None or wanted == examples.num_partitions:
        return examples
    return examples.repartition(wanted)


def awaited_slots(fit: Fit, wanted: int) -> int:
    """Return the number of task slots. If there are too few, wait for more, and show that."""

    def show(slots: int) -> None:
        fit.progress.wait(f"waiting for task slots, {slots} of {wanted}")

    return slots_for(fit.spark, wanted, show)


def check_steps(plan: TrainingPlan, examples: Examples) -> None:
    """Check that each shard has a step in an epoch, if the driver knows their number.

    Raises:
        ValueError: If there are fewer steps than shards.
    """
    count = examples.num_examples
    if plan.steps_per_epoch is not None and count is not None:
        shards = min(count, plan.num_workers or examples.num_partitions)
        shard_steps(plan, dict.fromkeys(range(shards), 1))


def check_slots(plan: TrainingPlan, num_workers: int, slots: int) -> None:
    """Check that all workers can run at the same time.

    Raises:
        NotEnoughSlotsError: If there are fewer slots than workers.
    """
    if num_workers <= slots:
        return
    setting = f'mode="{plan.mode}" with frequency={plan.frequency!r}'
    if plan.straggler_timeout is not None:
        setting = f"straggler_timeout={plan.straggler_timeout:g}"
    elif plan.in_rounds:
        setting = plan.connection_setting
    raise NotEnoughSlotsError(
        f"{setting} runs all workers at the same time: `num_workers` is {num_workers}, but the "
        f"cluster has {slots} free task slots. Use fewer workers, or raise "
        "spark.executor.instances (spark.dynamicAllocation.maxExecutors with dynamic allocation) "
        "or spark.executor.cores. "
        'mode="synchronous" with frequency="epoch", without `straggler_timeout` and '
        '`callbacks_every` and with road="auto", runs with any number of slots.'
    )


def divide(fit: Fit) -> None:
    """Decide which examples are held out for validation, and check the labels.

    If rows are going to be mixed between shards, `fit.num_train` has the numbers after mixing.

    Raises:
        ValueError: If there are no examples to train on, none to validate on, labels that do not
            fit the loss, or rows that cannot be mixed.
    """
    counts = fit.train.counts
    total = sum(counts.values())
    if not total:
        raise fit.examples.no_rows("x")
    num_train = divide_validation(counts, fit.validation_split)
    shard_steps(fit.plan, num_train)  # checks the number of steps
    fit.num_train = num_train
    if not fit.num_examples or (fit.validation_split and fit.num_examples == total):
        rule = f"a fraction that leaves rows to train and rows to validate, of {total} in all"
        raise invalid("validation_split", rule, fit.validation_split)
    if fit.held_out is not None and not fit.held_out.num_examples:
        raise invalid(
            "validation_data", "a data set with at least one example", Described("0 examples")
        )
    check_labels(fit.monitor.replica.model, fit.train.infos)
    if fit.held_out is not None:
        with inside("validation_data"):
            check_labels(fit.monitor.replica.model, fit.held_out.infos)
    if fit.plan.reshuffle is not None and len(num_train) > 1:
        if not fit.spec.rows.is_loose:
            check_mixable(fit.train.infos, fit.plan.reshuffle)
        fit.unmixed = Unmixed(fit.train, num_train)
        fit.num_train = mixed_sizes(num_train)
    log_plan(fit)


def divide_validation(counts: Mapping[int, int], fraction: float) -> dict[int, int]:
    """Compute how many training examples each shard keeps when a fraction is held out.

    The number of examples that are held out is the same as in Keras. It is divided among the
    shards by their size (largest remainder method). Each shard holds out its last examples.

    Args:
        counts: Mapping from shard to its number of examples.
        fraction: Float in [0, 1).

    Returns:
        Dictionary from shard to its number of training examples.
    """
    total = sum(counts.values())
    held_out = total - int(total * (1.0 - fraction))
    parts = apportioned(held_out, counts)
    return {shard: counts[shard] - parts[shard] for shard in counts}


def log_plan(fit: Fit) -> None:
    """Log workload, learning rate scaling, and settings without effect. Called once per fit."""
    counts, plan = [n for n in fit.num_train.values() if n], fit.plan
    logger.info("Training on %s; mode %s, frequency %s.", fit.workload, plan.mode, plan.frequency)
    if plan.scaling is not None:
        logger.info(
            "The learning rate is multiplied by %.4g (%s) after %g epochs of warm-up.",
            plan.scaling.full_factor(len(counts)),
            plan.scaling.rule,
            plan.scaling.warmup_epochs,
        )
    if plan.straggler_timeout is not None and (
        len(counts) < 3 or fit.last_epoch(plan.initial_epoch)
    ):
        logger.warning(
            "straggler_timeout has no effect with %s and %s to train: a round waits "
            "for more than half of the shards, and the last round waits for all.",
            plural(len(counts), "shard"),
            plural(plan.epochs - plan.initial_epoch, "epoch"),
        )
    empty = len(fit.num_train) - len(counts)
    if empty and isinstance(fit.examples, FileExamples):
        logger.warning(
            "%d of %d workers have no rows, because `filters` leave none of theirs. Set "
            '`reshuffle="epoch"` in `fit`, which mixes the rows, or use fewer workers.',
            empty,
            len(fit.num_train),
        )
    elif empty and fit.num_examples < len(fit.num_train):
        logger.warning(
            "%d of %d workers have no rows, because there are only %d. Set a lower `num_workers`.",
            empty,
            len(fit.num_train),
            fit.num_examples,
        )
    if min(counts) * 2 < max(counts):
        logger.warning(
            "The shards are uneven: from %d to %d examples. To divide the work evenly, %s.",
            min(counts),
            max(counts),
            how_to_divide(fit),
        )


def how_to_divide(fit: Fit) -> str:
    """Say how the shards of a fit get about as many examples each."""
    plan = fit.plan
    # These exclude `reshuffle`, see `check_mixing` and `check_session`.
    if plan.steps_per_epoch or plan.straggler_timeout or is_connect(fit.spark):
        return "set `num_workers`, or repartition the data"
    return (
        'set `reshuffle="epoch"` in `fit`, which also mixes the rows, set `num_workers`, or '
        "repartition the data"
    )
