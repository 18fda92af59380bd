"""The rows that running tasks count, and what is shown of jobs while they run."""

from __future__ import annotations

import glob
import io
import os
import re
import tempfile
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import kspark.ml
from kspark import SparkModel
from kspark.job import display
from kspark.job.row_counts import RowCounts
from kspark.ml import KerasModel
from kspark.temporary import ROWS


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.fixture
def screen(monkeypatch):
    """A terminal in place of standard output."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(display, "sys", SimpleNamespace(stdout=screen, modules={}))
    return screen


@pytest.fixture
def counted(monkeypatch):
    """The last count of each call."""
    found, close = [], RowCounts.close

    def look_and_close(self):
        found.append(self.read())
        close(self)

    monkeypatch.setattr(RowCounts, "close", look_and_close)
    return found


def left_behind():
    return glob.glob(os.path.join(tempfile.gettempdir(), f"{ROWS}*"))


def rows_of(spark, count=70):
    return spark.range(count).selectExpr("array(id, 2.0D * id) as features", "id as label")


def test_evaluate_and_predict_count_every_row_once(spark, model, screen, counted):
    x = np.ones((1000, 2), "float32")
    before, spark_model = left_behind(), SparkModel(model, num_workers=2)
    loss = spark_model.evaluate(x, x[:, 0], verbose=1)
    predicted = spark_model.predict(x, verbose=1)
    spark_model.evaluate(rows_of(spark), verbose=1)
    assert counted == [1000, 1000, 70]
    assert loss == pytest.approx(model.evaluate(x, x[:, 0], verbose=0))
    assert np.array_equal(predicted, spark_model.predict(x, verbose=0))
    assert len(counted) == 3  # Nobody looked at the last call.
    assert left_behind() == before


def test_an_action_shows_its_tasks_and_the_rows_that_models_score(spark, model, screen, counted):
    before, scored = left_behind(), KerasModel(model).transform(rows_of(spark))
    scored.count()
    with kspark.ml.progress(spark, title="Scoring"):
        scored.write.format("noop").mode("overwrite").save()
    line = screen.getvalue().split("\r")[-1].strip()
    assert re.fullmatch(r"Scoring - [\d.]+s - 2 tasks - 70 examples - [\d,]+ examples/s", line)
    assert counted == [70]
    assert left_behind() == before
    assert not [t for t in threading.enumerate() if t.name == "kspark-progress"]


def test_a_block_shows_its_own_jobs_only_and_one_within_it_works(spark, model, screen, counted):
    spark.sparkContext.setJobGroup("of the user", "")
    try:
        spark.range(5).count()
        with kspark.ml.progress(title="outer"), kspark.ml.progress(title="inner"):
            spark.sparkContext.parallelize(range(3), 3).count()
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    last = re.compile(r" - [\d.]+s - 3 tasks")  # The lines that move look different.
    texts = [line.strip() for line in re.split(r"[\r\n]", screen.getvalue())]
    assert [text.split(" - ")[0] for text in texts if last.search(text)] == ["inner", "outer"]


def test_an_error_of_the_block_is_raised_and_a_silent_block_shows_nothing(spark, screen):
    with pytest.raises(ZeroDivisionError), kspark.ml.progress(spark, title="failed"):
        1 / 0  # noqa: B018
    assert "failed -" not in screen.getvalue()
    before = screen.getvalue()
    with kspark.ml.progress(spark, verbose=0):
        spark.range(5).count()
    assert screen.getvalue() == before
    with pytest.raises(ValueError, match="`verbose` must be"), kspark.ml.progress(verbose=7):
        pass
