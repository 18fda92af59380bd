"""Workers that cannot open a connection to the driver, told over Spark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import Accumulator
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Unreached:
    """The shards whose workers cannot open a connection to the driver.

    Spark hands on what they add when their tasks end, while those of other workers are running.

    Attributes:
        bits: `pyspark.Accumulator` of an integer with a bit per shard.
    """

    bits: Accumulator[int]

    @classmethod
    def of(cls, spark: SparkSession) -> Unreached:
        """Create it on the driver."""
        return cls(spark.sparkContext.accumulator(0))

    def add(self, shard: int) -> None:
        """Note a shard, on its worker. Call it once per job."""
        self.bits.add(1 << shard)

    @property
    def shards(self) -> list[int]:
        """The shards so far, sorted. On the driver."""
        bits = self.bits.value
        return [shard for shard in range(bits.bit_length()) if bits >> shard & 1]
