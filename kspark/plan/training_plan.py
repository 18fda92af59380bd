"""`TrainingPlan`: how a model is trained, every argument checked once, on the driver.

The model itself is not in here (`ReplicaSpec` is the *what*, this is the
*how*). A plan is plain data and travels to the executors as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kspark.compression import Codec, Packing
from kspark.errors import invalid, invalid_type
from kspark.plan.checks import (
    check_frequency,
    check_integer,
    check_max_staleness,
    check_mode,
    check_positive,
    check_straggler_timeout,
    checked_class_weight,
    checked_compression,
    checked_port,
    checked_validation_freq,
)
from kspark.plan.learning_rate import Scaling, checked_scaling
from kspark.shards import num_batches
from kspark.weights import PACKED, Changes, PackingScheme, WeightSpec, Whole


@dataclass(frozen=True)
class TrainingPlan:
    """How to train. Build it with `TrainingPlan.create`.

    Attributes:
        mode: `"synchronous"`, `"asynchronous"` or `"hogwild"`.
        frequency: `"epoch"`, `"batch"`, or an integer number of local batches
            between two exchanges with the aggregator.
        epochs: Integer, number of the epoch to stop before.
        initial_epoch: Integer, number of the epoch to start at.
        batch_size: Integer, examples per local batch.
        shuffle: Boolean, whether a shard is shuffled before each epoch.
        class_weight: Mapping from class index to weight, or `None`.
        validation_freq: Integer, or tuple of epoch numbers (counted from 1).
        seed: Integer, what all randomness is derived from.
        timeout: Float, seconds to wait for a peer that is not connected.
        max_failures: Integer, how often a lost job is submitted again.
        on_nonfinite: `"raise"` or `"ignore"`, for a loss that is NaN or infinite.
        port: Integer or pair of integers, where the live road's server listens; 0: any.
        max_staleness: Integer, how many exchanges an asynchronous replica may be ahead of
            the slowest, or `None`.
        compression: `Codec` of deltas and gradients, or `None`.
        scaling: `Scaling` of the learning rate, or `None`.
        straggler_timeout: Float, seconds that a round waits for its slowest shards, or `None`.
    """

    mode: str
    frequency: str | int
    epochs: int
    initial_epoch: int
    batch_size: int
    shuffle: bool
    class_weight: Mapping[int, float] | None
    validation_freq: int | tuple[int, ...]
    seed: int
    timeout: float
    max_failures: int
    on_nonfinite: str
    port: int | tuple[int, int]
    max_staleness: int | None
    compression: Codec | None = None
    scaling: Scaling | None = None
    straggler_timeout: float | None = None

    @classmethod
    def create(
        cls,
        *,
        mode: str,
        frequency: str | int,
        epochs: int = 1,
        initial_epoch: int = 0,
        batch_size: int = 32,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        validation_freq: int | list[int] | tuple[int, ...] = 1,
        seed: int | None = None,
        timeout: float = 60.0,
        max_failures: int = 4,
        on_nonfinite: str = "raise",
        port: int | tuple[int, int] = 0,
        max_staleness: int | None = None,
        compression: Any = None,
        scale_lr: str | None = None,
        warmup_epochs: float = 0.0,
        straggler_timeout: float | None = None,
    ) -> TrainingPlan:
        """Check every argument and make the plan.

        Raises:
            ValueError: If a value is out of range.
            TypeError: If a value is of a wrong type.
        """
        check_mode(mode)
        check_frequency(frequency)
        check_integer("epochs", epochs, 1)
        check_integer("initial_epoch", initial_epoch, 0)
        if initial_epoch > epochs:
            raise invalid("initial_epoch", f"<= epochs ({epochs})", initial_epoch)
        check_integer("batch_size", batch_size, 1)
        if not isinstance(shuffle, bool | np.bool_):
            raise invalid_type("shuffle", "True or False", shuffle)
        if seed is not None:
            check_integer("seed", seed, 0)
        check_positive("timeout", timeout)
        check_integer("max_failures", max_failures, 0)
        if on_nonfinite not in ("raise", "ignore"):
            raise invalid("on_nonfinite", 'one of "raise", "ignore"', on_nonfinite)
        check_max_staleness(max_staleness, mode)
        check_straggler_timeout(straggler_timeout, mode, frequency)
        return cls(
            mode=str(mode),
            frequency=str(frequency) if isinstance(frequency, str) else int(frequency),
            epochs=int(epochs),
            initial_epoch=int(initial_epoch),
            batch_size=int(batch_size),
            shuffle=bool(shuffle),
            class_weight=checked_class_weight(class_weight),
            validation_freq=checked_validation_freq(validation_freq),
            seed=draw_seed() if seed is None else int(seed),
            timeout=float(timeout),
            max_failures=int(max_failures),
            on_nonfinite=on_nonfinite,
            port=checked_port(port),
            max_staleness=None if max_staleness is None else int(max_staleness),
            compression=checked_compression(compression, mode),
            scaling=checked_scaling(scale_lr, warmup_epochs, mode, frequency),
            straggler_timeout=None if straggler_timeout is None else float(straggler_timeout),
        )

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


def draw_seed() -> int:
    """A seed from NumPy's global generator, which `keras.utils.set_random_seed` sets."""
    return int(np.random.randint(0, 2**31 - 1))
