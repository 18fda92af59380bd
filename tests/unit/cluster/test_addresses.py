"""Addresses of the driver, and which tasks run on its host."""

from __future__ import annotations

from types import SimpleNamespace

from kspark.cluster.addresses import is_local, tasks_are_here


def test_is_local_recognizes_local_masters():
    assert [m for m in ("local", "local[2]", "local[*]") if not is_local(m)] == []
    others = ("local-cluster[2,1,1024]", "spark://h:7077", "yarn", "k8s://x", None)
    assert [m for m in others if is_local(m)] == []


def test_tasks_are_here_in_a_local_session():
    def session(master):
        return SimpleNamespace(sparkContext=SimpleNamespace(master=master))

    assert tasks_are_here(session("local[2]"))
    assert not tasks_are_here(session("yarn"))
    assert not tasks_are_here(SimpleNamespace())  # a session of Spark Connect
