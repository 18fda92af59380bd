"""The settings of `SparkModel`, each declared once.

A declaration has the name of the setting, its type, default and check, and a description. The
fields of `TrainingPlan`, the Params of `kspark.ml` and the configuration in saved files follow from
the declarations. A test compares the signature and the docstring of `SparkModel` with them.
`CONTRIBUTING.md` shows how to add a setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
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

ROADS = ("auto", "rounds", "live")
"""Choices of `road`."""


@dataclass(frozen=True)
class Setting:
    """The declaration of a setting, without its name and type.

    Attributes:
        default: The default value.
        check: `Check` of a value. If the default is `None`, `None` is allowed without a check.
        doc: String, a short description, which `explainParams()` of a stage shows.
        plain: Function from a checked value to JSON data.
    """

    default: Any
    check: Check
    doc: str
    plain: Callable[[Any], Any]

    def checked(self, name: str, value: Any) -> Any:
        """Check a value and return it as plain data.

        Args:
            name: String, name of the setting, for errors.
            value: The value.

        Raises:
            ValueError: If the value is out of range.
            TypeError: If the value has a wrong type.
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
    """The settings in a `TrainingPlan`, which the driver sends to the tasks."""

    mode: str = setting(
        "synchronous",
        partial(check_choice, choices=MODES),
        "how replicas are merged: one of " + ", ".join(MODES) + ".",
    )
    frequency: str | int = setting(
        "epoch",
        check_frequency,
        "when replicas exchange with the aggregator: epoch, batch, a number of batches, or once at "
        "the end (fit).",
    )
    num_workers: int | None = setting(
        None, partial(check_integer, least=1), "number of shards of the data, one per worker."
    )
    batch_size: int = setting(32, partial(check_integer, least=1), "examples per batch and worker.")
    port: int | tuple[int, int] = setting(
        0,
        check_port,
        "port on which the driver listens, or a list of the first and the last port to try; "
        "0 for any free port. Not used with road=rounds.",
    )
    road: str = setting(
        "auto",
        partial(check_choice, choices=ROADS),
        "how the driver and the workers exchange: in a Spark job per epoch (rounds), in one long "
        "job (live), or live where that is possible (auto).",
    )
    seed: int | None = setting(
        None, partial(check_integer, least=0), "random seed, for repeatable fits."
    )
    timeout: float = setting(
        60.0,
        check_seconds,
        "seconds to wait for a worker that is not connected, or hangs without computing.",
    )
    step_timeout: float | None = setting(
        None, check_seconds, "seconds that a worker may train one step; no limit if not set."
    )
    max_failures: int = setting(
        2, partial(check_integer, least=0), "number of times that a lost worker is started again."
    )
    on_nonfinite: str = setting(
        "raise",
        partial(check_choice, choices=("raise", "ignore")),
        "reaction to a loss or weights that are NaN or infinite: raise or ignore.",
    )
    max_staleness: int | None = setting(
        None,
        partial(check_integer, least=0),
        "number of exchanges that a worker may be ahead of the slowest one, in asynchronous mode.",
    )
    compression: Codec | None = setting(
        None,
        check_compression,
        "codec for deltas and gradients: float16, bfloat16, int8 or top_k.",
        plain=compression.serialize,
    )
    straggler_timeout: float | None = setting(
        None,
        check_seconds,
        "seconds that a round waits for the other workers once more than half have finished.",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(PlanSettings):
    """All settings of `SparkModel`: those of the plan, and those that only the driver needs."""

    server_optimizer: ServerOptimizer = setting(
        "average",
        check_server_optimizer,
        "rule that applies a merged delta to the global weights.",
        plain=optimizers.serialize,
    )


SETTINGS: Mapping[str, Setting] = {f.name: f.metadata["setting"] for f in fields(Settings)}
"""The declaration of each setting, by name."""

PLAN_SETTINGS: tuple[str, ...] = tuple(f.name for f in fields(PlanSettings))
"""Names of the settings in a `TrainingPlan`."""
