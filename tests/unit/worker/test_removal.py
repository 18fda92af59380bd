"""The clean-up after a fit runs in processes that have not imported kspark."""

from __future__ import annotations

import os
import subprocess
import sys

from pyspark import cloudpickle

from kspark.shards import ShardHandle
from kspark.worker.removal import clean_up, task_of

RUN = """
import pickle, sys
import pyspark.cloudpickle  # with which Spark 3.5 imports NumPy
before = set(sys.modules)
task = pickle.load(open(sys.argv[1], "rb"))
done = list(task(0, [open(sys.argv[2], "rb").read()]))
added = set(sys.modules) - before
print(done, "kspark" in added, "numpy" in added)
"""


def test_files_are_deleted_by_a_process_that_does_not_import_kspark(tmp_path):
    shard, local = tmp_path / "shard", tmp_path / "local"
    for folder in (shard, local / "kspark-fit" / "partial", local / "kspark-other"):
        folder.mkdir(parents=True)
    (tmp_path / "task").write_bytes(cloudpickle.dumps(task_of(clean_up, "fit")))
    (tmp_path / "handle").write_bytes(ShardHandle(7, 1, str(shard), "host", 0).to_json())
    done = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "task", tmp_path / "handle"],
        env={**os.environ, "SPARK_LOCAL_DIRS": str(local)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[7] False False\n"
    assert not shard.exists()
    assert os.listdir(local) == ["kspark-other"]


def test_the_task_is_small():
    """It travels with each task, and holds neither kspark nor its archive."""
    assert len(cloudpickle.dumps(task_of(clean_up, "fit"))) < 10_000
