"""What driver and replicas tell each other beside vectors: plain data, as JSON on the wire.

Whatever is read here may come from anybody: it has the fields and types of its dataclass, or
it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from kspark.errors import ProtocolError

T = TypeVar("T")


@dataclass(frozen=True)
class Restart:
    """An epoch starts again on all replicas, because one of them came back.

    Attributes:
        epoch: Integer, which one.
        generation: Integer, the number of the try that comes now.
    """

    epoch: int
    generation: int


@dataclass(frozen=True)
class Instructions:
    """What the driver tells a replica with every answer.

    Attributes:
        stop: Boolean, whether training is over.
        learning_rate: Float, the rate to go on with; `None` for that of the replica's task.
        hold: Boolean, whether the replica has to ask again before it goes on.
        restart: `Restart`, or `None` if the epoch goes on.
    """

    stop: bool = False
    learning_rate: float | None = None
    hold: bool = False
    restart: Restart | None = None

    def to_json(self) -> dict[str, Any]:
        """The instructions as JSON data, without what does not apply."""
        document: dict[str, Any] = {"stop": self.stop}
        if self.learning_rate is not None:
            document["learning_rate"] = self.learning_rate
        if self.hold:
            document["hold"] = True
        if self.restart is not None:
            generation, epoch = self.restart.generation, self.restart.epoch
            document |= {"restart": True, "generation": generation, "epoch": epoch}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Instructions:
        """The inverse of `to_json`.

        Raises:
            ProtocolError: If a field is unknown, or of another type.
        """
        given = dict(document)
        if given.get("restart") is True:
            given["restart"] = read(Restart, taken(given, ("epoch", "generation")))
        return read(cls, given)


@dataclass(frozen=True)
class SharedOffer:
    """The file of shared weights that a hogwild replica of the driver's host may map.

    Attributes:
        path: String, the file.
        mark: String, the bytes that the file begins with, in hexadecimal.
        num_shards: Integer, shards that have counters in the file.
        slot: Integer, which of the counters belong to this shard.
        share: Float, the shard's part of all examples.
        scale: Float, what the deltas of trained weights are multiplied by.
    """

    path: str
    mark: str
    num_shards: int
    slot: int
    share: float
    scale: float


@dataclass(frozen=True)
class Start:
    """Where a replica begins.

    Attributes:
        epoch: Integer.
        sequence: Integer, pushes of its shard that were applied already.
        position: Integer, exchanges of the epoch that were done already.
        generation: Integer, the number of the try at the epoch, for replicas that meet.
    """

    epoch: int
    sequence: int = 0
    position: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Welcome:
    """What a replica is told when it connects.

    Attributes:
        steps: Integer, exchanges an epoch of the shard that has most.
        leader: Boolean, whether the replica tells its optimizer state for all others.
        version: Integer, the aggregator's version.
        start: `Start`.
        instructions: `Instructions`.
        shared: `SharedOffer`, or `None` if there are no shared weights.
    """

    steps: int
    leader: bool
    version: int
    start: Start
    instructions: Instructions = Instructions()
    shared: SharedOffer | None = None

    def to_json(self) -> dict[str, Any]:
        """The welcome as JSON data."""
        return {
            "steps": self.steps,
            "leader": self.leader,
            "version": self.version,
            "shared": None if self.shared is None else asdict(self.shared),
            **self.instructions.to_json(),
            **asdict(self.start),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Welcome:
        """The inverse of `to_json`.

        Raises:
            ProtocolError: If a field is missing, unknown, or of another type.
        """
        given = dict(document)
        start = read(Start, taken(given, fields_of(Start)[0]))
        instructions = Instructions.from_json(taken(given, fields_of(Instructions)[0]))
        if given.get("shared") is not None:
            given["shared"] = read(SharedOffer, given["shared"])
        return read(cls, {**given, "start": start, "instructions": instructions})


def read(kind: type[T], document: Any) -> T:
    """Plain data that anybody may have sent.

    Args:
        kind: Dataclass.
        document: What JSON gave: a mapping from the names of its fields to their values.

    Raises:
        ProtocolError: With the rule. Received values are not shown: they may be huge.
    """
    types, required = fields_of(kind)  # type: ignore[arg-type]  # classes are hashable
    if not isinstance(document, dict) or not required <= document.keys() <= types.keys():
        raise ProtocolError(f"{kind.__name__} must have the fields {list(types)}.")
    for name, value in document.items():
        if type(value) not in types[name]:
            allowed = " or ".join(found.__name__ for found in types[name])
            raise ProtocolError(f"`{name}` of {kind.__name__} must be of type {allowed}.")
    return kind(**document)


@cache
def fields_of(kind: Any) -> tuple[Mapping[str, tuple[type, ...]], frozenset[str]]:
    """The types that each field of a dataclass may have, and the fields without a default.

    JSON has integers for some floats.
    """
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(kind).items()}
    types = {name: (*found, int) if float in found else found for name, found in hints.items()}
    required = (field.name for field in fields(kind) if field.default is MISSING)
    return types, frozenset(required)


def taken(document: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a document, which are removed from it."""
    return {name: document.pop(name) for name in names if name in document}
