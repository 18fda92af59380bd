"""A port that stays bound, and the thread that accepts connections on it."""

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
# As many replicas may knock at the same moment.
_BACKLOG = 512
# Out of file descriptors, `accept` fails at once, again and again.
_ACCEPT_PAUSE = 0.1


def port_candidates(port: int | tuple[int, int]) -> Sequence[int]:
    """The ports to try, in order.

    Args:
        port: Integer (0 for any free port), or a pair (first, last).

    Raises:
        ValueError: If it is none of these.
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
    """Listen on the first of `ports` that is free. The socket stays bound.

    Args:
        host: String, local address; empty for all.
        ports: Sequence of integers, not empty.

    Returns:
        The listening socket, which does not block.

    Raises:
        ClusterError: If none of them is free.
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
        "`port` to 0 for any free port, or to a wider pair (first, last); the address to listen on is "
        "`spark.driver.bindAddress`."
    )


class Listener:
    """Accepts connections in a thread of its own, until it is closed.

    Args:
        sock: Listening socket that does not block; the listener owns it.
        admit: Function of a new socket and its peer's address. Must not block.
            If it raises `OSError` or `RuntimeError`, that connection is closed.
    """

    def __init__(self, sock: socket.socket, admit: Callable[[socket.socket, str], None]) -> None:
        self._socket = sock
        self._admit = admit
        # Closing a listening socket does not wake a thread that waits for it.
        self._bell, self._rope = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kspark-accept", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, and free the port."""
        self._rope.close()  # rings the bell: it becomes readable
        self._thread.join()
        self._bell.close()
        self._socket.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while self._bell not in [key.fileobj for key, _ in selector.select()]:
                self._accept()

    def _accept(self) -> None:
        try:
            sock, address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it left before we looked
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
