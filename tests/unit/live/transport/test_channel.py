"""How a channel tells why a connection has ended."""

from __future__ import annotations

import errno

import pytest

from kspark.errors import ConnectionLostError
from kspark.live.transport.channel import Channel, SilentHostError
from kspark.live.wire import UNPROVED_CLIENT


class Ending:
    """Stands for a socket whose waits end with these errors, and then as if it was closed."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def settimeout(self, timeout):
        pass

    def setsockopt(self, *option):
        pass

    def recv_into(self, buffer):
        if self.errors:
            raise self.errors.pop(0)
        return 0


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_a_host_that_does_not_answer_is_told_from_one_that_has_closed(number):
    """Python has one class for the end of a wait and for the system's `ETIMEDOUT`."""
    channel = Channel(Ending(TimeoutError("timed out"), OSError(number, "no")), UNPROVED_CLIENT, 9)
    with pytest.raises(SilentHostError, match="does not answer"):
        channel.receive(60.0)


def test_a_peer_that_closes_after_a_wait_has_closed():
    channel = Channel(Ending(TimeoutError("timed out")), UNPROVED_CLIENT, 9.0)
    assert channel.receive(60.0) is None


def test_a_broken_connection_is_no_silent_host():
    channel = Channel(Ending(ConnectionResetError(errno.ECONNRESET, "reset")), UNPROVED_CLIENT, 9)
    with pytest.raises(ConnectionLostError, match="broke: .*reset") as raised:
        channel.receive()
    assert not isinstance(raised.value, SilentHostError)
