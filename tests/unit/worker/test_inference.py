"""Evaluation and prediction as Spark's tasks would call them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pytest

from kspark.adapters import Columns
from kspark.adapters.feeds import plan_frame
from kspark.cluster.failures import UNFIT_LABELS
from kspark.errors import ConnectionLostError, Failure
from kspark.job.inference import with_fitting_labels
from kspark.shards import ArraySpec, Chunk, InputSpec, Shard, ShardHandle, spool
from kspark.worker import predictors
from kspark.worker.inference import (
    InferenceTask,
    evaluate_chunks,
    predict_batches,
    predict_chunks,
    predict_columns,
)
from kspark.worker.predictors import predictor_for
from kspark.worker.state import replica_for
from kspark.worker.tasks import MissingShard, ShardResult
from kspark.worker.watching import validate_shards

VECTOR = np.array([2, 0, 0], "f4")


@pytest.fixture
def documents(tmp_path):
    """Shards of the rows 0..9, none, and 10..13."""
    rows = [np.arange(10), np.arange(0), np.arange(10, 14)]
    return [
        spool([Chunk([ids])] if len(ids) else [], i, "run", directory=str(tmp_path)).to_json()
        for i, ids in enumerate(rows)
    ]


def task(**num_train):
    return InferenceTask("fit", 4, 3, {int(s[1:]): n for s, n in num_train.items()})


def seen(result):
    return np.flatnonzero(result.metrics[0]).tolist()


def evaluate(task, documents, spec):
    return list(validate_shards(60.0, task, spec, VECTOR, 0, iter(documents)))


def test_only_the_rows_that_are_asked_for_are_evaluated(documents, tools):
    some = replace(task(s0=2), rows={0: 3, 2: 0})
    first, empty, last = evaluate(some, documents, tools.spec())
    assert (first.num_examples, seen(first)) == (3, [2, 3, 4])
    assert (empty, last) == (ShardResult(1, 0), ShardResult(2, 0))


def test_a_shard_that_was_read_again_with_fewer_rows_is_named(documents, tools):
    (failure,) = evaluate(replace(task(s0=2), rows={0: 9}), documents[:1], tools.spec())
    assert isinstance(failure, Failure)
    assert "Partition 0 was read again" in failure.message
    assert "has 10 rows now, but had 11 rows before" in failure.message


def test_a_shard_is_evaluated_from_where_training_rows_end(documents, tools):
    first, empty, last = evaluate(task(s0=7, s1=0, s2=0), documents, tools.spec())
    assert (first.shard, first.num_examples, seen(first)) == (0, 3, [7, 8, 9])
    assert empty == ShardResult(1, 0)
    assert (last.num_examples, seen(last)) == (4, [10, 11, 12, 13])


def test_a_shard_that_all_trains_has_nothing_to_evaluate(documents, tools):
    assert evaluate(task(s0=10), documents[:1], tools.spec()) == [ShardResult(0, 0)]


def test_all_rows_are_evaluated_when_nothing_is_said(documents, tools):
    assert seen(evaluate(task(), documents[:1], tools.spec())[0]) == [*range(10)]


def test_evaluates_the_given_weights_with_metrics_begun_anew(documents, tools):
    spec = tools.spec()
    replica = replica_for(spec, "fit", 3)
    replica.seen[100] = 5
    (result,) = evaluate(task(), documents[:1], spec)
    assert replica.vector.tolist() == VECTOR.tolist()
    assert result.metrics[0].sum() == 10
    assert spec.built == [3]


def test_metrics_are_tried_once_before_anything_is_added(documents, tools, tmp_path):
    spec = tools.spec()
    evaluate(task(), documents, spec)
    calls = [c for c in replica_for(spec, "fit", 3).calls if c[0] == "check_summable"]
    assert calls == [("check_summable", 10), ("check_summable", 4)]


def test_a_missing_shard_is_told(documents, tools):
    Shard.remove(ShardHandle.from_json(documents[0]))
    missing, _, last = evaluate(task(), documents, tools.spec())
    assert isinstance(missing, MissingShard)
    assert seen(last) == [10, 11, 12, 13]


# -- data that is read once -----------------------------------------------------------------------


def chunks(*parts, error=None):
    for part in parts:
        yield Chunk([np.asarray(part)])
    if error is not None:
        raise error


def test_chunks_are_evaluated_with_the_models_own_weights(tools):
    spec = tools.spec()
    replica_for(spec, "fit", 3).vector[:] = 7
    (result,) = evaluate_chunks(task(), spec, 5, chunks([1, 2], [3], [4, 5, 6]))
    assert (result.shard, result.num_examples, seen(result)) == (5, 6, [1, 2, 3, 4, 5, 6])
    replica = replica_for(spec, "fit", 3)
    assert replica.vector.tolist() == [7, 7, 7]
    assert replica.calls == [("check_summable", 2)]


def test_labels_that_do_not_fit_the_loss_are_told_before_they_are_evaluated(tools, monkeypatch):
    labels = [np.array([0.0, 1.0]), np.array([1.0, np.nan])]
    parts = (Chunk([np.arange(2)], [y]) for y in labels)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    monkeypatch.setattr(tools.replica, "model", model)
    spec = tools.spec()
    (failure,) = evaluate_chunks(task(), spec, 5, parts)
    assert (failure.shard, failure.kind) == (5, UNFIT_LABELS)
    assert failure.message.startswith("`y` must be finite")
    assert seen(SimpleNamespace(metrics=[replica_for(spec, "fit", 3).seen])) == [0, 1]
    with pytest.raises(ValueError, match="`y` must be finite"):
        with_fitting_labels([ShardResult(0, 3), failure])


def test_no_chunks_no_examples(tools):
    assert list(evaluate_chunks(task(), tools.spec(), 5, chunks())) == [ShardResult(5, 0)]


@pytest.mark.parametrize("function", [evaluate_chunks, predict_chunks])
def test_rows_that_are_not_usable_are_told_as_a_value(tools, function):
    *_, failure = function(task(), tools.spec(), 5, chunks([1], error=ValueError("ragged")))
    assert isinstance(failure, Failure)
    assert (failure.shard, failure.kind, failure.message) == (5, "ValueError", "ragged")


def test_predictions_come_chunk_by_chunk_in_order(tools):
    spec = tools.spec()
    replica_for(spec, "fit", 3).vector[0] = 2
    results = list(predict_chunks(task(), spec, 5, chunks([1, 2], [3])))
    assert [(i, [a.tolist() for a in arrays]) for i, arrays in results] == [
        (5, [[2, 4]]),
        (5, [[6]]),
    ]


def test_predictions_are_made_as_they_are_asked_for(tools):
    """A partition may be larger than memory."""
    read = []

    def rows():
        for i in range(5):
            read.append(i)
            yield Chunk([np.array([i])])

    results = predict_chunks(task(), tools.spec(), 5, rows())
    next(results)
    next(results)
    assert read == [0, 1]


def test_nothing_to_predict(tools):
    assert list(predict_chunks(task(), tools.spec(), 5, chunks())) == []


@pytest.mark.parametrize(
    ("function", "method"), [(evaluate_chunks, "evaluate"), (predict_chunks, "predict")]
)
def test_the_first_failure_is_the_last_result_but_all_input_is_read(
    tools, monkeypatch, function, method
):
    tried = []

    def fail(self, window, batch_size):
        tried.append(window.x[0].tolist())
        raise ZeroDivisionError

    monkeypatch.setattr(tools.replica, method, fail)
    left = chunks([1], [2], [3])
    (failure,) = function(task(), tools.spec(), 5, left)
    assert failure.kind == "ZeroDivisionError"
    assert tried == [[1]]
    assert list(left) == []


def test_a_failure_that_may_go_away_is_spark_s_to_retry(tools, monkeypatch):
    def fail(self, window, batch_size):
        raise ConnectionLostError

    monkeypatch.setattr(tools.replica, "predict", fail)
    with pytest.raises(ConnectionLostError):
        list(predict_chunks(task(), tools.spec(), 5, chunks([1])))


# -- rows of a DataFrame ------------------------------------------------------------------


class Doubled:
    """Scores that do not depend on anything but the outputs."""

    def columns(self, outputs):
        return [pa.array(2 * outputs[0].reshape(-1))]


def batch(*ids):
    ids = pa.array(ids, pa.float64())
    return pa.RecordBatch.from_arrays([ids, ids], names=["id", "kspark_0"])


def plan():
    return plan_frame(Columns("x"), InputSpec((ArraySpec("x", ()),)))


@pytest.fixture
def no_predictors():
    predictors._predictors.clear()
    yield predictors._predictors
    predictors._predictors.clear()


def predicted(tools, batches, key="model", spec=None):
    return list(
        predict_batches(
            InferenceTask(key, 4, 3),
            plan(),
            [1],
            1,
            ["id", "out"],
            Doubled(),
            spec or tools.spec(),
            batches,
        )
    )


def test_rows_get_their_own_scores_beside_them(tools, no_predictors):
    spec = tools.spec()
    predictor_for(spec, "model", 3).vector[0] = 5
    first, second = predicted(tools, iter([batch(1, 2), batch(), batch(7)]), spec=spec)
    assert first.to_pydict() == {"id": [1, 2], "out": [10, 20]}
    assert second.to_pydict() == {"id": [7], "out": [70]}


def test_a_column_of_features_that_is_kept_need_not_come_twice(tools, no_predictors):
    task, names = InferenceTask("model", 4, 3), ["id", "other", "out"]
    rows = pa.RecordBatch.from_arrays([pa.array([1.0, 2.0]), pa.array(["a", "b"])], names=names[:2])
    (found,) = predict_batches(task, plan(), [0], 2, names, Doubled(), tools.spec(), iter([rows]))
    assert found.to_pydict() == {"id": [1, 2], "other": ["a", "b"], "out": [0, 0]}


def test_columns_get_their_scores_batch_by_batch(tools, no_predictors):
    spec, task = tools.spec(), InferenceTask("model", 4, 3)
    predictor_for(spec, "model", 3).vector[0] = 5
    columns = iter([(pa.array([1.0, 2.0]),), (pa.array([7.0]),)])
    found = predict_columns(task, plan(), ["out"], Doubled(), spec, columns)
    assert [scores.to_pylist() for scores in found] == [[{"out": 10}, {"out": 20}], [{"out": 70}]]
    bad = iter([(pa.array([1.0, 2.0]),), (pa.array([1.0, None]),)])
    with pytest.raises(ValueError, match="null in row 3"):
        list(predict_columns(task, plan(), ["out"], Doubled(), spec, bad))


def test_a_batch_is_predicted_in_chunks_if_it_is_large(tools, no_predictors, monkeypatch):
    monkeypatch.setattr("kspark.adapters.feeds.CHUNK_BYTES", 16)
    spec, task = tools.spec(), InferenceTask("model", 4, 3)
    predictor_for(spec, "model", 3).vector[0] = 5
    (found,) = predict_columns(
        task, plan(), ["out"], Doubled(), spec, iter([(pa.array([1.0, 2.0, 3.0, 4.0, 5.0]),)])
    )
    assert [row["out"] for row in found.to_pylist()] == [10, 20, 30, 40, 50]


def test_a_model_is_built_once_per_process(tools, no_predictors):
    spec = tools.spec()
    for _ in range(3):
        predicted(tools, iter([batch(1)]), spec=spec)
    assert spec.built == [3]


def test_several_models_take_turns(tools, no_predictors):
    spec = tools.spec()
    for _ in range(3):
        for key in ("a", "b", "c"):
            predictor_for(spec, key, 3)
    assert len(spec.built) == 3


def test_the_model_that_was_not_used_for_longest_goes_first(tools, no_predictors):
    spec = tools.spec()
    for key in ("a", "b", "c", "d", "a", "e"):
        predictor_for(spec, key, 3)
    assert list(no_predictors) == ["c", "d", "a", "e"]


def test_rows_that_are_not_usable_are_counted_over_batches(tools, no_predictors):
    bad = pa.RecordBatch.from_arrays([pa.array([1.0, None])] * 2, names=["id", "kspark_0"])
    with pytest.raises(ValueError, match="Column 'x' must hold no nulls. Received: null in row 4"):
        predicted(tools, iter([batch(1, 2, 3), bad]))


def test_the_error_about_a_row_of_a_lazy_frame_shows_no_frames_of_kspark_below_the_function(
    tools, no_predictors
):
    """Spark prints all of the traceback, and the message says which row is wrong."""
    with pytest.raises(ValueError, match="no nulls. Received: null in row 1") as caught:
        predicted(tools, iter([batch(1.0, None)]))
    modules = [frame.frame.f_globals["__name__"] for frame in caught.traceback]
    own = [name for name in modules if name.startswith("kspark")]
    assert own == ["kspark.worker.inference", "kspark.tracebacks"]
