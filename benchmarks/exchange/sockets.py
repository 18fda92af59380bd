"""Vectors over plain sockets."""

from __future__ import annotations

import socket

import numpy as np

TIMEOUT = 600.0
"""Seconds that a connection may rest while the other ways are measured."""


def configured(sock: socket.socket) -> socket.socket:
    """The same socket, sending without delay and with a time limit."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(TIMEOUT)
    return sock


def receive(sock: socket.socket, buffer: memoryview) -> bool:
    """Fill a buffer. Returns `False` if the stream ends before."""
    filled = 0
    while filled < len(buffer):
        count = sock.recv_into(buffer[filled:])
        if not count:
            return False
        filled += count
    return True


def bytes_of(array: np.ndarray) -> memoryview:
    """The array's memory as bytes."""
    return array.view(np.uint8).data
