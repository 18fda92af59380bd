"""Archive the classes that Spark loads, so that Java starts later sessions faster.

Java loads and verifies about 15,000 classes while Spark starts. It can read them from an archive
instead (class data sharing, in Java 17 and later), which shortens the start of a session by a third
on two cores. This command creates it:

```
python -m kspark.session archive
```

`local_session` uses it from then on. It belongs to one Java and one Spark: after another one has
been installed, sessions start without it until it is created again. It lies in `kspark` in the
user's cache directory, `$XDG_CACHE_HOME` or `~/.cache`, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from kspark.errors import ClusterError
from kspark.session import java

FIRST_JAVA = 17
"""The first version of Java for which archives are created."""

BASE, SPARK = "java.jsa", "spark.jsa"
"""File names: the archive of Java's own classes, and that of Spark's, which builds on it."""

QUIET = "-Xlog:disable"
"""Option of Java to omit messages, such as that an archive does not fit a session's class path."""

TIMEOUT = 300.0
"""Seconds that each of the two steps may take."""


def archive_folder(found: java.Java) -> Path:
    """Return the folder of the archives for a Java and the installed Spark. It may not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    jars = sorted(spark_jars().glob("*.jar"))
    # Whole seconds, as Java compares them: layers of container images keep no more.
    files = [(jar.name, jar.stat().st_size, int(jar.stat().st_mtime)) for jar in jars]
    program = found.executable.resolve()
    parts = [str(program), int(program.stat().st_mtime), str(spark_jars()), files]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    name = f"spark-{pyspark.__version__}-java-{found.version}-{digest}"
    return Path(cache) / "kspark" / name


def spark_jars() -> Path:
    """Return the folder of Spark's own classes."""
    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent) / "jars"


def archive_options(found: java.Java, *, quiet: bool = True) -> str:
    """Return the options with which Java uses the archives; an empty string if there are none.

    Args:
        found: `Java`.
        quiet: Boolean, whether to omit Java's messages. Defaults to `True`.
    """
    try:
        folder = archive_folder(found)
    except (OSError, RuntimeError):  # There is no home directory, or a file is gone.
        return ""
    files = [folder / BASE, folder / SPARK]
    if found.version < FIRST_JAVA or not all(map(Path.is_file, files)):
        return ""
    return (
        f"-XX:SharedArchiveFile={os.pathsep.join(map(str, files))} -Xshare:auto"
        + f" {QUIET}" * quiet
    )


def create() -> Path:
    """Create the archives for the Java that `local_session` finds.

    Returns:
        `Path` of their folder.

    Raises:
        ClusterError: If there is no Java that can create them, or they cannot be written.
    """
    try:
        return create_for(java.find_java(pyspark.__version__))
    except ClusterError:
        raise
    except (OSError, RuntimeError) as error:
        raise ClusterError(
            f"The archives cannot be written: {error}. Set XDG_CACHE_HOME to a folder that you can "
            "write to, now and whenever a session starts."
        ) from error


def create_for(found: java.Java) -> Path:
    """Create the archives for a Java. Returns and raises the same as `create`."""
    if found.version < FIRST_JAVA:
        raise ClusterError(
            f"Archives of classes need Java {FIRST_JAVA} or later, and {found.executable} is "
            f"Java {found.version}. Install a later one and set JAVA_HOME to it."
        )
    folder = archive_folder(found)
    # Spark splits options at spaces, and Java the list of archives at the path separator.
    if any(c in str(folder) for c in (" ", os.pathsep, '"', "'")):
        raise ClusterError(
            f"The archives must be in a folder without spaces, quotes and {os.pathsep!r} in its "
            f"path: set XDG_CACHE_HOME to one. Received: {str(folder.parent.parent)!r}."
        )
    base, spark = folder / BASE, folder / SPARK
    folder.mkdir(parents=True, exist_ok=True)
    spark.unlink(missing_ok=True)  # It would not fit the new base.
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as work:
        made = Path(work, "made.jsa")
        run(["-Xshare:dump", f"-XX:SharedArchiveFile={made}"], str(found.executable))
        made.replace(base)  # Java stores the path of the base in the archive that builds on it.
        options = f"-XX:SharedArchiveFile={base} -XX:ArchiveClassesAtExit={made} {QUIET}"
        run(["-c", PROGRAM, options, work], sys.executable)
        if not made.is_file():
            raise ClusterError(f"{found.executable} has not created an archive of Spark's classes.")
        made.replace(spark)
    return folder


PROGRAM = """
import sys
import keras
import numpy as np
from pyspark.ml.feature import VectorAssembler
from kspark import SparkModel
from kspark.ml import KerasEstimator
from kspark.session import local_session

spark = local_session(2, config={"spark.driver.extraJavaOptions": sys.argv[1]})
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.ones((64, 2), "float32")
spark_model = SparkModel(model)
spark_model.fit(x, x[:, 0], epochs=2, verbose=0)
spark_model.predict(x)
folder = sys.argv[2]
rows = [(float(i), 2.0, [1.0, 2.0], 1.0) for i in range(64)]
frame = spark.createDataFrame(rows, "a double, b double, features array<float>, label double")
frame.repartition(2).write.parquet(folder + "/rows")
frame = spark.read.parquet(folder + "/rows").filter("a >= 0")
frame = VectorAssembler(inputCols=["a", "b"], outputCol="vector").transform(frame).cache()
for number, column in enumerate(["features", "vector"]):
    scored = KerasEstimator(model, featuresCol=column, verbose=0).fit(frame).transform(frame)
    scored.write.parquet(folder + "/scored" + str(number))
    scored.write.format("noop").mode("overwrite").save()
    scored.groupBy("label").count().toPandas()
"""
"""What the session does whose classes are archived."""


def run(arguments: list[str], program: str) -> None:
    """Run a program, and wait until it and the processes that it started have ended.

    Raises:
        ClusterError: If it fails. The message contains what it has printed.
    """
    try:
        # Spark's Java ends after the Python that started it, and keeps the pipe of the output open.
        answer = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{program} has not ended after {TIMEOUT:.0f} s.") from error
    if answer.returncode:
        raise ClusterError(f"{program} has failed:\n{answer.stdout.strip()[-2000:]}")
