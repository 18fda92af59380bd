"""Spark for tests.

`local/` and `cluster/` run as two processes of pytest, because a process has one
SparkContext at a time. In a single run (`pytest tests`) it changes between modules. `tracking/`
needs MLflow, which `tox -e mlflow` installs.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from pyspark import cloudpickle
from pyspark.sql import SparkSession

from kspark.session import local_session

collect_ignore = [] if find_spec("mlflow") else ["tracking"]

# For every JVM that is started here. Each lives for minutes only, in which the optimizing
# compiler and a parallel collector take more of two cores than they give back.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


@pytest.fixture(scope="module")
def spark():
    """Two tasks at a time in the driver's process: what a user has on a laptop."""
    return session_of(cores=2)


@pytest.fixture(scope="module")
def one():
    """A task at a time: arrays get one worker."""
    return session_of(cores=1)


@pytest.fixture(scope="module")
def three():
    """Three tasks at a time: one of them may be late, and the others are more than half."""
    return session_of(cores=3)


@pytest.fixture(scope="module")
def cluster():
    """Two executors with a core each: real processes with an address and files of their own."""
    return session_of(cores=1, executors=2, memory="1g")


def session_of(**arguments):
    try:
        return local_session(**arguments)
    except ValueError:  # The other kind is running.
        SparkSession.getActiveSession().stop()
        return local_session(**arguments)


@pytest.fixture(scope="module", autouse=True)
def functions_travel_by_value(request):
    """Executors cannot import test modules: send them the functions themselves."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="session")
def path_without_java(tmp_path_factory):
    """A `PATH` with all programs of this machine but `java`."""
    programs = tmp_path_factory.mktemp("programs")
    for directory in os.environ["PATH"].split(os.pathsep):
        if not Path(directory).is_dir():
            continue
        for program in Path(directory).iterdir():
            link = programs / program.name
            if not program.name.startswith("java") and not link.is_symlink():
                link.symlink_to(program)
    return str(programs)
