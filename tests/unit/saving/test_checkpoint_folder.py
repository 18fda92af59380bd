"""The folder of checkpoints: each is written whole or not at all, and the last ones are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kspark.saving.checkpoint_folder import CheckpointFolder


def write(folder, epochs, content=b"whole"):
    with folder.writing(epochs) as local:
        Path(local).write_bytes(content)


def test_the_last_checkpoints_are_kept(tmp_path):
    folder = CheckpointFolder(f"{tmp_path}/new/", 2)
    assert folder.found() == []
    seen = []
    for epochs in (8, 9, 10, 11):
        write(folder, epochs)
        seen.append(folder.found())
    assert seen == [[8], [8, 9], [9, 10], [10, 11]]  # by number, not by name
    assert folder.file(11) == f"{tmp_path}/new/epoch-11.zip"


def test_other_files_stay_and_are_not_taken_for_checkpoints(tmp_path):
    others = ["epoch-1.zip.old", "epoch-a.zip", "model.keras", ".hidden"]
    for name in others:
        (tmp_path / name).touch()
    folder = CheckpointFolder(str(tmp_path), 1)
    write(folder, 1)
    write(folder, 2)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "epoch-2.zip"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_failed_write_leaves_the_checkpoints_before(tmp_path, error):
    folder = CheckpointFolder(str(tmp_path), 1)
    write(folder, 1)

    def fail_half_way():
        with folder.writing(2) as local:
            Path(local).write_bytes(b"ha")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert os.listdir(tmp_path) == ["epoch-1.zip"]
    with folder.reading(1) as local:
        assert Path(local).read_bytes() == b"whole"


def test_what_a_killed_driver_had_begun_to_write_is_deleted(tmp_path):
    folder = CheckpointFolder(str(tmp_path), 2)
    write(folder, 1)
    killed = folder.writing(2)
    Path(killed.__enter__()).write_bytes(b"ha")
    assert folder.found() == [1]
    assert len(os.listdir(tmp_path)) == 2  # the killed driver cannot delete it
    write(CheckpointFolder(str(tmp_path), 2), 2)
    assert sorted(os.listdir(tmp_path)) == ["epoch-1.zip", "epoch-2.zip"]
