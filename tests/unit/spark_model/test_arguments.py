"""What `SparkModel` refuses before anything starts."""

from __future__ import annotations

import inspect
import pydoc

import keras
import numpy as np
import pytest

from kspark import SparkModel, mllib, optimizers
from kspark.compression import TopK
from kspark.mllib import SparkMLlibModel
from kspark.plan import TrainingPlan
from kspark.spark_model.arguments import (
    check_rule,
    check_rule_takes_compression,
    check_single_target,
)


def plan(mode, frequency="epoch", **more):
    return TrainingPlan.create(mode=mode, frequency=frequency, **more)


def small():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_positional_arguments_of_elephas_6_end_with_the_frequency():
    """Mode and frequency may be positional; later arguments must be keywords."""
    made = SparkModel(small(), "asynchronous", "batch")
    assert (made.mode, made.frequency) == ("asynchronous", "batch")
    for kind in (SparkModel, SparkMLlibModel):
        with pytest.raises(TypeError, match="positional arguments"):
            kind(small(), "synchronous", "epoch", "http", 4)
        with pytest.warns(DeprecationWarning, match="`parameter_server_mode` is not used"):
            made = kind(
                *(small(), "synchronous", "batch"),
                parameter_server_mode="http",
                num_workers=4,
                custom_objects=None,
                batch_size=16,
                port=4000,
            )
        found = (made.mode, made.frequency, made.num_workers, made.batch_size, made.port)
        assert found == ("synchronous", "batch", 4, 16, 4000)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_positional_arguments_mean_the_same_as_in_keras(method):
    def positional(kind):
        parameters = inspect.signature(getattr(kind, method)).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(SparkModel) == positional(keras.Model)


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("fit", "steps_per_epoch"),
        ("fit", "validation_steps"),
        ("evaluate", "steps"),
        ("predict", "steps"),
    ],
)
def test_numbers_of_steps_are_checked_before_spark_starts(method, argument):
    with pytest.raises(ValueError, match=rf"`{argument}` must be an integer >= 1. .*{argument}=0"):
        getattr(SparkModel(small()), method)(np.zeros((4, 2)), **{argument: 0})


class OwnStep(keras.Model):
    def call(self, x):
        return x

    def train_step(self, data):
        return {}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (OwnStep(), "OwnStep overrides `train_step`"),
        (small(), "has reduction='sum' instead of a mean"),
    ],
)
def test_models_whose_gradients_cannot_be_merged_are_refused_before_any_job(model, told):
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="sum"))
    with pytest.raises(ValueError, match=told):
        SparkModel(model, frequency="batch").fit(np.zeros((4, 2)), np.zeros((4, 1)))


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_callbacks_of_other_calls_are_checked_before_any_job(method):
    with pytest.raises(TypeError, match=r"`callbacks` must be a list of `keras\.callbacks"):
        getattr(SparkModel(small()), method)(np.zeros((4, 2)), callbacks=[print])


def test_an_exchange_at_the_end_of_a_fit_is_a_frequency():
    spark_model = SparkModel(small(), frequency="fit")
    assert spark_model.get_config()["frequency"] == "fit"
    assert spark_model.get_config()["server_optimizer"]["class_name"] == "OneShot"
    again = SparkModel(small(), **spark_model.get_config())
    assert again.get_config() == spark_model.get_config()
    with pytest.raises(ValueError, match='`server_optimizer` must be "average" with frequency="f'):
        SparkModel(small(), frequency="fit", server_optimizer="median")
    with pytest.raises(ValueError, match='`mode` must be "synchronous" with frequency="fit"'):
        SparkModel(small(), "hogwild", "fit")


@pytest.mark.parametrize("kind", [SparkModel, SparkMLlibModel])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("num_worker", "num_workers"),
        ("batchSize", "batch_size"),
        ("server_optimiser", "server_optimizer"),
        ("custom_object", "custom_objects"),
    ],
)
def test_unknown_arguments_are_refused_with_the_nearest_name(kind, name, meant):
    with pytest.raises(TypeError, match=f"not recognized: '{name}'. Did you mean '{meant}'\\?$"):
        kind(small(), **{name: 2})


def test_an_unknown_argument_that_resembles_no_name_gets_no_suggestion():
    with pytest.raises(TypeError, match="not recognized: 'xyzzy'.$"):
        SparkModel(small(), xyzzy=2, parameter_server_mode="http")


@pytest.mark.parametrize(
    ("method", "name", "told"),
    [
        ("fit", "epoch", "`fit` has no argument `epoch`. Did you mean `epochs`?"),
        ("fit", "validationSplit", "Did you mean `validation_split`?"),
        ("evaluate", "return_dicts", "`evaluate` has no argument `return_dicts`. Did you mean"),
        ("predict", "feature_col", "Did you mean `features_col`?"),
        ("predict", "batchsize", "Did you mean `batch_size`?"),
        ("fit", "mode", "It is an argument of `SparkModel`: `SparkModel(model, mode=...)`."),
        ("fit", "num_workers", "`fit` has no argument `num_workers`. It is an argument of"),
        ("evaluate", "num_worker", "Did you mean `num_workers`? It is an argument of `SparkModel`"),
        (
            "fit",
            "workers",
            "no argument `workers`. kspark reads the data in its own tasks: leave it",
        ),
        ("predict", "use_multiprocessing", "kspark reads the data in its own tasks: leave it out."),
        ("evaluate", "max_queue_size", "kspark reads the data in its own tasks: leave it out."),
    ],
)
def test_calls_tell_which_argument_was_meant(method, name, told):
    with pytest.raises(TypeError) as caught:
        getattr(SparkModel(small()), method)(np.zeros((4, 2)), **{name: 1})
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["xyzzy", "parallelism"])
def test_a_call_with_an_argument_that_resembles_none_gets_no_suggestion(name):
    with pytest.raises(TypeError, match=f"^`fit` has no argument `{name}`.$"):
        SparkModel(small()).fit(**{name: 2})


def test_help_and_completion_show_the_arguments_of_the_method_itself():
    signature = inspect.signature(SparkModel.fit)
    assert list(signature.parameters)[:6] == ["self", "x", "y", "batch_size", "epochs", "verbose"]
    assert all(p.kind is not p.VAR_KEYWORD for p in signature.parameters.values())
    assert "fit(self, x: 'Any' = None" in pydoc.render_doc(SparkModel.fit, renderer=pydoc.plaintext)


def test_positional_arguments_of_elephas_7_are_refused():
    """Elephas 7 takes the number of workers second, and custom objects third."""
    with pytest.raises(ValueError, match="`mode` must be one of .*Received: mode=4"):
        SparkModel(small(), 4)
    with pytest.raises(TypeError, match="positional arguments"):
        SparkModel(small(), 4, {}, 32)


@pytest.mark.parametrize(("given", "used"), [({}, 128), ({"batch_size": 8}, 8)])
def test_mllib_models_train_with_their_batch_size(monkeypatch, given, used):
    asked = []

    def plan(**settings):
        asked.append(settings)
        raise LookupError("as far as the plan")

    model = SparkMLlibModel(small(), batch_size=128)
    monkeypatch.setattr(mllib, "lp_to_simple_rdd", lambda *rows: rows)
    monkeypatch.setattr(model, "_plan", plan)
    with pytest.raises(LookupError):
        model.fit("points", **given)
    assert (asked[0]["batch_size"], asked[0]["epochs"]) == (used, 10)


@pytest.mark.parametrize("frequency", ["epoch", "batch", 1])
@pytest.mark.parametrize("mode", ["synchronous", "asynchronous", "hogwild"])
def test_the_average_rule_is_accepted_in_every_mode(mode, frequency):
    check_rule(optimizers.get("average"), plan(mode, frequency))


@pytest.mark.parametrize("rule", ["sgd", "adam", "median"])
def test_other_rules_than_average_are_refused_for_merged_gradients(rule):
    check_rule(optimizers.get(rule), plan("synchronous", 1))
    with pytest.raises(ValueError, match=r"`server_optimizer` must be .* frequency=1 .*Received"):
        check_rule(optimizers.get(rule), plan("synchronous", "batch"))


def test_an_optimizer_of_keras_is_refused_where_it_cannot_be_a_rule():
    rule = optimizers.get(keras.optimizers.AdamW())
    check_rule(rule, plan("synchronous", straggler_timeout=1))
    check_rule(rule, plan("asynchronous", "batch", compression="top_k"))
    with pytest.raises(
        ValueError, match=r"must be \"average\" .* Received: .*KerasOptimizer\(AdamW"
    ):
        check_rule(rule, plan("synchronous", "batch"))
    with pytest.raises(ValueError, match="must change together, under a lock"):
        check_rule(rule, plan("hogwild"))


def test_the_models_own_optimizer_is_not_shared_with_the_server():
    model, optimizer = small(), keras.optimizers.SGD(0.5)
    model.compile(optimizer, "mse")
    SparkModel(model, server_optimizer=optimizer)
    model.fit(np.zeros((4, 2)), np.zeros(4), verbose=0)
    with pytest.raises(ValueError, match="a Keras optimizer that was not used before"):
        SparkModel(model, server_optimizer=optimizer)


def test_a_rule_for_another_mode_is_refused():
    with pytest.raises(ValueError, match='for mode="synchronous"; this one is for "asynchronous"'):
        check_rule(optimizers.get("downpour"), plan("synchronous"))


def test_robust_rules_refuse_compression_that_drops_values():
    for rule in ("median", "trimmed_mean"):
        check_rule(optimizers.get(rule), plan("synchronous", compression="int8"))
        with pytest.raises(
            ValueError, match=rf'"int8" with server_optimizer="{rule}", .*: compress'
        ):
            check_rule(optimizers.get(rule), plan("synchronous", compression="top_k"))
    check_rule(optimizers.get("adam"), plan("synchronous", compression="top_k"))


def test_compression_is_refused_with_elastic_averaging():
    rule = optimizers.get("elastic_average")
    for mode in ("synchronous", "asynchronous"):
        check_rule_takes_compression(rule, plan(mode))
        with pytest.raises(
            ValueError, match='`compression` must be None with server_optimizer="el'
        ):
            check_rule_takes_compression(rule, plan(mode, compression="int8"))


def test_compression_is_kept_in_the_configuration():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert SparkModel(model).get_config()["compression"] is None
    made = SparkModel(model, compression=TopK(0.25))
    assert made.compression == TopK(0.25)
    kept = made.get_config()["compression"]
    assert kept == {"class_name": "TopK", "config": {"fraction": 0.25}}
    assert SparkModel(model, compression=kept).compression == TopK(0.25)
    made.compression = "top_k"  # as `fit` takes it, too
    assert made.get_config()["compression"] == {"class_name": "TopK", "config": {"fraction": 0.01}}
    with pytest.raises(ValueError, match="`compression` must be None or one of"):
        SparkModel(model, compression="gzip")
    with pytest.raises(ValueError, match='`compression` must be None with mode="hogwild"'):
        SparkModel(model, "hogwild", compression="int8")
    with pytest.raises(ValueError, match='`compression` must be None, "float16", .*"median"'):
        SparkModel(model, server_optimizer="median", compression="top_k")


@pytest.mark.parametrize("frequency", ["epoch", "batch", 3])
def test_elastic_averaging_is_refused_where_replicas_share_weights(frequency):
    rule = optimizers.get("elastic_average")
    check_rule(rule, plan("asynchronous", frequency))
    if frequency == "batch":  # gradients are merged, and replicas stay alike
        with pytest.raises(ValueError, match='`server_optimizer` must be "average" with mode="sy'):
            check_rule(rule, plan("synchronous", frequency))
    else:
        check_rule(rule, plan("synchronous", frequency))
    with pytest.raises(ValueError, match="must move by the same amount, which needs a lock"):
        check_rule(rule, plan("hogwild", frequency))


class OwnSpring(optimizers.ElasticAverage):
    modes = frozenset(("synchronous", "asynchronous", "hogwild"))


def test_rules_that_keep_replica_weights_are_refused_in_hogwild_mode():
    check_rule(OwnSpring(), plan("synchronous"))
    with pytest.raises(ValueError, match='continue with the merged weights in mode="hogwild". R'):
        check_rule(OwnSpring(), plan("hogwild"))


def test_class_weight_needs_a_target():
    check_single_target({0: 2.0}, 1)
    check_single_target(None, 2)
    check_single_target(None, 0)
    with pytest.raises(ValueError, match="`class_weight` must be `None` for a model without targ"):
        check_single_target({0: 2.0}, 0)


def test_class_weight_is_refused_for_several_outputs_before_spark_starts():
    entry = keras.Input((2,))
    outputs = [keras.layers.Dense(1, name=name)(entry) for name in ("a", "b")]
    model = keras.Model(entry, outputs)
    model.compile(loss=["mse", "mse"])
    rule = "`class_weight` must be `None` for a model with several outputs. Received: .*{1: 2.0}"
    with pytest.raises(ValueError, match=rule):
        SparkModel(model).fit(np.zeros((4, 2)), [np.zeros(4)] * 2, class_weight={1: 2.0})


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("elastic_average", "whose replicas have already applied"),
        ("median", "made from the same weights"),
        ("trimmed_mean", "made from the same weights"),
    ],
)
def test_straggler_timeout_is_refused_where_all_replicas_count(rule, told):
    expected = f'`straggler_timeout` must be None with server_optimizer="{rule}", .*{told}'
    with pytest.raises(ValueError, match=expected):
        SparkModel(small(), server_optimizer=rule, straggler_timeout=1)
    with pytest.raises(ValueError, match="`straggler_timeout` must be None with mode="):
        SparkModel(small(), "asynchronous", straggler_timeout=1)


@pytest.mark.parametrize("mode", ["synchronous", "hogwild"])
def test_max_staleness_is_refused_outside_asynchronous_mode(mode):
    with pytest.raises(ValueError, match="`max_staleness` must be None with mode="):
        SparkModel(small(), mode, max_staleness=1)


def test_fit_checks_settings_that_were_changed():
    changed = SparkModel(small(), server_optimizer="elastic_average")
    changed.compression = "int8"
    rule = '`compression` must be None with server_optimizer="elastic_average"'
    with pytest.raises(ValueError, match=rule):
        changed.fit(np.zeros((4, 2)), np.zeros(4))


def test_a_server_optimizer_may_be_set_by_its_name():
    changed = SparkModel(small())
    changed.server_optimizer = "median"
    assert changed.get_config()["server_optimizer"]["class_name"] == "Median"


def test_a_model_tells_its_mode_its_workers_and_its_parameters():
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(10)], name="digits")
    model.compile("sgd", "mse")
    assert repr(SparkModel(model, "asynchronous", 8, num_workers=2)) == (
        "SparkModel(model='digits', mode='asynchronous', frequency=8, workers=2, parameters=3,010)"
    )
    unbuilt = keras.Sequential([keras.layers.Dense(1)], name="later")
    unbuilt.compile("sgd", "mse")
    assert repr(SparkMLlibModel(unbuilt)) == (
        "SparkMLlibModel(model='later', mode='synchronous', frequency='epoch', workers=None, "
        "parameters=not built)"
    )
