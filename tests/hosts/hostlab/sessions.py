"""The drivers that the tests of a run use, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hostlab.driver import Driver, Outcome, Say
from hostlab.standalone import WORKERS, SparkCluster


class Hosts:
    """The cluster, and a driver on it. Only one at a time has task slots.

    Args:
        cluster: `SparkCluster`.
        say: Function that writes a line of the log.
    """

    def __init__(self, cluster: SparkCluster, say: Say) -> None:
        self.cluster = cluster
        self.say = say
        self._driver: Driver | None = None

    def driver(
        self,
        present: Sequence[str] = WORKERS,
        executors: int | None = None,
        prepare: Callable[[Driver], object] | None = None,
        **settings: str,
    ) -> Driver:
        """A driver with these settings of Spark (`_` for `.`), once it has its executors.

        Args:
            present: Names of the workers that run when the driver starts.
            executors: Integer, the number of executors to wait for. Defaults to `None`: one on
                each worker that is present, and after `prepare` one on every worker.
            prepare: Function of the driver to call when it has started. Defaults to `None`.
            **settings: Settings of Spark.
        """
        settings = {f"spark.{name.replace('_', '.')}": value for name, value in settings.items()}
        usual = len(WORKERS) if prepare else len(present)
        if not self._serves(settings, executors or usual):
            self.end_driver()
            begin = time.monotonic()
            for absent in set(WORKERS) - set(present):
                self.cluster.stop_worker(absent)
            self._driver = Driver(self.cluster, settings, self.say)
            self._driver.wait_for_executors(executors or len(present))
            if prepare is not None:
                prepare(self._driver)
                self._driver.wait_for_executors(len(WORKERS))
            self.say(f"  a driver with {settings or 'the usual settings'}: {since(begin)}")
        return self._driver

    def _serves(self, settings: Mapping[str, str], executors: int) -> bool:
        """Whether there is a driver with these settings that gets its executors back."""
        if self._driver is None or self._driver.settings != settings or not self._driver.runs:
            return False
        try:
            self._driver.wait_for_executors(executors)
        except AssertionError as error:
            self.say(f"  another driver is started: {error}")
            return False
        return True

    def local(self, *fits: Mapping[str, Any]) -> list[Outcome]:
        """What fits on a local session of the driver's host end with."""
        driver = Driver(self.cluster, {}, self.say, master=f"local[{len(WORKERS)}]")
        try:
            return [driver.fit(**fit) for fit in fits]
        finally:
            driver.close()

    def end_driver(self) -> None:
        """End the driver. The next test that wants one starts it."""
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def explain(self) -> None:
        """Write what the driver and the executors wrote last."""
        if self._driver is not None:
            self.say(f"--- driver:\n{self._driver.tail()}")
        self.say(f"--- executors:\n{self.cluster.logs()}\n---")


def since(begin: float) -> str:
    """How long ago something was, as text."""
    return f"{time.monotonic() - begin:.1f} s"
