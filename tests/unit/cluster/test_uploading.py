"""Files that are sent to a server of Spark Connect, without a server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kspark.cluster.bootstrap import Enclosed
from kspark.cluster.uploading import upload
from kspark.ml import row_files


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The directory of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("fails", [False, True])
def test_a_value_is_sent_as_a_file_that_is_removed_afterwards(folder, fails):
    enclosed, sent = Enclosed({"a": 1}), []

    def add(path, *, file):
        sent.append((Path(path).name, Path(path).read_bytes(), file))
        assert Path(path).parent.name.startswith("kspark-shared-")  # Others remove it if we cannot.
        if fails:
            raise OSError("gone")

    spark = SimpleNamespace(addArtifacts=add)
    if fails:
        with pytest.raises(OSError, match="gone"):
            upload(spark, enclosed)
    else:
        upload(spark, enclosed)
    assert [one[1:] for one in sent] == [(enclosed.pickled, True)]
    assert list(folder.iterdir()) == []


def test_the_local_file_of_a_stage_is_removed_afterwards(folder):
    with row_files.local_file("hdfs://host/stage/model.keras") as local:
        local.write_bytes(b"rows")
        assert local.name == "model.keras"
        assert local.parent.name.startswith("kspark-shared-")
    assert list(folder.iterdir()) == []
