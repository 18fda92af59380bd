"""The driver's end of the live road: listens, and keeps one thread per replica."""

from __future__ import annotations

import itertools
import logging
import socket
import ssl
import threading
import time

from kspark.errors import KSparkError, invalid
from kspark.live.transport.channel import Channel
from kspark.live.transport.connection import Connection, Terms
from kspark.live.transport.handler import Handler
from kspark.live.transport.listener import Listener, listen, port_candidates
from kspark.live.wire import UNPROVED_CLIENT
from kspark.weights import Layout, PackingScheme, Reference

logger = logging.getLogger("kspark")

# Every stranger costs a thread until the handshake's timeout. Replicas need milliseconds.
MAX_STRANGERS = 512
HANDSHAKE_TIMEOUT = 10.0
# A replica is rightly silent while it trains an epoch. If its host is gone, TCP keepalive
# notices that within minutes.
IDLE_TIMEOUT = 86_400.0
_CLOSE_TIMEOUT = 30.0


class AggregatorServer:
    """Accepts replicas, and passes their requests to a handler.

    The port is bound by `start` and stays bound until `close`. As a context manager
    it leaves nothing behind: no thread, no port, no connection.

    Args:
        handler: `Handler`. `close` closes it, so that none of its calls blocks on.
        packing: `PackingScheme` of deltas and gradients; replicas with another one, or with
            other weights, are refused.
        token: Bytes, the secret of this fit.
        host: String, the local address to listen on; empty for all.
        port: Integer (0 for any free port), a `range`, or a pair (first, last), which
            are tried in order.
        timeout: Float, seconds. The longest wait for a replica within a message.
        handshake_timeout: Float, seconds. The same for somebody yet unknown.
        idle_timeout: Float, seconds. The longest silence between two requests.
        ssl_context: Optional server-side `ssl.SSLContext`.
    """

    def __init__(
        self,
        handler: Handler,
        packing: PackingScheme,
        token: bytes,
        *,
        host: str = "",
        port: int | range | tuple[int, int] = 0,
        timeout: float,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        idle_timeout: float = IDLE_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if packing.spec.size == 0:
            raise invalid("packing", "a scheme for a model with weights", packing)
        if not token:
            raise invalid("token", "at least one byte", token)
        layout = Layout.of(packing.spec)
        reference = None if layout is None else Reference(layout)
        limits = (timeout, handshake_timeout, idle_timeout)
        self._terms = Terms(handler, packing, token, *limits, reference)
        self._host, self._ports = host, port_candidates(port)
        self._ssl_context = ssl_context
        self._address: tuple[str, int] | None = None
        self._listener: Listener | None = None
        # Touched by the accepting thread, and by `close` when that thread has ended.
        self._connections: list[tuple[Connection, threading.Thread]] = []
        self._numbers = itertools.count()

    def __enter__(self) -> AggregatorServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """The bound address: host (`"0.0.0.0"` for all) and port.

        Raises:
            KSparkError: Before `start`.
        """
        if self._address is None:
            raise KSparkError("The aggregator's server has not been started.")
        return self._address

    def start(self) -> None:
        """Bind the port and accept replicas.

        Raises:
            ClusterError: If no port is free.
            KSparkError: If the server runs already.
        """
        if self._listener is not None:
            raise KSparkError("The aggregator's server runs already.")
        sock = listen(self._host, self._ports)
        self._address = sock.getsockname()[:2]
        self._listener = Listener(sock, self._admit)

    def close(self) -> None:
        """Stop accepting, close the handler, end and join every connection's thread.

        May be called more than once.
        """
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        try:
            self._terms.handler.close()
        finally:
            self._end_connections()

    def _admit(self, sock: socket.socket, peer: str) -> None:
        """Give a new connection its thread. Called from the accepting thread."""
        self._connections = [pair for pair in self._connections if pair[1].is_alive()]
        if sum(not connection.proved for connection, _ in self._connections) >= MAX_STRANGERS:
            raise KSparkError(f"{MAX_STRANGERS} others have not proved themselves yet.")
        if self._ssl_context is not None:
            sock = self._ssl_context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        channel = Channel(sock, UNPROVED_CLIENT, self._terms.handshake_timeout)
        connection = Connection(channel, peer, self._terms)
        name = f"kspark-connection-{next(self._numbers)}"
        thread = threading.Thread(target=connection.run, name=name, daemon=True)
        thread.start()
        self._connections.append((connection, thread))

    def _end_connections(self) -> None:
        for connection, _ in self._connections:
            connection.interrupt()
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for _, thread in self._connections:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [thread.name for _, thread in self._connections if thread.is_alive()]
        if stuck:
            logger.error("The handler does not return in %s", ", ".join(stuck))
        self._connections = []
