"""An output appears as a whole or not at all, on disks and in object stores."""

from __future__ import annotations

import contextlib

import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from kspark.files.commit import Output
from kspark.files.listing import list_files
from kspark.files.paths import resolve
from kspark.files.writing import PartWriter

SCHEMA = pa.schema([("id", pa.int64())])


class Killed(BaseException):
    """Stands for the end of the driver's process."""


@pytest.fixture(params=["out", "day=2024-01-02"])
def name(request):
    """The name of an output, which may be that of a partition."""
    return request.param


@pytest.fixture(params=["disk", "objects"])
def path(request, tmp_path, name):
    """The path of an output on a disk, or in what stands for an object store."""
    if request.param == "disk":
        yield str(tmp_path / "data" / name)
    else:
        yield f"memory://bucket/data/{name}"
        fsspec.filesystem("memory").store.clear()


def attempt(output, name, ids):
    """What a task does."""
    place = type(output.attempts)(output.attempts.root, f"{output.attempts.path}/{name}")
    with PartWriter(place, SCHEMA) as writer:
        for i in ids:
            writer.write(pa.record_batch([pa.array([i])], schema=SCHEMA))


def begun(path, **settings):
    """An output with the files of three attempts, of which two are of the same task."""
    output = Output(path, **settings)
    output.begin()
    attempt(output, "b", [1, 2])
    attempt(output, "b-again", [1, 2])
    attempt(output, "a", [3])
    return output


def ids(path):
    """The ids that kspark's and pyarrow's readers find, in the order of the names."""
    try:
        files = list_files([path])
    except FileNotFoundError:
        files = []
    found = [
        i for file in files for i in pq.read_table(
            file.place.path, filesystem=file.place.system
        )["id"].to_pylist()
    ]  # fmt: skip
    place = resolve(path)
    if files:
        table = ds.dataset(place.path, filesystem=place.system, format="parquet").to_table()
        assert sorted(table["id"].to_pylist()) == sorted(found)
    return found


def everything(path):
    """The names of all files beside and in an output, hidden or not."""
    from pyarrow.fs import FileSelector

    place = resolve(path)
    parent = place.path.rpartition("/")[0]
    infos = place.system.get_file_info(FileSelector(parent, recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix(f"{parent}/") for info in infos if info.is_file)


def test_only_the_attempts_that_count_are_seen_and_nothing_else_stays(path, name):
    output = begun(path, name="job")
    assert ids(path) == ids(path.rpartition("/")[0]) == []
    output.commit(["b", "a"])
    output.discard()
    assert ids(path) == [1, 2, 3]
    parts = [f"{name}/part-00000-job.parquet", f"{name}/part-00001-job.parquet"]
    assert everything(path) == [f"{name}/_SUCCESS", *parts]


@pytest.mark.parametrize("other", ["notes.txt", "x/0.parquet", "day=1/a.py", ".git/HEAD", "empty/"])
def test_a_folder_with_other_files_than_rows_is_not_replaced(tmp_path, other):
    begun(str(tmp_path / "out")).commit(["a"])
    begun(str(tmp_path / "out/day=1"), overwrite=True).commit(["a"])
    (tmp_path / "out/_temporary/0/_temporary").mkdir(parents=True)
    (tmp_path / "out/_temporary/0/x").touch()
    (tmp_path / "out/.part.crc").touch()
    Output(str(tmp_path / "out"), overwrite=True)
    path = tmp_path / "out" / other
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if other.endswith("/") else path.touch()
    with pytest.raises(FileExistsError, match=f"has '{other.partition('/')[0]}"):
        Output(str(tmp_path / "out"), overwrite=True)


def test_a_file_is_replaced_only_if_it_has_rows(tmp_path):
    for name in ("rows.csv", "rows.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"has 'rows\.csv'"):
        Output(str(tmp_path / "rows.csv"), overwrite=True)
    begun(str(tmp_path / "rows.parquet"), overwrite=True).commit(["a"])
    assert ids(str(tmp_path / "rows.parquet")) == [3]


def test_files_that_appear_during_the_job_are_not_deleted(path):
    begun(path).commit(["a"])
    output = begun(path, overwrite=True)
    place = resolve(f"{path}/notes.txt")
    with place.system.open_output_stream(place.path) as file:
        file.write(b"text")
    with pytest.raises(FileExistsError, match=r"has 'notes\.txt'"):
        output.commit(["b"])
    place.system.delete_file(place.path)
    assert ids(path) == [3]


@pytest.mark.parametrize("path", ["", ".", "..", "/", "file:///"])
def test_the_folder_of_the_process_is_no_output(tmp_path, monkeypatch, path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="`output` must be"):
        Output(path, overwrite=True)


def test_a_folder_with_the_input_is_no_output(tmp_path):
    begun(str(tmp_path / "out")).commit(["a"])
    (tmp_path / "link").symlink_to(tmp_path / "out")
    output = Output(str(tmp_path / "out"), overwrite=True)
    for path in ("out/a.parquet", "link/a.parquet", "link", "out/day=1/a.parquet"):
        with pytest.raises(ValueError, match="`output` must be a folder that does not hold rows"):
            output.keep_apart([resolve(str(tmp_path / path))], "rows")
    others = [str(tmp_path / "out2/a.parquet"), str(tmp_path), "memory://out/a.parquet"]
    output.keep_apart(map(resolve, others), "rows")


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ("day=2", True),
        ("day=2/hour=3", True),
        ("scored", False),
        ("_day=2", True),  # Spark reads it.
        ("_scored", False),
        ("day=2/.hidden", False),
        ("scored/day=2", False),
        ("../other/day=2", False),
    ],
)
def test_an_output_beside_files_is_no_partition_of_their_folder(tmp_path, output, read):
    """What is allowed is not among the rows of the folder, neither here nor for Spark."""
    file = resolve(str(tmp_path / "rows" / "a.parquet"))
    found = Output(str(tmp_path / "rows" / output))
    if read:
        with pytest.raises(ValueError, match=f"no partition of .*rows', .* Received: .*{output}"):
            found.keep_from_partitions([file])
    else:
        found.keep_from_partitions([file])
    found.keep_from_partitions([resolve(str(tmp_path / "elsewhere" / "a.parquet"))])


def test_what_exists_is_kept_unless_it_may_be_replaced(path):
    first = begun(path)
    first.commit(["a"])
    with pytest.raises(FileExistsError, match="overwrite=True"):
        Output(path)
    second = begun(path, overwrite=True)
    assert ids(path) == [3]
    second.commit(["b"])
    assert ids(path) == [1, 2] and len(everything(path)) == 2


def test_an_output_that_appears_during_the_job_is_not_replaced(path):
    output, other = begun(path), begun(path)
    other.commit(["a"])
    with pytest.raises(FileExistsError):
        output.commit(["b"])
    output.discard()
    assert ids(path) == [3] and len(everything(path)) == 2


def test_a_job_that_fails_leaves_nothing(path):
    begun(path).discard()
    assert everything(path) == []
    Output(path)  # may be used again


@pytest.mark.parametrize("step", range(20))
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_driver_that_dies_leaves_the_old_rows_or_the_new_ones(
    tmp_path, monkeypatch, step, overwrite
):
    """It dies before each call of the file system in turn."""
    path, calls = str(tmp_path / "out"), []
    if overwrite:
        begun(path).commit(["a"])
    output = begun(path, overwrite=overwrite)

    class Mortal:
        def __getattr__(self, name):
            if len(calls) == step:
                raise Killed
            calls.append(name)
            return getattr(resolve(path).system, name)

    monkeypatch.setattr(Output, "system", property(lambda self: Mortal()))
    with contextlib.suppress(Killed):
        output.commit(["b"])
    old = [3] if overwrite else []
    if overwrite and calls.count("move") == 2:  # Between two renames, there is neither.
        assert ids(path) == [] and any("-replaced/part" in name for name in everything(path))
    else:
        assert ids(path) in [old, [1, 2]]


def test_an_object_store_marks_success_last(monkeypatch):
    path = "memory://bucket/marked/out"
    begun(path).commit(["a"])
    output = begun(path, overwrite=True)
    monkeypatch.setattr(Output, "_mark", lambda self, folder: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        output.commit(["b"])
    assert not any(name.endswith("_SUCCESS") for name in everything(path))
    fsspec.filesystem("memory").store.clear()


def test_a_failed_rename_restores_what_was_there(tmp_path, monkeypatch):
    path = str(tmp_path / "out")
    begun(path).commit(["a"])
    output = begun(path, overwrite=True)
    system, moves = output.system, []

    class Failing:
        def __getattr__(self, name):
            return getattr(system, name)

        def move(self, source, target):
            moves.append(target)
            if target == path and len(moves) == 3:
                raise OSError("the disk is full")
            system.move(source, target)

    monkeypatch.setattr(Output, "system", property(lambda self: Failing()))
    with pytest.raises(OSError, match="full"):
        output.commit(["b"])
    output.discard()
    assert ids(path) == [3] and everything(path) == ["out/_SUCCESS", *everything(path)[1:]]


def test_a_late_attempt_finds_no_folder(tmp_path):
    output = begun(str(tmp_path / "out"))
    output.commit(["a"])
    with pytest.raises(Exception, match="Host .* cannot write"):
        attempt(output, "late", [9])
    assert ids(str(tmp_path / "out")) == [3] and len(everything(str(tmp_path / "out"))) == 2


def test_a_link_to_a_folder_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    begun(str(tmp_path / "out"), overwrite=True).commit(["a"])
    assert (tmp_path / "out").is_symlink() and ids(str(tmp_path / "there")) == [3]


def test_rows_are_written_in_groups_of_limited_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("kspark.files.writing.GROUP_BYTES", 8 * 100)
    place = resolve(str(tmp_path / "x.parquet"))
    with PartWriter(place, SCHEMA) as writer:
        for i in range(25):
            writer.write(pa.record_batch([pa.array([i] * 10)], schema=SCHEMA))
    metadata = pq.read_metadata(place.path)
    assert [metadata.row_group(i).num_rows for i in range(3)] == [100, 100, 50]
    assert writer.rows == 250


def test_a_task_without_rows_leaves_no_file(tmp_path):
    with PartWriter(resolve(str(tmp_path / "x.parquet")), SCHEMA):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_failed_task_completes_no_file(tmp_path):
    def fail():
        with PartWriter(resolve(str(tmp_path / "x.parquet")), SCHEMA) as writer:
            writer.write(pa.record_batch([pa.array([1])], schema=SCHEMA))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_floats_have_no_dictionary(tmp_path):
    schema = pa.schema([("x", pa.list_(pa.float32())), ("t", pa.string())])
    place = resolve(str(tmp_path / "x.parquet"))
    with PartWriter(place, schema) as writer:
        writer.write(
            pa.record_batch([pa.array([[1.0]], pa.list_(pa.float32())), ["a"]], schema=schema)
        )
    group = pq.read_metadata(place.path).row_group(0)
    used = ["DICTIONARY" in str(group.column(i).encodings) for i in range(2)]
    assert used == [False, True]
