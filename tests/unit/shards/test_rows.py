"""Rows in memory."""

from __future__ import annotations

import pytest

from kspark.shards import num_batches


@pytest.mark.parametrize(("num_examples", "expected"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_the_last_batch_may_be_short(num_examples, expected):
    assert num_batches(num_examples, 4) == expected
