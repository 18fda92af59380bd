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
"""Bytes that count as progress of files. The heartbeat itself moves fewer within a timeout."""


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

    def exceeded(self, activity: Activity, now: float, processor: float, bytes_moved: int) -> str:
        """Return which limit is exceeded, as the reason for ending the process.

        Args:
            activity: `Activity` of the main thread.
            now: Float, seconds of `time.monotonic`.
            processor: Float, processor time of the process so far, in seconds.
            bytes_moved: Integer, bytes that the process has read and written so far.

        Returns:
            String; empty if none is exceeded.
        """
        if activity.kind == TRAINING:
            limit = self._step_timeout
            if limit is not None and now - activity.since > limit:
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
        self._pipe = -1

    def __enter__(self) -> Watch:
        begin(OTHER)
        try:
            self._start_guard()
        except OSError as error:  # A limit on processes, for instance.
            logger.warning("Nothing ends this process if it is stopped: %s", error)
        self._thread = threading.Thread(target=self._beat, name="kspark-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            os.close(self._pipe)
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

    def _beat(self) -> None:
        limits = Limits(self._timeout, self._step_timeout)
        while not self._over.wait(guard.poll_seconds(self._timeout)):
            self._tell(b".")
            reason = limits.exceeded(
                current(), time.monotonic(), time.process_time(), bytes_moved()
            )
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
            os.write(self._pipe, message)
        return True


def bytes_moved() -> int:
    """Return the bytes that this process has read and written; 0 if the system does not say."""
    try:
        lines = Path("/proc/self/io").read_bytes().split(b"\n")
    except OSError:
        return 0
    # Calls that move bytes, and bytes of disks that memory-mapped files are read from.
    return sum(int(line.split()[1]) for line in lines if line.startswith((b"r", b"w")))


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
