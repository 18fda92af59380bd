"""TFRecord files are divided among workers in their order, and each record is read once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspark.files.listing import DataFile
from kspark.files.paths import Resolved
from kspark.files.records import divide_records, list_records


def files_of(sizes):
    return [
        DataFile(Resolved("", f"/{i:03d}"), version=(size, None)) for i, size in enumerate(sizes)
    ]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.integers(1, 30))
def test_every_part_of_every_file_has_one_worker(sizes, count):
    files = files_of(sizes)
    shards = divide_records(files, count)
    assert len(shards) == count and all(shards)
    read = [share for shard in shards for share in shard]
    for file in files:
        own = [share for share in read if share.file is file]
        assert [share.part for share in own] == list(range(own[0].parts))
    assert [share.file.place.path for share in read] == sorted(s.file.place.path for s in read)


def test_files_are_divided_evenly_by_bytes():
    def names(sizes, count):
        shards = divide_records(files_of(sizes), count)
        return [[int(share.file.place.path[1:]) for share in shard] for shard in shards]

    assert names([10, 10, 10, 10], 2) == [[0, 1], [2, 3]]
    assert names([30, 10, 10, 10], 2) == [[0], [1, 2, 3]]
    assert names([1, 1, 1, 97], 3) == [[0], [1], [2, 3]] or names([1, 1, 1, 97], 3)[-1] == [3]
    shared = divide_records(files_of([10, 90]), 4)
    assert [(s.part, s.parts) for (s,) in shared] == [(0, 1), (0, 3), (1, 3), (2, 3)]


def test_files_are_found_in_folders_and_by_patterns(tmp_path):
    for name in ("b.tfrecord", "a.tfrecord", "_SUCCESS"):
        (tmp_path / name).write_bytes(b"1")
    found = [file.place.path.rpartition("/")[2] for file in list_records([str(tmp_path)])]
    assert found == ["a.tfrecord", "b.tfrecord"]
    assert len(list_records([str(tmp_path / "*.tfrecord")])) == 2
    (tmp_path / "empty").mkdir()
    for path in ("no.tfrecord", "empty", "*.csv"):
        with pytest.raises(FileNotFoundError):
            list_records([str(tmp_path / path)])
