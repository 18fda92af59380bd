"""A worker predicts for new models of an architecture with the replicas that it has."""

from __future__ import annotations

import pytest

from kspark.worker import predictors
from kspark.worker.predictors import predict_windows, predictor_for


@pytest.fixture
def task(monkeypatch):
    """Sets the number of the running task."""
    predictors._predictors.clear()
    now = [1]
    monkeypatch.setattr(predictors, "task_number", lambda: now[0])
    yield lambda number: now.__setitem__(0, number)
    predictors._predictors.clear()


@pytest.fixture(autouse=True)
def renewals(monkeypatch):
    given = []

    def renewed(replica, spec):
        given.append((replica, spec))
        return spec.values is not None

    monkeypatch.setattr(predictors, "renewed", renewed)
    return given


def test_a_later_task_takes_over_the_replica_of_another_model(tools, task, renewals):
    first, second = tools.spec(values=()), tools.spec(values=())
    replica = predictor_for(first, "a", 3)
    task(2)
    assert predictor_for(second, "b", 3) is replica
    assert renewals == [(replica, second)]
    assert list(predictors._predictors) == ["b"]
    assert first.built == [3]
    assert second.built == []


def test_a_task_that_uses_several_models_keeps_them(tools, task):
    spec = tools.spec(values=())
    replicas = [predictor_for(spec, key, 3) for key in ("a", "b", "a", "b")]
    assert replicas[:2] == replicas[2:]
    assert spec.built == [3, 3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"values": ()}, {"values": (), "digest": "other"}),
        ({"values": None}, {"values": ()}),
        ({"values": ()}, {"values": None}),
    ],
)
def test_a_replica_is_built_where_none_may_be_renewed(tools, task, one, other):
    replica = predictor_for(tools.spec(**one), "a", 3)
    task(2)
    assert predictor_for(tools.spec(**other), "b", 3) is not replica
    assert list(predictors._predictors) == ["a", "b"]


class Fails:
    """Stands for a replica whose compiled functions have the names of another model."""

    def predict(self, window, batch_size):
        raise ValueError("dense_1")


def test_an_error_has_the_names_of_the_users_model(tools, task):
    predictor_for(tools.spec(values=(), names=("dense_1",)), "a", 3)
    predictors._predictors["a"].replica = Fails()
    with pytest.raises(ValueError, match="dense_1"):
        predict_windows(tools.spec(values=(), names=("dense_1",)), "a", 3, [None], 4)
    task(2)
    spec = tools.spec(values=(), names=("dense_2",))
    assert predict_windows(spec, "b", 3, [], 4) == []
    assert spec.built == []
    with pytest.raises(AttributeError):  # It is built anew, and fails itself.
        predict_windows(spec, "b", 3, [None], 4)
    assert spec.built == [3]
    assert predictors._predictors["b"].names == ("dense_2",)


def test_what_kept_replicas_take_is_noted(tools, task, monkeypatch):
    noted = []
    monkeypatch.setattr(predictors, "hold", lambda replica, size: noted.append((replica, size)))
    spec = tools.spec(values=())
    replicas = [predictor_for(spec, key, 3) for key in ("a", "b")]
    assert noted == [(replica, spec.weights.nbytes) for replica in replicas]
