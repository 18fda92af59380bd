"""What replica and aggregator can say to each other, and how much of it is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from kspark.errors import ProtocolError
from kspark.weights import PACKED, Layout, PackingScheme

# Nobody has proved anything yet: room for a nonce, a digest and a proof, and no more.
MAX_HANDSHAKE_META = 512
MAX_WELCOME_META = 64 << 10
# The longest meta describes every array of a large optimizer state, at some 30 bytes each.
MAX_META = 1 << 20
# Documents carry metrics and optimizer states. Adam keeps two numbers per weight, other
# optimizers a few more, in float32 or float64.
MIN_DOCUMENT_LIMIT = 64 << 20
DOCUMENT_LIMIT_FACTOR = 8

MAX_NUMBERS = 3


class Kind(IntEnum):
    """What a message says. The first three are the handshake, in this order."""

    CHALLENGE = 1  # server: prove yourself, with this nonce
    HELLO = 2  # client: who I am, and my proof
    WELCOME = 3  # server: my proof, and what you need to know
    PULL = 4  # client: the weights, please
    PUSH = 5  # client: a delta; answered with fresh weights
    REDUCE = 6  # client: my part of a mean; answered when all parts are there
    REPORT = 7  # client: anything else, as JSON and arrays
    VECTOR = 8  # server: the answer to PULL, PUSH and REDUCE
    DOCUMENT = 9  # server: the answer to REPORT
    REFUSED = 10  # server: why this connection ends
    PUSH_PACKED = 11  # PUSH, as the fit's packing says
    REDUCE_PACKED = 12  # REDUCE of something, as the fit's packing says
    VECTOR_PACKED = 13  # server: a mean gradient, as the fit's packing says
    VECTOR_KEPT = 14  # server: a whole vector, to be kept for the next ones
    VECTOR_CHANGED = 15  # server: what is not in it as in the one that was kept
    REDUCE_CHANGED = 16  # REDUCE of weights: what is not in them as in the ones that were kept


# The integers of a message, in this order; those that a kind does not have are 0.
NUMBERS: Mapping[Kind, tuple[str, ...]] = {
    Kind.HELLO: ("shard", "attempt"),
    Kind.PUSH: ("sequence", "base_version", "num_examples"),
    Kind.REDUCE: ("sequence", "num_examples"),
    Kind.VECTOR: ("version",),
    Kind.PUSH_PACKED: ("sequence", "base_version", "num_examples"),
    Kind.REDUCE_PACKED: ("sequence", "num_examples"),
    Kind.VECTOR_PACKED: ("version",),
    Kind.VECTOR_KEPT: ("version",),
    Kind.VECTOR_CHANGED: ("version",),
    Kind.REDUCE_CHANGED: ("sequence", "num_examples"),
}

# The fields of a meta, where they are the protocol's and not the caller's.
FIELDS: Mapping[Kind, Mapping[str, type]] = {
    Kind.CHALLENGE: {"nonce": str},
    Kind.HELLO: {"nonce": str, "proof": str, "spec": str},
    Kind.WELCOME: {"proof": str, "meta": dict},
    Kind.REFUSED: {"error": str, "reason": str},
}


@dataclass(frozen=True)
class Message:
    """One message, received.

    Attributes:
        kind: `Kind`.
        numbers: Tuple of the integers >= 0 that `NUMBERS` lists for this kind.
        meta: Dictionary; has the fields that `FIELDS` lists for this kind, if any.
        arrays: Tuple of arrays. A vector lies in the decoder's `vector` buffer, if it
            fits in there, until the next message; other arrays are the receiver's own.
    """

    kind: Kind
    numbers: tuple[int, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Limit:
    """What a receiver accepts of one kind of message.

    Attributes:
        meta: Integer, the most bytes of JSON.
        sizes: The payload sizes in bytes: a range, or the only ones possible.
        dtype: If given, the payload is one vector of this dtype, or nothing.
    """

    meta: int
    sizes: Sequence[int] = (0,)
    dtype: np.dtype | None = None

    def in_words(self) -> str:
        """The payload sizes, for a sentence."""
        if isinstance(self.sizes, range):
            return f"at most {self.sizes[-1]}"
        return " or ".join(str(size) for size in self.sizes)


Limits = Mapping[Kind, Limit]

UNPROVED_CLIENT: Limits = {Kind.HELLO: Limit(MAX_HANDSHAKE_META)}
UNPROVED_SERVER: Limits = {
    Kind.CHALLENGE: Limit(MAX_HANDSHAKE_META),
    Kind.WELCOME: Limit(MAX_WELCOME_META),
    Kind.REFUSED: Limit(MAX_WELCOME_META),
}


def request_limits(packing: PackingScheme, layout: Layout | None = None) -> Limits:
    """What a server accepts from a replica that has proved itself.

    If the scheme loses something, deltas and gradients come packed or not at all: which of
    both is not for the replica to choose. Weights, which replicas that merge gradients bring at
    the end of an epoch, are never compressed. If it loses nothing, a payload may come instead of
    the whole delta or gradient.

    Args:
        packing: `PackingScheme` of the fit.
        layout: `Layout` of the weights, if blocks of them may be left out.

    Returns:
        A table of `Limit`. Kinds that are not in it are refused.
    """
    whole, part, dtype = _vector_sizes(packing)
    limits = {Kind.PULL: Limit(0), Kind.REPORT: Limit(MAX_META, _document_sizes(whole))}
    if packing.lossless:
        limits[Kind.PUSH] = Limit(0, (whole,), dtype)
        limits[Kind.REDUCE] = Limit(0, (0, part, whole), dtype)
    else:
        limits[Kind.REDUCE] = Limit(0, (0, whole) if packing.gradients else (0,), dtype)
    if packing.sizes:
        limits[Kind.REDUCE_PACKED] = Limit(0, packing.sizes, PACKED)
        if not packing.gradients:
            limits[Kind.PUSH_PACKED] = limits[Kind.REDUCE_PACKED]
    if layout is not None:
        limits[Kind.REDUCE_CHANGED] = Limit(0, layout.sizes, PACKED)
    return limits


def reply_limits(packing: PackingScheme, layout: Layout | None = None) -> Limits:
    """What a replica accepts from its server. See `request_limits`."""
    whole, part, dtype = _vector_sizes(packing)
    limits = {
        Kind.VECTOR: Limit(MAX_META, (0, part, whole), dtype),
        Kind.DOCUMENT: Limit(MAX_META, _document_sizes(whole)),
        Kind.REFUSED: Limit(MAX_WELCOME_META),
    }
    if packing.gradients and packing.sizes:
        limits[Kind.VECTOR_PACKED] = Limit(MAX_META, packing.sizes, PACKED)
        if not packing.lossless:
            limits[Kind.VECTOR] = Limit(MAX_META, (0, whole), dtype)
    if layout is not None:
        limits[Kind.VECTOR_KEPT] = Limit(MAX_META, (whole,), dtype)
        limits[Kind.VECTOR_CHANGED] = Limit(MAX_META, layout.sizes, PACKED)
    return limits


def _vector_sizes(packing: PackingScheme) -> tuple[int, int, np.dtype]:
    """Bytes of a whole vector and of its trainable part, and its dtype."""
    spec = packing.spec
    return spec.nbytes, spec.trainable_size * spec.dtype.itemsize, spec.dtype


def _document_sizes(vector_bytes: int) -> range:
    return range(max(MIN_DOCUMENT_LIMIT, DOCUMENT_LIMIT_FACTOR * vector_bytes) + 1)


def check_fields(kind: Kind, meta: Mapping[str, Any]) -> None:
    """Refuse a meta that does not have exactly the fields of its kind.

    Raises:
        ProtocolError: With the rule. Received values are not shown: they may be
            huge, or nested too deep to print.
    """
    fields = FIELDS.get(kind)
    if fields is None:
        return
    if meta.keys() != fields.keys():
        raise ProtocolError(f"{kind.name} must have the fields {list(fields)}.")
    for name, expected in fields.items():
        if type(meta[name]) is not expected:
            raise ProtocolError(f"`{name}` of {kind.name} must be of type {expected.__name__}.")
