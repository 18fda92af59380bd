"""Measured costs as data: seconds, and seconds per byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kspark.errors import invalid

FILE = Path(__file__).with_name("costs.json")
PLAIN = "none"
"""The name of the codec that does not compress."""


@dataclass(frozen=True)
class Line:
    """Seconds that grow linearly with the bytes."""

    fixed: float
    per_byte: float

    def at(self, nbytes: float) -> float:
        """Seconds for so many bytes."""
        return self.fixed + self.per_byte * nbytes


@dataclass(frozen=True)
class Curve:
    """Seconds between measured points by linear interpolation.

    Before the first point they are constant. After the last point they are proportional to the
    bytes.

    Attributes:
        points: Tuple of pairs (bytes, seconds), in ascending order.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, nbytes: float) -> float:
        """Seconds for so many bytes."""
        sizes, seconds = zip(*self.points, strict=True)
        if nbytes > sizes[-1]:
            return seconds[-1] * nbytes / sizes[-1]
        return float(np.interp(nbytes, sizes, seconds))


@dataclass(frozen=True)
class CodecCosts:
    """The costs of a compression, per byte of the uncompressed weights.

    Attributes:
        ratio: Float, compressed bytes.
        encode: Float, seconds on the worker, with error feedback.
        decode: Float, seconds on the driver.
    """

    ratio: float
    encode: float
    decode: float


@dataclass(frozen=True)
class Costs:
    """All measured costs, in seconds or seconds per byte of the weights.

    Attributes:
        machine: String, description of the machine.
        step: `Curve`, one batch on one core.
        round: `Line`, a round, without its steps and tasks.
        task: `Line` over the bytes that a task sends, the driver's costs of each task of a round.
        stage: Float, a second stage in a Spark job.
        merge: Float per byte, one more delta in the weighted mean of a round.
        mean: Float per byte, one more gradient in the mean of a batch.
        live_epoch: Float, the end of an epoch of asynchronous or "batch" training.
        gradient: `Line`, what exchanging a gradient costs the worker, without the message.
        delta: `Line`, what pushing a delta costs the worker, without the message.
        message: Float, the round trip of an empty message on one host.
        message_driver: Float, the driver's processor time for a message.
        wire: Float per byte, the time of one connection for a byte.
        lock: Float per byte, adding a delta and copying the weights under the lock.
        codecs: Mapping from name to `CodecCosts`.
    """

    machine: str
    step: Curve
    round: Line
    task: Line
    stage: float
    merge: float
    mean: float
    live_epoch: float
    gradient: Line
    delta: Line
    message: float
    message_driver: float
    wire: float
    lock: float
    codecs: Mapping[str, CodecCosts]

    def codec(self, name: str) -> CodecCosts:
        """The costs of a compression.

        Raises:
            ValueError: If it was not measured.
        """
        if name not in self.codecs:
            raise invalid("codec", f"one of {sorted(self.codecs)}", name)
        return self.codecs[name]

    def to_dict(self) -> dict[str, Any]:
        """The costs as JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Costs:
        """The costs from JSON data that `to_dict` returned."""
        names = ("round", "task", "gradient", "delta")
        lines = {name: Line(**document[name]) for name in names}
        step = Curve(tuple((nbytes, seconds) for nbytes, seconds in document["step"]["points"]))
        codecs = {name: CodecCosts(**values) for name, values in document["codecs"].items()}
        return cls(**{**document, **lines, "step": step, "codecs": codecs})


def read(path: Path) -> tuple[Costs, list[dict[str, Any]]]:
    """Read the costs of a file, and the epochs that were measured with them."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Costs.from_dict(document["costs"]), document["checks"]
