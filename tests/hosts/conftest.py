"""One cluster of several hosts for all tests of a run, which is repaired between them.

Each test writes what it does, how long that takes and what comes out, past pytest's capture: a run
takes long, and its log is what shows how faults end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pyspark
import pytest

from kspark.errors import ClusterError
from kspark.session.java import find_java

sys.path.insert(0, str(Path(__file__).parent))  # For `hostlab`.

from hostlab.driver import Driver
from hostlab.namespaces import missing_requirement
from hostlab.standalone import WORKERS, SparkCluster


@pytest.fixture(scope="session")
def say(pytestconfig):
    """A function that writes a line of the log."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def write(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, flush=True)

    return write


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


class Hosts:
    """The cluster, and a driver on it. Only one at a time has task slots.

    Args:
        cluster: `SparkCluster`.
        say: Function that writes a line of the log.
    """

    def __init__(self, cluster, say):
        self.cluster = cluster
        self.say = say
        self._driver = None

    def driver(self, executors=len(WORKERS), **settings):
        """A driver with these settings of Spark (`_` for `.`), once it has all executors."""
        settings = {f"spark.{name.replace('_', '.')}": value for name, value in settings.items()}
        driver = self._driver
        if driver is not None and not (driver.runs and driver.settings == settings):
            self.end_driver()
        if self._driver is None:
            begin = time.monotonic()
            self._driver = Driver(self.cluster, settings, self.say)
            self._driver.wait_for_executors(executors)
            self.say(f"  driver with {settings or 'the usual settings'}: {since(begin)}")
        self._driver.wait_for_executors(executors)
        return self._driver

    def local(self, *fits):
        """What fits on a local session of the driver's host end with."""
        driver = Driver(self.cluster, {}, self.say, master=f"local[{len(WORKERS)}]")
        try:
            return [driver.fit(**fit) for fit in fits]
        finally:
            driver.close()

    def end_driver(self):
        """End the driver. The next test that wants one starts it."""
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def explain(self):
        """Write what the driver and the executors wrote last."""
        if self._driver is not None:
            self.say(f"--- driver:\n{self._driver.tail()}")
        self.say(f"--- executors:\n{self.cluster.logs()}\n---")


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
    """The digests of synchronous fits of the perceptron on a local session, by frequency."""
    fits = [
        {"model": "perceptron", "frequency": frequency, "seconds": 0.0, "epochs": 6}
        for frequency in ("epoch", "batch", 3)
    ]
    outcomes = hosts.local(*fits)
    assert all(outcome.ended_well for outcome in outcomes)
    return {fit["frequency"]: o.digest for fit, o in zip(fits, outcomes, strict=True)}


@pytest.fixture(autouse=True)
def repaired(request, hosts, say):
    """Takes back all faults of a test, and writes how the test ended."""
    say(f"\n{request.node.name}")
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


def since(begin):
    return f"{time.monotonic() - begin:.1f} s"
