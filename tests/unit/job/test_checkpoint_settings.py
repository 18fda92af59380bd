"""Which fits may go on from the checkpoint of which other fits."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import pytest

from kspark import compression, optimizers
from kspark.job.checkpoint_settings import check_same, settings_of
from kspark.plan import TrainingPlan
from kspark.replica import ReplicaSpec
from kspark.replica.preprocessing import Preprocessing
from kspark.replica.steps import Step


def compiled(units=3, activation="relu", optimizer=None, loss="mse", metrics=()):
    layers = [keras.Input((2,)), keras.layers.Dense(units, activation), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer or keras.optimizers.Adam(0.5), loss, metrics=list(metrics))
    return model


def settings(model=None, rule="average", seed=None, callbacks=(), **plan):
    model = compiled() if model is None else model
    made = TrainingPlan.create(**plan)
    return settings_of(
        model, ReplicaSpec.of(model), made, optimizers.get(rule), seed, list(callbacks)
    )


def difference(**changed):
    """What `check_same` says about a fit with other arguments."""
    written = json.loads(json.dumps(settings()))
    with pytest.raises(ValueError) as caught:
        check_same("folder", written, settings(**changed))
    text = str(caught.value)
    start, end = "model, data and settings. ", ". Use the same ones, or another folder. Received: "
    assert text.startswith("`checkpoint` must be a folder with checkpoints of the same ")
    assert text.endswith("checkpoint='folder'")
    return text[text.index(start) + len(start) : text.index(end)].split("; ")


@pytest.mark.parametrize(("argument", "values"), [("beta_1", (0.9, 0.1)), ("beta_2", (0.999, 0.5))])
def test_arguments_whose_names_end_in_numbers_are_told_apart(argument, values):
    model = compiled(optimizer=keras.optimizers.Adam(0.5, **{argument: values[1]}))
    told = f"optimizer.config.{argument} was {values[0]} and is {values[1]}"
    assert difference(model=model) == [told]


def own_loss(y, predicted):
    return keras.ops.mean(keras.ops.square(y - predicted))


def test_the_same_fit_may_go_on_in_any_process():
    """Keras gives other names to the layers of a second model, and each fit draws a seed."""
    made = [
        settings(
            compiled(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(1, 9))),
            rule=optimizers.Adam(0.1),
            compression=compression.TopK(0.5),
            class_weight={0: 1.0, 1: 2.0},
        )
        for _ in range(2)
    ]
    check_same("folder", json.loads(json.dumps(made[0])), made[1])


def test_settings_that_do_not_change_the_result_may_differ():
    free = {"epochs": 9, "port": 4000, "road": "rounds", "timeout": 5.0, "step_timeout": 9.0}
    check_same("folder", json.loads(json.dumps(settings())), settings(**free))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"batch_size": 16}, ["batch_size was 32 and is 16"]),
        ({"mode": "hogwild"}, ["mode was 'synchronous' and is 'hogwild'"]),
        ({"seed": 3}, ["seed was None and is 3"]),
        ({"shuffle": False}, ["shuffle was True and is False"]),
        ({"reshuffle": "epoch"}, ["reshuffle was None and is 1"]),
        ({"initial_epoch": 1}, ["initial_epoch was 0 and is 1"]),
        ({"callbacks": ["EarlyStopping"]}, ["callbacks was [] and is ['EarlyStopping']"]),
        ({"compression": "int8"}, ["compression.class_name was None and is 'Int8'"]),
        ({"class_weight": {0: 2.0}}, ["class_weight.0 was None and is 2.0"]),
        ({"rule": "median"}, ["server_optimizer.class_name was 'Average' and is 'Median'"]),
        (
            {"mode": "synchronous", "frequency": "batch", "scale_lr": "sqrt", "warmup_epochs": 2},
            ["frequency was 'epoch' and is 'batch'", "scale_lr was None and is 'sqrt'", "warmup"],
        ),
    ],
    ids=str,
)
def test_the_error_names_the_settings_that_differ(changed, expected):
    found = " ".join(difference(**changed))
    for text in expected:
        assert text in found


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"optimizer": keras.optimizers.Adam(0.25)}, "optimizer.config.learning_rate was 0.5 and "),
        ({"optimizer": keras.optimizers.SGD()}, "optimizer.class_name was 'Adam' and is 'SGD'"),
        ({"loss": "mae"}, "loss was 'mse' and is 'mae'"),
        ({"loss": own_loss}, "loss was 'mse' and is 'own_loss'"),
        ({"metrics": ["mae"]}, "metrics was [] and is ['mae']"),
        ({"units": 4}, "model was 'Sequential of 13 weights, "),
        ({"activation": "tanh"}, "model was 'Sequential of 13 weights, "),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_the_error_names_what_differs_in_the_model(other, expected):
    assert any(text.startswith(expected) for text in difference(model=compiled(**other)))


def test_worker_callbacks_must_be_there_again():
    assert difference(worker_callbacks=b"pickled") == ["worker_callbacks was None and is 'some'"]
    written = settings(worker_callbacks=b"pickled")
    check_same("folder", written, settings(worker_callbacks=b"pickled in another way"))
    with pytest.raises(ValueError, match="worker_callbacks was 'some' and is None"):
        check_same("folder", written, settings())


def test_steps_of_preprocessing_are_told_apart_by_their_content():
    def made(**layer):
        step = Step.of("preprocess", keras.layers.Rescaling(**layer))
        spec = replace(ReplicaSpec.of(model), preprocessing=Preprocessing(("x",), step))
        return settings_of(model, spec, TrainingPlan.create(), optimizers.get("average"), None, [])

    model = compiled()
    written = json.loads(json.dumps(made(scale=2.0)))
    check_same("folder", written, made(scale=2.0))
    with pytest.raises(ValueError, match="preprocessing.preprocess was 'Rescaling rescaling, "):
        check_same("folder", written, made(scale=3.0))
