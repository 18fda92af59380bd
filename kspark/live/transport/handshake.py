"""The handshake: both sides prove that they know the token of this fit, without sending it.

```
server                                          client
CHALLENGE  nonce                        →
                                        ←       HELLO    nonce, shard and attempt, proof
WELCOME    proof, welcome               →
```

A proof is an HMAC-SHA256 over both nonces and the sender's role. So neither an earlier proof nor
the other side's proof can be replayed. Until a proof is checked, messages are a few hundred bytes
long, and the server allocates nothing and calls no handler for them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from kspark.errors import ConnectionLostError, ProtocolError
from kspark.live.transport.channel import Channel
from kspark.live.wire import UNPROVED_CLIENT, UNPROVED_SERVER, Kind, Message

_NONCE_BYTES = 32


@dataclass(frozen=True)
class Greeting:
    """An authenticated replica.

    Attributes:
        shard: Integer.
        attempt: Integer.
        proof: String, the server's proof for this replica.
    """

    shard: int
    attempt: int
    proof: str


def greet(channel: Channel, token: bytes, digest: bytes) -> Greeting:
    """Perform the server's half of the handshake, up to the client's proof.

    Args:
        channel: New `Channel` that accepts `UNPROVED_CLIENT`.
        token: Bytes, the secret of this fit.
        digest: Bytes, the digest of the fit's `PackingScheme`.

    Raises:
        ProtocolError: If the client has another token, other weights or another packing.
        ConnectionLostError: If the client closes the connection or takes too long.
    """
    nonce = secrets.token_hex(_NONCE_BYTES)
    channel.send(Kind.CHALLENGE, meta={"nonce": nonce}, limits=UNPROVED_SERVER)
    message = _receive(channel, Kind.HELLO)
    hello, (shard, attempt) = message.meta, message.numbers
    claim = (nonce, hello["nonce"], shard, attempt, hello["spec"])
    if not _same(hello["proof"], _prove(token, "client", *claim)):
        raise ProtocolError("The client does not know the token of this fit.")
    if hello["spec"] != digest.hex():
        raise ProtocolError(
            "The weights of the replica's model, or its compression, differ from the aggregator's."
        )
    proof = _prove(token, "server", nonce, hello["nonce"])
    return Greeting(shard, attempt, proof)


def introduce(channel: Channel, token: bytes, digest: bytes, shard: int, attempt: int) -> Message:
    """Perform the client's half of the handshake.

    Args:
        channel: New `Channel` that accepts `UNPROVED_SERVER`.
        token: Bytes, the secret of this fit.
        digest: Bytes, the digest of the fit's `PackingScheme`.
        shard: Integer, the shard that this replica trains.
        attempt: Integer.

    Returns:
        The server's `WELCOME`, with a valid proof, or its `REFUSED`.

    Raises:
        ProtocolError: If the server does not follow the protocol, or does not know the token.
        ConnectionLostError: If the server closes the connection or takes too long.
    """
    nonce = _receive(channel, Kind.CHALLENGE).meta["nonce"]
    own = secrets.token_hex(_NONCE_BYTES)
    proof = _prove(token, "client", nonce, own, shard, attempt, digest.hex())
    hello = {"nonce": own, "proof": proof, "spec": digest.hex()}
    channel.send(Kind.HELLO, (shard, attempt), hello, limits=UNPROVED_CLIENT)
    answer = _receive(channel, Kind.WELCOME, Kind.REFUSED)
    if answer.kind is Kind.WELCOME:
        expected = _prove(token, "server", nonce, own)
        if not _same(answer.meta["proof"], expected):
            raise ProtocolError("The server does not know the token of this fit.")
    return answer


def _receive(channel: Channel, *kinds: Kind) -> Message:
    message = channel.receive()
    if message is None:
        raise ConnectionLostError("The peer closed the connection during the handshake.")
    if message.kind not in kinds:
        raise ProtocolError(f"Got {message.kind.name}, expected {kinds[0].name}.")
    return message


def _prove(token: bytes, *parts: str | int) -> str:
    return hmac.new(token, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def _same(received: str, expected: str) -> bool:
    # `compare_digest` raises for text that is not ASCII, but not for bytes.
    return hmac.compare_digest(received.encode("ascii", "replace"), expected.encode("ascii"))
