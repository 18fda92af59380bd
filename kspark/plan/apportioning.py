"""Divide a whole number in proportion to weights."""

from __future__ import annotations

from collections.abc import Mapping


def apportioned(total: int, weights: Mapping[int, int]) -> dict[int, int]:
    """Divide a number among shards by the largest remainder method.

    Args:
        total: Integer >= 0, the number to divide.
        weights: Mapping from shard to its weight, an integer >= 0.

    Returns:
        Dictionary from shard to its part. The parts add up to `total` if any weight is positive;
        otherwise they are 0.
    """
    whole = sum(weights.values())
    exact = {shard: total * n / whole if whole else 0.0 for shard, n in weights.items()}
    parts = {shard: int(value) for shard, value in exact.items()}
    by_remainder = sorted(weights, key=lambda shard: (parts[shard] - exact[shard], shard))
    for shard in by_remainder[: total - sum(parts.values())] if whole else ():
        parts[shard] += 1
    return parts
