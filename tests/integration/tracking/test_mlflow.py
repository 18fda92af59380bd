"""MLflow logs a fit of `SparkModel` as it logs one of `keras.Model`, and once.

`tox -e mlflow` runs these tests, because MLflow pins other packages than the other tests use.
"""

import keras
import mlflow
import mlflow.keras
import mlflow.tensorflow
import numpy as np
import pytest

from kspark import SparkModel


@pytest.fixture
def client(tmp_path, monkeypatch):
    # MLflow loads a logged model in another process to see what it imports, which takes long.
    monkeypatch.setenv("MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT", "1")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("kspark", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("kspark")
    yield mlflow.MlflowClient()
    for flavor in (mlflow.keras, mlflow.tensorflow):
        flavor.autolog(disable=True)


def model_of():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="model")
    model.compile(keras.optimizers.SGD(0.05, name="sgd"), "mse", metrics=["mae"])
    return model


def plain_fit(callbacks=()):
    return train(model_of(), lambda model: model.fit, callbacks)


def spark_fit(callbacks=()):
    return train(model_of(), lambda model: SparkModel(model, num_workers=1).fit, callbacks)


def train(model, fit_of, callbacks):
    x = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
    validation = (x[:16], x[:16, :1])
    fit_of(model)(
        x,
        x[:, :1],
        batch_size=16,
        epochs=2,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
        validation_data=validation,
    )
    return model


def runs_of(client):
    experiment = client.get_experiment_by_name("kspark").experiment_id
    return client.search_runs([experiment], order_by=["attributes.start_time ASC"])


def metrics_of(client, run):
    """Steps and values of all metrics."""
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def models_of(client, run):
    found = client.search_logged_models([run.info.experiment_id])
    return [model for model in found if model.source_run_id == run.info.run_id]


def same_metrics(expected, found):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("flavor", [mlflow.keras, mlflow.tensorflow])
def test_autologging_logs_parameters_metrics_and_the_model_once(spark, client, flavor):
    flavor.autolog(log_datasets=False)
    plain_fit()
    model = spark_fit()
    plain, ours = runs_of(client)
    assert mlflow.active_run() is None
    assert [run.info.status for run in (plain, ours)] == ["FINISHED", "FINISHED"]
    assert ours.data.tags["mlflow.autologging"] == plain.data.tags["mlflow.autologging"]
    same_metrics(metrics_of(client, plain), metrics_of(client, ours))
    assert [step for step, _ in metrics_of(client, ours)["loss"]] == [0, 1]
    common = plain.data.params.keys() & ours.data.params.keys()
    assert {"batch_size", "epochs", "shuffle", "validation_split"} <= common
    differ = {n for n in common if plain.data.params[n] != ours.data.params[n]}
    assert differ <= {"validation_batch_size"}  # kspark resolves the default
    missing = plain.data.params.keys() - ours.data.params.keys()
    assert missing <= {"sample_weight", "steps_per_epoch", "validation_steps"}
    assert ours.data.params["mode"] == "synchronous"
    files = [{f.path for f in client.list_artifacts(run.info.run_id)} for run in (plain, ours)]
    assert "model_summary.txt" in files[1]
    assert files[0] - files[1] <= {"tensorboard_logs", "checkpoints"}
    (logged,) = models_of(client, ours)
    loaded = flavor.load_model(logged.model_uri)
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_autologging_uses_the_active_run_and_heeds_its_settings(spark, client):
    mlflow.keras.autolog(log_models=False)
    with mlflow.start_run() as run:
        spark_fit()
        assert mlflow.active_run().info.run_id == run.info.run_id
    (found,) = runs_of(client)
    assert len(metrics_of(client, found)["loss"]) == 2
    assert models_of(client, found) == []
    mlflow.keras.autolog(exclusive=True)
    with mlflow.start_run():
        spark_fit()
    latest = runs_of(client)[-1]
    assert (latest.data.params, latest.data.metrics) == ({}, {})


class Fails(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise InterruptedError


def test_a_fit_that_fails_is_a_run_that_failed(spark, client):
    mlflow.keras.autolog()
    with pytest.raises(InterruptedError):
        spark_fit([Fails()])
    (run,) = runs_of(client)
    assert run.info.status == "FAILED"
    assert models_of(client, run) == []


def test_the_callback_logs_as_with_keras_and_without_a_warning(spark, client, caplog):
    with caplog.at_level("WARNING", "kspark"):
        for fit in (plain_fit, spark_fit):
            with mlflow.start_run():
                fit([mlflow.keras.MlflowCallback()])
    assert caplog.messages == []
    plain, ours = runs_of(client)
    same_metrics(metrics_of(client, plain), metrics_of(client, ours))
    assert ours.data.params == plain.data.params


def test_a_fit_goes_on_if_logging_fails(spark, client, caplog):
    mlflow.keras.autolog(log_models=False)
    with mlflow.start_run():
        mlflow.log_param("epochs", 77)
        with caplog.at_level("WARNING", "kspark"):
            model = spark_fit()
    assert "MLflow's autologging failed. The fit goes on." in caplog.text
    assert not np.array_equal(model.get_weights()[0], model_of().get_weights()[0])


def test_without_autologging_nothing_is_logged(spark, client):
    spark_fit()
    assert runs_of(client) == []
