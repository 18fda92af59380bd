"""`TrainingPlan`: the checked settings and arguments of one fit.

A plan is plain data, which the driver sends to the executors. It does not contain the model:
that is in a `ReplicaSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kspark.compression import Packing
from kspark.errors import invalid
from kspark.plan.checks import (
    check_boolean,
    check_class_weight,
    check_integer,
    check_steps,
    check_validation_freq,
)
from kspark.plan.compatibility import check_callbacks_every, check_compatible
from kspark.plan.learning_rate import Scaling, check_scaling
from kspark.plan.mixing import check_mixing
from kspark.plan.settings import PLAN_SETTINGS, SETTINGS, PlanSettings
from kspark.shards import num_batches
from kspark.weights import PACKED, Changes, PackingScheme, WeightSpec, Whole


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(PlanSettings):
    """The settings of a `SparkModel` and the arguments of one `fit`.

    Create it with `TrainingPlan.create`, which checks all values.

    Attributes:
        seed: Integer, seed of all random generators.
        epochs: Integer, epoch to stop before, counted from 0.
        initial_epoch: Integer, epoch to start at, counted from 0.
        shuffle: Boolean, whether to shuffle each shard before each epoch.
        class_weight: Mapping from class index to weight, or `None`.
        validation_batch_size: Integer, examples per batch of the validation.
        validation_freq: Integer, a number of epochs between validations, or tuple of epochs,
            counted from 1, to validate after.
        scaling: `Scaling` of the learning rate, or `None`.
        steps_per_epoch: Integer, batches of all shards together in an epoch; `None` for one pass
            over the rows.
        validation_steps: Integer, batches of the validation; `None` for all rows.
        first_epoch: Integer, the epoch from which `steps_per_epoch` counts, where a fit goes on
            from a later one. `None` for `initial_epoch`.
        callbacks_every: Integer, batches of all shards together between two calls of the batch
            hooks of callbacks; `None` for one call per epoch.
        worker_callbacks: Bytes, the pickled callbacks that run beside each replica, or `None`.
        reshuffle: Integer, number of epochs after which rows are mixed between the shards again;
            `None` if they stay in their shards.
        streams: Boolean, whether the rows of the shards come from a function of the user, so that
            nobody knows their number.
    """

    seed: int = 0
    epochs: int = 1
    initial_epoch: int = 0
    shuffle: bool = True
    class_weight: Mapping[int, float] | None = None
    validation_batch_size: int = 32
    validation_freq: int | tuple[int, ...] = 1
    scaling: Scaling | None = None
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    first_epoch: int | None = None
    callbacks_every: int | None = None
    worker_callbacks: bytes | None = field(default=None, repr=False)
    reshuffle: int | None = None
    streams: bool = False

    @classmethod
    def create(
        cls,
        *,
        epochs: int = 1,
        initial_epoch: int = 0,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | list[int] | tuple[int, ...] = 1,
        scale_lr: str | None = None,
        warmup_epochs: float = 0.0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        callbacks_every: int | None = None,
        worker_callbacks: bytes | None = None,
        reshuffle: str | int | None = None,
        **settings: Any,
    ) -> TrainingPlan:
        """Check all arguments and make a plan.

        Args:
            epochs: As in `SparkModel.fit`, like the following arguments.
            worker_callbacks: Bytes, the pickled callbacks, or `None`.
            **settings: Settings of `SparkModel` by name; see `PlanSettings`. Without a `seed`,
                draws one from NumPy's global generator, which `keras.utils.set_random_seed`
                seeds.

        Raises:
            ValueError: If a value is out of range, or excludes another one.
            TypeError: If a value has a wrong type, or there is no such setting.
        """
        checked = {
            name: SETTINGS[name].checked(name, settings.pop(name, SETTINGS[name].default))
            for name in PLAN_SETTINGS
        }
        if settings:
            raise TypeError(f"Argument(s) not recognized: {', '.join(sorted(settings))}")
        if checked["frequency"] == "fit":  # The rule "one_shot" averages once in rounds of epochs.
            if checked["mode"] != "synchronous":
                raise invalid("mode", '"synchronous" with frequency="fit"', checked["mode"])
            checked["frequency"] = "epoch"
        check_compatible(PlanSettings(**checked))
        if validation_batch_size is None:
            validation_batch_size = checked["batch_size"]
        arguments: dict[str, Any] = {
            "epochs": check_integer("epochs", epochs, 1),
            "initial_epoch": check_integer("initial_epoch", initial_epoch, 0),
            "shuffle": check_boolean("shuffle", shuffle),
            "class_weight": check_class_weight("class_weight", class_weight),
            "validation_batch_size": check_integer(
                "validation_batch_size", validation_batch_size, 1
            ),
            "validation_freq": check_validation_freq("validation_freq", validation_freq),
            "scaling": check_scaling(
                scale_lr, warmup_epochs, checked["mode"], checked["frequency"]
            ),
            "steps_per_epoch": check_steps("steps_per_epoch", steps_per_epoch),
            "validation_steps": check_steps("validation_steps", validation_steps),
            "callbacks_every": check_callbacks_every(callbacks_every, PlanSettings(**checked)),
            "worker_callbacks": worker_callbacks,
            "reshuffle": check_mixing(reshuffle, steps_per_epoch, checked["straggler_timeout"]),
        }
        if initial_epoch > epochs:
            raise invalid("initial_epoch", f"<= epochs ({epochs})", initial_epoch)
        if checked["seed"] is None:
            checked["seed"] = int(np.random.randint(0, 2**31 - 1))
        return cls(**checked, **arguments)

    @property
    def origin(self) -> int:
        """The epoch that begins with the first pass over the rows."""
        return self.initial_epoch if self.first_epoch is None else self.first_epoch

    def period(self, epoch: int) -> int:
        """Return the number of the period of an epoch. Rows are mixed before each period."""
        return 0 if self.reshuffle is None else epoch // self.reshuffle

    @property
    def in_rounds(self) -> bool:
        """Whether replicas exchange only at the end of an epoch, all together."""
        return self.mode == "synchronous" and self.frequency == "epoch"

    @property
    def connection_setting(self) -> str:
        """The setting because of which workers must be connected to the driver, or `""`."""
        if self.callbacks_every is not None:
            return f"callbacks_every={self.callbacks_every}"
        return 'road="live"' if self.road == "live" else ""

    @property
    def at_the_same_time(self) -> bool:
        """Whether each shard needs a task slot, so that all shards train at the same time.

        Replicas that exchange within an epoch wait for each other. With a `straggler_timeout`, a
        shard that waits for a slot would look like a slow one.
        """
        return not self.in_rounds or self.straggler_timeout is not None

    @property
    def merges_gradients(self) -> bool:
        """Whether replicas merge gradients and take the same step, exact for any number of them."""
        return self.mode == "synchronous" and self.frequency == "batch"

    def packing(self, spec: WeightSpec) -> PackingScheme:
        """Return the encoding of a model's deltas or gradients.

        Args:
            spec: `WeightSpec` of the model.
        """
        gradients = self.merges_gradients
        if self.compression is not None:
            return Packing(self.compression, spec, gradients)
        return Changes.of(spec, gradients) or Whole(spec, gradients)

    def unpacked(self, delta: np.ndarray, spec: WeightSpec) -> np.ndarray:
        """Decode a delta that a task sent.

        Args:
            delta: Array, an encoded or an unchanged delta.
            spec: `WeightSpec` of the model.

        Raises:
            ProtocolError: If the layout of the payload is another one.
        """
        if delta.dtype != PACKED:
            return delta
        return self.packing(spec).unpack(delta, np.empty(spec.size, spec.dtype))

    def local_batches(self, batches: int) -> int:
        """Return the number of batches between two exchanges.

        Args:
            batches: Integer, number of batches of the shard in an epoch.
        """
        if self.frequency == "epoch":
            return max(batches, 1)
        return 1 if self.frequency == "batch" else int(self.frequency)

    def batches(self, num_examples: int) -> int:
        """Return the number of batches of examples. The last one may have fewer."""
        return num_batches(num_examples, self.batch_size)

    def exchanges(self, batches: int) -> int:
        """Return the number of exchanges with the aggregator of a shard with so many batches."""
        return -(-batches // self.local_batches(batches))

    def updates(self, batches: Sequence[int]) -> int:
        """Return how often an epoch changes the global weights.

        Args:
            batches: Sequence of integers, the batches of each shard.
        """
        exchanges = [self.exchanges(count) for count in batches]
        return max(exchanges) if self.mode == "synchronous" else sum(exchanges)

    @property
    def rows_to_read(self) -> int | None:
        """Number of rows that all epochs use, if `steps_per_epoch` limits them; else `None`."""
        if self.steps_per_epoch is None:
            return None
        return self.steps_per_epoch * self.batch_size * (self.epochs - self.initial_epoch)

    @property
    def validation_rows(self) -> int | None:
        """Number of rows of the `validation_steps`; `None` for all rows."""
        steps = self.validation_steps
        return None if steps is None else steps * self.validation_batch_size

    def validates(self, epoch: int) -> bool:
        """Whether to validate after an epoch, counted from 0. The same epochs as in Keras."""
        if isinstance(self.validation_freq, int):
            return (epoch + 1) % self.validation_freq == 0
        return epoch + 1 in self.validation_freq

    def generator(self, shard: int, epoch: int) -> np.random.Generator | None:
        """Return the generator that shuffles a shard in an epoch, or `None` to keep the order."""
        if not self.shuffle:
            return None
        return np.random.default_rng([self.seed, shard, epoch])

    def backend_seed(self, shard: int, epoch: int) -> int:
        """Return the seed for the backend's own random numbers in an epoch of a shard."""
        return int(np.random.default_rng([self.seed, shard, epoch, 1]).integers(2**63))

    def data_seed(self, shard: int, epoch: int, number: int = 0) -> int:
        """Return the seed for the function that makes the data of a shard in an epoch.

        Args:
            shard: Integer.
            epoch: Integer.
            number: Integer, how often the function was called in this epoch before. Defaults to
                `0`.
        """
        return int(np.random.default_rng([self.seed, shard, epoch, 2, number]).integers(2**31))
