"""One TCP connection that carries messages and limits all waiting times."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kspark.errors import ConnectionLostError
from kspark.live.wire import Decoder, Kind, Limits, Message, encode

# Some systems accept at most this number of buffers in one call (IOV_MAX).
_MAX_BUFFERS = 16
# Bytes. TLS sends a buffer as a whole; smaller buffers allow checks of the deadline in between.
_CHUNK = 1 << 20
# Bytes that one call sends or receives. TLS and some systems refuse 2 GiB.
_MOST = 1 << 30
# Bytes per second. A message that arrives faster than this may take longer than the timeout.
_SLOWEST = 1 << 20
# Milliseconds, the largest C integer.
_LONGEST = (1 << 31) - 1
SILENCE_SECONDS = 40
"""Seconds after which a host that does not answer counts as lost. A shorter cut of its link does
not break a connection."""

# Linux ends a connection by `TCP_USER_TIMEOUT`, in milliseconds, also if data is on its way, and
# also if the peer's host answers, but its process does not read; see `Channel.bear_unread`.
_KEEPALIVE = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": (SILENCE_SECONDS - 10) // 5,
    "TCP_USER_TIMEOUT": 1000 * SILENCE_SECONDS,
}
_SILENT = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}


class SilentHostError(ConnectionLostError):
    """The system has ended a connection because the peer's host does not answer at all."""


class Channel:
    """A connected socket with a decoder and time limits, for use by one thread.

    Socket buffers keep their default size, which the kernel adapts to the connection. No fixed
    size was faster for messages of 0.5 to 100 MB on loopback.

    Args:
        sock: Connected socket. The channel closes it.
        accepts: `Limits` of the messages to receive.
        timeout: Float, the longest wait in seconds for the peer within a message. A message
            that has begun may take this long in total, plus one second per MiB.

    Attributes:
        decoder: `Decoder` of the received bytes.
        bytes_sent: Integer, bytes sent so far.
        bytes_received: Integer, bytes received so far.
    """

    def __init__(self, sock: socket.socket, accepts: Limits, timeout: float) -> None:
        self.decoder = Decoder(accepts)
        self.bytes_sent = 0
        self.bytes_received = 0
        self._socket = sock
        # Neither TLS nor Windows can send several buffers with one call.
        self._gathers = hasattr(sock, "sendmsg") and not isinstance(sock, ssl.SSLSocket)
        self._broken = False
        self.set_timeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def set_timeout(self, timeout: float) -> None:
        """Change the timeout."""
        self._timeout = timeout
        self._socket.settimeout(timeout)

    def bear_unread(self, seconds: float) -> None:
        """Let the peer's process not read for longer than `SILENCE_SECONDS`.

        A host that is gone is then noticed after this time, too.
        """
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            limit = min(int(1000 * max(seconds, SILENCE_SECONDS)), _LONGEST)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)

    def secure(self) -> None:
        """Perform the TLS handshake if the socket is a TLS socket.

        Raises:
            ConnectionLostError: If the handshake fails.
        """
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.do_handshake()
            except OSError as error:
                raise self._lost(error, self._timeout) from error

    def send(
        self,
        kind: Kind,
        numbers: Sequence[int] = (),
        meta: Mapping[str, Any] | None = None,
        arrays: Sequence[np.ndarray] = (),
        *,
        limits: Limits,
    ) -> None:
        """Send one message, encoded by `wire.encode`. The arrays may change afterwards.

        Raises:
            ConnectionLostError: If the peer is gone, or does not accept the bytes in time.
        """
        rest = encode(kind, numbers, meta, arrays, limits=limits)
        deadline = time.monotonic() + self._timeout
        while rest:
            sent = self._send_some(rest)
            self.bytes_sent += sent
            rest = _without(rest, sent)
            deadline += sent / _SLOWEST
            if rest and time.monotonic() > deadline:
                raise self._lost(TimeoutError(), self._timeout)

    def _send_some(self, buffers: list[memoryview]) -> int:
        if self._broken:
            raise ConnectionLostError("The connection is broken.")
        try:
            if self._gathers:
                return self._socket.sendmsg(_beginning(buffers[:_MAX_BUFFERS]))
            return self._socket.send(buffers[0][:_CHUNK])
        except OSError as error:
            raise self._lost(error, self._timeout) from error

    def receive(self, first_timeout: float | None = None) -> Message | None:
        """Receive one message.

        Args:
            first_timeout: Float, seconds to wait for the first byte, rounded up to a
                multiple of the timeout. Defaults to `None`, the timeout.

        Returns:
            The `Message`, or `None` if the peer closed the connection instead.

        Raises:
            ProtocolError: If the peer sends an invalid message.
            ConnectionLostError: If the connection breaks, or the peer is too slow.
        """
        count = self._receive_first(first_timeout or self._timeout)
        deadline = time.monotonic() + self._timeout
        while count:
            self.bytes_received += count
            message = self.decoder.advance(count)
            if message is not None:
                return message
            deadline += count / _SLOWEST
            if time.monotonic() > deadline:
                raise self._lost(TimeoutError(), self._timeout)
            count = self._receive_more()
        self.decoder.finish()
        return None

    def _receive_first(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._socket.recv_into(self.decoder.buffer()[:_MOST])
            except OSError as error:
                if not _ran_out(error) or time.monotonic() >= deadline:
                    raise self._lost(error, timeout) from error

    def _receive_more(self) -> int:
        try:
            return self._socket.recv_into(self.decoder.buffer()[:_MOST])
        except OSError as error:
            raise self._lost(error, self._timeout) from error

    def _lost(self, error: OSError, waited: float) -> ConnectionLostError:
        self._broken = True
        if _ran_out(error):
            return ConnectionLostError(f"The other side was silent or slow for {waited:g} s.")
        if error.errno in _SILENT:
            return SilentHostError(f"The other host, or its network, does not answer: {error}")
        return ConnectionLostError(f"The connection broke: {error}")

    def interrupt(self) -> None:
        """End every wait on this channel. Other threads may call only this method."""
        with contextlib.suppress(OSError):
            # `SSLSocket.shutdown` would remove TLS while another thread is reading.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def _beginning(buffers: Sequence[memoryview]) -> list[memoryview]:
    """Return the first `_MOST` bytes of buffers."""
    first, room = [], _MOST
    for buffer in buffers:
        first.append(buffer[:room])
        room -= len(first[-1])
        if not room:
            break
    return first


def _without(buffers: list[memoryview], count: int) -> list[memoryview]:
    """Return the rest of `buffers` after the first `count` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [buffer[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []


def _ran_out(error: OSError) -> bool:
    """Whether a wait has reached the socket's timeout: the connection itself may be whole.

    `TimeoutError` is also what Python calls the system's own `ETIMEDOUT`, which ends a connection.
    """
    return isinstance(error, TimeoutError) and error.errno is None
