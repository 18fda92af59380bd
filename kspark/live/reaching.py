"""Workers that cannot reach the driver, or that it has lost: who they are, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kspark.errors import ClusterError
from kspark.job.lost_hosts import hosts


def unreachable(shards: list[int], homes: Mapping[int, str], address: tuple[str, int]) -> str:
    """Return the message for workers that cannot open a connection.

    Args:
        shards: List of their shards.
        homes: Mapping from shard to the host of its worker.
        address: Tuple of the advertised host and the port.
    """
    host, port = address
    return (
        f"Workers cannot reach the driver at {host}:{port} from {hosts(shards, homes)}, and "
        f"nothing was trained. {advice()}"
    )


def advice() -> str:
    """Return what to do if executors cannot reach the driver."""
    return (
        "Executors must be able to open a TCP connection to the driver. Check "
        "`spark.driver.host`, and set `port` to a port, or a pair (first, last) of ports, that the "
        "firewall allows."
    )


def lost(shards: list[int], homes: Mapping[int, str], seconds: float) -> ClusterError:
    """Return the error for workers that were lost for too long. Arguments as in `unreachable`."""
    return ClusterError(
        f"The connections to the workers on {hosts(shards, homes)} were lost, and no others have "
        f"taken their place within {seconds:g} s. The host or its network is down, or no task "
        "slot is free. To wait longer, raise `timeout`. To go on after such an error, write "
        "checkpoints: `fit(checkpoint=..., resume=True)`."
    )


def not_connected(
    never: Sequence[int],
    total: int,
    homes: Mapping[int, str],
    address: tuple[str, int],
    seconds: float,
) -> ClusterError:
    """Return the error for workers that did not connect in time.

    Args:
        never: Sequence of their shards.
        total: Integer, number of all workers.
        homes: As in `unreachable`.
        address: As in `unreachable`.
        seconds: Float, how long the driver has waited.
    """
    host, port = address
    return ClusterError(
        f"{total - len(never)} of {total} workers connected to the driver at {host}:{port} "
        f"within {seconds:.0f} s. Those on {hosts(never, homes)} are missing. Another job may "
        "hold the task slots, a host may be down, or executors may still be starting (raise "
        f"`timeout`). {advice()}"
    )
