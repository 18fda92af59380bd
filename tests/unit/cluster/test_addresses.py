"""Addresses of the driver, and which tasks run on its host."""

from __future__ import annotations

from kspark.cluster.addresses import is_local


def test_is_local_recognizes_local_masters():
    assert [m for m in ("local", "local[2]", "local[*]") if not is_local(m)] == []
    others = ("local-cluster[2,1,1024]", "spark://h:7077", "yarn", "k8s://x", None)
    assert [m for m in others if is_local(m)] == []
