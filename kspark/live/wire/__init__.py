"""Messages as bytes, and bytes as messages. No socket in here, and no pickle.

One frame is one message:

```
header    magic u32 · version u8 · kind u8 · dtype u16 · numbers 3 × i64
          meta size u32 · payload size u64 · crc32 u32
meta      nothing, or JSON: [fields, [[dtype, shape], ...]]
payload   one vector of the header's dtype,
          or the arrays that the JSON describes, each at a multiple of 8 bytes
```

* A compressed vector, and one without what did not change (`PUSH_PACKED`, `REDUCE_PACKED`,
  `VECTOR_PACKED`, `VECTOR_CHANGED`), is one of bytes to the frame; what they mean, and whether
  they are right, is `kspark.compression`'s and `kspark.weights`' to say.
* What is said after every batch (`PUSH`, `REDUCE`, `VECTOR`) fits into the header
  and takes no JSON: with some 100 µs of Python saved per round trip, that is a
  third of the time at 0.5 MB.
* Replica and aggregator take turns, so a frame ends exactly where the sender
  falls silent. Bytes after it are an error, and one receive buffer is enough.
* What a receiver accepts is a table, `Limits`: which kinds, and how much of each.
  It is checked before anything of that size is allocated.
* The checksum covers header and meta. Payloads have TCP's: another one would
  take longer than the transfer.
* Numbers are in the machine's byte order. The magic number reads differently on
  a machine with the other order, which is refused by that.

`messages` says what can be said, `documents` what JSON in it means, `frames` lays it out,
`decoder` reads it back.
"""

from kspark.live.wire.decoder import Decoder
from kspark.live.wire.documents import Instructions, Restart, SharedOffer, Start, Welcome, read
from kspark.live.wire.frames import as_bytes, encode
from kspark.live.wire.messages import (
    UNPROVED_CLIENT,
    UNPROVED_SERVER,
    Kind,
    Limit,
    Limits,
    Message,
    reply_limits,
    request_limits,
)

__all__ = [
    "UNPROVED_CLIENT",
    "UNPROVED_SERVER",
    "Decoder",
    "Instructions",
    "Kind",
    "Limit",
    "Limits",
    "Message",
    "Restart",
    "SharedOffer",
    "Start",
    "Welcome",
    "as_bytes",
    "encode",
    "read",
    "reply_limits",
    "request_limits",
]
