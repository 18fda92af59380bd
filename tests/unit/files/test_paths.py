"""A path leads to a file system: the local disk, one of pyarrow's, or one of fsspec's."""

from __future__ import annotations

import sys

import fsspec
import pytest
from pyarrow.fs import LocalFileSystem

from kspark.files.paths import UnreachableError, resolve, system_of


@pytest.mark.parametrize(
    "path", ["/a b/c%20", "file:/a b/c%20", "file:///a b/c%20", "FILE:/a b/c%20"]
)
def test_the_local_disk_has_no_root_and_percent_signs_are_no_escapes(path):
    found = resolve(path)
    assert (found.root, found.path, str(found)) == ("", "/a b/c%20", "/a b/c%20")
    assert isinstance(found.system, LocalFileSystem)


def test_a_relative_path_is_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("a/../b").path == str(tmp_path / "b")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/rows").path == str(tmp_path / "rows")


def test_fsspec_reaches_what_pyarrow_does_not():
    fsspec.filesystem("memory").pipe("/bucket/folder/a.parquet", b"abc")
    found = resolve("memory://bucket/folder/a.parquet")
    assert found.system.get_file_info(found.path).size == 3
    assert str(found) == "memory://bucket/folder/a.parquet" and found.root == "memory://bucket/"
    assert str(resolve("memory://bucket")) == "memory://bucket/"
    assert system_of(found.root) is system_of(found.root)


@pytest.mark.parametrize("path", ["demo://host/a", "demo:/a"])
def test_an_unknown_scheme_is_not_reached(path):
    with pytest.raises(UnreachableError, match="demo"):
        resolve(path)


def test_fsspec_need_not_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UnreachableError, match="Nor does fsspec"):
        resolve("other://host/a")


def test_errors_of_a_store_are_those_of_a_path(monkeypatch):
    def fail(root):
        raise KeyError("no credentials")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(UnreachableError, match="no credentials"):
        resolve("failing://host/a")


def test_schemes_of_hadoop_are_known_under_their_other_names(monkeypatch):
    seen = []

    def system(root):
        seen.append(root)
        return LocalFileSystem(), "bucket"

    monkeypatch.setattr("kspark.files.paths.system_of", system)
    assert resolve("s3a://bucket/a/b/").path == "bucket/a/b"
    assert resolve("S3N://bucket").path == "bucket"
    assert seen == ["s3://bucket/"] * 2


STORE = "scheme=http&endpoint_override=storage:9000&region=here"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (f"s3://bucket/a/day=1?{STORE}", "bucket/a/day=1"),
        (f"s3a://bucket/day=?/*.parquet?{STORE}", "bucket/day=?/*.parquet"),
        (f"s3://bucket?{STORE}", "bucket"),
    ],
)
def test_options_of_a_uri_belong_to_its_file_system_and_stay_with_the_path(given, path):
    found = resolve(given)
    assert found.path == path
    assert found.root == f"s3://bucket/?{STORE}"
    assert found.system.region == "here"
    assert resolve(str(found)) == found
    secret = resolve(given.replace("://", "://key:hidden@"))
    assert secret.path == path
    assert secret.shown == str(found).replace("://", "://***@")


@pytest.mark.parametrize("path", ["s3://bucket/day=?", "s3://bucket/a?b", "s3://bucket/?=1/a"])
def test_a_question_mark_without_an_option_is_part_of_a_pattern(path, monkeypatch):
    monkeypatch.setattr("kspark.files.paths.system_of", lambda root: (LocalFileSystem(), "bucket"))
    found = resolve(path)
    assert found.root == "s3://bucket/"
    assert found.path == path.removeprefix("s3://")


@pytest.mark.parametrize(
    "options", ["endpoint_override=http://storage:9000", "Scheme=http", "scheme=http&a=b/c"]
)
def test_options_of_another_form_are_refused_with_the_right_one(options):
    right = r"in small letters.*`s3://bucket/rows\?scheme=http&endpoint_override=storage:9000`"
    for path in ("s3://b/rows", "s3://b", "s3://b/day=?/*.parquet"):
        with pytest.raises(ValueError, match=right):
            resolve(f"{path}?{options}")


@pytest.mark.parametrize(
    "path",
    [
        *("demo://user:hidden@host/a", "demo://host/a?scheme=b&secret_key=hidden"),
        *("s3://user:hidden@b/a?A=1", "s3://b/a?Access_Key=hidden&scheme=http", "demo:/a@hidden"),
    ],
)
def test_errors_have_no_secrets(path):
    with pytest.raises((UnreachableError, ValueError)) as caught:
        resolve(path)
    assert ("hidden" in str(caught.value)) is (path == "demo:/a@hidden")


def test_options_are_for_pyarrow_only():
    with pytest.raises(UnreachableError, match="pyarrow does not reach 'memory://bucket/"):
        resolve("memory://bucket/a?scheme=http")
