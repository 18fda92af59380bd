"""`TrainingPlan`: how a model is trained, every argument checked once, on the driver.

The model itself is not in here (`ReplicaSpec` is the *what*, this is the
*how*). A plan is plain data and travels to the executors as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from kspark import compression
from kspark.changes import PACKED, Changes
from kspark.compression import Codec, Packing
from kspark.errors import invalid, invalid_type
from kspark.learning_rate import Scaling, checked_scaling
from kspark.weights import WeightSpec

MODES = ("synchronous", "asynchronous", "hogwild")
ROUNDS = "rounds"
LIVE = "live"


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
    def road(self) -> str:
        """`"rounds"` for one Spark job per epoch, `"live"` for one long job and a server."""
        rounds = self.mode == "synchronous" and self.frequency == "epoch"
        return ROUNDS if rounds else LIVE

    @property
    def at_the_same_time(self) -> bool:
        """Whether all shards need a task slot each: they meet, or are slow if they must queue."""
        return self.road == LIVE or self.straggler_timeout is not None

    @property
    def merges_gradients(self) -> bool:
        """Whether replicas exchange gradients and step together: exact for any number of them."""
        return self.mode == "synchronous" and self.frequency == "batch"

    def packing(self, spec: WeightSpec) -> Packing | Changes | None:
        """How deltas or gradients of a model travel, or `None` if as they are."""
        if self.compression is None:
            return Changes.of(spec, self.merges_gradients)
        return Packing(self.compression, spec, self.merges_gradients)

    def unpacked(self, sent: np.ndarray, spec: WeightSpec) -> np.ndarray:
        """A delta as it was before it travelled, but for what a codec loses.

        Raises:
            ProtocolError: If it is a payload of another layout.
        """
        packing = self.packing(spec)
        if packing is None or sent.dtype != PACKED:
            return sent
        return packing.unpack(sent, np.empty(spec.size, spec.dtype))

    def local_batches(self, batches: int) -> int:
        """Local batches between two exchanges, for a shard of so many batches an epoch."""
        if self.frequency == "epoch":
            return max(batches, 1)
        return 1 if self.frequency == "batch" else int(self.frequency)

    def batches(self, num_examples: int) -> int:
        """Batches an epoch over so many examples; the last one may be short."""
        return -(-num_examples // self.batch_size)

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


def check_mode(mode: object) -> None:
    """Refuse an unknown mode."""
    if mode not in MODES:
        raise invalid("mode", "one of " + ", ".join(f'"{m}"' for m in MODES), mode)


def check_frequency(frequency: object) -> None:
    """Refuse a frequency that is neither a known word nor a positive integer."""
    if frequency in ("epoch", "batch"):
        return
    if isinstance(frequency, bool) or not isinstance(frequency, Integral) or frequency < 1:
        raise invalid("frequency", '"epoch", "batch" or an integer >= 1', frequency)


def check_integer(name: str, value: object, least: int) -> None:
    """Refuse what is no integer, or too small."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise invalid_type(name, f"an integer >= {least}", value)
    if value < least:
        raise invalid(name, f"an integer >= {least}", value)


def check_max_staleness(value: object, mode: str) -> None:
    """Refuse what is no number of exchanges, and modes in which it means nothing."""
    if value is None:
        return
    if mode == "synchronous":
        reason = "its replicas wait for each other at every exchange"
        raise invalid("max_staleness", f'None with mode="synchronous": {reason}', value)
    if mode == "hogwild":
        reason = "its replicas wait for nobody, and those that share memory are not seen to push"
        raise invalid("max_staleness", f'None with mode="hogwild": {reason}', value)
    check_integer("max_staleness", value, 0)


def check_straggler_timeout(value: object, mode: str, frequency: object) -> None:
    """Refuse what is no number of seconds, and where no round waits for its shards."""
    if value is None:
        return
    if mode != "synchronous":
        reason = "its replicas are not merged together, and a slow one holds up no round"
        raise invalid("straggler_timeout", f'None with mode="{mode}": {reason}', value)
    if frequency != "epoch":
        reason = "a replica that misses one of an epoch's meetings cannot join the next"
        raise invalid("straggler_timeout", f"None with frequency={frequency!r}: {reason}", value)
    check_positive("straggler_timeout", value)


def check_positive(name: str, value: object) -> None:
    """Refuse what is no finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, "a number of seconds > 0", value)
    if not 0 < float(value) < float("inf"):
        raise invalid(name, "a finite number of seconds > 0", value)


def checked_port(port: Any) -> int | tuple[int, int]:
    """A port, or the first and the last of several. (JSON makes a list of a pair.)"""
    rule = "a port from 0 to 65535, or a pair (first, last) of ports"
    ports = tuple(port) if isinstance(port, tuple | list) and len(port) == 2 else (port,)
    for value in ports:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise invalid_type("port", rule, port)
        if not 0 <= int(value) <= 65535:
            raise invalid("port", rule, port)
    if len(ports) == 1:
        return int(port)
    if not 0 < ports[0] <= ports[1]:
        raise invalid("port", rule, port)
    return int(ports[0]), int(ports[1])


def checked_compression(value: Any, mode: str) -> Codec | None:
    """The codec that is meant; none in a mode that has nothing to compress."""
    codec = compression.get(value)
    if codec is not None and mode == "hogwild":
        rule = (
            'None with mode="hogwild": replicas on the host of the driver write into its memory, '
            'and nothing travels that could be compressed; mode="asynchronous" compresses'
        )
        raise invalid("compression", rule, value)
    return codec


def checked_class_weight(value: Any) -> dict[int, float] | None:
    """Class weights with plain keys and values."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise invalid_type("class_weight", "a non-empty mapping of class index to weight", value)
    for key, weight in value.items():
        if isinstance(key, bool) or not isinstance(key, Integral) or key < 0:
            raise invalid("class_weight", "keyed by class indices >= 0", value)
        if not isinstance(weight, Real) or not 0 <= float(weight) < float("inf"):
            raise invalid("class_weight", "a mapping to finite weights >= 0", value)
    return {int(key): float(weight) for key, weight in value.items()}


def checked_validation_freq(value: Any) -> int | tuple[int, ...]:
    """An interval, or the epochs (counted from 1) that are validated."""
    if isinstance(value, list | tuple | set | range):
        for item in value:
            check_integer("validation_freq", item, 1)
        return tuple(sorted(int(v) for v in value))
    check_integer("validation_freq", value, 1)
    return int(value)


def check_fraction(name: str, value: object) -> None:
    """Refuse what is no number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise invalid_type(name, "a number >= 0 and < 1", value)
    if not 0 <= float(value) < 1:
        raise invalid(name, "a number >= 0 and < 1", value)


def draw_seed() -> int:
    """A seed from NumPy's global generator, which `keras.utils.set_random_seed` sets."""
    return int(np.random.randint(0, 2**31 - 1))


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
