"""What `fit` does without MLflow; `tests/integration/tracking` shows what it does with it."""

import sys

import keras

from kspark.plan import TrainingPlan
from kspark.spark_model.autologging import PARAMETERS, autologged


def test_without_mlflow_the_callbacks_stay_as_they_are(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    callbacks = [keras.callbacks.History()]
    with autologged(keras.Sequential(), TrainingPlan(), 0.0, callbacks) as logged:
        assert logged == callbacks
    assert "mlflow" not in sys.modules


def test_the_parameters_are_settings_of_a_plan():
    assert set(PARAMETERS) <= vars(TrainingPlan()).keys()


def test_an_mlflow_of_another_make_is_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "mlflow", sys)
    monkeypatch.delitem(sys.modules, "mlflow.utils.autologging_utils", raising=False)
    with autologged(keras.Sequential(), TrainingPlan(), 0.0, []) as logged:
        assert logged == []
    assert "MLflow's autologging failed. The fit goes on." in caplog.text
