"""Data other than vectors that driver and replicas exchange: dataclasses, sent as JSON.

Received JSON is not trusted: it must have exactly the fields and types of its dataclass, or it is
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from kspark.errors import ProtocolError
from kspark.shards import LearningRate

T = TypeVar("T")

GENERATION_BITS = 32
"""Bits of the step in the sequence number of an exchange: `generation << 32 | step`."""


@dataclass(frozen=True)
class Restart:
    """The restart of an epoch on all replicas, because one of them was lost and came back.

    Attributes:
        epoch: Integer, the epoch to restart.
        generation: Integer, number of the new try at the epoch.
    """

    epoch: int
    generation: int


@dataclass(frozen=True)
class Instructions:
    """The driver's instructions to a replica, part of every answer.

    Attributes:
        stop: Boolean, whether training is over. Defaults to `False`.
        learning_rate: `LearningRate` to continue with. Defaults to `None`, the rate of the
            replica's task.
        hold: Boolean, whether the replica must ask again before it continues. Defaults to
            `False`.
        restart: `Restart` of the epoch. Defaults to `None`: the epoch continues.
        over: Boolean, whether no replica has brought a vector to this meeting, because none has
            batches left in the epoch. Defaults to `False`.
    """

    stop: bool = False
    learning_rate: LearningRate = None
    hold: bool = False
    restart: Restart | None = None
    over: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the instructions as JSON data, without fields that have their default."""
        document: dict[str, Any] = {"stop": self.stop}
        if self.learning_rate is not None:
            document["learning_rate"] = self.learning_rate
        if self.hold:
            document["hold"] = True
        if self.over:
            document["over"] = True
        if self.restart is not None:
            generation, epoch = self.restart.generation, self.restart.epoch
            document |= {"restart": True, "generation": generation, "epoch": epoch}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Instructions:
        """The inverse of `to_json`.

        Raises:
            ProtocolError: If a field is unknown or of a wrong type.
        """
        given = dict(document)
        if given.get("restart") is True:
            given["restart"] = read(Restart, taken(given, ("epoch", "generation")))
        return read(cls, given)


@dataclass(frozen=True)
class SharedOffer:
    """The file that replicas on the driver's host map: of the weights, or of their gradients.

    Attributes:
        path: String, path of the file.
        mark: String, the first bytes of the file in hexadecimal.
        shards: Tuple of integers, the shards with a place in the file, in their order.
        slot: Integer, position of this shard among them.
        share: Float, the shard's fraction of all examples. Defaults to `1.0`. Gradients need none.
        scale: Float, factor for the deltas of trainable weights. Defaults to `1.0`.
    """

    path: str
    mark: str
    shards: tuple[int, ...]
    slot: int
    share: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True)
class Start:
    """The position in training where a replica begins.

    Attributes:
        epoch: Integer.
        sequence: Integer, number of pushes of its shard that were applied. Defaults to `0`.
        position: Integer, number of exchanges of the epoch that are done. Defaults to `0`.
        generation: Integer, number of the try at the epoch, for synchronous replicas. Defaults
            to `0`.
    """

    epoch: int
    sequence: int = 0
    position: int = 0
    generation: int = 0


@dataclass(frozen=True)
class Welcome:
    """The driver's answer to a replica that connects.

    Attributes:
        steps: Integer, exchanges per epoch of the shard with most exchanges.
        leader: Boolean, whether this replica reports its optimizer state for all replicas.
        version: Integer, version of the aggregator's weights.
        start: `Start`.
        instructions: `Instructions`. Defaults to `Instructions()`.
        shared: `SharedOffer`. Defaults to `None`: nothing is shared.
    """

    steps: int
    leader: bool
    version: int
    start: Start
    instructions: Instructions = Instructions()
    shared: SharedOffer | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the welcome as JSON data."""
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
            ProtocolError: If a field is missing, unknown or of a wrong type.
        """
        given = dict(document)
        start = read(Start, taken(given, fields_of(Start)[0]))
        instructions = Instructions.from_json(taken(given, fields_of(Instructions)[0]))
        if given.get("shared") is not None:
            given["shared"] = read(SharedOffer, given["shared"])
        return read(cls, {**given, "start": start, "instructions": instructions})


@dataclass(frozen=True)
class Order:
    """What the tasks of a long job do next, see `kspark.rounds.long_job`.

    Attributes:
        number: Integer >= 1, number of the order in its job. 0 for `"wait"` and `"stop"`.
        work: String: `"train"` an epoch, `"evaluate"`, `"keep"` (return the files that the shard
            keeps after an epoch), `"wait"` (ask again) or `"stop"`.
        epoch: Integer, the epoch to train, or the one that was trained. Defaults to `0`.
        learning_rate: `LearningRate` to set. Defaults to `None`: the optimizer has a schedule.
        counters: Tuple of integers, the optimizer's step counters to set. Defaults to `None`:
            those of the shard are kept.
        wants_state: Boolean, whether to return the replica's optimizer state too. Defaults to
            `False`.
    """

    number: int
    work: str
    epoch: int = 0
    learning_rate: LearningRate = None
    counters: tuple[int, ...] | None = None
    wants_state: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the order as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Order:
        """The inverse of `to_json`.

        Raises:
            ProtocolError: If a field is missing, unknown or of a wrong type.
        """
        return read(cls, document)


def read(kind: type[T], document: Any) -> T:
    """Read JSON data that is not trusted.

    Args:
        kind: Dataclass to create.
        document: JSON data, which must be a mapping from the dataclass' fields to values.

    Raises:
        ProtocolError: If the data has other fields or types. The message names the rule, but not
            the received values, which may be huge.
    """
    types, required = fields_of(kind)  # type: ignore[arg-type]  # classes are hashable
    if not isinstance(document, dict) or not required <= document.keys() <= types.keys():
        raise ProtocolError(f"{kind.__name__} must have the fields {list(types)}.")
    for name, value in document.items():
        if not fits(value, types[name]):
            allowed = " or ".join(getattr(t, "__name__", str(t)) for t in types[name])
            raise ProtocolError(f"`{name}` of {kind.__name__} must be of type {allowed}.")
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in document.items()})


def fits(value: Any, types: tuple[Any, ...]) -> bool:
    """Whether a JSON value is of one of some types. A list stands for a `tuple[X, ...]`."""
    if not isinstance(value, list | tuple):
        return type(value) in types
    items = [get_args(t)[0] for t in types if get_origin(t) is tuple]
    return any(all(fits(one, alternatives(item)) for one in value) for item in items)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that a type hint allows.

    Float also accepts an integer, because JSON may have integers for floats.
    """
    union = get_origin(hint) in (Union, UnionType)
    types = get_args(hint) if union else (hint,)
    return (*types, int) if float in types else types


@cache
def fields_of(kind: Any) -> tuple[Mapping[str, tuple[Any, ...]], frozenset[str]]:
    """Return the types that each field of a dataclass may have, and the required fields."""
    hints = get_type_hints(kind)
    types = {field.name: alternatives(hints[field.name]) for field in fields(kind)}
    required = (field.name for field in fields(kind) if field.default is MISSING)
    return types, frozenset(required)


def taken(document: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove some fields from a document, and return them."""
    return {name: document.pop(name) for name in names if name in document}
