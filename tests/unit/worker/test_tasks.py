"""Exceptions as plain data, and what of them Spark is to retry."""

from __future__ import annotations

import json
import os
import pickle
import socket
from dataclasses import replace

import numpy as np
import pytest

from kspark.cluster.failures import (
    NonFiniteLossError,
    failure_json,
    failure_of,
    lost_too_often,
    worker_error,
)
from kspark.errors import (
    AggregationError,
    ConnectionLostError,
    EnvironmentMismatchError,
    Failure,
    IncompatibleDeltaError,
    KSparkError,
    ProtocolError,
)
from kspark.shards import Chunk, ShardFacts, ShardHandle, SpoolMissingError, Usage, spool
from kspark.worker.tasks import (
    AWAY,
    GONE,
    FitTask,
    MissingShard,
    ShardResult,
    facts_of,
    guarded,
    read_to_end,
    state_of,
    training_rows,
)

HOST = socket.gethostname()


def raising(error):
    def work():
        raise error

    return work


def test_work_that_succeeds_gives_its_result():
    assert guarded(3, lambda: "result") == "result"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        ZeroDivisionError("bad"),
        OSError("bad"),
        FileNotFoundError("bad"),
        EnvironmentMismatchError("bad"),
        IncompatibleDeltaError("bad"),
    ],
)
def test_what_comes_again_at_every_try_is_a_value(error):
    """Spark must not run the same mistake four times."""
    failure = guarded(3, raising(error))
    assert isinstance(failure, Failure)
    assert (failure.shard, failure.host, failure.attempt) == (3, HOST, 0)
    assert (failure.kind, failure.message) == (type(error).__name__, "bad")
    assert "in work\n    raise error" in failure.traceback


@pytest.mark.parametrize(
    "kind", [KSparkError, ConnectionLostError, AggregationError, ProtocolError]
)
def test_what_may_go_better_in_another_attempt_is_raised(kind):
    with pytest.raises(kind):
        guarded(3, raising(kind("superseded")))


def test_missing_files_are_a_value_of_their_own(tmp_path):
    handle = spool([Chunk([np.arange(2)])], 3, "run", directory=str(tmp_path))
    assert guarded(3, raising(SpoolMissingError("gone")), handle) == MissingShard(
        3, HOST, HOST, GONE
    )
    away = replace(handle, host="elsewhere", mark="of an executor there")
    missing = guarded(3, raising(SpoolMissingError("gone")), away)
    assert missing == MissingShard(3, HOST, "elsewhere", AWAY)
    assert missing.strayed


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_the_end_of_the_process_is_not_held_up(kind):
    with pytest.raises(kind):
        guarded(3, raising(kind()))


def test_a_loss_that_is_not_finite_has_a_kind_of_its_own():
    assert failure_of(0, NonFiniteLossError("nan")).kind == "NonFiniteLoss"


def test_nested_classes_are_named_with_their_class():
    class Inner(Exception):
        pass

    assert failure_of(0, Inner()).kind.endswith("Inner")
    assert "." in failure_of(0, Inner()).kind


def test_a_failure_fits_into_a_report():
    """TensorFlow tells whole graphs; a report may have 1 MiB."""
    failure = failure_of(0, ValueError("é" * 10**6))
    assert len(failure.message) == 20_000
    assert len(json.dumps(vars(failure))) < 1 << 20


def test_of_a_long_traceback_the_end_is_kept():
    def deep(n):
        return deep(n - 1) if n else 1 / 0

    def wrapped(n):
        if not n:
            return deep(30)
        try:
            return wrapped(n - 1)
        except Exception as error:
            raise RuntimeError(f"level {n}") from error

    failure = guarded(0, lambda: wrapped(60))
    assert failure.traceback.endswith("RuntimeError: level 60\n")
    assert len(failure.traceback) < 100_001


def test_a_failure_as_json_is_known_by_its_beginning():
    document = failure_json(4, ValueError("ragged"))
    assert document.startswith(b'{"failure"')
    failure = Failure(**json.loads(document)["failure"])
    assert (failure.shard, failure.kind, failure.message) == (4, "ValueError", "ragged")


def test_a_process_that_keeps_dying():
    failure = lost_too_often(2, 5)
    assert (failure.shard, failure.kind, failure.traceback) == (2, "WorkerLost", "")
    assert "ended 5 times" in failure.message


def test_a_process_that_keeps_hanging():
    failure = lost_too_often(2, 5, "It was stopped.")
    assert (failure.kind, failure.message[-15:]) == ("WorkerHung", "It was stopped.")
    assert "raise `timeout`" in str(worker_error(failure))


def test_facts():
    facts = facts_of(7, 3, False, Usage(2.5, 0.5, 10, 20))
    assert facts == ShardFacts(HOST, os.getpid(), 7, 2.5, 3, False, 0.5, 10, 20)


def test_state_of_a_replica(tools):
    optimizer, fixed = state_of(tools.replica())
    assert [a.tolist() for a in optimizer] == [0, [1.5]]
    assert [a.tolist() for a in fixed] == [[7, 7]]


def test_results_cross_processes(tools):
    for result in (
        ShardResult(1, 2),
        MissingShard(1, "h", "home"),
        FitTask("f", tools.plan(), {}, 1),
    ):
        assert pickle.loads(pickle.dumps(result)) == result


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "wanted"), [(10, 7), (7, 7), (10, 0)])
def test_training_rows_are_the_first_ones(tools, rows, wanted):
    fit = FitTask("f", tools.plan(), {3: wanted}, 1)
    assert training_rows(fit, ShardHandle(3, rows, "p", "h", 0)) == wanted


def test_a_shard_without_training_rows(tools):
    assert training_rows(FitTask("f", tools.plan(), {}, 1), ShardHandle(3, 5, "p", "h", 0)) == 0


def test_input_that_changed_when_it_was_read_again_is_named(tools):
    """Else the replica would meet the others less often than they think."""
    fit = FitTask("f", tools.plan(), {3: 7}, 1)
    with pytest.raises(
        ValueError, match=r"Partition 3 was read again .* has 6 rows now.*had 7 rows.*Persist"
    ):
        training_rows(fit, ShardHandle(3, 6, "p", "h", 0))


def test_reads_to_the_end_also_past_rows_that_are_refused():
    def rows(error=None):
        yield from range(3)
        if error is not None:
            raise error

    left = rows()
    read_to_end(left)
    assert list(left) == []
    for error in (ValueError(), TypeError()):
        read_to_end(rows(error))
    with pytest.raises(KeyError):
        read_to_end(rows(KeyError()))


@pytest.mark.parametrize("kind", [ValueError, KeyError])
def test_a_failure_has_no_codes_of_a_terminal(kind):
    """Keras sets parts of its messages in bold. A `KeyError` shows them escaped."""
    failure = failure_of(0, kind("before \x1b[1mbold\x1b[0m after"))
    assert "before bold after" in failure.message
    assert "[1m" not in failure.traceback + failure.message
