"""A process that hangs is ended: one that is stopped, or waits for a file. Others are not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from kspark.cluster.activity import (
    FILES,
    OTHER,
    TRAINING,
    WAITING,
    Activity,
    current,
    doing,
    reading,
)
from kspark.cluster.guard import Silence, poll_seconds, processor_time, status
from kspark.cluster.watch import (
    LEAST_BYTES,
    Limits,
    RunningTime,
    Watch,
    last_words,
)

SECONDS = 5


def silence_of(polls, timeout=SECONDS, step_timeout=0.0):
    """Return the reasons after each second without a heartbeat. `polls` are processor times."""
    silence = Silence(timeout, step_timeout)
    return [silence.lasts(1.0, ticks) for ticks in polls]


def test_a_silent_process_that_uses_no_processor_is_ended_after_the_timeout():
    reasons = silence_of([7] * 7)
    assert reasons[:5] == [""] * 5
    assert "stopped" in reasons[5] and "`timeout`" in reasons[5]


def test_a_silent_process_that_computes_is_not_ended():
    assert not any(silence_of(range(1000)))


def test_a_silent_process_that_computes_is_ended_after_the_step_timeout():
    reasons = silence_of(range(30), step_timeout=20.0)
    assert reasons.index(reasons[-1]) == 19 and "`step_timeout`" in reasons[-1]


def test_a_heartbeat_starts_the_count_again():
    silence = Silence(SECONDS, 0.0)
    for _ in range(3):
        assert not any(silence.lasts(1.0, 7) for _ in range(4))
        silence.broken()


def test_without_processor_times_silence_alone_counts():
    assert silence_of([None] * 6)[-1]


def exceeded(kind, seconds, step_timeout=None, processor=lambda t: 0.0, moved=lambda t: 0):
    """Return the first second at which a limit is exceeded, and which."""
    limits, activity = Limits(SECONDS, step_timeout), Activity(kind, 0.0)
    for now in range(seconds):
        reason = limits.exceeded(activity, float(now), processor(now), moved(now))
        if reason:
            return now, reason
    return None


@pytest.mark.parametrize("kind", [TRAINING, WAITING, OTHER])
def test_no_activity_but_files_has_a_limit_of_its_own(kind):
    assert exceeded(kind, 10_000) is None


def test_a_step_is_limited_by_the_step_timeout():
    second, reason = exceeded(TRAINING, 100, step_timeout=20.0)
    assert second == 21 and "`step_timeout`" in reason
    assert exceeded(OTHER, 100, step_timeout=20.0) is None


def test_files_that_do_not_answer_are_limited_by_the_timeout():
    second, reason = exceeded(FILES, 100)
    assert second == SECONDS + 1 and "`timeout`" in reason


def test_files_that_answer_slowly_are_no_hang():
    assert exceeded(FILES, 1000, moved=lambda t: t * LEAST_BYTES // SECONDS) is None
    assert exceeded(FILES, 1000, processor=lambda t: 0.02 * t) is None


def test_many_short_reads_are_no_hang():
    limits = Limits(SECONDS, None)
    for now in range(100):
        assert not limits.exceeded(Activity(FILES, float(now)), float(now), 0.0, 0)


def test_time_in_which_a_container_was_suspended_does_not_count():
    running, limits = RunningTime(1.0, 50.0), Limits(SECONDS, 20.0)
    for kind, suspended in ((FILES, 1000.0), (TRAINING, 5000.0)):
        activity = Activity(kind, suspended)
        reasons = [
            limits.exceeded(activity, running.until(now), 0.0, 0)
            for now in (suspended, suspended + 1.0, suspended + 900.0, suspended + 901.0)
        ]
        assert reasons == [""] * 4
    assert [RunningTime(1.0, 0.0).until(now) for now in (0.5, 1.5, 90.0)] == [0.5, 1.5, 2.0]


def test_a_step_is_measured_from_its_own_beginning():
    limits = Limits(SECONDS, 20.0)
    for now in range(100):
        assert not limits.exceeded(Activity(TRAINING, now // 10), float(now), 0.0, 0)


READS = """
import os
from kspark.cluster.watch import MovedBytes
moved = MovedBytes()
first = moved.now()
for _ in range(2000):
    last = moved.now()
file = os.open(os.devnull, os.O_WRONLY)
os.write(file, b"x" * 7000)
print(last - first, moved.now() - last)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="the system does not count bytes")
def test_the_heartbeats_own_bytes_are_no_progress():
    done = subprocess.run([sys.executable, "-c", READS], capture_output=True, text=True, check=True)
    assert done.stdout == "0 7000\n"


def test_without_a_heartbeat_there_is_no_guard(monkeypatch, caplog):
    """It would end a healthy process."""
    guards, start = [], Watch._start_guard

    def started(watch):
        start(watch)
        guards.append(watch._guard)

    def no_thread(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Watch, "_start_guard", started)
    monkeypatch.setattr("kspark.cluster.watch.threading.Thread.start", no_thread)
    with Watch("shard 3", 60.0, None):
        assert guards[0].poll() is not None
    assert "Nothing ends this process if it hangs: can't start new thread" in caplog.text


def test_activities_are_nested():
    with doing(TRAINING):
        before = current()
        with doing(WAITING):
            assert current().kind == WAITING
        assert current().kind == TRAINING
        assert current().since >= before.since
    assert current().kind == OTHER


def test_making_items_reads_files_and_using_them_does_not():
    kinds = []

    def items():
        for number in range(3):
            kinds.append(current().kind)
            yield number

    assert [(item, current().kind) for item in reading(items())] == [(i, OTHER) for i in range(3)]
    assert kinds == [FILES] * 3


PROGRAM = """
import os, sys, time
from pathlib import Path
from kspark.cluster.activity import FILES, TRAINING, doing
from kspark.cluster.watch import Watch

timeout, step_timeout, note, work = float(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]
with Watch("shard 3", timeout, step_timeout or None, Path(note)):
    print("watched", flush=True)
    exec(work)
print("done", flush=True)
"""


@pytest.fixture
def watched(tmp_path):
    """Start a process that is watched while it does some work. Each is ended after the test."""
    started = []

    def start(work, timeout=0.5, step_timeout=0.0):
        arguments = [str(timeout), str(step_timeout), str(tmp_path / "note"), work]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "watched\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_stopped_process_is_ended_and_leaves_a_note(watched, tmp_path):
    process = watched("time.sleep(60)")
    os.kill(process.pid, signal.SIGSTOP)
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: last_words(tmp_path / "note"))
    assert last_words(tmp_path / "note") == (
        "The worker process of shard 3 was ended: it was stopped, or did not answer, for 0.5 s "
        "(`timeout`)."
    )


DAEMON = """
import subprocess, sys  # It stands for Spark's daemon.
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
sys.stdin.read()
"""


def test_a_daemon_that_is_stopped_with_its_worker_is_ended_too(tmp_path):
    """Spark would wait for its next worker for ever."""
    arguments = [PROGRAM, "0.5", "0", str(tmp_path / "note"), "time.sleep(60)"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", DAEMON, *arguments], **pipes) as daemon:
        assert daemon.stdout.readline() == b"watched\n"
        (worker,) = children_of(daemon.pid)
        for pid in (worker, daemon.pid):
            os.kill(pid, signal.SIGSTOP)
        assert daemon.wait() == -signal.SIGKILL
        wait_for(lambda: status(worker)[:1] in ([], [b"Z"]))


def test_a_file_that_does_not_answer_ends_the_process(watched, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # Nobody writes to it, so it cannot be opened for reading.
    process = watched(f"with doing(FILES): open({str(pipe)!r})")
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: "a file did not answer" in last_words(tmp_path / "note"))


def test_a_step_longer_than_the_timeout_is_no_hang(watched):
    process = watched("with doing(TRAINING): time.sleep(1.5)")
    assert process.stdout.readline() == "done\n"


def test_native_code_that_keeps_the_heartbeat_waiting_is_no_hang(watched):
    # `sum` over a range runs in C, and lets no other thread run.
    work = (
        "n = 10 ** 7\nend = time.monotonic() + 2\nwhile time.monotonic() < end: sum(range(n * 4))"
    )
    process = watched("sys.setswitchinterval(60)\n" + work)
    assert process.stdout.readline() == "done\n"


def test_a_step_longer_than_the_step_timeout_ends_the_process(watched, tmp_path):
    process = watched("with doing(TRAINING): time.sleep(60)", step_timeout=1.0)
    assert process.wait() == -signal.SIGKILL
    wait_for(lambda: "`step_timeout`" in last_words(tmp_path / "note"))


def test_the_guard_ends_with_the_process_that_it_watches(watched):
    process = watched("time.sleep(60)")
    (guard,) = children_of(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: processor_time(guard) is None)


def test_the_guard_ends_with_the_work(watched):
    process = watched("pass\nprint('still', flush=True)")
    assert process.stdout.readline() == "still\n"
    assert process.stdout.readline() == "done\n"
    assert process.wait() == 0


def test_heartbeats_come_several_times_within_the_timeout():
    assert poll_seconds(0.5) == 0.025
    assert poll_seconds(3600.0) == 1.0


def test_nobody_knows_why_a_process_without_a_note_ended(tmp_path):
    assert last_words(tmp_path / "none") == ""


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def wait_for(condition):
    while not condition():
        time.sleep(0.05)
