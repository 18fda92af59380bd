"""One cluster of several hosts for all tests of a run, which is repaired between them.

Each test writes what it does, how long that takes and what comes out, past pytest's capture: a run
takes long, and its log is what shows how faults end.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import pyspark
import pytest

from kspark.errors import ClusterError
from kspark.session.java import find_java

sys.path.insert(0, str(Path(__file__).parent))  # For `hostlab`.

from hostlab.namespaces import missing_requirement
from hostlab.sessions import Hosts, since
from hostlab.standalone import SparkCluster


@pytest.fixture(scope="session")
def say(pytestconfig):
    """A function that writes a line of the log."""
    return partial(write, pytestconfig)


def write(config, text):
    """Write a line past pytest's capture."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(text, flush=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Write which test begins, before its fixtures start anything."""
    write(item.config, f"\n{item.name}")


@pytest.fixture(scope="session")
def hosts(tmp_path_factory, say):
    """The cluster, and the one driver that has its slots."""
    reason = missing_requirement()
    if reason is not None:
        pytest.skip(reason)
    try:
        java = find_java(pyspark.__version__)
    except ClusterError as error:
        pytest.skip(str(error))
    hosts = Hosts(SparkCluster(tmp_path_factory.mktemp("hosts"), java), say)
    try:
        hosts.cluster.start()
        yield hosts
    finally:
        hosts.cluster.stop()


@pytest.fixture
def cluster(hosts):
    """The cluster, for faults."""
    return hosts.cluster


@pytest.fixture
def driver(hosts):
    """A driver with the usual settings and three executors."""
    return hosts.driver()


@pytest.fixture(scope="session")
def local_bytes(hosts):
    """The digests of synchronous fits on a local session, by model, frequency and epochs."""
    fits = [
        *(("perceptron", "epoch", 3), ("perceptron", "epoch", 6)),
        *(("perceptron", "batch", 6), ("perceptron", 3, 6)),
        *(("stateless", "epoch", 6), ("stateless", "batch", 6)),
    ]
    outcomes = hosts.local(
        *({"model": m, "frequency": f, "epochs": e, "seconds": 0.0} for m, f, e in fits)
    )
    assert all(outcome.ended_well for outcome in outcomes)
    return {fit: outcome.digest for fit, outcome in zip(fits, outcomes, strict=True)}


@pytest.fixture(autouse=True)
def repaired(request, hosts, say):
    """Takes back all faults of a test, and writes how the test ended."""
    begin = time.monotonic()
    yield
    failed = getattr(request.node, "failed", False)
    say(f"  => {'FAILED' if failed else 'right'}, {since(begin)}")
    if failed:
        hosts.explain()
        hosts.end_driver()
    hosts.cluster.repair()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let `repaired` know how a test ended."""
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report
