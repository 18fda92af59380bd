"""Write checkpoints at the end of epochs, and go on from the last one.

A checkpoint has all that a fit takes from one epoch to the next: on the driver the global weights,
the state of the server optimizer, the model's other variables, the history, the report and the
state of Keras' callbacks; and the files of each shard, with its optimizer state, its own weights
and what compression has left over. So a fit that goes on computes what it would have computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from kspark.cluster.bootstrap import ship
from kspark.cluster.engine import engine_of
from kspark.errors import invalid
from kspark.job.callback_state import restore_callbacks, states_of_callbacks
from kspark.job.checkpoint_settings import check_same
from kspark.job.collecting import collect_shards
from kspark.job.fit import Fit
from kspark.job.groups import MIN_GROUPED_SHARDS
from kspark.job.mixing import mix_rows
from kspark.job.optimizer_state import take_state
from kspark.job.report import EpochFacts
from kspark.job.tables import plural
from kspark.saving.checkpoint import (
    CheckpointReader,
    ShardFiles,
    open_checkpoint,
    write_checkpoint,
)
from kspark.saving.checkpoint_folder import CheckpointFolder
from kspark.worker.kept_files import fetch_files, restore_files
from kspark.worker.tasks import ShardResult

logger = logging.getLogger("kspark")


def keep_epoch(fit: Fit, epoch: int) -> None:
    """Write the checkpoint of an epoch whose callbacks have run, if the fit has a folder for it.

    Raises:
        OSError: If it cannot be written.
        TypeError: If a callback has added something to the logs that cannot be written.
    """
    if fit.checkpoints is None:
        return
    monitor, replica = fit.monitor, fit.monitor.replica
    content = {
        "settings": fit.settings,
        "data": data_of(fit),
        "epochs": epoch + 1,
        "stopped": monitor.stopped,
        "seed": fit.plan.seed,
        "weights": fit.aggregator.settled(),
        "fixed": replica.get_fixed(),
        "optimizer": replica.get_optimizer_state(),
        "shown_counters": fit.shown_counters,
        "rule": fit.aggregator.rule_state(),
        "reply_residual": fit.reply_residual,
        "history": monitor.history.history,
        "history_epochs": monitor.history.epoch,
        "report": [asdict(facts) for facts in fit.epochs],
        "callbacks": states_of_callbacks(monitor.callbacks),
    }
    with fit.checkpoints.writing(epoch + 1) as local:
        write_checkpoint(local, content, files_of_shards(fit, epoch))


def data_of(fit: Fit) -> dict[str, Any]:
    """Return what describes the data, by names for `check_same`.

    A vocabulary is part of it, because callbacks may have set it from the data.
    """
    examples = {f"examples of shard {shard}": n for shard, n in sorted(fit.divided.items())}
    vocabularies = fit.vocabularies.digest if fit.vocabularies is not None else ""
    return examples | {"vocabularies": vocabularies}


def batches_of_shards(fit: Fit) -> Iterator[list[int]]:
    """Divide the shards with examples, so that the driver holds the files of a few at a time."""
    shards = [shard for shard, n in sorted(fit.num_train.items()) if n]
    # Spark Connect runs all shards each time.
    size = MIN_GROUPED_SHARDS if engine_of(fit.spark).groups else len(shards)
    for start in range(0, len(shards), size):
        yield shards[start : start + size]


def files_of_shards(fit: Fit, epoch: int) -> Iterator[tuple[int, ShardFiles]]:
    """Fetch the files of all shards, from the tasks that run, or else with Spark jobs."""
    results = fit.keep_live(epoch)
    if results is not None:
        yield from ((result.shard, result.files) for result in results)
        return
    task = ship(fetch_files, fit.fit_id, epoch)
    for shards in batches_of_shards(fit):
        for result in collect_shards(
            fit.spark,
            fit.train,
            task,
            f"kspark: checkpoint of epoch {epoch + 1}",
            fit.plan.max_failures,
            wanted=shards,
        ):
            if not result.files:
                logger.warning(
                    "The optimizer state of shard %d is lost, and not in the checkpoint.",
                    result.shard,
                )
            yield result.shard, result.files


# -- going on ------------------------------------------------------------------------------------


@contextmanager
def last_checkpoint(fit: Fit, resume: bool) -> Iterator[CheckpointReader | None]:
    """Open the last checkpoint of a fit's folder, and check that it is one of the same fit.

    Args:
        fit: `Fit`.
        resume: Boolean, whether to go on from it.

    Yields:
        `CheckpointReader`; `None` if there is no checkpoint, or the fit has no folder.

    Raises:
        ValueError: If the checkpoint is damaged, or belongs to a fit with other settings.
        FileExistsError: If there is a checkpoint, but the fit begins anew.
        OSError: If the folder cannot be read.
    """
    folder = fit.checkpoints
    found = [] if folder is None else folder.found()
    if folder is None or not found:
        if folder is not None and resume:
            announce(
                fit, f"There is no checkpoint in {folder.path}: training starts from the beginning."
            )
        yield None
        return
    path = folder.file(found[-1])
    if not resume:
        raise FileExistsError(
            f"There are checkpoints in {folder.path}, up to epoch {found[-1]}. Set `resume=True` "
            "to go on from the last one, or use another folder."
        )
    with folder.reading(found[-1]) as local, open_checkpoint(local, path) as saved:
        check_same(folder.path, saved.content["settings"], fit.settings)
        if saved.content["epochs"] > fit.plan.epochs:
            rule = f">= {saved.content['epochs']}, the epochs of the checkpoint {path}"
            raise invalid("epochs", rule, fit.plan.epochs)
        yield saved


def announce(fit: Fit, text: str) -> None:
    """Log where training begins, and print it if the fit prints its progress."""
    logger.info(text)
    fit.monitor.progress.say(text)


def go_on(fit: Fit, folder: CheckpointFolder, saved: CheckpointReader) -> None:
    """Give the driver and the executors the state of a checkpoint.

    The examples must be spooled already. Call `go_on_with_callbacks` after the callbacks of the
    beginning of training.

    Raises:
        ValueError: If the checkpoint belongs to other data.
        WorkerError: If a job was lost too often.
        ClusterError: If tasks kept running on hosts without their files.
    """
    content, epoch = saved.content, saved.content["epochs"]
    check_same(folder.path, content["data"], data_of(fit))
    replica = fit.monitor.replica
    replica.set_vector(content["weights"])
    replica.set_fixed(content["fixed"])
    replica.set_optimizer_state(content["optimizer"])
    fit.aggregator.replace(content["weights"])
    fit.aggregator.optimizer.set_state(content["rule"])
    fit.reply_residual = content["reply_residual"]
    fit.rule_state = fit.aggregator.rule_state()
    fit.epochs.extend(facts_of_epoch(facts) for facts in content["report"])
    fit.monitor.history.history.update(content["history"])
    fit.monitor.initial_epoch = fit.monitor.progress.first = epoch
    fit.plan = replace(fit.plan, seed=content["seed"])
    fit.resumed = True
    over = content["stopped"] or epoch >= fit.plan.epochs
    if not over:
        mix_rows(fit, epoch)
    restore_shards(fit, saved, epoch - 1)
    start_from_mean(fit, epoch - 1)
    trained = plural(epoch, "epoch")
    if over:
        announce(fit, f"Nothing is left to train: {folder.file(epoch)} has {trained}.")
    else:
        announce(fit, f"Training goes on from {folder.file(epoch)}, after {trained}.")


def start_from_mean(fit: Fit, epoch: int) -> None:
    """Send the model with the mean optimizer state of the shards to the executors.

    A shard whose state is lost begins with it. The driver's model keeps its own other variables,
    and the counters that callbacks have seen.
    """
    replica = fit.monitor.replica
    counters, fixed = replica.counters, replica.get_fixed()
    take_state(fit, (), epoch)
    replica.counters = counters
    replica.set_fixed(fixed)
    fit.share(fit.spec.renewed(replica.model))


def facts_of_epoch(facts: dict[str, object]) -> EpochFacts:
    """Read the figures of an epoch from a checkpoint, which has lists for tuples."""
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
    return EpochFacts(**given)  # type: ignore[arg-type]


def restore_shards(fit: Fit, saved: CheckpointReader, epoch: int) -> None:
    """Write the files of all shards to the hosts of the shards."""
    engine = engine_of(fit.spark)
    fit.states.epoch = epoch
    for shards in batches_of_shards(fit):
        files: dict[int, dict[str, np.ndarray]] = {shard: saved.shard(shard) for shard in shards}
        if fit.states.travels:
            fit.states.take((ShardResult(s, 0, files=files[s]) for s in shards), epoch)
        shared = engine.share(files)
        try:
            collect_shards(
                fit.spark,
                fit.train,
                ship(restore_files, fit.fit_id, epoch, shared=(shared,)),
                "kspark: restore a checkpoint",
                fit.plan.max_failures,
                wanted=shards,
            )
        finally:
            shared.destroy()


def go_on_with_callbacks(fit: Fit, saved: CheckpointReader) -> None:
    """Give the callbacks the state of a checkpoint. Keras resets them when training begins."""
    fit.shown_counters = tuple(saved.content["shown_counters"])
    fit.monitor.history.epoch = list(saved.content["history_epochs"])
    restore_callbacks(fit.monitor.callbacks, saved.content["callbacks"])
