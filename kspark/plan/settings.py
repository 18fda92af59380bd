"""The settings of `SparkModel`, each declared once.

A declaration has the setting's name, type, default, check and one sentence about it. From that
follow the field of `TrainingPlan`, the Param of `kspark.ml`, and what a saved model keeps; a test
holds the signature and the docstring of `SparkModel` to it. `CONTRIBUTING.md` shows how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import partial
from typing import Any

from kspark import compression, optimizers
from kspark.compression import Codec
from kspark.optimizers import ServerOptimizer
from kspark.optimizers.base import MODES
from kspark.plan.checks import (
    Check,
    check_choice,
    check_compression,
    check_frequency,
    check_integer,
    check_port,
    check_seconds,
    check_server_optimizer,
)


@dataclass(frozen=True)
class Setting:
    """What is declared of one setting beside its name and type.

    Attributes:
        default: What a user who does not set it gets.
        check: `Check` of a value; `None` is allowed, too, where it is the default.
        doc: String, one sentence for `explainParams()` of a stage.
        plain: Function from a checked value to what JSON holds.
    """

    default: Any
    check: Check
    doc: str
    plain: Callable[[Any], Any]

    def checked(self, name: str, value: Any) -> Any:
        """The value as plain data.

        Raises:
            ValueError: If the value is out of range.
            TypeError: If the value is of a wrong type.
        """
        if value is None and self.default is None:
            return None
        return self.check(name, value)


def setting(
    default: Any, check: Check, doc: str, plain: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Declare a setting, as a field of `PlanSettings` or `Settings`."""
    declared = Setting(default, check, doc, plain)
    return field(default=default, metadata={"setting": declared})


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Settings that every `TrainingPlan` has, and that travel to the tasks with it."""

    mode: str = setting(
        "synchronous",
        partial(check_choice, choices=MODES),
        "how replicas are merged: " + ", ".join(MODES) + ".",
    )
    frequency: str | int = setting(
        "epoch",
        check_frequency,
        "when replicas exchange: epoch, batch, or a number of batches.",
    )
    num_workers: int | None = setting(
        None, partial(check_integer, least=1), "number of shards that the data is divided into."
    )
    batch_size: int = setting(32, partial(check_integer, least=1), "examples per batch and worker.")
    port: int | tuple[int, int] = setting(
        0,
        check_port,
        "port of the driver in live modes, or the first and the last of several; 0 for any.",
    )
    seed: int | None = setting(
        None, partial(check_integer, least=0), "seed of all randomness, for repeatable fits."
    )
    timeout: float = setting(
        60.0, check_seconds, "seconds to wait for a worker that is not connected."
    )
    max_failures: int = setting(
        2, partial(check_integer, least=0), "number of times that lost work is submitted again."
    )
    on_nonfinite: str = setting(
        "raise",
        partial(check_choice, choices=("raise", "ignore")),
        "what to do with a loss that is NaN or infinite: raise or ignore.",
    )
    max_staleness: int | None = setting(
        None,
        partial(check_integer, least=0),
        "asynchronous mode: exchanges that a worker may be ahead of the slowest one.",
    )
    compression: Codec | None = setting(
        None,
        check_compression,
        "how deltas and gradients travel: float16, bfloat16, int8 or top_k.",
        plain=compression.serialize,
    )
    straggler_timeout: float | None = setting(
        None,
        check_seconds,
        "seconds that a round waits for its slowest workers once most have finished.",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(PlanSettings):
    """All settings of `SparkModel`: those of the plan, and those that stay on the driver."""

    server_optimizer: ServerOptimizer = setting(
        "average",
        check_server_optimizer,
        "rule that changes the weights by a merged delta.",
        plain=optimizers.serialize,
    )


def declared(field: Field[Any]) -> Setting:
    """The declaration behind a field of `Settings`."""
    found: Setting = field.metadata["setting"]
    return found


SETTINGS: Mapping[str, Setting] = {field.name: declared(field) for field in fields(Settings)}
"""The declarations of all settings by name."""

PLAN_SETTINGS: tuple[str, ...] = tuple(field.name for field in fields(PlanSettings))
"""Names of the settings that every `TrainingPlan` has."""
