"""The size of arrays that are sent over Spark Connect, in the bytes that are sent."""

from __future__ import annotations

import pytest

from kspark.adapters.sending import within


def test_pieces_are_counted_as_they_are_sent():
    rows = [(0, number, b"1234") for number in range(5)]
    assert list(within(20, iter(rows))) == rows
    sent = within(19, iter(rows))
    with pytest.raises(ValueError, match="^`x` must be arrays of at most 19 bytes .*: 20 bytes or"):
        list(sent)
    assert list(sent) == []
