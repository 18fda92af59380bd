"""`local_session` with executor processes."""

import os
import sys

import pytest

from kspark.session import local_session


def process_of_task(_):
    return sys.executable, os.getcwd(), os.environ["SPARK_LOCAL_DIRS"]


@pytest.fixture(scope="module")
def processes(cluster):
    """One row for each of 8 tasks, from both executors."""
    return cluster.sparkContext.range(8, numSlices=8).map(process_of_task).collect()


def test_the_session_runs_on_a_local_cluster_of_the_given_size(cluster):
    assert cluster.sparkContext.master == "local-cluster[2,1,1024]"
    assert local_session(cores=1, executors=2, memory="1g") is cluster


def test_python_workers_run_the_python_of_the_driver(processes):
    assert {python for python, _, _ in processes} == {sys.executable}


def test_executors_keep_their_files_in_the_private_directory(processes):
    for _, logs, files in processes:
        assert "/kspark-session-" in logs
        assert "/kspark-session-" in files


def test_a_second_session_works_in_the_same_jvm(cluster):
    cluster.stop()
    again = local_session(cores=1, executors=1, memory="1g")
    assert again.sparkContext.range(4).sum() == 6
    assert "/kspark-session-" in again.sparkContext.range(1).map(process_of_task).first()[1]
    again.stop()
