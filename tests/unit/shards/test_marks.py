"""An executor is known by the mark beside the files that it wrote."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest

from kspark.shards import Chunk, is_here, link, marks, spool
from kspark.shards.marks import MARK, mark_in, read_mark


def handle_in(folders, monkeypatch, index=0, run="run"):
    """What an executor with these local directories writes."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", ",".join(map(str, folders)))
    return spool([Chunk([np.arange(3)])], index, run)


def test_all_local_directories_of_an_executor_have_one_mark(tmp_path, monkeypatch):
    disks = [tmp_path / "a", tmp_path / "b"]
    handles = [handle_in(disks, monkeypatch, index) for index in (1, 0, 2)]
    assert len({os.path.dirname(handle.path) for handle in handles}) == 2
    assert len({handle.mark for handle in handles}) == 1
    assert all(map(is_here, handles))
    linked = link(handles[0], "second")
    assert is_here(linked)
    assert linked.mark != handles[0].mark  # it is deleted with its own run id


def test_executors_with_equal_hostnames_and_equal_paths_are_told_apart(tmp_path, monkeypatch):
    here = tmp_path / "disk"
    first = handle_in([here], monkeypatch)
    shutil.move(here, tmp_path / "other")  # stands for the other host
    second = handle_in([here], monkeypatch)
    assert (first.host, os.path.dirname(first.path)) == (second.host, os.path.dirname(second.path))
    assert [is_here(first), is_here(second)] == [False, True]
    # An executor that sees the disk has the shard, whatever its host is called.
    assert is_here(dataclasses.replace(second, host="elsewhere"))


def test_a_disk_that_is_gone_and_a_handle_without_mark_are_not_here(tmp_path, monkeypatch):
    handle = handle_in([tmp_path / "disk"], monkeypatch)
    assert not is_here(dataclasses.replace(handle, mark=""))
    shutil.rmtree(tmp_path / "disk")
    assert not is_here(handle)
    assert not is_here(dataclasses.replace(handle, mark=""))


@pytest.mark.parametrize("error", [FileExistsError, OSError])
def test_one_of_two_tasks_gives_the_mark(tmp_path, monkeypatch, error):
    """Or the last one, on a file system without links."""
    link_file = os.link

    def slow(source, target):
        if error is FileExistsError:
            other = tmp_path / "other"
            other.write_text("of the faster task")
            link_file(other, target)
            other.unlink()
        raise error

    monkeypatch.setattr(marks.os, "link", slow)
    mark = mark_in(str(tmp_path))
    assert mark == read_mark(str(tmp_path)) == mark_in(str(tmp_path)) != ""
    assert (mark == "of the faster task") == (error is FileExistsError)
    assert os.listdir(tmp_path) == [MARK]
