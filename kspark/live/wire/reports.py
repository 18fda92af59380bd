"""Reports of a replica to the driver: dataclasses, sent as JSON with their kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from kspark.errors import AggregationError, Failure
from kspark.live.wire.documents import read
from kspark.shards import ShardFacts


@dataclass(frozen=True)
class Report:
    """Base class of all reports."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data, without fields that are `None`."""
        return {"kind": self.kind, **asdict(self, dict_factory=without_none)}


def without_none(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return fields as a dictionary, without those that are `None`."""
    return {name: value for name, value in fields if value is not None}


@dataclass(frozen=True)
class MetricsReport(Report):
    """The figures of an epoch; the metric state is sent beside it as arrays.

    Attributes:
        epoch: Integer.
        facts: `ShardFacts`.
        counters: Tuple of integers, the `counters` of the replica. Defaults to `()`.
    """

    kind: ClassVar[str] = "metrics"

    epoch: int
    facts: ShardFacts
    counters: tuple[int, ...] = ()


@dataclass(frozen=True)
class StateReport(Report):
    """The leader's optimizer state after an epoch is sent beside it as arrays.

    Attributes:
        epoch: Integer.
    """

    kind: ClassVar[str] = "state"

    epoch: int


@dataclass(frozen=True)
class StateRequest(Report):
    """Asks for the leader's optimizer state after an epoch.

    Attributes:
        epoch: Integer.
    """

    kind: ClassVar[str] = "state_request"

    epoch: int


@dataclass(frozen=True)
class EpochEnd(Report):
    """The shard has trained an epoch.

    Attributes:
        epoch: Integer.
        sequence: Integer, pushes of the shard so far, of a replica that pushes. Defaults to
            `None`.
        generation: Integer, number of the try at the epoch, of a synchronous replica. Defaults
            to `None`.
        last: Boolean, whether the replica's job ends with this epoch. Defaults to `None`, no.
    """

    kind: ClassVar[str] = "epoch"

    epoch: int
    sequence: int | None = None
    generation: int | None = None
    last: bool | None = None


@dataclass(frozen=True)
class FailureReport(Report):
    """The model's code raised an error on the replica.

    Attributes:
        failure: `Failure`.
    """

    kind: ClassVar[str] = "failure"

    failure: Failure


@dataclass(frozen=True)
class MissingFilesReport(Report):
    """The replica has not found the files of its shard.

    Attributes:
        strayed: Boolean, whether it runs on another executor than the one that wrote them, so that
            they may still exist.
        stateless: Boolean, whether it has found all files but the state that the driver has kept.
            Defaults to `False`.
    """

    kind: ClassVar[str] = "missing"

    strayed: bool
    stateless: bool = False


@dataclass(frozen=True)
class WaitingReport(Report):
    """A synchronous replica waits for the gradients of others, which it finds in shared memory.

    Attributes:
        generation: Integer, number of the try at the epoch.
        found: Boolean, whether the replica has found the shared memory.
    """

    kind: ClassVar[str] = "waiting"

    generation: int
    found: bool


@dataclass(frozen=True)
class OrderRequest(Report):
    """The task of a long job asks for its next `Order`.

    Attributes:
        done: Integer, number of the last order that it has carried out; 0 before the first.
    """

    kind: ClassVar[str] = "order_request"

    done: int


@dataclass(frozen=True)
class ResultReport(Report):
    """The result of a shard, of a task in a long job.

    Its arrays are sent beside it: the delta, the metric state, the optimizer state, the fixed
    weights and the files, in this order.

    Attributes:
        shard: Integer.
        num_examples: Integer, number of examples that were used.
        has_delta: Boolean, whether the first array is a delta.
        num_metrics: Integer, number of arrays of the metric state.
        num_optimizer: Integer, number of arrays of the optimizer state. Defaults to `None`: no
            state is sent.
        facts: `ShardFacts`. Defaults to `None`.
        counters: Tuple of integers, the `counters` of the replica. Defaults to `()`.
        files: Tuple of strings, the kinds of the files that the shard keeps. Defaults to `()`.
    """

    kind: ClassVar[str] = "result"

    shard: int
    num_examples: int
    has_delta: bool
    num_metrics: int
    num_optimizer: int | None = None
    facts: ShardFacts | None = None
    counters: tuple[int, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObstacleReport(Report):
    """The task of a long job cannot carry out an order.

    Attributes:
        reason: String, a sentence.
    """

    kind: ClassVar[str] = "obstacle"

    reason: str


@dataclass(frozen=True)
class ProgressReport(Report):
    """How far a replica has come in an epoch, for the display and the callbacks of the driver.

    The metric state up to here may be sent beside it as arrays. A replica sends it a few times
    per second if the driver shows it, or after a number of batches if callbacks of the driver run
    within an epoch. One that is lost changes nothing in training.

    Attributes:
        epoch: Integer.
        num_examples: Integer, number of examples of the epoch that the shard has trained.
        total: Integer, number of examples that it trains in the epoch.
        batches: Integer, number of batches of the epoch that it has trained. Defaults to `0`.
    """

    kind: ClassVar[str] = "progress"

    epoch: int
    num_examples: int
    total: int
    batches: int = 0


KINDS: Mapping[str, type[Report]] = {
    report.kind: report
    for report in (
        *(EpochEnd, FailureReport, MetricsReport, MissingFilesReport, StateReport, StateRequest),
        *(ObstacleReport, OrderRequest, ProgressReport, ResultReport, WaitingReport),
    )
}


def read_report(document: Mapping[str, Any]) -> Report:
    """Read a report that is not trusted.

    Raises:
        AggregationError: If its kind is unknown.
        ProtocolError: If it has other fields or types than its dataclass.
    """
    given = dict(document)
    kind = given.pop("kind", None)
    found = KINDS.get(str(kind))
    if found is None:
        raise AggregationError(f"A report of kind {kind!r} is unknown.")
    for name, nested in (("facts", ShardFacts), ("failure", Failure)):
        if name in given:
            given[name] = read(nested, given[name])
    return read(found, given)
