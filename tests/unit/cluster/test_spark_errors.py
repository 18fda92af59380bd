"""What kspark tells of Spark's error for a failed job. Without Spark."""

from __future__ import annotations

import pytest

from kspark.cluster.spark_errors import PREFIX, brief, cause, raised_on_worker
from kspark.cluster.spark_job import JobLostError, job_error, lost_for_good

DIED = (
    "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.\n"
    ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 5.0 "
    "failed 1 times, most recent failure: Lost task 0.0 in stage 5.0 (TID 10) (host executor 2): "
    "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). Consider "
    "setting 'spark.python.worker.faulthandler.enabled' configuration to 'true'.\n"
    "\tat org.apache.spark.api.python.Reader.read(PythonRunner.scala:1)\n"
    "Caused by: java.io.EOFException\n"
    "\tat java.base/java.io.DataInputStream.readInt(DataInputStream.java:397)\n"
    "Caused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). "
    "Consider setting 'spark.python.worker.faulthandler.enabled' configuration to 'true'.\n"
)

TRACE = (
    "Traceback (most recent call last):\n"
    '  File "/lib/python3.11/site-packages/pyspark/worker.py", line 4327, in invoke_udf\n'
    "    run_process()\n"
    '  File "/lib/python3.11/site-packages/kspark/adapters/rdd.py", line 137, in __call__\n'
    "    while block := list(islice(rows, size)):\n"
    "                   ^^^^^^^^^^^^^^^^^^^^^^^^^\n"
    '  File "/lib/pyspark.zip/pyspark/util.py", line 158, in wrapper\n'
    "    return f(*args, **kwargs)\n"
    '  File "/home/me/train.py", line 9, in divided\n'
    "    return 1 / row\n"
    "           ~~^~~~~\n"
    "ZeroDivisionError: division by zero\n"
)

AT = "\n\tat org.apache.spark.api.python.BasePythonRunner.run(PythonRunner.scala:1)\n"

CLASSIC = (
    "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.\n"
    ": org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 "
    "failed 1 times, most recent failure: Lost task 0.0 in stage 0.0 (TID 0) (host executor "
    f"driver): org.apache.spark.api.python.PythonException: {TRACE}{AT}\n"
    f"Driver stacktrace:\n{AT}Caused by: org.apache.spark.api.python.PythonException: {TRACE}{AT}"
)


def test_a_cause_is_told_once_and_without_classes_of_the_jvm():
    text = cause(DIED)
    assert text.startswith("Job aborted due to stage failure: Task 0 in stage 5.0 failed 1 times")
    assert text.count("Python worker exited unexpectedly (crashed).") == 1
    assert "org.apache" not in text and "EOFException" not in text and ": :" not in text


def test_a_retry_is_one_short_line():
    assert brief(JobLostError(PREFIX + cause(DIED))) == (
        "Lost task 0.0 in stage 5.0 (TID 10) (host executor 2): "
        "Python worker exited unexpectedly (crashed)"
    )
    assert brief(RuntimeError("a" * 1000)) == "a" * 197 + "..."
    assert brief(RuntimeError("The files are gone.")) == "The files are gone"


@pytest.mark.parametrize(
    "text", [f"An exception was thrown from the Python worker:\n{TRACE}", CLASSIC, TRACE.strip()]
)
def test_an_error_of_the_users_code_in_a_task_is_told_once_from_the_users_line_on(text):
    error = job_error(RuntimeError(text))
    shown = str(lost_for_good(error))
    assert isinstance(error, JobLostError)
    assert shown.startswith("A Spark task raised ZeroDivisionError: division by zero\n")
    assert shown.endswith("\nZeroDivisionError: division by zero")
    assert shown.count("/home/me/train.py") == 1
    assert "pyspark" not in shown and "site-packages/kspark" not in shown
    assert "Shard" not in shown and "attempt" not in shown


def test_errors_from_which_the_users_error_was_raised_stay():
    earlier = TRACE.replace("ZeroDivisionError: division by zero", "KeyError: 'a'")
    middle = "\nThe above exception was the direct cause of the following exception:\n\n"
    failure = raised_on_worker(earlier + middle + TRACE)
    assert (failure.kind, failure.message) == ("ZeroDivisionError", "division by zero")
    assert "KeyError: 'a'" in failure.traceback


def test_frames_of_kspark_stay_if_there_are_no_others():
    only = TRACE.replace("/home/me/train.py", "/lib/kspark/worker/tasks.py")
    assert "kspark/worker/tasks.py" in raised_on_worker(only).traceback
    assert raised_on_worker("Traceback (most recent call last):\n") is None
    assert raised_on_worker(DIED) is None


def test_an_error_of_the_jvm_names_no_shard():
    error = job_error(RuntimeError("[USER_RAISED_EXCEPTION] '(id < 5)' is not true!"))
    text = "Spark gave up on the job: [USER_RAISED_EXCEPTION] '(id < 5)' is not true!"
    assert str(lost_for_good(error)) == text


@pytest.mark.parametrize(
    ("line", "raised", "kind"),
    [
        (
            "    at = 1 / (row - row)\n",
            "ZeroDivisionError: division by zero\n",
            "ZeroDivisionError",
        ),
        ("    return 1 / row\n", "ValueError: bad\n  at row 3\n", "ValueError"),
        (
            "    return again(row)\n  [Previous line repeated 979 more times]\n",
            "RecursionError: maximum recursion depth exceeded\n",
            "RecursionError",
        ),
    ],
)
def test_what_the_user_wrote_is_no_end_of_the_traceback(line, raised, kind):
    users = f'  File "/home/me/kspark/files/t.py", line 9, in divided\n{line}{raised}'
    heading = "Traceback (most recent call last):\n"
    own = '  File "/lib/pyspark.zip/pyspark/util.py", line 158, in wrapper\n    return f(*args)\n'
    found = raised_on_worker(f"Job aborted: {heading}{own}{users}{AT}")
    assert found.kind == kind
    assert found.message == raised.partition(": ")[2].rstrip()
    assert found.traceback == f"{heading}{users}".rstrip()
