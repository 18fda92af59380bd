"""Files of NumPy, and data sets of h5py, are mapped and read in pieces, and never unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from kspark.adapters import Columns, adapt, is_table, readable
from kspark.adapters.array_files import Archive, is_sliced, loaded
from kspark.adapters.file_paths import is_files
from kspark.shards import ArraySpec, InputSpec
from kspark.spark_model.inputs import opened

SPARK = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
SPEC = InputSpec((ArraySpec("x", (3,), "float32"),), (ArraySpec("y"),))
X = np.arange(12, dtype="uint8").reshape(4, 3)
Y = np.array([0, 1, 1, 0])


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "plain.npz", features=X, label=Y, weights=Y + 1.0)
    np.savez_compressed(tmp_path / "small.npz", features=X, label=Y, weights=Y + 1.0)
    return tmp_path


def is_mapped(array):
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def rows_of(x, y=None, sample_weight=None, **columns):
    return adapt(SPARK, readable(x), y, sample_weight, spec=SPEC, columns=Columns(**columns))


@pytest.mark.parametrize("kind", [str, Path])
def test_arrays_are_mapped_from_paths_and_keep_their_dtype(folder, kind):
    x, y = kind(folder / "x.npy"), kind(folder / "y.npy")
    assert not is_files(x) and not is_files([Path(x)]) and not is_files((Path(x), Path(y)))
    examples = rows_of(x, y, y)
    (array,) = examples._chunk.x
    assert is_mapped(array) and array.dtype == "uint8"
    np.testing.assert_array_equal(array, X)
    np.testing.assert_array_equal(examples._chunk.y[0], Y)
    np.testing.assert_array_equal(examples._chunk.sample_weight[0], Y)
    assert opened(readable(x)).shape == (4, 3)


def test_lists_and_dictionaries_have_a_path_per_input(folder):
    path = folder / "x.npy"
    listed, named = loaded([path, path]), loaded({"a": str(path), "b": X})
    assert isinstance(listed, list) and isinstance(loaded((path, path)), tuple)
    for array in (*listed, *named.values()):
        np.testing.assert_array_equal(array, X)
    assert loaded([str(path)]) == [str(path)]  # text, as beside labels


@pytest.mark.parametrize("name", ["plain.npz", "small.npz"])
def test_the_arrays_of_an_archive_have_names(folder, name):
    data = readable(folder / name)
    assert is_table(data) and data.names == ("features", "label", "weights")
    examples = rows_of(folder / name, weight_col="weights")
    assert is_mapped(examples._chunk.x[0])
    np.testing.assert_array_equal(examples._chunk.x[0], X)
    np.testing.assert_array_equal(examples._chunk.y[0], Y)
    np.testing.assert_array_equal(examples._chunk.sample_weight[0], Y + 1.0)
    other = rows_of(folder / name, folder / "y.npy", features_col="features")
    np.testing.assert_array_equal(other._chunk.y[0], Y)
    with pytest.raises(ValueError, match="no column 'pixels', which `features_col` names"):
        rows_of(folder / name, features_col="pixels")
    np.savez(folder / "other.npz", x=X, y=Y)
    with pytest.raises(ValueError, match="no column 'features'.*array .*: `features_col='x'`"):
        rows_of(folder / "other.npz", label_col="y")
    with pytest.raises(ValueError, match="`label_col` must be the array"):
        rows_of(folder / name, label_col=None)


def test_several_arrays_of_an_archive_stand_side_by_side(tmp_path):
    np.savez(tmp_path / "a.npz", one=X[:, :1], two=X[:, 1:], label=Y)
    examples = rows_of(tmp_path / "a.npz", features_col=["one", "two"])
    np.testing.assert_array_equal(examples._chunk.x[0], X)


def test_no_temporary_file_is_left(folder, tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    array = Archive.open(str(folder / "small.npz")).array("features")
    assert os.listdir(place) == []
    np.testing.assert_array_equal(array, X)  # The system keeps what is mapped.


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_data_sets_of_h5py_are_read_in_slices(tmp_path, compression, monkeypatch):
    monkeypatch.setattr("kspark.adapters.array_files.CHUNK_BYTES", 6)
    read = []
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=X, compression=compression)
        file["text"] = ["a", "b", "c", "d"]
        dataset = file["x"]

        class Watched(type(dataset)):
            def __getitem__(self, rows):
                read.append(rows)
                return super().__getitem__(rows)

        watched = Watched(dataset.id)
        assert is_sliced(watched)
        array = readable(watched)
        assert loaded(file["text"])[0] == b"a"
    assert read == [slice(0, 2), slice(2, 4)]
    assert is_mapped(array)
    np.testing.assert_array_equal(array, X)


def save_objects(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)  # what kspark refuses


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npy", save_objects, "not of Python objects.*`np.save"),
        ("a.npy", lambda path: path.write_bytes(b""), "must be a whole file of `np.save`"),
        ("a.npy", lambda path: path.write_bytes(b"text"), "must be a whole file of `np.save`"),
        ("a.npy", lambda path: (np.save(path, X), os.truncate(path, 130)), "must be a whole file"),
        ("a.npz", lambda path: path.write_bytes(b"text"), "must be a whole file of `np.save`"),
    ],
)
def test_other_files_are_refused(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        readable(tmp_path / name)


def test_paths_that_do_not_exist_or_are_elsewhere_are_refused(tmp_path):
    for name in ("no.npy", "no.npz"):
        with pytest.raises(FileNotFoundError, match=name):
            readable(tmp_path / name)
    for path in ("s3://bucket/x.npy", "s3://bucket/x.npy?scheme=http"):
        with pytest.raises(ValueError, match="`path` must be a path on the driver's disk"):
            readable(path)
        assert not is_files(path)
    assert is_files("s3://bucket/x.parquet?scheme=http")


def test_an_archive_as_labels_is_refused(folder):
    with pytest.raises(TypeError, match=r"must be one array.*`np.load\(path\)\[name\]`"):
        rows_of(folder / "x.npy", folder / "plain.npz")


def test_damaged_files_and_single_values_are_refused_in_our_words(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"hello, this is text")
    with pytest.raises(ValueError, match="must be a whole file of `np.save`.*another format$"):
        loaded(path)
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="must be a whole file of `np.save`.*cannot be read"):
        loaded(path)
    np.save(path, np.float32(3))
    with pytest.raises(ValueError, match="one row per example. Received: an array without axes"):
        loaded(path)
