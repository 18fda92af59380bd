"""A shard goes on from the files that a checkpoint has of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kspark.shards import Chunk, Shard, spool
from kspark.worker import kept_files
from kspark.worker.kept_files import fetch_files, restore_files, write_files
from kspark.worker.state import ShardState
from kspark.worker.tasks import MissingShard


class Model:
    """A replica's state and nothing else."""

    def get_optimizer_state(self):
        return [np.array(3), np.arange(4.0)]

    def get_fixed(self):
        return [np.array([7, 8], np.uint32)]


def handle_in(folder, index=5):
    return spool([Chunk([np.arange(3)])], index, "run", directory=str(folder))


def saved(handle, epoch):
    """The state of a fit after an epoch, and of the epoch before, which no checkpoint needs."""
    state = ShardState("fit", Shard(handle))
    for number in (epoch - 1, epoch):
        state.save(Model(), number)
        state.save_residual(np.full(3, number, "f4"), number)
    for name, number in ((f"own-weights-{epoch}", epoch), ("own-weights", 12)):
        with (state.folder / name).open("wb") as file:
            for array in (np.array(number), np.arange(3, dtype="f4"), np.ones(2)):
                np.save(file, array)
    return state


def only(results):
    (result,) = results
    return result


@pytest.mark.parametrize("fit_id", ["fit", "later"])
def test_files_of_an_epoch_come_back_in_another_fit(tmp_path, fit_id):
    before = handle_in(tmp_path / "before")
    folder = saved(before, 4).folder
    result = only(fetch_files("fit", 4, 0, [before.to_json()]))
    assert (result.shard, result.num_examples) == (5, 3)
    assert set(result.files) == {"state", "residual", "round-weights", "pushed-weights"}
    assert all(data.dtype == np.uint8 for data in result.files.values())

    after = handle_in(tmp_path / "after")
    written = {5: result.files, 6: {}}
    assert only(restore_files(fit_id, 4, written, 0, [after.to_json()])).shard == 5
    state = ShardState(fit_id, Shard(after))
    names = {path.name for path in state.folder.iterdir()}
    assert names == {"4.state", "4.residual", "own-weights-4", "own-weights"}
    for name in names - {"own-weights"}:
        assert (state.folder / name).read_bytes() == (folder / name).read_bytes()
    optimizer, fixed = state.load(4)
    assert (
        optimizer[0] == 3 and optimizer[1].tolist() == [0, 1, 2, 3] and fixed[0].tolist() == [7, 8]
    )
    np.testing.assert_array_equal(state.residual_before(5), [4, 4, 4])
    with (state.folder / "own-weights").open("rb") as file:
        # The driver counts exchanges from 0 again.
        assert [np.load(file).tolist() for _ in range(3)] == [0, [0, 1, 2], [1, 1]]
    # If the same fit moves a shard, it goes on counting.
    assert only(write_files(fit_id, 4, written, 0, [after.to_json()])).shard == 5
    for name in names:
        assert (state.folder / name).read_bytes() == (folder / name).read_bytes()


def test_shards_that_are_not_asked_for_are_left_out(tmp_path):
    handles = [handle_in(tmp_path, index) for index in (1, 2)]
    files = {2: {"state": np.frombuffer(b"abc", np.uint8)}}
    documents = [handle.to_json() for handle in handles]
    assert only(restore_files("fit", 0, files, 0, documents)).shard == 2
    assert not ShardState("fit", Shard(handles[0])).folder.exists()


def test_the_state_is_written_last(tmp_path, monkeypatch):
    """A process that is killed in between leaves a shard without a state, not one with a part."""
    handle, written = handle_in(tmp_path), []
    replace = kept_files.os.replace

    def note(source, target):
        written.append(target.name)
        replace(source, target)

    monkeypatch.setattr(kept_files.os, "replace", note)
    files = dict.fromkeys(("state", "residual", "round-weights"), np.zeros(1, np.uint8))
    only(write_files("fit", 4, {5: files}, 0, [handle.to_json()]))
    assert written == ["4.residual", "own-weights-4", "4.state"]


def test_a_lost_state_has_no_files_and_a_stray_task_is_repeated(tmp_path):
    handle = handle_in(tmp_path)
    assert only(fetch_files("fit", 0, 0, [handle.to_json()])).files == {}
    away = dataclasses.replace(handle, mark="another").to_json()
    for task in (fetch_files("fit", 0, 0, [away]), restore_files("fit", 0, {5: {}}, 0, [away])):
        assert isinstance(stray := only(task), MissingShard)
        assert stray.strayed


@pytest.mark.parametrize("kind", ["../../outside", "state/../x", ""])
def test_files_of_another_name_are_never_written(tmp_path, kind):
    handle = handle_in(tmp_path / "in")
    files = {5: {kind: np.zeros(1, np.uint8)}}
    with pytest.raises(KeyError):
        list(restore_files("fit", 0, files, 0, [handle.to_json()]))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
