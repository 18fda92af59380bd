"""The live road: replicas on the executors talk to the aggregator on the driver over TCP.

```
executor                                      driver
AggregatorClient ── Channel ═══════ Channel ── connection thread ── Handler
                                               AggregatorServer accepts and closes
```

A replica keeps one connection for its whole life and takes turns with the
server: one request, one reply. The server has one thread per connection; what
requests mean is the `Handler`'s business.

Both sides prove that they know the token of this fit before anything else is
accepted (`handshake`). That keeps strangers out; it does not hide the numbers.
Pass an `ssl.SSLContext` where the network itself is not trusted.
"""

from kspark.live.transport.client import AggregatorClient, Reply
from kspark.live.transport.handler import Handler
from kspark.live.transport.server import AggregatorServer

__all__ = ["AggregatorClient", "AggregatorServer", "Handler", "Reply"]
