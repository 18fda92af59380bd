"""Second names for the files of a shard."""

from __future__ import annotations

import os

import numpy as np
import pytest

from kspark.shards import Chunk, Shard, SpoolMissingError, link, linking, spool
from kspark.shards.marks import MARK


@pytest.fixture
def shard(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return spool([Chunk([np.arange(6.0)], [np.array(["a"] * 6, object)])], 2, "first")


def test_links_outlive_the_shard_and_take_no_space(shard):
    linked = link(shard, "second")
    assert (linked.index, linked.num_examples, linked.nbytes) == (2, 6, shard.nbytes)
    assert os.path.basename(os.path.dirname(linked.path)) == "kspark-second"
    (stored, _) = linked.arrays
    assert os.path.samefile(f"{shard.path}/{stored.file}", f"{linked.path}/{stored.file}")
    Shard.remove(shard)
    assert Shard.open(linked).read().x[0].tolist() == list(range(6))


def test_file_systems_without_links_get_copies(shard, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr(linking.os, "link", refuse)
    linked = link(shard, "second")
    Shard.remove(shard)
    assert Shard.open(linked).read().y[0].tolist() == ["a"] * 6


def test_a_folder_that_is_gone_is_no_missing_file(shard, tmp_path):
    (source, *_) = (f"{shard.path}/{name}" for stored in shard.arrays for name in stored.files)
    with pytest.raises(FileNotFoundError, match="no-folder"):
        linking.link_file(source, str(tmp_path / "no-folder" / "file"))


def test_a_missing_file_is_told(shard, tmp_path):
    Shard.remove(shard)
    with pytest.raises(SpoolMissingError, match="is gone"):
        link(shard, "second")
    assert os.listdir(tmp_path / "kspark-second") == [MARK]
