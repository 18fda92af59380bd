"""Connections of the live road: replicas on executors reach the driver's aggregator over TCP.

```
executor                                      driver
AggregatorClient ── Channel ═══════ Channel ── connection thread ── Handler
                                               AggregatorServer accepts and closes
```

A replica keeps one connection until it ends. It sends a request, and receives one reply. The
server has one thread per connection, and passes the requests to its `Handler`.

In the handshake (`handshake`), both sides prove that they know the token of this fit. That
authenticates both sides, but does not encrypt what they send. Pass an `ssl.SSLContext` on networks
that are not trusted.
"""

from kspark.live.transport.client import AggregatorClient, Reply, UnreachableError
from kspark.live.transport.handler import Handler
from kspark.live.transport.server import AggregatorServer

__all__ = ["AggregatorClient", "AggregatorServer", "Handler", "Reply", "UnreachableError"]
