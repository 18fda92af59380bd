"""What happens in each scenario, drawn from a seed."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

ROADS = (
    ("synchronous", "epoch", {}),
    ("synchronous", "epoch", {"road": "rounds"}),
    ("synchronous", "batch", {}),
    ("synchronous", 4, {}),
    ("asynchronous", "epoch", {}),
    ("asynchronous", 4, {"max_staleness": 2}),
    ("asynchronous", "batch", {}),
    ("hogwild", "epoch", {}),
    ("hogwild", 4, {}),
)

FAULTS = (
    "kill a worker",
    "kill an executor",
    "stop a worker",
    "die after a push",
    "decommission",
    "disk full",
    "kill the driver",
)
"""The faults.

* kill a worker: SIGKILL for a Python worker.
* kill an executor: SIGKILL for an executor's JVM.
* stop a worker: SIGSTOP for a Python worker, and SIGCONT some seconds later. Some stops take longer
  than `TIMEOUT`.
* die after a push: the process of a shard ends after an exchange, or after it has saved its state.
* decommission: SIGPWR for an executor's JVM, with `spark.decommission.enabled`.
* disk full: the folder with Spark's local directories, of a few megabytes, is filled. Needs root.
* kill the driver: SIGKILL for the driver. The same program resumes from its checkpoint.
"""

MAY_FAIL = ("disk full",)
"""The faults after which a fit may raise a `KSparkError`. After others, it gets new processes."""

EPOCHS = 6

TIMEOUT = 20.0
"""The `timeout` of the fits."""

LONG_STOPS = 0.3
"""The part of the stops that take longer than `TIMEOUT`."""


@dataclass(frozen=True)
class Scenario:
    """One fit and what disturbs it.

    Attributes:
        number: Integer.
        mode: String.
        frequency: String or integer.
        settings: Dictionary of further arguments of `SparkModel`.
        fault: String, one of `FAULTS`.
        counts: Boolean, whether the model counts rows, instead of classifying them.
        epoch: Integer, the fault comes in this epoch.
        delay: Float, seconds after its beginning.
        seconds: Float, how long a stopped process stops.
        pick: Integer, which of several processes.
    """

    number: int
    mode: str
    frequency: str | int
    settings: dict[str, object]
    fault: str
    counts: bool
    epoch: int
    delay: float
    seconds: float
    pick: int

    @property
    def name(self) -> str:
        """The name, for `--only` and the table."""
        road = self.settings.get("road")
        how = f"{self.mode} {self.frequency}" + (f" {road}" if road else "")
        return f"{self.number}/{self.fault}/{how}"

    @property
    def skipped(self) -> str | None:
        """Why the scenario cannot run here, or `None`."""
        if self.fault == "disk full" and os.getuid() != 0:
            return "needs root"
        return None


def draw(seed: int, number: int) -> Scenario:
    """The scenario of a number. Each fault comes once in as many scenarios as there are faults."""
    order = random.Random(f"{seed}/{number // len(FAULTS)}").sample(FAULTS, len(FAULTS))
    own = random.Random(f"{seed}:{number}")
    mode, frequency, settings = own.choice(ROADS)
    stops_long = own.random() < LONG_STOPS
    return Scenario(
        number,
        mode,
        frequency,
        settings,
        order[number % len(FAULTS)],
        counts=own.random() < 0.75,
        epoch=own.randrange(1, EPOCHS - 1),
        delay=own.uniform(0, 0.5),
        seconds=own.uniform(TIMEOUT + 5, TIMEOUT + 15) if stops_long else own.uniform(2, 8),
        pick=own.randrange(1000),
    )
