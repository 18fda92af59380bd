"""kspark's code is shipped to Python processes that have no kspark, or another version."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kspark import errors
from kspark.cluster import bootstrap

PACKAGE = Path(importlib.util.find_spec("kspark").origin).parent
ARCHIVE, DIGEST = bootstrap.package_archive()

ARRIVE = """
import importlib.util, json, sys
archive, digest, source = sys.argv[1:4]
sys.path[:0] = sys.argv[4:]
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("arrived", source)
arrived = importlib.util.module_from_spec(spec)
spec.loader.exec_module(arrived)
use = lambda: arrived.use_code(open(archive, "rb").read(), digest)
"""
"""As far as Spark brings an executor: `bootstrap` is there, and the archive's bytes."""

TELL = """
import kspark.errors
from kspark.cluster.bootstrap import package_archive
print(json.dumps([kspark.errors.__file__, package_archive()[1]]))
"""


@pytest.fixture
def executor(tmp_path):
    """Runs code in a Python without site-packages, hence without kspark."""
    local = tmp_path / "local"
    local.mkdir()
    (tmp_path / "archive").write_bytes(ARCHIVE)

    def run(code, *paths, archive=tmp_path / "archive", digest=DIGEST):
        source = PACKAGE / "cluster" / "bootstrap.py"
        arguments = [str(a) for a in (archive, digest, source, *paths)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", ARRIVE + code, *arguments],
            # A worker of Spark may have no backend, if it only writes rows.
            env={
                "SPARK_LOCAL_DIRS": str(local),
                "PATH": os.environ.get("PATH", ""),
                "PYTHON_WORKER_FACTORY_PORT": "1",
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.local = local
    return run


def installed(folder, **changes):
    """A copy of kspark in a folder, with other sources if asked for."""
    shutil.copytree(PACKAGE, folder / "kspark", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in changes.items():
        (folder / "kspark" / f"{name}.py").write_text(text)
    return folder


def test_the_test_process_cannot_import_kspark(executor):
    code = "print(json.dumps(importlib.util.find_spec('kspark') is None))"
    assert executor(code) is True


def test_the_archive_is_used_where_kspark_is_missing(executor):
    file, digest = executor("use()" + TELL)
    assert file == str(executor.local / f"kspark-{DIGEST}.zip" / "kspark" / "errors.py")
    assert digest == DIGEST  # code that came in an archive can be shipped on


def test_the_installed_code_is_used_where_it_is_the_same(executor, tmp_path):
    site = installed(tmp_path / "site")
    assert executor("use()" + TELL, site)[0] == str(site / "kspark" / "errors.py")
    assert list(executor.local.iterdir()) == []


def test_identical_code_in_another_zip_is_used(executor, tmp_path):
    """As `spark-submit --py-files` ships it, among other packages."""
    bundle = tmp_path / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("kspark/", "")
        archive.writestr("kspark/py.typed", "")
        archive.writestr("other/__init__.py", "x = 1")
        archive.writestr("ksparkling.py", "x = 1")
        for name, source in bootstrap.package_sources():
            archive.writestr(name, source)
    file, digest = executor("use()" + TELL, bundle)
    assert file == str(bundle / "kspark" / "errors.py")
    assert digest == DIGEST


@pytest.mark.parametrize("before", ["", "import kspark.errors, kspark.weights_of_old;"])
def test_different_code_is_replaced_even_if_it_was_imported(executor, tmp_path, before):
    old = (PACKAGE / "errors.py").read_text() + "OLD = True\n"
    site = installed(tmp_path / "site", errors=old, weights_of_old="")
    code = TELL + "print(); import sys; assert 'kspark.weights_of_old' not in sys.modules"
    assert executor(before + "use()" + code, site)[0].startswith(str(executor.local))


def test_code_that_was_imported_before_an_upgrade_is_replaced(executor, tmp_path):
    """A daemon that lives long notes what it imported; the files may be others now."""
    site = installed(tmp_path / "site")
    before = "import kspark.errors; sys._kspark_digest = 'of older files';"
    assert executor(before + "use()" + TELL, site)[0].startswith(str(executor.local))


def test_broken_installed_code_is_replaced(executor, tmp_path):
    site = installed(tmp_path / "site", __init__="import no_such_module")
    assert executor("use()" + TELL, site)[0].startswith(str(executor.local))


def test_the_second_call_does_not_check_the_code_again(executor):
    code = "use(); arrived.installed_digest = None; use(); print(json.dumps(sys._kspark_digest))"
    assert executor(code) == DIGEST


FAILURE = errors.Failure(0, "h", 0, "k", "m", "")
SENTENCE = "`a` must be b. Received: a='c'"


@pytest.mark.parametrize(
    ("shared", "rule"),
    [
        (SimpleNamespace(value="an integer"), "an integer"),
        (bootstrap.Enclosed("an integer"), "an integer"),
        (bootstrap.Enclosed(FAILURE), FAILURE),  # a class that is not there yet
        (bootstrap.Derived(bootstrap.ship(errors.sentence, "a", "b", "c")), SENTENCE),
    ],
)
def test_a_shipped_function_runs_where_only_pyspark_is_installed(executor, tmp_path, shared, rule):
    """From end to end, with the pickling of Spark."""
    import py4j
    import pyspark
    from pyspark import cloudpickle

    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for library in (py4j, pyspark):
        (libraries / library.__name__).symlink_to(Path(library.__file__).parent)
    shipped = bootstrap.ship(errors.sentence, "epochs", shared=(shared,))
    (tmp_path / "task").write_bytes(cloudpickle.dumps(shipped))
    code = f"""
import pickle
task = pickle.loads(open({str(tmp_path / "task")!r}, "rb").read())
assert "kspark" not in sys.modules
print(json.dumps([task(0), task(1.5), sys.modules["kspark"].__file__]))
"""
    *sentences, file = executor(code, libraries)
    assert sentences == [
        f"`epochs` must be {rule}. Received: epochs=0",
        f"`epochs` must be {rule}. Received: epochs=1.5",
    ]
    assert file.startswith(str(executor.local))


def test_a_shipped_function_gets_its_arguments_then_shared_values_then_those_of_the_call():
    shared = tuple(SimpleNamespace(value=f"shared{i}") for i in range(2))
    shipped = bootstrap.ship(order, "own0", "own1", shared=shared)
    assert shipped("call") == ["own0", "own1", "shared0", "shared1", "call"]


def test_values_are_read_in_turn_and_not_kept():
    class Broadcast:
        """As that of Spark: it reads its file once, and keeps the value."""

        def __init__(self, path):
            self._path = path
            self.reads = 0

        @property
        def value(self):
            if "_value" not in vars(self):
                self._value, self.reads = [self._path], self.reads + 1
            return self._value

    shared = (Broadcast("a"), Broadcast("b"))
    shipped = bootstrap.ship(order, shared=shared, in_turn=True)
    assert shipped("call") == [*shared, "call"]
    assert [one.reads for one in shared] == [0, 0]
    values = bootstrap.values_in_turn(shared)
    assert next(values) == ["a"] and shared[1].reads == 0
    assert next(values) == ["b"] and "_value" not in vars(shared[0])
    assert list(bootstrap.values_in_turn(shared)) == [["a"], ["b"]]  # another attempt
    decrypted = Broadcast(None)
    assert list(bootstrap.values_in_turn([decrypted])) * 2 == [[None]] * 2
    assert "_value" in vars(decrypted)


def order(*arguments):
    return list(arguments)


order.__module__ = "kspark.fake"


@pytest.fixture(autouse=True)
def fake_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "kspark.fake", SimpleNamespace(order=order))
    monkeypatch.setattr(sys, "_kspark_digest", DIGEST, raising=False)


def test_arguments_are_shipped_as_bytes():
    """Their classes are looked up only after kspark can be imported."""
    shipped = bootstrap.ship(order, FAILURE)
    assert isinstance(shipped.args, bytes)
    assert shipped.target == "kspark.fake:order"
    assert (shipped.archive, shipped.digest) == (ARCHIVE, DIGEST)
    assert pickle.loads(shipped.args)[0].host == "h"


def test_executors_show_messages_if_the_driver_does(monkeypatch):
    monkeypatch.setenv("KSPARK_LOG", "1")
    shipped = bootstrap.ship(order)
    monkeypatch.delenv("KSPARK_LOG")
    shipped()
    assert os.environ["KSPARK_LOG"] == "1"


def test_executors_keep_their_own_setting_if_the_driver_has_none(monkeypatch):
    monkeypatch.delenv("KSPARK_LOG", raising=False)
    shipped = bootstrap.ship(order)
    monkeypatch.setenv("KSPARK_LOG", "1")
    shipped()
    assert os.environ["KSPARK_LOG"] == "1"


# -- the archive -----------------------------------------------------------------------------


def test_the_archive_holds_all_sources_and_nothing_else():
    with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as archive:
        names = archive.namelist()
        sources = {n: archive.read(n) for n in names}
    expected = {p.relative_to(PACKAGE.parent).as_posix(): p for p in PACKAGE.rglob("*.py")}
    assert names == sorted(expected)
    assert sources == {name: path.read_bytes() for name, path in expected.items()}


def test_the_archive_is_the_same_each_time():
    bootstrap.package_archive.cache_clear()
    assert bootstrap.package_archive() == (ARCHIVE, DIGEST)


@pytest.mark.parametrize(
    "other",
    [[("a", b"1"), ("b", b"3")], [("a", b"1"), ("c", b"2")], [("a", b"1")], [("ab", b"12")], []],
)
def test_different_sources_have_different_digests(other):
    digest = bootstrap.sources_digest([("a", b"1"), ("b", b"2")])
    assert bootstrap.sources_digest(other) != digest
    assert len(digest) == 16


# -- where it is written -----------------------------------------------------------------------


def test_the_archive_is_written_once_to_the_first_local_directory_of_spark(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path / 'a'},{tmp_path / 'b'}")
    path = Path(bootstrap.write_archive(b"code", "d1"))
    assert path == tmp_path / "a" / "kspark-d1.zip"
    assert path.read_bytes() == b"code"
    before = path.stat().st_ino
    assert bootstrap.write_archive(b"code", "d1") == str(path)
    assert path.stat().st_ino == before
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["kspark-d1.zip"]


@pytest.mark.parametrize("value", [None, "", "/no/such/directory"])
def test_the_archive_is_written_to_the_temporary_directory_without_spark(
    tmp_path, monkeypatch, value
):
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    if value is not None:
        monkeypatch.setenv("SPARK_LOCAL_DIRS", value)
    monkeypatch.setattr(bootstrap.tempfile, "tempdir", str(tmp_path))
    assert Path(bootstrap.write_archive(b"code", "d1")).parent == tmp_path


def test_a_file_that_is_damaged_or_a_link_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    (tmp_path / "kspark-d1.zip").write_bytes(b"evil")
    (tmp_path / "target").write_bytes(b"code")
    (tmp_path / "kspark-d2.zip").symlink_to(tmp_path / "target")
    for digest in ("d1", "d2"):
        path = Path(bootstrap.write_archive(b"code", digest))
        assert path.name != f"kspark-{digest}.zip"
        assert path.suffix == ".zip"
        assert path.read_bytes() == b"code"
    assert (tmp_path / "kspark-d1.zip").read_bytes() == b"evil"


def test_another_users_file_is_not_trusted(tmp_path, monkeypatch):
    (tmp_path / "kspark-d1.zip").write_bytes(b"code")
    assert bootstrap.holds(str(tmp_path / "kspark-d1.zip"), b"code")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not bootstrap.holds(str(tmp_path / "kspark-d1.zip"), b"code")


def test_two_processes_may_write_at_the_same_time(tmp_path, monkeypatch):
    """The other process finishes between this one's check and its own write."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    path = tmp_path / "kspark-d1.zip"
    answers = iter([False, True])

    def holds(*_):
        path.write_bytes(b"code")
        return next(answers)

    monkeypatch.setattr(bootstrap, "holds", holds)
    assert bootstrap.write_archive(b"code", "d1") == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["kspark-d1.zip"]
