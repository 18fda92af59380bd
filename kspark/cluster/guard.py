"""A small process beside a worker process. It ends the worker if that hangs.

`kspark.cluster.watch` runs this file's text with `python -c`, so it imports the standard library
only, and as little of it as possible. The worker writes to its standard input:

* `.`, the heartbeat, several times within the timeout;
* any other text, the reason why it has to be ended;
* nothing, and closes it, when its task is over.
"""

from __future__ import annotations

import os
import select
import signal
import sys

POLLS = 20
"""Number of heartbeats within the timeout, if that is short."""

LONGEST_POLL = 1.0
"""The most seconds between two heartbeats."""


def poll_seconds(timeout: float) -> float:
    """Return the seconds between two heartbeats."""
    return min(timeout / POLLS, LONGEST_POLL)


def status(pid: int) -> list[bytes]:
    """Return what Linux says of a process: state, parent and so on; an empty list if it does not.

    See `/proc/pid/stat` in proc(5), from the third field on.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def processor_time(pid: int) -> int | None:
    """Return the processor time that a process has used, in ticks; `None` if it is not known."""
    fields = status(pid)
    return int(fields[11]) + int(fields[12]) if fields else None


def stopped_daemon(pid: int) -> int | None:
    """Return the daemon that Spark forked a worker from, if it is stopped, too; else `None`.

    Spark would wait for a new worker from it for ever. It starts another daemon if this one ends.
    """
    fields = status(pid)
    parent = int(fields[1]) if fields else 0
    if not parent or status(parent)[:1] != [b"T"]:
        return None
    with open(f"/proc/{parent}/cmdline", "rb") as file:
        return parent if b"daemon" in file.read() else None


class Silence:
    """How long a worker has sent no heartbeat. Without clock and process: both are arguments.

    Only time in which this process itself was running counts. So nothing is ended after a host, or
    a container with all its processes, was suspended.

    Args:
        timeout: Float, seconds that a worker may be silent without using the processor. A worker
            that computes may be silent for longer: native code can keep the heartbeat waiting.
        step_timeout: Float, seconds that a worker may be silent in any case; 0 for no limit.
    """

    def __init__(self, timeout: float, step_timeout: float) -> None:
        self._timeout = timeout
        self._step_timeout = step_timeout
        self._ticks: int | None = None
        self.broken()

    def broken(self) -> None:
        """Note a heartbeat."""
        self._silent = self._still = 0.0

    def lasts(self, seconds: float, ticks: int | None) -> str:
        """Note further seconds without a heartbeat.

        Args:
            seconds: Float.
            ticks: Integer, the processor time of the worker so far.

        Returns:
            String, why the worker has to be ended; empty if it has not.
        """
        self._silent += seconds
        computes = ticks != self._ticks
        self._still, self._ticks = 0.0 if computes else self._still + seconds, ticks
        if self._still >= self._timeout:
            return f"it was stopped, or did not answer, for {self._timeout:g} s (`timeout`)"
        if self._step_timeout and self._silent >= self._step_timeout:
            return f"a step took longer than {self._step_timeout:g} s (`step_timeout`)"
        return ""


def end(pid: int, name: str, reason: str, note: str) -> None:
    """End a worker, say why on its standard error, and leave a note for the next one."""
    daemon = stopped_daemon(pid)
    os.kill(pid, signal.SIGKILL)
    if daemon is not None:
        os.kill(daemon, signal.SIGKILL)
    text = f"The worker process of {name} was ended: {reason}."
    os.write(2, f"kspark: {text}\n".encode())
    if note and os.path.isdir(os.path.dirname(note)):
        with open(note, "w") as file:
            file.write(text)


def main(pid: int, timeout: float, step_timeout: float, name: str, note: str) -> None:
    """Watch a worker, which is the parent of this process, until its task is over.

    Args:
        pid: Integer, the worker.
        timeout: Float, see `Silence`.
        step_timeout: Float, see `Silence`.
        name: String, what the worker works on.
        note: String, the file for the reason if the worker is ended; empty for none.
    """
    poll, silence = poll_seconds(timeout), Silence(timeout, step_timeout)
    reason = ""
    while not reason:
        ready, _, _ = select.select([0], [], [], poll)
        if os.getppid() != pid:
            return
        if ready:
            received = os.read(0, 4096).decode()
            if not received:
                return
            reason = received.strip(".")
            silence.broken()
        else:
            reason = silence.lasts(poll, processor_time(pid))
    end(pid, name, reason, note)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5])
