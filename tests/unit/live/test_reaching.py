"""The errors about workers that the driver cannot reach, or does not hear any more."""

from types import SimpleNamespace

from kspark.cluster.unreached import Unreached
from kspark.live.reaching import hosts, lost, unreachable

HOMES = {0: "a", 1: "b", 2: "a"}


def test_hosts_are_named_with_their_shards():
    assert hosts([2, 0, 1], HOMES) == "host a (shards 0, 2), host b (shard 1)"
    assert hosts([7], HOMES) == "host unknown (shard 7)"


def test_an_unreachable_driver_is_named_with_its_address_and_the_argument():
    told = unreachable([1], HOMES, ("driver", 4040))
    assert "the driver at driver:4040 from host b (shard 1)" in told
    assert "`port`" in told and "`spark.driver.host`" in told


def test_a_lost_host_is_named_with_the_time():
    told = str(lost([0, 2], HOMES, 60.0))
    assert "host a (shards 0, 2)" in told and "within 60 s" in told and "`timeout`" in told


def test_workers_tell_over_spark_that_they_cannot_connect():
    sums = SimpleNamespace(value=0)
    sums.add = lambda bits: setattr(sums, "value", sums.value + bits)
    unreached = Unreached(sums)
    assert unreached.shards == []
    for shard in (100, 0, 3):
        unreached.add(shard)
    assert unreached.shards == [0, 3, 100]
