"""Rows that are spooled once on `local[2]`: fits, evaluations and predictions that use them."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import CrossValidator

from kspark import SparkModel
from kspark.cluster.spark_job import SparkJob
from kspark.data import spool
from kspark.ml import KerasClassifier

PROGRAM = Path(__file__).with_name("spooled_program.py")
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(93, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


def classifier(inputs=4, classes=2):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((inputs,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(classes)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def fitted(rows, callbacks=(), settings=None, model=None, **arguments):
    model = classifier() if model is None else model
    spark_model = SparkModel(model, seed=3, batch_size=8, **(settings or {}))
    options = {"epochs": 2, "verbose": 0, **arguments}
    history = spark_model.fit(rows, callbacks=list(callbacks), **options)
    return spark_model, history.history


def weights_of(spark_model):
    return [w.tobytes() for w in spark_model.master_network.get_weights()]


def frame_of(spark):
    """Rows in two partitions, as arrays have."""
    rows = [(i, x.tolist(), int(y)) for i, (x, y) in enumerate(zip(X, Y, strict=True))]
    parts = spark.sparkContext.parallelize(rows, 2)
    return parts.toDF("id long, features array<float>, label int")


@pytest.fixture
def counted(spark):
    """Rows of an RDD, and the accumulator that counts how often one was read."""
    reads = spark.sparkContext.accumulator(0)

    def counted_row(row):
        reads.add(1)
        return row

    rows = [(x, int(y)) for x, y in zip(X, Y, strict=True)]
    return spark.sparkContext.parallelize(rows, 2).map(counted_row), reads


class Files(keras.callbacks.Callback):
    """How many names the files of some rows have while a fit runs."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows
        self.names = set()

    def on_epoch_end(self, epoch, logs=None):
        files = [f for _, folder in self.rows.places for f in Path(folder).iterdir()]
        self.names |= {file.stat().st_nlink for file in files}


FITS = [
    {},
    {"reshuffle": "epoch", "validation_split": 0.2},
    {"class_weight": {0: 1.0, 1: 3.0}, "settings": {"road": "rounds"}},
    {"steps_per_epoch": 6, "validation_data": True, "validation_steps": 3},
    {"settings": {"frequency": "batch"}},
    {"settings": {"num_workers": 1}, "shuffle": False, "batch_size": 93},
]


@pytest.mark.parametrize("arguments", FITS)
def test_a_fit_on_spooled_rows_is_that_on_their_source(spark, arguments):
    frame, arguments = frame_of(spark), dict(arguments)
    validates = arguments.pop("validation_data", False)
    with spool(frame) as rows:
        runs = [
            fitted(x, **arguments, **({"validation_data": x} if validates else {}))
            for x in (frame, rows)
        ]
    (expected, history), (spark_model, found) = runs
    if arguments.get("settings", {}).get("num_workers"):  # The order of moved rows differs.
        np.testing.assert_allclose(found["loss"], history["loss"], rtol=1e-5)
        return
    assert found == history
    assert weights_of(spark_model) == weights_of(expected)


def test_the_source_is_read_once_and_files_are_not_copied(spark, counted):
    source, reads = counted
    expected, history = fitted(source)
    before = reads.value
    with spool(source) as rows:
        first_row = 1
        assert before < reads.value <= before + len(X) + first_row
        once = reads.value
        assert repr(rows).startswith("SpooledData(examples=93, shards=2, nbytes=2,232, hosts=[")
        files = Files(rows)
        spark_model, found = fitted(rows, [files], validation_data=rows)
        assert found["loss"] == history["loss"]
        assert files.names == {3}  # the handle's, the fit's and the validation's
        assert weights_of(spark_model) == weights_of(expected)
        plain = spark_model.master_network
        np.testing.assert_allclose(
            spark_model.evaluate(rows, verbose=0), plain.evaluate(X, Y, verbose=0), rtol=1e-5
        )
        predicted = spark_model.predict(rows, verbose=0)
        np.testing.assert_allclose(predicted, plain.predict(X, verbose=0), rtol=1e-5)
        assert spark_model.predict(rows, batch_size=8, steps=7, verbose=0).shape == (56, 2)
        assert reads.value == once
        folders = {os.path.dirname(folder) for _, folder in rows.places}
        assert all(map(os.path.isdir, folders))
    assert not any(map(os.path.exists, folders))


def test_fits_in_threads_do_not_disturb_each_other(spark, counted):
    source, _ = counted
    expected = weights_of(fitted(source, settings={"road": "rounds"})[0])
    models = [classifier(), classifier()]  # Keras' random seed is one for all threads.
    with spool(source) as rows, ThreadPoolExecutor() as pool:
        train = partial(fitted, rows, settings={"road": "rounds"})
        fits = [pool.submit(train, model=model) for model in models]
        found = [weights_of(fit.result()[0]) for fit in fits]
    assert found == [expected, expected]


def test_a_fit_goes_on_from_its_checkpoint(spark, tmp_path):
    frame = frame_of(spark)
    with spool(frame) as rows:
        expected, _ = fitted(rows, epochs=4)
        fitted(rows, epochs=2, checkpoint=tmp_path)
        resumed, _ = fitted(frame, epochs=4, checkpoint=tmp_path, resume=True)
    assert weights_of(resumed) == weights_of(expected)


def test_moved_rows_are_all_used(spark):
    with spool(X, Y, num_workers=5) as rows:
        assert rows.num_shards == 5
        for workers in (2, 7):
            spark_model, _ = fitted(rows, settings={"num_workers": workers})
            (shards, _) = spark_model.last_fit.workers
            assert sum(shard["num_examples"] for shard in shards) == len(X)
            assert len(shards) == workers


def test_lost_files_are_written_again(spark, counted, caplog):
    source, reads = counted
    expected, _ = fitted(source)
    with spool(source) as rows:
        for use in ("fit", "predict"):
            once = reads.value
            shutil.rmtree(rows.places[1][1])
            if use == "fit":
                spark_model, _ = fitted(rows)
                assert weights_of(spark_model) == weights_of(expected)
            else:
                predicted = spark_model.predict(rows, verbose=0)
                np.testing.assert_array_equal(predicted, spark_model.predict(X, verbose=0))
            assert reads.value > once
    assert "Spooling the examples again" in caplog.text


def two_inputs():
    keras.utils.set_random_seed(1)
    ids = keras.Input((), name="word", dtype="string")
    numbers = keras.Input((2,), name="numbers")
    found = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(ids)
    joined = keras.layers.Concatenate()([found, numbers])
    model = keras.Model([ids, numbers], keras.layers.Dense(1)(joined))
    model.compile("sgd", "mse")
    return model


def test_several_inputs_text_and_integers(spark):
    """Pixels as bytes are converted for each fit; a model that is not built gets its shape."""
    words = np.array(["a", "b", "c"] * 8, object)
    numbers = np.arange(48).reshape(24, 2).astype("uint8")
    y = numbers.sum(axis=1) / 100
    plain, model = two_inputs(), SparkModel(two_inputs(), num_workers=1, seed=1)
    x = {"numbers": numbers, "word": words}
    with spool(x, y, np.linspace(0, 1, 24), num_workers=1) as rows:
        history = model.fit(rows, shuffle=False, verbose=0)
        with pytest.raises(ValueError, match="with one array.*a dictionary with the keys"):
            SparkModel(classifier()).fit(rows, verbose=0)
    expected = plain.fit(
        {"numbers": numbers, "word": words}, y, sample_weight=np.linspace(0, 1, 24),
        shuffle=False, verbose=0,
    )  # fmt: skip
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)
    deferred = keras.Sequential([keras.layers.Dense(1)])
    deferred.compile("sgd", "mse")
    with spool(numbers, y, num_workers=1) as rows:
        SparkModel(deferred).fit(rows, verbose=0)
    assert deferred.count_params() == 3


def test_misuse_is_refused_before_a_job(spark, monkeypatch):
    bare, labelled, frame = spool(X, label_col=None), spool(X, Y), frame_of(spark)
    closed = spool(X, Y)
    closed.close()
    closed.close()
    assert repr(closed).endswith("closed)")

    def start(job):
        raise AssertionError(f"{job} was started")

    model, wide, few = map(SparkModel, (classifier(), classifier(5), classifier(classes=1)))
    assert model.predict(bare, verbose=0).shape == (93, 2)
    with monkeypatch.context() as patch:
        patch.setattr(SparkJob, "start", start)
        for call, message in [
            (lambda: wide.fit(labelled), r"`x` must hold examples of shape \(5,\).*\(4,\)"),
            (lambda: wide.predict(labelled), r"examples of shape \(5,\)"),
            (lambda: model.fit(bare), "spooled rows with labels"),
            (lambda: model.evaluate(bare), "spooled rows with labels"),
            (lambda: model.fit(X, Y, validation_data=bare), "validation_data.*labels"),
            (lambda: model.fit(labelled, Y), "`y` must be left out .*Received: <numpy.ndarray obj"),
            (lambda: model.fit(labelled, features_col="a"), "`features_col` must be left out"),
            (lambda: model.fit(labelled, filters=[("a", ">", 1)]), "`filters` must be None"),
            (lambda: model.predict(labelled, output="out"), "`output` must be None"),
            (lambda: few.fit(labelled), "`y` must be class"),
            (lambda: model.fit(closed), "`x` must be spooled rows that are not closed"),
            (
                lambda: model.fit(X, Y, validation_data=(labelled,)),
                "not in a tuple. Received: a tup",
            ),
            (lambda: model.fit(X, Y, validation_data=closed), "that are not closed"),
            (lambda: model.predict(closed), "that are not closed"),
            (lambda: spool(labelled), "`data` must be rows that are not spooled yet"),
            (lambda: spool(np.array(["2020"], "M8[D]")), r"`data` must hold numbers. .*astype"),
            (lambda: spool(frame, features_col=3), "`features_col` must be one or several names"),
            (lambda: spool(frame, features_col=[1]), "must be one or several names of columns"),
            (lambda: spool(X, num_workers=0), "`num_workers` must be an integer >= 1"),
            (lambda: spool(X, filters=[]), "`filters` must be None unless `data` names"),
        ]:
            with pytest.raises(ValueError, match=message):
                call()
        with pytest.raises(TypeError, match="`data` must be numpy arrays.* data=<object object>"):
            spool(object())
        with pytest.raises(TypeError, match=r"`SparkModel\(model\).fit\(rows\)`, and make a stage"):
            KerasClassifier(classifier()).fit(labelled)
        with pytest.raises(AttributeError, match="for example in a loop over parameters"):
            CrossValidator(
                estimator=KerasClassifier(classifier()),
                estimatorParamMaps=[{}],
                evaluator=MulticlassClassificationEvaluator(),
            ).fit(labelled)
    bare.close()
    labelled.close()


def test_a_search_reads_the_rows_once(spark, counted):
    """Three learning rates on the same rows, each as a fit of its own, evaluated on others."""
    source, reads = counted

    def model(rate):
        made = classifier()
        made.compile(keras.optimizers.SGD(rate), made.loss, metrics=["accuracy"])
        return made

    with spool(source) as train, spool(X[:20], Y[:20]) as test:
        once, models = reads.value, {rate: model(rate) for rate in (0.001, 0.1, 1.0)}
        for made in models.values():
            fitted(train, model=made)
        found = {rate: SparkModel(made).evaluate(test) for rate, made in models.items()}
        assert reads.value == once
    for rate, made in models.items():
        np.testing.assert_allclose(found[rate], made.evaluate(X[:20], Y[:20], verbose=0), rtol=1e-5)
        alone = model(rate)
        fitted(source, model=alone)
        for a, b in zip(alone.get_weights(), made.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({loss for loss, _ in found.values()}) == 3


def test_preprocess_gets_the_columns_by_their_names(spark):
    """As of the frame itself. A list of columns is one array, so that it is refused."""
    frame = frame_of(spark)

    def doubled(batch):
        (values,) = batch.values()
        if not values.any():
            raise ValueError("zeros, which no row has")
        return batch["features"] * 2

    expected, history = fitted(frame, preprocess=doubled)
    with spool(frame) as rows:
        spark_model, found = fitted(rows, preprocess=doubled)
        assert (found, weights_of(spark_model)) == (history, weights_of(expected))
        _, seen = fitted(rows, augment=lambda x: x if x.any() else None)
        assert seen["loss"] == fitted(rows)[1]["loss"]
    parts = frame.selectExpr("features[0] a", "features[1] b", "label")
    with spool(parts, features_col=["a", "b"]) as rows:
        fitted(rows, model=classifier(2))
        with pytest.raises(ValueError, match=r"pass `features_col={'a': 'a', 'b': 'b'}` to"):
            fitted(rows, model=classifier(2), preprocess=lambda batch: batch["x"])
    with spool(parts, features_col={"a": "a", "b": "b"}) as rows:
        both = lambda batch: np.stack([batch["a"], batch["b"]], axis=1)  # noqa: E731
        fitted(rows, model=classifier(2), preprocess=both)


def test_files_of_forgotten_rows_are_deleted(spark):
    rows = spool(X, Y)
    folder = os.path.dirname(rows.places[0][1])
    assert os.path.isdir(folder)
    del rows
    gc.collect()
    deadline = time.monotonic() + 60
    while os.path.isdir(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.isdir(folder)


@pytest.mark.parametrize("end", ["returns", pytest.param("killed", marks=pytest.mark.thorough)])
def test_files_are_gone_with_the_session(end, tmp_path):
    """The program never closes its rows. Its driver could not hold the rows that it uses."""
    run = subprocess.run(
        [sys.executable, str(PROGRAM), end, str(tmp_path)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == (0 if end == "returns" else -signal.SIGKILL), run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["folders"]
    deadline = time.monotonic() + 60
    while any(map(os.path.exists, told["folders"])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(os.path.exists, told["folders"]))
    if end == "returns":
        assert told["limit"] and told["nbytes"] > 40e6
        assert told["written"] == [40_000] * 3
        assert np.isfinite(told["losses"]).all()
        assert told["stopped"].startswith("The Spark session of these spooled rows was stopped")


def test_columns_are_named_for_the_table_beside_spooled_rows(spark, tmp_path):
    frame = spark.createDataFrame(pd.DataFrame({"pixels": X.tolist(), "digit": Y}))
    path = str(tmp_path / "rows")
    frame.write.parquet(path)
    given = {"features_col": "pixels", "label_col": "digit", "verbose": 0}
    with spool(X, Y) as rows:
        for data, other in [(frame, rows), (rows, frame), (rows, path), (path, rows)]:
            model = classifier()
            history = SparkModel(model).fit(data, validation_data=other, **given).history
            expected = model.evaluate(X, Y, verbose=0, return_dict=True)
            assert history["val_loss"][0] == pytest.approx(expected["loss"], rel=1e-5)
        with pytest.raises(ValueError, match="`features_col` must be left out"):
            SparkModel(classifier()).fit(rows, validation_data=(X, Y), **given)


def test_labels_and_weights_of_spooled_rows_may_be_paths(spark, tmp_path):
    paths = {name: tmp_path / f"{name}.npy" for name in ("x", "y", "weight")}
    for name, array in zip(paths, (X, Y, Y + 1.0), strict=True):
        np.save(paths[name], array)
    x, y, weight = paths.values()
    with spool([x, x], [y, y], weight) as listed, spool(x, y, weight) as alone:
        assert listed.num_examples == alone.num_examples == len(X)
        assert SparkModel(classifier()).fit(alone, verbose=0).history["loss"]


def test_functions_are_not_spooled_and_stages_take_data_frames_only(spark):
    def make(worker, num_workers):
        yield X, Y

    with pytest.raises(TypeError, match="`data` must be rows that are kept.*a function of"):
        spool(make)
    with spool(X, Y) as rows:
        for data in (rows, make, X):
            with pytest.raises(TypeError, match="`dataset` must be a Spark DataFrame.*SparkModel"):
                KerasClassifier(classifier()).fit(data)
