"""The messages between replica and aggregator, and the limits of their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from kspark.errors import ProtocolError
from kspark.weights import PACKED, Layout, PackingScheme

# Bytes. Before authentication, there is room for a nonce, a digest and a proof only.
MAX_HANDSHAKE_META = 512
MAX_WELCOME_META = 64 << 10
# Bytes. The longest meta describes the arrays of a large optimizer state, about 30 bytes for each.
MAX_META = 1 << 20
# Documents contain metrics and optimizer states. Adam keeps two numbers per weight and other
# optimizers a few more, in float32 or float64.
MIN_DOCUMENT_LIMIT = 64 << 20
DOCUMENT_LIMIT_FACTOR = 8

MAX_NUMBERS = 3


class Kind(IntEnum):
    """The kind of a message. The first three are the handshake, in this order."""

    CHALLENGE = 1  # server: a nonce
    HELLO = 2  # client: its identity and proof
    WELCOME = 3  # server: its proof, and the replica's `Welcome`
    PULL = 4  # client: request the weights
    PUSH = 5  # client: a delta; answered with the weights after it
    REDUCE = 6  # client: a part of a mean; answered when all parts have arrived
    REPORT = 7  # client: any other report, as JSON and arrays
    VECTOR = 8  # server: answer to PULL, PUSH and REDUCE
    DOCUMENT = 9  # server: answer to REPORT
    REFUSED = 10  # server: the error that ends this connection
    PUSH_PACKED = 11  # PUSH of a payload of the fit's packing
    REDUCE_PACKED = 12  # REDUCE of a payload of the fit's packing
    VECTOR_PACKED = 13  # server: a mean gradient as a payload of the fit's packing
    VECTOR_KEPT = 14  # server: whole weights, which the replica keeps
    VECTOR_CHANGED = 15  # server: the blocks that differ from the kept weights
    REDUCE_CHANGED = 16  # REDUCE of weights: the blocks that differ from the kept weights


# The integers of a message, in this order. Unused ones are 0.
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

# The fields of a meta, for the kinds whose fields the protocol defines.
FIELDS: Mapping[Kind, Mapping[str, type]] = {
    Kind.CHALLENGE: {"nonce": str},
    Kind.HELLO: {"nonce": str, "proof": str, "spec": str},
    Kind.WELCOME: {"proof": str, "meta": dict},
    Kind.REFUSED: {"error": str, "reason": str},
}


@dataclass(frozen=True)
class Message:
    """One received message.

    Attributes:
        kind: `Kind`.
        numbers: Tuple of integers >= 0, as listed in `NUMBERS` for this kind.
        meta: Dictionary with the fields listed in `FIELDS` for this kind, if any.
        arrays: Tuple of arrays. A vector that fits into the decoder's `vector` buffer is a view
            of it, valid until the next message. Other arrays belong to the receiver.
    """

    kind: Kind
    numbers: tuple[int, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Limit:
    """The sizes of one kind of message that a receiver accepts.

    Attributes:
        meta: Integer, maximum bytes of JSON.
        sizes: Sequence of integers, the possible payload sizes in bytes. Defaults to `(0,)`.
        dtype: Dtype, if the payload is one vector or empty. Defaults to `None`: the payload
            consists of arrays that the meta describes.
    """

    meta: int
    sizes: Sequence[int] = (0,)
    dtype: np.dtype | None = None

    def in_words(self) -> str:
        """Return the payload sizes as a phrase for an error message."""
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
    """Return the requests that a server accepts from an authenticated replica.

    With a lossy scheme, replicas must send deltas and gradients as payloads. With a lossless
    scheme, they may send a payload or the whole vector. Weights, which replicas that merge
    gradients send at the end of an epoch, are never compressed.

    Args:
        packing: `PackingScheme` of the fit.
        layout: `Layout` of the weights, if unchanged blocks may be omitted. Defaults to `None`.

    Returns:
        Mapping from `Kind` to `Limit`. Other kinds are refused.
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
    """Return the replies that a replica accepts from its server. See `request_limits`."""
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
    """Return the bytes of a whole vector and of its trainable part, and the dtype."""
    spec = packing.spec
    return spec.nbytes, spec.trainable_size * spec.dtype.itemsize, spec.dtype


def _document_sizes(vector_bytes: int) -> range:
    return range(max(MIN_DOCUMENT_LIMIT, DOCUMENT_LIMIT_FACTOR * vector_bytes) + 1)


def check_fields(kind: Kind, meta: Mapping[str, Any]) -> None:
    """Check that a meta has exactly the fields of its kind.

    Raises:
        ProtocolError: If it does not. The message names the rule, but not the received values,
            which may be huge or nested too deep to print.
    """
    fields = FIELDS.get(kind)
    if fields is None:
        return
    if meta.keys() != fields.keys():
        raise ProtocolError(f"{kind.name} must have the fields {list(fields)}.")
    for name, expected in fields.items():
        if type(meta[name]) is not expected:
            raise ProtocolError(f"`{name}` of {kind.name} must be of type {expected.__name__}.")
