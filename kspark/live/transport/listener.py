"""Bind a port, and accept connections on it in a thread."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

from kspark.errors import ClusterError, invalid

logger = logging.getLogger("kspark")

_HIGHEST_PORT = 65535
# The number of replicas that may connect at the same time.
_BACKLOG = 512
# Seconds. Without free file descriptors, `accept` fails repeatedly without waiting.
_ACCEPT_PAUSE = 0.1


def port_candidates(port: int | tuple[int, int]) -> Sequence[int]:
    """Return the ports to try, in order.

    Args:
        port: Integer (0 for any free port), or a pair (first, last).

    Raises:
        ValueError: If `port` is neither.
    """
    rule = f"a port from 0 to {_HIGHEST_PORT}, or a pair (first, last) of ports"
    ports: Sequence[int]
    if isinstance(port, tuple) and [type(end) for end in port] == [int, int]:
        ports = range(port[0], port[1] + 1)
    elif type(port) is int:
        ports = (port,)
    else:
        raise invalid("port", rule, port)
    lowest = 0 if len(ports) == 1 else 1
    if not ports or min(ports) < lowest or max(ports) > _HIGHEST_PORT:
        raise invalid("port", rule, port)
    return ports


def listen(host: str, ports: Sequence[int]) -> socket.socket:
    """Listen on the first free port of `ports`. The socket stays bound.

    Args:
        host: String, local address; empty for all.
        ports: Sequence of integers with at least one port.

    Returns:
        The listening socket, in non-blocking mode.

    Raises:
        ClusterError: If no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        try:
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            reason = error
            continue
        listener.setblocking(False)
        return listener
    asked = str(ports[0]) if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"
    raise ClusterError(
        f"No port is free on {host or 'this host'}. Tried: {asked}. Last error: {reason}. Set "
        "`port` to 0 for any free port, or to a wider pair (first, last) of ports. The driver "
        "listens on the address `spark.driver.bindAddress`."
    )


class Listener:
    """Accepts connections in its own thread until it is closed.

    Args:
        sock: Listening socket in non-blocking mode. The listener closes it.
        admit: Function of a new socket and its peer's address. It must not block. If it raises
            `OSError` or `RuntimeError`, the connection is closed.
    """

    def __init__(self, sock: socket.socket, admit: Callable[[socket.socket, str], None]) -> None:
        self._socket = sock
        self._admit = admit
        # A closed listening socket does not wake a thread that waits for it. This pair does.
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kspark-accept", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, and free the port."""
        self._wake_sender.close()  # The receiver becomes readable.
        self._thread.join()
        self._wake_receiver.close()
        self._socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            while self._wake_receiver not in [key.fileobj for key, _ in selector.select()]:
                self._accept()

    def _accept(self) -> None:
        try:
            sock, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # The peer closed the connection before it was accepted.
        except OSError as error:
            logger.error("Cannot accept a connection: %s", error)
            time.sleep(_ACCEPT_PAUSE)
            return
        peer = f"{address[0]}:{address[1]}"
        try:
            self._admit(sock, peer)
        except (OSError, RuntimeError) as error:
            logger.warning("Closing the connection from %s: %s", peer, error)
            sock.close()
