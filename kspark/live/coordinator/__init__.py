"""The state that the replicas of a live fit share on the driver.

`Coordinator` answers the replicas and holds the lock. `progress` records how far each shard is,
`rendezvous` merges the exchanges of synchronous replicas, `meetings` makes them wait for each
other, `pushes` applies the deltas of asynchronous replicas, `clocks` bounds their staleness,
`running` keeps what the driver shows within an epoch, and `gate` is the lock with its waits.
"""

from kspark.live.coordinator.coordinator import Coordinator
from kspark.live.coordinator.progress import EpochReport, ShardPlan

__all__ = ["Coordinator", "EpochReport", "ShardPlan"]
