"""Messages as bytes, and bytes as messages, without sockets and without pickle.

A frame contains one message:

```
header    magic u32 · version u8 · kind u8 · dtype u16 · numbers 3 × i64
          meta size u32 · payload size u64 · crc32 u32
meta      empty, or JSON: [fields, [[dtype, shape], ...]]
payload   one vector of the header's dtype,
          or the arrays that the JSON describes, each at a multiple of 8 bytes
```

* A frame carries a payload of `kspark.compression` or `kspark.weights` (`PUSH_PACKED`,
  `REDUCE_PACKED`, `VECTOR_PACKED`, `VECTOR_CHANGED`, `REDUCE_CHANGED`) as a vector of bytes. Those
  packages check and decode it.
* The messages of every batch (`PUSH`, `REDUCE`, `VECTOR`) need only the header, and no JSON.
  That saves about 100 µs of Python per round trip, a third of the time at 0.5 MB.
* Replica and aggregator send in turns, so no bytes may follow a frame until it is answered. One
  receive buffer is enough.
* A table, `Limits`, lists the kinds of messages that a receiver accepts, and their sizes. It is
  checked before memory of such a size is allocated.
* The checksum covers header and meta. TCP's own checksums cover payloads, because another one
  would take longer than the transfer.
* Numbers are in the machine's byte order. A machine with the other order reads another magic
  number, and is refused.

`messages` defines the kinds of messages and their limits, `documents` the JSON in them, `frames`
encodes messages, and `decoder` decodes them.
"""

from kspark.live.wire.decoder import Decoder
from kspark.live.wire.documents import (
    Instructions,
    Order,
    Restart,
    SharedOffer,
    Start,
    Welcome,
    read,
)
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
    "Order",
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
