"""Names of Params in errors; without Spark."""

import keras
import pytest

from kspark.errors import invalid, invalid_type
from kspark.ml import ElephasEstimator, KerasEstimator
from kspark.ml.naming import ELEPHAS, KERAS, naming


def test_arguments_in_errors_become_params():
    text = "`labelCol` must be as `dataset` has it, not `it`. Received: labelCol='`a` x=3'"
    with pytest.raises(ValueError, match="^" + text.replace(".", r"\.")), naming(KERAS):
        raise invalid("label_col", "as `x` has it, not `it`", "`a` x=3")


def test_params_in_errors_become_those_of_elephas():
    with (
        pytest.raises(TypeError, match="`batch_size` must be less. Received: batch_size=3"),
        naming(ELEPHAS),
        naming(KERAS),
    ):
        raise invalid_type("batch_size", "less", 3)


def test_all_names_in_the_tables_exist():
    params = {p.name for p in KerasEstimator().params} | {"dataset", "customObjects"}
    assert set(KERAS.values()) <= params
    assert set(ELEPHAS) <= params
    assert set(ELEPHAS.values()) <= {p.name for p in ElephasEstimator().params}


def test_every_argument_that_a_fit_passes_has_a_param_name(monkeypatch, frame):
    given = set()

    class Seen(Exception):
        pass

    class Model:
        def __init__(self, model, **arguments):
            given.update(arguments)

        def fit(self, x, **arguments):
            given.update(arguments)
            raise Seen

    monkeypatch.setattr("kspark.ml.estimator.SparkModel", Model)
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    with pytest.raises(Seen):
        KerasEstimator(network)._fit(frame)
    others = given - {p.name for p in KerasEstimator().params}
    assert "straggler_timeout" in others
    assert others <= KERAS.keys()
    plain = {n: KERAS[n].lower() for n in others - {"validation_data"}}
    assert plain == {n: n.replace("_", "") for n in plain}


def test_errors_of_the_plan_name_params(frame):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    network.compile("sgd", "mse")
    for params in ({"maxStaleness": 1}, {"stragglerTimeout": 1.0, "mode": "hogwild"}):
        name = next(iter(params))
        with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
            KerasEstimator(network, **params)._fit(frame)


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf8", b"", 0, 1, "`x`"),
        RuntimeError("`x`"),
        ValueError("`other` must be. Received: other=3"),
    ],
)
def test_other_errors_are_not_changed(error):
    with pytest.raises(type(error)) as caught, naming(KERAS):
        raise error
    assert caught.value is error
