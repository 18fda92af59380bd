"""A program on the driver's host that trains when it is told to, and faults while it trains."""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostlab.standalone import MASTER, PROGRAMS, SparkCluster, last_lines

SETTINGS = {
    "spark.driver.host": "driver",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "700m",
    "spark.executor.cores": "1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "3",
    # As docs/cluster.md recommends.
    "spark.python.daemon.module": "kspark.cluster.daemon",
    "spark.python.task.killTimeout": "100ms",
    "spark.sql.execution.pyspark.udf.simplifiedTraceback.enabled": "false",
}

START_SECONDS = 120.0
"""How long the program may take to start, or to see the executors that it needs."""

FIT_SECONDS = 150.0
"""How long a fit may take if a test gives no limit."""

Say = Callable[[str], None]


class TooLateError(AssertionError):
    """The program has not ended what it does within the limit."""


@dataclass(frozen=True)
class During:
    """A fault within an epoch.

    Attributes:
        epoch: Integer, counted from 0.
        fault: Function without arguments.
        seconds: Float, how long after the beginning of the epoch.
    """

    epoch: int
    fault: Callable[[], object]
    seconds: float = 0.4


@dataclass
class Outcome:
    """What a fit has ended with.

    Attributes:
        result: Dictionary that the program returns; empty if the fit failed.
        error: String, the class of the error; `None` if the fit ended well.
        message: String, the message of the error.
        log: List of lines of kspark's log from INFO on, each after its level.
        epochs: List of dictionaries, what was known at the beginning of each epoch.
        seconds: Float, how long it took.
        after_fault: Float, how long after the last fault it ended; `None` without faults.
    """

    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    message: str = ""
    log: list[str] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    after_fault: float | None = None

    def __getattr__(self, name: str) -> Any:
        """Return an entry of the result, such as `weight`."""
        try:
            return self.__dict__["result"][name]
        except KeyError:
            raise AttributeError(f"{name}: there is only {self}") from None

    @property
    def ended_well(self) -> bool:
        """Whether there was no error."""
        return self.error is None

    @property
    def is_exact(self) -> bool:
        """Whether each batch was applied exactly once, for the model that counts them."""
        return self.ended_well and abs(self.result["weight"] - self.result["expected"]) < 1e-3

    @property
    def counts_rows(self) -> bool:
        """Whether the metrics of every epoch have each row once."""
        return self.ended_well and set(self.result["rows"]) == {self.result["num_rows"]}

    @property
    def hosts(self) -> list[list[str]]:
        """The hosts that trained in each epoch, sorted."""
        return [sorted(set(hosts)) for hosts in self.result["hosts"]]

    def logged(self, pattern: str) -> list[str]:
        """Return the lines of the log that match."""
        return [line for line in self.log if re.search(pattern, line, re.IGNORECASE)]

    def __str__(self) -> str:
        took = f"{self.seconds:.1f} s"
        if self.after_fault is not None:
            took += f", {self.after_fault:.1f} s after the fault"
        if not self.ended_well:
            return f"{self.error}: {self.message[:400]} ({took})"
        if not self.result:
            return f"nothing ({took})"
        weight = f"weight {self.weight:g} of {self.expected}"
        rows = self.rows[0] if self.counts_rows else f"{self.rows} instead of {self.num_rows}"
        hosts = " ".join(self.hosts[-1])
        state = "kept" if self.state_kept else "lost"
        return (
            f"{weight if self.model == 'counting' else self.digest}, rows {rows}, {self.road}, "
            f"at last on {hosts}, optimizer state {state} ({took})"
        )


class Driver:
    """The program, with a Spark session of its own.

    Args:
        cluster: `SparkCluster`.
        settings: Mapping of further settings of Spark.
        say: Function that writes a line of the log of the tests.
        master: String, the master of Spark. Defaults to that of the cluster.
    """

    def __init__(
        self, cluster: SparkCluster, settings: Mapping[str, str], say: Say, master: str = MASTER
    ) -> None:
        self.settings = dict(settings)
        self._cluster = cluster
        self._say = say
        self._host = cluster.hosts["driver"]
        self.log_file = cluster.folder / f"driver-{time.time():.0f}.log"
        program = [sys.executable, str(PROGRAMS / "trainer.py")]
        program += [json.dumps({"spark.master": master, **SETTINGS, **settings})]
        with open(self.log_file, "a") as log:
            self._process = self._host.start_program(
                program, cluster.environment, log, stdin=-1, stdout=-1
            )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._wait(Outcome(), START_SECONDS, ())

    @property
    def runs(self) -> bool:
        """Whether the program runs."""
        return self._process.poll() is None

    def fit(
        self,
        mode: str = "synchronous",
        frequency: str | int = "epoch",
        *faults: During,
        within: float = FIT_SECONDS,
        **arguments: Any,
    ) -> Outcome:
        """Train, see `trainer.fit`, and do faults meanwhile.

        Args:
            mode: String.
            frequency: String or integer.
            *faults: What happens in the meantime.
            within: Float, seconds after the last fault, or without faults from the start, within
                which the fit has to end, well or with an error.
            **arguments: Further ones of `trainer.fit`.

        Raises:
            TooLateError: If it does not end in time.
        """
        outcome = self.ask("fit", mode=mode, frequency=frequency, limit=within, faults=faults,
                           **arguments)  # fmt: skip
        self._say(f"  {mode} {frequency!r}: {outcome}")
        return outcome

    def wait_for_executors(self, number: int) -> None:
        """Wait until that many executors are there."""
        outcome = self.ask("executors", number=number, limit=START_SECONDS)
        assert outcome.ended_well, outcome

    def ask(
        self,
        job: str,
        *,
        limit: float = FIT_SECONDS,
        faults: Sequence[During] = (),
        **arguments: Any,
    ) -> Outcome:
        """Let the program run one of its functions, and wait for what it returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": job, **arguments}) + "\n")
        self._process.stdin.flush()
        outcome = Outcome()
        self._wait(outcome, limit, faults)
        return outcome

    def close(self) -> None:
        """End the program with its session, and with it all executors."""
        if self.runs:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process.wait(10)

    def kill(self) -> None:
        """Kill the program and its Java."""
        self._host.send(signal.SIGKILL, "trainer.py", "java")
        self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _wait(self, outcome: Outcome, limit: float, faults: Sequence[During]) -> None:
        """Handle the program's events until it has done what it was told."""
        begin, pending = time.monotonic(), list(faults)
        running: list[Fault] = []
        while True:
            last = max([begin, *(fault.done or time.monotonic() for fault in running)])
            # The limit counts from the last fault on. What comes before must not hang either.
            end = last + limit if not pending else begin + FIT_SECONDS
            try:
                event = self._events.get(timeout=max(min(end - time.monotonic(), 1.0), 0.01))
            except queue.Empty:
                if time.monotonic() > end:
                    self.kill()
                    text = f"Not ended after {limit:.0f} s. Log: {outcome.log[-5:]}"
                    raise TooLateError(text) from None
                continue
            if event is None:
                raise AssertionError(f"The driver's program has ended:\n{self.tail()}")
            match event.pop("event"):
                case "epoch":
                    outcome.epochs.append(event)
                    for fault in [f for f in pending if f.epoch == event["epoch"]]:
                        pending.remove(fault)
                        running.append(Fault(fault, self._say))
                case "log":
                    outcome.log.append(event["line"])
                    if not event["line"].startswith("INFO"):
                        self._say(f"    {time.monotonic() - begin:5.1f} s {event['line'][:300]}")
                case "done":
                    for attribute, value in event.items():
                        setattr(outcome, attribute, value)
                    now = time.monotonic()
                    outcome.seconds = now - begin
                    for fault in running:
                        fault.join()
                    if running:
                        outcome.after_fault = now - max(f.done or now for f in running)
                    assert outcome.error or not pending, "The fit ended before the fault."
                    return

    def tail(self) -> str:
        """Return the last lines that the program and its Java have written."""
        return "\n".join(last_lines(self.log_file, 15))


class Fault:
    """A fault that happens in a thread of its own.

    Attributes:
        done: Float, when it had happened, or `None`.
    """

    def __init__(self, fault: During, say: Say) -> None:
        self.done: float | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(fault, say), daemon=True)
        self._thread.start()

    def _run(self, fault: During, say: Say) -> None:
        time.sleep(fault.seconds)
        try:
            fault.fault()
        except Exception as error:  # noqa: BLE001 - raised by `join`
            self._error = error
        self.done = time.monotonic()
        say(f"    fault {fault.seconds} s after the beginning of epoch {fault.epoch + 1}")

    def join(self) -> None:
        """Wait until it has happened.

        Raises:
            Exception: If it could not happen.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
