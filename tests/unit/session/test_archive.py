"""Archives of classes; shell scripts stand in for Java."""

import os
import sys
from pathlib import Path

import pytest

from kspark.errors import ClusterError
from kspark.session import __main__ as command
from kspark.session import archive, java
from kspark.session.java import Java


@pytest.fixture
def found(tmp_path, monkeypatch):
    """A Java 17 that writes the archive that it is asked for, and a Spark of two files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    (tmp_path / "spark" / "jars").mkdir(parents=True)
    for name in ("a.jar", "b.jar"):
        (tmp_path / "spark" / "jars" / name).write_text(name)
    found = Java(tmp_path / "java", 17, "PATH")
    found.executable.write_text('#!/bin/sh\necho base > "${2#*=}"\n')
    found.executable.chmod(0o755)
    monkeypatch.setattr(java, "find_java", lambda version: found)
    return found


PROGRAM = """
import sys
options = dict(part.split("=", 1) for part in sys.argv[1].split() if "=" in part)
assert open(options["-XX:SharedArchiveFile"]).read() == "base\\n"
open(options["-XX:ArchiveClassesAtExit"], "w").write("spark")
"""


@pytest.fixture
def session(monkeypatch):
    """Stands for the session whose classes are archived."""
    monkeypatch.setattr(archive, "PROGRAM", PROGRAM)


def test_both_archives_are_created_and_used(found, session):
    assert archive.archive_options(found) == ""
    folder = archive.create()
    assert folder == archive.archive_folder(found)
    assert sorted(file.name for file in folder.iterdir()) == ["java.jsa", "spark.jsa"]
    files = f"{folder}/java.jsa{os.pathsep}{folder}/spark.jsa"
    assert f"-XX:SharedArchiveFile={files} -Xshare:auto" in archive.archive_options(found)
    assert archive.create() == folder  # once more


def test_another_spark_or_java_has_an_archive_of_its_own(found, tmp_path):
    first = archive.archive_folder(found)
    assert archive.archive_folder(found) == first
    (tmp_path / "spark" / "jars" / "c.jar").write_text("c")
    second = archive.archive_folder(found)
    os.utime(found.executable, (1, 1))
    assert len({first, second, archive.archive_folder(found)}) == 3


@pytest.mark.parametrize("failing", ["java", "session", "nothing"])
def test_a_failed_step_is_reported_and_leaves_no_archive(found, monkeypatch, failing):
    if failing == "java":
        found.executable.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    programs = {"session": "raise SystemExit('not today')", "nothing": "pass"}
    monkeypatch.setattr(archive, "PROGRAM", programs.get(failing, PROGRAM))
    told = "has not created" if failing == "nothing" else "not today"
    with pytest.raises(ClusterError, match=told):
        archive.create()
    assert archive.archive_options(found) == ""
    assert "spark.jsa" not in os.listdir(archive.archive_folder(found))


def test_a_step_that_does_not_end_is_reported(found, monkeypatch):
    monkeypatch.setattr(archive, "TIMEOUT", 0.2)
    monkeypatch.setattr(archive, "PROGRAM", "import time; time.sleep(60)")
    with pytest.raises(ClusterError, match="has not ended"):
        archive.create()


def test_an_old_java_has_no_archives(found, monkeypatch):
    old = Java(found.executable, 11, "PATH")
    monkeypatch.setattr(java, "find_java", lambda version: old)
    with pytest.raises(ClusterError, match="need Java 17 or later"):
        archive.create()
    assert archive.archive_options(old) == ""


@pytest.mark.parametrize("name", ["with space", "with:colon"])
def test_a_folder_that_java_cannot_be_told_is_refused(found, session, monkeypatch, tmp_path, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    with pytest.raises(ClusterError, match=f"Received: '.*{name}'"):
        archive.create()
    assert not (tmp_path / name).exists()


def test_a_folder_that_cannot_be_written_is_reported(found, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ClusterError, match="cannot be written: .* Set XDG_CACHE_HOME"):
        archive.create()


def test_messages_of_java_are_shown_on_request(found, session):
    archive.create()
    assert archive.QUIET in archive.archive_options(found)
    assert archive.QUIET not in archive.archive_options(found, quiet=False)


def test_without_a_home_directory_there_is_no_archive(found, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert archive.archive_options(found) == ""
    with pytest.raises(ClusterError, match="Could not determine home"):
        archive.create()


def test_the_command_says_what_it_did(found, session, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kspark.session", "archive"])
    command.main()
    assert capsys.readouterr().out.startswith(f"Created {archive.archive_folder(found)} (0 MB)")
    found.executable.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(SystemExit, match="has failed"):
        command.main()


def test_the_command_needs_to_know_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kspark.session"])
    with pytest.raises(SystemExit):
        command.main()
    assert "archive" in capsys.readouterr().err
