"""The arguments of `SparkModel.fit` about checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kspark.errors import invalid, invalid_type
from kspark.job.callback_state import check_excluded
from kspark.plan import TrainingPlan
from kspark.plan.checks import check_boolean, check_integer

KEPT = 2
"""How many checkpoints are kept, by default."""


@dataclass(frozen=True)
class Checkpointing:
    """What `fit` was told about checkpoints.

    Attributes:
        path: String, the folder of the checkpoints, or `None` to write none.
        resume: Boolean, whether to go on from the last one.
        kept: Integer, how many of the last ones are kept.
        seed: Integer, the seed that the user has set, or `None`.
    """

    path: str | None
    resume: bool
    kept: int
    seed: int | None

    @classmethod
    def of(
        cls,
        checkpoint: Any,
        resume: Any,
        kept: Any,
        seed: int | None,
        plan: TrainingPlan,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> Checkpointing:
        """Check the arguments of `fit`.

        Args:
            checkpoint: As in `SparkModel.fit`, like `resume`.
            resume: Boolean.
            kept: Integer, `checkpoints_kept` of `SparkModel.fit`.
            seed: Integer, the seed that the user has set, or `None`.
            plan: `TrainingPlan`.
            callbacks: Sequence of `keras.callbacks.Callback`.

        Raises:
            ValueError: If a value is out of range, or does not go with another argument.
            TypeError: If a value has a wrong type.
        """
        resume = check_boolean("resume", resume)
        kept = check_integer("checkpoints_kept", kept, 1)
        if checkpoint is None:
            if resume:
                raise invalid(
                    "resume", "False without `checkpoint`, the folder to go on from", resume
                )
            if kept != KEPT:
                raise invalid("checkpoints_kept", f"{KEPT} without `checkpoint`", kept)
            return cls(None, resume, kept, seed)
        if not isinstance(checkpoint, str | os.PathLike) or not os.fspath(checkpoint):
            raise invalid_type("checkpoint", "None, or the path or URI of a folder", checkpoint)
        if plan.straggler_timeout is not None:
            rule = (
                "None with `straggler_timeout`: when a round ends, late shards are still in the "
                "middle of an epoch"
            )
            raise invalid("checkpoint", rule, checkpoint)
        check_excluded(callbacks)
        return cls(str(os.fspath(checkpoint)), resume, kept, seed)
