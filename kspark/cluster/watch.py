"""Watch this worker process while it works on a shard, so that it is ended if it hangs.

```
worker                                        guard, a small process (`guard.py`)
main thread: trains, reads, waits
  ↓ activity (`activity.py`)
heartbeat thread ─── a dot, every second ───→ no dot for `timeout` seconds: ends the worker
                 ─── a reason ──────────────→ ends the worker at once
```

A thread cannot tell that its own process is stopped. Spark does not see it either: it watches the
JVM of an executor, which goes on. So another process has to do it, on the same host, because tasks
of rounds have no connection to the driver.

| the worker | heartbeat | ended |
|---|---|---|
| computes, however long | yes, or it uses the processor | never, unless `step_timeout` is set |
| is stopped | no | after `timeout` |
| waits for a file | yes | if neither bytes nor processor time move for `timeout` |
| waits for the driver or other workers | yes | by the driver |

When a worker has ended, its task fails, its slot is free, and all goes on as after a crash.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from kspark.cluster import guard
from kspark.cluster.activity import FILES, OTHER, TRAINING, Activity, begin, current

logger = logging.getLogger("kspark")

BUSY_SHARE = 0.01
"""Share of the processor from which on a process that reads files computes, too."""

LEAST_BYTES = 1 << 16
"""Bytes that count as progress of files."""


class RunningTime:
    """Seconds in which this process was running, measured by its heartbeats.

    `time.monotonic` goes on while a container is suspended. So a heartbeat that comes late counts
    as one that was missed at most, as in `guard.Silence`.

    Args:
        poll: Float, seconds between two heartbeats.
        now: Float, seconds of `time.monotonic`.
    """

    def __init__(self, poll: float, now: float) -> None:
        self._most = 2 * poll
        self._last = now
        self._seconds = 0.0

    def until(self, now: float) -> float:
        """Note a heartbeat, and return the seconds so far."""
        self._seconds += min(now - self._last, self._most)
        self._last = now
        return self._seconds


class MovedBytes:
    """Counts the bytes that this process has read and written, without those of its heartbeat."""

    def __init__(self) -> None:
        self._own = 0

    def exclude(self, count: int) -> None:
        """Leave out bytes that the heartbeat has moved."""
        self._own += count

    def now(self) -> int:
        """Return the bytes so far; 0 if the system does not say."""
        try:
            content = Path("/proc/self/io").read_bytes()
        except OSError:
            return 0
        # Calls that move bytes, and bytes of disks that memory-mapped files are read from.
        lines = [line for line in content.split(b"\n") if line.startswith((b"r", b"w"))]
        moved = sum(int(line.split()[1]) for line in lines) - self._own
        self.exclude(len(content))  # From the next time on, this reading is among them.
        return moved


class Limits:
    """Decides whether the main thread hangs. Without clock: times are arguments.

    Args:
        timeout: Float, seconds that files may take to answer.
        step_timeout: Float, seconds that a step may take. `None`: no limit.
    """

    def __init__(self, timeout: float, step_timeout: float | None) -> None:
        self._timeout = timeout
        self._step_timeout = step_timeout
        self._mark: tuple[Activity, float, float, int] | None = None
        self._step: tuple[Activity, float] | None = None

    def exceeded(self, activity: Activity, now: float, processor: float, bytes_moved: int) -> str:
        """Return which limit is exceeded, as the reason for ending the process.

        Args:
            activity: `Activity` of the main thread.
            now: Float, seconds of `RunningTime`.
            processor: Float, processor time of the process so far, in seconds.
            bytes_moved: Integer, bytes that the process has read and written so far.

        Returns:
            String; empty if none is exceeded.
        """
        if activity.kind == TRAINING:
            limit = self._step_timeout
            if self._step is None or self._step[0] != activity:
                self._step = activity, now
            if limit is not None and now - self._step[1] > limit:
                return f"a step took longer than {limit:g} s (`step_timeout`)"
        if activity.kind == FILES and self._files_are_silent(activity, now, processor, bytes_moved):
            return f"a file did not answer for {self._timeout:g} s (`timeout`)"
        return ""

    def _files_are_silent(
        self, activity: Activity, now: float, processor: float, bytes_moved: int
    ) -> bool:
        if self._mark is not None:
            same, since, used, moved = self._mark
            computes = processor - used > BUSY_SHARE * self._timeout
            if same == activity and not computes and bytes_moved - moved < LEAST_BYTES:
                return now - since > self._timeout
        self._mark = (activity, now, processor, bytes_moved)
        return False


class Watch:
    """Watches this process inside the block.

    Args:
        name: String, what the process works on, for the message.
        timeout: Float, seconds without progress after which the process is ended.
        step_timeout: Float, seconds that a step may take. `None`: no limit.
        note: Path of the file for the reason if the process is ended; see `last_words`.
    """

    def __init__(
        self, name: str, timeout: float, step_timeout: float | None, note: Path | None = None
    ) -> None:
        self._name = name
        self._timeout = timeout
        self._step_timeout = step_timeout
        self._note = note
        self._over = threading.Event()
        self._guard: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._moved = MovedBytes()
        self._pipe = -1

    def __enter__(self) -> Watch:
        begin(OTHER)
        try:
            self._start_guard()
        except OSError as error:  # A limit on processes, for instance.
            logger.warning("Nothing ends this process if it is stopped: %s", error)
        thread = threading.Thread(target=self._beat, name="kspark-heartbeat", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except BaseException as error:  # The guard would end a process without a heartbeat.
            self._end_guard()
            if not isinstance(error, RuntimeError):  # A limit on threads.
                raise
            logger.warning("Nothing ends this process if it hangs: %s", error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._end_guard()
        begin(OTHER)

    def _start_guard(self) -> None:
        limits = [str(self._timeout), str(self._step_timeout or 0.0)]
        note = "" if self._note is None else str(self._note)
        source = inspect.getsource(guard)
        arguments = [str(os.getpid()), *limits, self._name, note]
        end, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            # A session of its own, so that a signal to the worker's group does not stop it, too.
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", source, *arguments],
                stdin=end,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(end)

    def _end_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard = None
            os.close(self._pipe)

    def _beat(self) -> None:
        limits, poll = Limits(self._timeout, self._step_timeout), guard.poll_seconds(self._timeout)
        running = RunningTime(poll, time.monotonic())
        while not self._over.wait(poll):
            self._tell(b".")
            now = running.until(time.monotonic())
            reason = limits.exceeded(current(), now, time.process_time(), self._moved.now())
            if reason:
                # Spark notices the end of its connections, even if the kernel cannot end a
                # process whose file system does not answer.
                shut_connections()
                if not self._tell(reason.encode()):
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    def _tell(self, message: bytes) -> bool:
        """Send a message to the guard. Returns whether there is one."""
        if self._guard is None or self._guard.poll() is not None:
            return False
        with contextlib.suppress(OSError):  # The guard was stopped, or has just ended.
            self._moved.exclude(os.write(self._pipe, message))
        return True


def shut_connections() -> None:
    """Shut all connections of this process, as its end would do."""
    for descriptor in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            duplicate = socket.socket(fileno=os.dup(int(descriptor)))
            with duplicate:
                duplicate.getpeername()  # Raises for a socket that listens for others.
                duplicate.shutdown(socket.SHUT_RDWR)


def last_words(note: Path) -> str:
    """Return why the last process that worked on a shard was ended; empty if nobody knows."""
    try:
        return note.read_text()
    except OSError:
        return ""
