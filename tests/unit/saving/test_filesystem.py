"""A local file appears whole or not at all; paths with a scheme are recognized."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from kspark.errors import ClusterError
from kspark.files.paths import is_remote, local_path
from kspark.saving.filesystem import reading, writing
from kspark.saving.hadoop import java


def write(path: object, content: bytes, **kwargs: object) -> None:
    with writing(str(path), **kwargs) as local:
        Path(local).write_bytes(content)


def read(path: object) -> bytes:
    with reading(str(path)) as local:
        return Path(local).read_bytes()


@pytest.mark.parametrize(
    ("path", "remote", "local"),
    [
        ("model.keras", False, "model.keras"),
        ("/a/model.keras", False, "/a/model.keras"),
        ("run:3.keras", False, "run:3.keras"),
        ("C:/a/model.keras", False, "C:/a/model.keras"),
        ("file:model.keras", False, "file:model.keras"),
        ("file:/a/50%25.keras", False, "/a/50%25.keras"),
        ("file:///a/model.keras", False, "/a/model.keras"),
        ("FILE:///a/model.keras", False, "/a/model.keras"),
        ("file://localhost/a/model.keras", False, "/a/model.keras"),
        ("hdfs://name:8020/model.keras", True, None),
        ("hdfs:/model.keras", True, None),
        ("s3a://bucket/model.keras", True, None),
        ("abfss://box@account/model.keras", True, None),
    ],
)
def test_scheme_decides_where_a_path_lies(path: str, remote: bool, local: str | None) -> None:
    assert is_remote(path) is remote
    if local is not None:
        assert local_path(path) == local


def test_a_written_file_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "a.keras", b"one")
    assert read(tmp_path / "a.keras") == b"one"
    assert read(f"file://{tmp_path}/a.keras") == b"one"


def test_file_scheme_writes_to_the_local_disk(tmp_path: Path) -> None:
    write(f"file:{tmp_path}/a b%20.keras", b"one")
    assert os.listdir(tmp_path) == ["a b%20.keras"]


def test_missing_directories_are_created(tmp_path: Path) -> None:
    write(tmp_path / "new" / "deeper" / "a.h5", b"one")
    assert read(tmp_path / "new" / "deeper" / "a.h5") == b"one"


def test_a_relative_path_is_resolved_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.h5", b"one")
    assert os.listdir(tmp_path) == ["a.h5"]


def test_temporary_file_has_the_extension_and_the_file_system_of_its_target(
    tmp_path: Path,
) -> None:
    with writing(str(tmp_path / "name.h5")) as local:
        assert local.endswith(".h5")
        assert tmp_path in Path(local).parents
        Path(local).touch()


def test_an_existing_file_is_refused_before_writing_starts(tmp_path: Path) -> None:
    write(tmp_path / "a.keras", b"old")
    saving = writing(str(tmp_path / "a.keras"))
    with pytest.raises(FileExistsError, match=r"overwrite=True.*a\.keras"):
        saving.__enter__()
    assert read(tmp_path / "a.keras") == b"old"


def test_a_file_that_appears_during_writing_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"

    def save_while_somebody_else_does() -> None:
        with writing(str(path)) as local:
            Path(local).write_bytes(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        save_while_somebody_else_does()
    assert read(path) == b"theirs"
    assert os.listdir(tmp_path) == ["a.keras"]


def test_overwrite_replaces_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.keras", b"old")
    write(tmp_path / "a.keras", b"new", overwrite=True)
    assert read(tmp_path / "a.keras") == b"new"


def test_the_old_file_is_complete_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    write(path, b"old")
    with writing(str(path), overwrite=True) as local:
        Path(local).write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        Path(local).write_bytes(b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    write(tmp_path / "a.keras", b"old")

    def fail_half_way() -> None:
        with writing(str(tmp_path / "a.keras"), overwrite=True) as local:
            Path(local).write_bytes(b"half")
            Path(local).with_name("other").write_bytes(b"of Keras' own")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert os.listdir(tmp_path) == ["a.keras"]
    assert read(tmp_path / "a.keras") == b"old"


def test_writing_to_a_link_replaces_its_target(tmp_path: Path) -> None:
    (tmp_path / "real.keras").write_bytes(b"old")
    (tmp_path / "link.keras").symlink_to("real.keras")
    write(tmp_path / "link.keras", b"new", overwrite=True)
    assert (tmp_path / "link.keras").is_symlink()
    assert (tmp_path / "real.keras").read_bytes() == b"new"


def test_a_missing_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        read(tmp_path / "none.keras")


def test_scheme_without_a_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    with pytest.raises(ValueError, match=r"no SparkSession is active.*hdfs://name/a\.keras"):
        read("hdfs://name/a.keras")


def test_session_without_a_jvm_is_refused() -> None:
    class Remote:
        """As a Spark Connect session: no attribute of the JVM's."""

    with pytest.raises(ClusterError, match=r"needs a session with a JVM .*Remote has not"):
        java(Remote())
