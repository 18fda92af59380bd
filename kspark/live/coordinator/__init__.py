"""What the live road's replicas share: progress, meetings, epochs.

`Coordinator` is the door and the lock; `progress` is the bookkeeping behind it,
`kspark.live.coordinator.rendezvous` the synchronous exchanges.
"""

from kspark.live.coordinator.coordinator import Coordinator
from kspark.live.coordinator.progress import EpochReport, ShardPlan

__all__ = ["Coordinator", "EpochReport", "ShardPlan"]
