"""The driver's end of the connections: listen, and serve each replica in its own thread."""

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

MAX_STRANGERS = 512
"""Connections that may be in the handshake at the same time. Each takes a thread."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds to wait for each message of the handshake. Replicas answer within milliseconds."""

CLOSE_TIMEOUT = 30.0
"""Seconds that `close` waits for the connections' threads to end."""


class AggregatorServer:
    """Accepts replicas, and passes their requests to a handler.

    The port is bound from `start` to `close`. As a context manager, the server leaves no thread,
    port or connection behind.

    Args:
        handler: `Handler`. `close` closes it, which ends all its blocking calls.
        packing: `PackingScheme` of deltas and gradients. Replicas with another scheme or other
            weights are refused.
        token: Bytes, the secret of this fit.
        host: String, the local address to listen on. Defaults to `""`, all addresses.
        port: Integer (0 for any free port), or a pair (first, last) of ports to try in order.
            Defaults to `0`.
        timeout: Float, the longest wait in seconds for a replica within a message.
        ssl_context: Server-side `ssl.SSLContext`. Defaults to `None`, no TLS.
        broken_level: Integer, level at which to log that the connection of a replica broke.
            Defaults to `logging.WARNING`.
    """

    def __init__(
        self,
        handler: Handler,
        packing: PackingScheme,
        token: bytes,
        *,
        host: str = "",
        port: int | tuple[int, int] = 0,
        timeout: float,
        ssl_context: ssl.SSLContext | None = None,
        broken_level: int = logging.WARNING,
    ) -> None:
        if packing.spec.size == 0:
            raise invalid("packing", "a scheme for a model with weights", packing)
        if not token:
            raise invalid("token", "at least one byte", token)
        layout = Layout.of(packing.spec)
        reference = None if layout is None else Reference(layout)
        self._terms = Terms(handler, packing, token, timeout, reference, broken_level)
        self._host, self._ports = host, port_candidates(port)
        self._ssl_context = ssl_context
        self._address: tuple[str, int] | None = None
        self._listener: Listener | None = None
        # Used by the accepting thread, and by `close` after that thread has ended.
        self._connections: list[tuple[Connection, threading.Thread]] = []
        self._numbers = itertools.count()

    def __enter__(self) -> AggregatorServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on. The host is `"0.0.0.0"` for all addresses.

        Raises:
            KSparkError: If the server has not been started.
        """
        if self._address is None:
            raise KSparkError("The aggregator's server has not been started.")
        return self._address

    def start(self) -> None:
        """Bind the port and accept replicas.

        Raises:
            ClusterError: If no port is free.
            KSparkError: If the server was started before.
        """
        if self._listener is not None:
            raise KSparkError("The aggregator's server runs already.")
        sock = listen(self._host, self._ports)
        self._address = sock.getsockname()[:2]
        self._listener = Listener(sock, self._admit)

    def close(self) -> None:
        """Stop accepting, close the handler, and end and join the thread of every connection.

        It may be called more than once.
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
        """Start a thread for a new connection. Called from the accepting thread."""
        self._connections = [pair for pair in self._connections if pair[1].is_alive()]
        if sum(not connection.proved for connection, _ in self._connections) >= MAX_STRANGERS:
            raise KSparkError(f"{MAX_STRANGERS} other connections have not finished the handshake.")
        if self._ssl_context is not None:
            sock = self._ssl_context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )
        channel = Channel(sock, UNPROVED_CLIENT, HANDSHAKE_TIMEOUT)
        connection = Connection(channel, peer, self._terms)
        name = f"kspark-connection-{next(self._numbers)}"
        thread = threading.Thread(target=connection.run, name=name, daemon=True)
        thread.start()
        self._connections.append((connection, thread))

    def _end_connections(self) -> None:
        for connection, _ in self._connections:
            connection.interrupt()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for _, thread in self._connections:
            thread.join(max(0.0, deadline - time.monotonic()))
        stuck = [thread.name for _, thread in self._connections if thread.is_alive()]
        if stuck:
            logger.error(
                "The handler has not returned within %g s in the threads %s.",
                CLOSE_TIMEOUT,
                ", ".join(stuck),
            )
        self._connections = []
