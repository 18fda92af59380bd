"""What the live road's replicas share: progress, meetings, epochs.

`Coordinator` is the door and the lock; `progress` is the bookkeeping behind it,
`kspark.rendezvous` the synchronous exchanges.
"""

from kspark.coordinator.coordinator import Coordinator
from kspark.coordinator.progress import EpochReport, ShardPlan

__all__ = ["Coordinator", "EpochReport", "ShardPlan"]
