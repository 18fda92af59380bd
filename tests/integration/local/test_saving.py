"""A model is saved wherever Spark can write, tested on two kinds of Hadoop file systems.

`viewfs:` renames onto an existing file in one step, as HDFS does. `demo:` is a
scheme of this test's own that only knows Hadoop's older interface, as do some
file systems for cloud storage.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from kspark.saving import load_model, save_model
from kspark.saving.checkpoint_folder import CheckpointFolder
from kspark.saving.filesystem import reading, writing

X = np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3)


@pytest.fixture(scope="module")
def disks(spark, tmp_path_factory):
    """The local directories behind the two schemes, by the first part of their paths."""
    places = {name: tmp_path_factory.mktemp(name) for name in ("viewfs", "demo")}
    links = "fs.viewfs.mounttable.kspark-{}.link./models"
    settings = {
        "fs.demo.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
        **{links.format(name): place.as_uri() for name, place in places.items()},
    }
    for key, value in settings.items():
        spark.conf.set(key, value)
    yield {f"{name}://kspark-{name}/models": place for name, place in places.items()}
    for key in settings:
        spark.conf.unset(key)


@pytest.fixture(params=["viewfs", "demo"])
def root(request, disks, tmp_path_factory):
    """An empty directory of one of the file systems, and where it is on this disk."""
    name = next(name for name in disks if name.startswith(request.param))
    own = tmp_path_factory.mktemp("test").name
    (disks[name] / own).mkdir()
    return f"{name}/{own}", disks[name] / own


def files(disk: Path) -> list[str]:
    """What is there, but Hadoop's checksums."""
    return sorted(name for name in os.listdir(disk) if not name.endswith(".crc"))


def write(path: str, content: bytes, **kwargs: object) -> None:
    with writing(path, **kwargs) as local:
        Path(local).write_bytes(content)


def read(path: str) -> bytes:
    with reading(path) as local:
        return Path(local).read_bytes()


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_a_saved_model_is_loaded_unchanged(root, extension):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.25), "mse")
    path = f"{root[0]}/new directory/model.{extension}"
    save_model(model, {"mode": "hogwild"}, path, server_state={"m": np.ones(2)})
    assert files(root[1] / "new directory") == [f"model.{extension}"]
    saved = load_model(path)
    np.testing.assert_array_equal(saved.model(X), model(X))
    assert saved.model.optimizer.get_config()["learning_rate"] == 0.25
    assert saved.config == {"mode": "hogwild"}
    np.testing.assert_array_equal(saved.server_state["m"], [1, 1])


def test_file_scheme_needs_no_hadoop(spark, tmp_path):
    write(f"file://{tmp_path}/a.keras", b"one")
    assert os.listdir(tmp_path) == ["a.keras"]
    assert read(f"file:{tmp_path}/a.keras") == b"one"


def test_session_may_be_passed(spark, root):
    def elsewhere():  # a thread for which no session is active
        write(f"{root[0]}/a.keras", b"one", spark=spark)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(60)
    assert read(f"{root[0]}/a.keras") == b"one"


def test_an_existing_file_is_refused_before_writing_starts(root):
    write(f"{root[0]}/a.keras", b"old")
    saving = writing(f"{root[0]}/a.keras")
    with pytest.raises(FileExistsError, match=r"overwrite=True.*a\.keras"):
        saving.__enter__()
    assert read(f"{root[0]}/a.keras") == b"old"


def test_a_file_that_appears_during_writing_is_not_overwritten(root):
    path = f"{root[0]}/a.keras"

    def save_while_somebody_else_does():
        with writing(path) as local:
            Path(local).write_bytes(b"mine")
            write(path, b"theirs")

    with pytest.raises(FileExistsError):
        save_while_somebody_else_does()
    assert read(path) == b"theirs"
    assert files(root[1]) == ["a.keras"]


def test_overwrite_replaces_the_file(root):
    write(f"{root[0]}/a.keras", b"old")
    write(f"{root[0]}/a.keras", b"newer", overwrite=True)
    assert read(f"{root[0]}/a.keras") == b"newer"
    assert files(root[1]) == ["a.keras"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(root):
    write(f"{root[0]}/a.keras", b"old")

    def fail_half_way():
        with writing(f"{root[0]}/a.keras", overwrite=True) as local:
            Path(local).write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_half_way()
    assert read(f"{root[0]}/a.keras") == b"old"
    assert files(root[1]) == ["a.keras"]


def test_a_failed_copy_keeps_the_old_file_and_leaves_no_other(root):
    write(f"{root[0]}/a.keras", b"old")
    with pytest.raises(OSError), writing(f"{root[0]}/a.keras", overwrite=True):
        pass  # nothing was written, so there is nothing to copy
    assert read(f"{root[0]}/a.keras") == b"old"
    assert files(root[1]) == ["a.keras"]


def test_local_copies_are_removed(root):
    with writing(f"{root[0]}/a.keras") as local:
        Path(local).write_bytes(b"one")
    with reading(f"{root[0]}/a.keras") as copy:
        assert copy.endswith(".keras")
    assert not Path(local).parent.exists()
    assert not Path(copy).parent.exists()


def test_a_missing_file_is_named_in_the_error(root):
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        read(f"{root[0]}/none.keras")


def test_an_unknown_scheme_raises_an_os_error(spark):
    with pytest.raises(OSError, match=r'No FileSystem for scheme "nosuch".*nosuch://x/a\.keras'):
        read("nosuch://x/a.keras")


def test_an_unknown_location_raises_an_os_error(spark):
    with pytest.raises(OSError, match=r"viewfs://unknown/a\.keras"):
        write("viewfs://unknown/a.keras", b"one")


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_a_failure_to_build_the_file_leaves_nothing_behind(root, extension):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="cannot be read again"):
        save_model(model, {}, f"{root[0]}/a.{extension}", server_state={"m": Unreadable()})
    assert files(root[1]) == []


class Unreadable:
    """Converts to an array once, for the check, and raises when it is written."""

    asked = False

    def __array__(self, dtype=None, copy=None):
        if self.asked:
            raise ValueError("cannot be read again")
        self.asked = True
        return np.zeros(2)


def test_checkpoints_are_kept_and_parts_of_them_deleted(root):
    path, disk = root
    folder = CheckpointFolder(f"{path}/new", 2)
    assert folder.found() == []
    for epochs in (9, 10):
        with folder.writing(epochs) as local:
            Path(local).write_bytes(b"%d" % epochs)
    (disk / "new" / ".epoch-11.zip.killed").mkdir()
    with folder.writing(11) as local:
        Path(local).write_bytes(b"11")
    assert folder.found() == [10, 11]
    assert files(disk / "new") == ["epoch-10.zip", "epoch-11.zip"]
    with folder.reading(10) as local:
        assert Path(local).read_bytes() == b"10"
