"""Hogwild on one host: a file that several processes map."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kspark import temporary
from kspark.errors import AggregationError, IncompatibleDeltaError
from kspark.live import shared_memory
from kspark.live.shared_memory import PIECE, SharedWeights, zeros
from kspark.weights import STATE, TRAINABLE, Weight, WeightSpec


def spec_of(dtype="float32"):
    return WeightSpec((Weight("w", (3,), dtype, TRAINABLE), Weight("s", (2,), dtype, STATE)))


@pytest.fixture(params=["float32", "float64"])
def shared(request, tmp_path, monkeypatch):
    monkeypatch.setattr(temporary, "MEMORY", str(tmp_path))
    spec = spec_of(request.param)
    made = SharedWeights.create(np.arange(5, dtype=spec.dtype), spec, 3)
    yield made, spec
    made.unlink()


def found(shared, spec, mark=None, path=None):
    return SharedWeights.find(path or shared.path, mark or shared.mark, spec, 3)


def directory_of(shared):
    """Where the folder of a file is."""
    return os.path.dirname(os.path.dirname(shared.path))


def test_begins_with_the_weights_and_no_pushes(shared):
    made, spec = shared
    assert made.vector.tolist() == [0, 1, 2, 3, 4]
    assert made.vector.dtype == spec.dtype
    assert made.pushes.tolist() == [0, 0, 0]
    assert type(made.vector) is np.ndarray


def test_starts_from_a_copy():
    spec, weights = spec_of(), np.zeros(5, "f4")
    made = SharedWeights.create(weights, spec, 1)
    made.vector += 1
    made.unlink()
    assert weights.tolist() == [0] * 5


def test_what_one_adds_the_other_sees(shared):
    made, spec = shared
    other = found(made, spec)
    other.vector += 10
    other.pushes[1] += 2
    assert made.vector.tolist() == [10, 11, 12, 13, 14]
    assert made.pushes.tolist() == [0, 2, 0]
    made.pushes[2] = 7
    assert other.pushes.tolist() == [0, 2, 7]
    assert other.vector.tolist() == [10, 11, 12, 13, 14]


def test_another_process_sees_it_too(shared, tmp_path):
    made, spec = shared
    (tmp_path / "arguments").write_bytes(pickle.dumps((made.path, made.mark, spec, 3)))
    code = (
        "import pickle, sys; from kspark.live.shared_memory import SharedWeights;"
        "found = SharedWeights.find(*pickle.load(open(sys.argv[1], 'rb')));"
        "found.vector += 1; found.pushes[0] += 1"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "arguments")]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert made.vector.tolist() == [1, 2, 3, 4, 5]
    assert made.pushes.tolist() == [1, 0, 0]


def test_found_only_with_the_right_mark(shared):
    made, spec = shared
    wrong = bytes(32)
    assert found(made, spec, mark=wrong) is None
    assert found(made, spec) is not None


def test_marks_are_random_and_long(shared):
    made, spec = shared
    another = SharedWeights.create(np.arange(5, dtype=spec.dtype), spec, 3)
    another.unlink()
    assert len(made.mark) == 32
    assert another.mark != made.mark
    assert another.path != made.path


def test_not_found_where_there_is_no_such_file(shared, tmp_path):
    made, spec = shared
    assert found(made, spec, path=str(tmp_path / "other")) is None


def test_only_this_user_may_read_it(shared):
    assert os.stat(shared[0].path).st_mode & 0o077 == 0


def test_open_maps_stay_valid_after_unlink(shared):
    made, spec = shared
    other = found(made, spec)
    made.unlink()
    made.unlink()  # twice is no error
    assert not os.path.exists(made.path)
    assert found(made, spec) is None
    other.vector[0] = 42
    assert made.vector[0] == 42


def test_in_memory_where_there_is_such_a_place(shared, tmp_path):
    assert directory_of(shared[0]) == str(tmp_path)


@pytest.mark.parametrize("full", [True, False])
def test_on_disk_where_memory_is_small_or_missing(tmp_path, monkeypatch, caplog, full):
    """Containers usually have 64 MB of it."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    disk.mkdir()
    if full:
        memory.mkdir()
    monkeypatch.setattr(temporary, "MEMORY", str(memory))
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(disk))
    original = shared_memory.private

    def refuse(path, flags):
        fails = path.startswith(str(memory))
        return original(path, os.O_RDONLY | os.O_CREAT if fails else flags)

    monkeypatch.setattr(shared_memory, "private", refuse)
    with caplog.at_level("INFO", "kspark"):
        made = SharedWeights.create(np.arange(5, dtype="f4"), spec_of(), 1)
    assert directory_of(made) == str(disk)
    assert f"a file on disk, because {memory} cannot have it" in caplog.text
    assert made.vector.tolist() == [0, 1, 2, 3, 4]
    assert not full or list(memory.iterdir()) == []
    made.unlink()
    assert list(disk.iterdir()) == []


def test_a_file_that_cannot_be_mapped_is_deleted(tmp_path, monkeypatch):
    def refuse(path, size):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(temporary, "MEMORY", str(tmp_path))
    monkeypatch.setattr(shared_memory, "mapped", refuse)
    with pytest.raises(OSError, match="allocate"):
        SharedWeights.create(np.zeros(5, "f4"), spec_of(), 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 5, len(PIECE), 3 * len(PIECE) + 7])
def test_zeros_are_written_in_pieces(count):
    assert b"".join(zeros(count)) == bytes(count)
    assert max(map(len, zeros(count))) <= len(PIECE)


def test_weights_of_another_model_are_refused():
    with pytest.raises(IncompatibleDeltaError):
        SharedWeights.create(np.zeros(4, "f4"), spec_of(), 1)


def test_counters_of_different_shards_do_not_disturb_each_other(shared):
    made, spec = shared

    def work(slot):
        mine = found(made, spec)
        for _ in range(2000):
            mine.pushes[slot] += 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert made.pushes.tolist() == [2000] * 3


# -- counted on whole numbers ------------------------------------------------------------------

DIGIT = 256
"""Each writer adds its own power of this, so that a sum says how often each has arrived."""


def arrived(vector, slot):
    """How many deltas of a writer are in each element."""
    return vector.astype("i8") // DIGIT**slot % DIGIT


def test_no_element_of_a_delta_is_added_twice(tmp_path, monkeypatch):
    """Writers at the same time may overwrite an element of each other, but never repeat one."""
    monkeypatch.setattr(temporary, "MEMORY", str(tmp_path))
    spec = WeightSpec((Weight("w", (20_000,), "float64", TRAINABLE),))
    made, writers, pushes = SharedWeights.create(np.zeros(spec.size), spec, 3), 3, 200

    def work(slot):
        mine = found(made, spec)
        attempt, delta = slot + 7, np.full(spec.size, float(DIGIT**slot))
        mine.admit(slot, attempt)
        for number in range(1, pushes + 1):
            mine.add(slot, attempt, number, delta)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(work, range(writers)))
    made.unlink()
    assert made.pushes.tolist() == [pushes] * writers
    counts = np.array([arrived(made.vector, slot) for slot in range(writers)])
    assert (counts <= pushes).all()
    assert (sum(counts[s] * DIGIT**s for s in range(writers)) == made.vector).all()
    assert (counts.max(axis=0) > 0).all()


def test_deltas_of_writers_in_turn_arrive_whole(shared):
    """Also if the next attempt begins between any two of them."""
    made, spec = shared
    made.vector[:] = 0
    for number in range(1, 30):
        for slot in range(3):
            attempt = 3 * number + slot
            assert made.admit(slot, attempt) == number - 1
            found(made, spec).add(slot, attempt, number, np.ones(5, spec.dtype))
            with pytest.raises(AggregationError, match="newer attempt"):
                made.add(slot, attempt - 1, number, np.ones(5, spec.dtype))
    assert made.vector.tolist() == [87] * 5
    assert made.pushes.tolist() == [29] * 3


def test_a_writer_that_is_killed_or_replaced_while_it_adds_is_counted(shared, monkeypatch):
    """Its delta may be lost, but is not added again: the next attempt counts it."""
    made, spec = shared

    class Killed(Exception):
        pass

    def kill(*args, **more):
        raise Killed

    made.admit(0, 1)
    with monkeypatch.context() as patched:
        patched.setattr(shared_memory.np, "add", kill)
        with pytest.raises(Killed):
            made.add(0, 1, 1, np.ones(5, spec.dtype))
    assert made.admit(0, 2) == 1

    class Watched(SharedWeights):
        checks = 0

        def _check_owner(self, slot, attempt):
            super()._check_owner(slot, attempt)
            if not self.checks:
                made.admit(slot, 3)
            self.checks += 1

    zombie = Watched(made.path, made.mark, spec, 3)
    before = made.vector.tolist()
    with pytest.raises(AggregationError, match="newer attempt"):
        zombie.add(0, 2, 2, np.ones(5, spec.dtype))
    assert made.vector.tolist() == before
