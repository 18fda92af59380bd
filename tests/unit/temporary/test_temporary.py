"""Temporary folders, and those that a killed process has left."""

from __future__ import annotations

import os
import platform
import signal

import pytest

from kspark import temporary
from kspark.temporary import ARRAYS, LOCK, SESSION, SHARED, Folder


@pytest.fixture
def memory(tmp_path_factory, monkeypatch):
    """Stands for the directory whose files are in memory."""
    folder = tmp_path_factory.mktemp("memory")
    monkeypatch.setattr(temporary, "MEMORY", str(folder))
    return folder


@pytest.fixture
def directory(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(temporary.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    temporary.remove_abandoned.cache_clear()
    yield tmp_path
    temporary.remove_abandoned.cache_clear()


def names(directory):
    return sorted(path.name[:-8] for path in directory.iterdir())


def killed_with(*prefixes):
    """Let another process make folders and be killed."""
    child = os.fork()
    if not child:
        folders = [Folder(prefix) for prefix in prefixes]
        (folders[0].path / "rows").write_bytes(b"1234")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def start_again():
    """Do what another process would do."""
    temporary.remove_abandoned.cache_clear()
    return Folder(SESSION)


def test_a_folder_can_be_removed_twice(directory):
    folder = Folder(ARRAYS)
    (folder.path / "rows").write_bytes(b"1234")
    assert names(directory) == [ARRAYS]
    folder.remove()
    folder.remove()
    assert names(directory) == []


def test_the_next_process_removes_the_folders_of_one_that_was_killed(directory):
    killed_with(ARRAYS, SESSION)
    assert names(directory) == [ARRAYS, SESSION]
    folder = start_again()
    assert list(directory.iterdir()) == [folder.path]
    folder.remove()


def test_the_next_process_also_removes_what_a_killed_one_has_left_in_memory(directory, memory):
    child = os.fork()
    if not child:
        (Folder(SHARED, directory=str(memory)).path / "mapped").write_bytes(b"1234")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert names(memory) == [SHARED]
    start_again().remove()
    assert names(memory) == []


def test_the_folders_of_processes_that_live_stay(directory):
    mine = Folder(ARRAYS)
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.close(writable)
        start_again()
        os.read(readable, 1)  # Until the parent has seen what it removes.
        os._exit(0)
    while len(names(directory)) < 2:
        pass
    again = start_again()
    assert names(directory) == [ARRAYS, SESSION, SESSION]
    os.close(readable)
    os.close(writable)
    os.waitpid(child, 0)
    again.remove()
    mine.remove()


def test_what_may_belong_to_others_stays(directory, monkeypatch):
    killed_with(ARRAYS)
    (left,) = directory.iterdir()
    (directory / "kspark-arrays-nolock12").mkdir()
    (directory / "kspark-session-afile123").write_text("")
    (directory / "kspark-session-link1234").symlink_to(left)
    (directory / "another-folder").mkdir()
    before = sorted(directory.iterdir())

    (left / LOCK).write_text("another host")
    start_again().remove()
    assert sorted(directory.iterdir()) == before
    (left / LOCK).write_text(platform.node())
    monkeypatch.setattr(temporary.os, "getuid", lambda: 123456)
    start_again().remove()
    assert sorted(directory.iterdir()) == before
    monkeypatch.undo()
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(directory))
    start_again().remove()
    assert sorted(directory.iterdir()) == [path for path in before if path != left]


def test_a_file_system_without_locks_keeps_folders_until_they_are_removed(directory, monkeypatch):
    def refuse(*call):
        raise OSError("no locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", refuse)
    folder = Folder(ARRAYS)
    start_again().remove()
    assert folder.path.is_dir()
    folder.remove()
    assert names(directory) == []
