"""`TrainingPlan`: how a model is trained, every argument checked once, on the driver.

The model itself is not in here (`ReplicaSpec` is the *what*, this is the *how*). A plan is plain
data and travels to the executors as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kspark.compression import Packing
from kspark.errors import invalid
from kspark.plan.checks import (
    check_boolean,
    check_class_weight,
    check_integer,
    check_validation_freq,
)
from kspark.plan.compatibility import check_compatible
from kspark.plan.learning_rate import Scaling, check_scaling
from kspark.plan.settings import PLAN_SETTINGS, SETTINGS, PlanSettings
from kspark.shards import num_batches
from kspark.weights import PACKED, Changes, PackingScheme, WeightSpec, Whole


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(PlanSettings):
    """How to train: the settings of a `SparkModel`, and the arguments of one `fit`.

    Build it with `TrainingPlan.create`, which checks everything.

    Attributes:
        seed: Integer, from which all randomness is derived.
        epochs: Integer, epoch to stop before.
        initial_epoch: Integer, epoch to start at.
        shuffle: Boolean, whether a shard is shuffled before each epoch.
        class_weight: Mapping from class index to weight, or `None`.
        validation_freq: Integer, or tuple of epochs (counted from 1) to validate after.
        scaling: `Scaling` of the learning rate, or `None`.
    """

    seed: int = 0
    epochs: int = 1
    initial_epoch: int = 0
    shuffle: bool = True
    class_weight: Mapping[int, float] | None = None
    validation_freq: int | tuple[int, ...] = 1
    scaling: Scaling | None = None

    @classmethod
    def create(
        cls,
        *,
        epochs: int = 1,
        initial_epoch: int = 0,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        validation_freq: int | list[int] | tuple[int, ...] = 1,
        scale_lr: str | None = None,
        warmup_epochs: float = 0.0,
        **settings: Any,
    ) -> TrainingPlan:
        """Check every argument and make the plan.

        Args:
            epochs: As in `SparkModel.fit`, and so are the others.
            **settings: Settings of `SparkModel` by name; see `PlanSettings`. Without a `seed`,
                one is drawn from NumPy's global generator, which `keras.utils.set_random_seed`
                sets.

        Raises:
            ValueError: If a value is out of range, or does not go with another one.
            TypeError: If a value is of a wrong type.
        """
        checked = {
            name: SETTINGS[name].checked(name, settings.pop(name, SETTINGS[name].default))
            for name in PLAN_SETTINGS
        }
        if settings:
            raise TypeError(f"Argument(s) not recognized: {', '.join(sorted(settings))}")
        check_compatible(PlanSettings(**checked))
        arguments: dict[str, Any] = {
            "epochs": check_integer("epochs", epochs, 1),
            "initial_epoch": check_integer("initial_epoch", initial_epoch, 0),
            "shuffle": check_boolean("shuffle", shuffle),
            "class_weight": check_class_weight("class_weight", class_weight),
            "validation_freq": check_validation_freq("validation_freq", validation_freq),
            "scaling": check_scaling(
                scale_lr, warmup_epochs, checked["mode"], checked["frequency"]
            ),
        }
        if initial_epoch > epochs:
            raise invalid("initial_epoch", f"<= epochs ({epochs})", initial_epoch)
        if checked["seed"] is None:
            checked["seed"] = int(np.random.randint(0, 2**31 - 1))
        return cls(**checked, **arguments)

    @property
    def in_rounds(self) -> bool:
        """Whether replicas exchange at the end of an epoch only, all of them together."""
        return self.mode == "synchronous" and self.frequency == "epoch"

    @property
    def at_the_same_time(self) -> bool:
        """Whether all shards need a task slot each: they meet, or are slow if they must queue."""
        return not self.in_rounds or self.straggler_timeout is not None

    @property
    def merges_gradients(self) -> bool:
        """Whether replicas exchange gradients and step together: exact for any number of them."""
        return self.mode == "synchronous" and self.frequency == "batch"

    def packing(self, spec: WeightSpec) -> PackingScheme:
        """How deltas or gradients of a model travel."""
        gradients = self.merges_gradients
        if self.compression is not None:
            return Packing(self.compression, spec, gradients)
        return Changes.of(spec, gradients) or Whole(spec, gradients)

    def unpacked(self, delta: np.ndarray, spec: WeightSpec) -> np.ndarray:
        """A delta as it was before it travelled, but for what a codec loses.

        Raises:
            ProtocolError: If it is a payload of another layout.
        """
        if delta.dtype != PACKED:
            return delta
        return self.packing(spec).unpack(delta, np.empty(spec.size, spec.dtype))

    def local_batches(self, batches: int) -> int:
        """Local batches between two exchanges, for a shard of so many batches an epoch."""
        if self.frequency == "epoch":
            return max(batches, 1)
        return 1 if self.frequency == "batch" else int(self.frequency)

    def batches(self, num_examples: int) -> int:
        """Batches an epoch over so many examples; the last one may be short."""
        return num_batches(num_examples, self.batch_size)

    def exchanges(self, num_examples: int) -> int:
        """Exchanges with the aggregator in an epoch over so many examples."""
        batches = self.batches(num_examples)
        return -(-batches // self.local_batches(batches))

    def validates(self, epoch: int) -> bool:
        """Whether the epoch (counted from 0) ends with a validation, as Keras decides it."""
        if isinstance(self.validation_freq, int):
            return (epoch + 1) % self.validation_freq == 0
        return epoch + 1 in self.validation_freq

    def generator(self, shard: int, epoch: int) -> np.random.Generator | None:
        """The shuffling of one shard in one epoch, or `None` to keep the order."""
        if not self.shuffle:
            return None
        return np.random.default_rng([self.seed, shard, epoch])
