"""What `ElephasTransformer` makes of a model's outputs, and its weights; without Spark."""

import keras
import numpy as np
import pytest

from kspark.ml import ElephasEstimator, ElephasTransformer, ModelType, load_ml_transformer


def transformer(model, **params):
    return ElephasTransformer(
        keras_model_config=model.to_json(), weights=model.get_weights(), **params
    )


def same(arrays, others):
    for a, b in zip(arrays, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_model_uses_assigned_weights(make):
    model, other = make(), make()
    stage = transformer(model)
    stage.weights = other.get_weights()
    same(stage.weights, other.get_weights())
    same(stage._model().model.get_weights(), other.get_weights())
    twin = stage.copy()
    stage.weights = model.get_weights()
    same(stage.weights, model.get_weights())
    same(stage._model().model.get_weights(), model.get_weights())
    same(twin.weights, other.get_weights())
    with pytest.raises(ValueError):
        stage.weights = model.get_weights()[:1]
    same(stage.weights, model.get_weights())


def column(stage, outputs):
    """What a transformer makes of its model's outputs, and the column's type."""
    kind, scores = stage._score(stage.get_model())
    (values,) = scores.columns([np.asarray(outputs)])
    return kind.simpleString(), values.to_pylist()


LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
CLASSES = [
    ("sigmoid", "binary_crossentropy", {}, [0.0, 0.0, 1.0]),
    (None, LOGITS, {}, [0.0, 1.0, 1.0]),
    (None, "hinge", {}, [0.0, 1.0, 1.0]),
    (None, "squared_hinge", {}, [0.0, 1.0, 1.0]),
    ("sigmoid", "hinge", {}, [0.0, 0.0, 1.0]),
    (None, LOGITS, {"from_logits": False}, [0.0, 0.0, 1.0]),
    (None, "binary_crossentropy", {"from_logits": True}, [0.0, 1.0, 1.0]),
]


@pytest.mark.parametrize(("activation", "loss", "params", "classes"), CLASSES)
def test_a_single_output_is_divided_into_classes_at_its_threshold(
    tmp_path, make, activation, loss, params, classes
):
    """The threshold is 0 for logits and margins, and 0.5 for probabilities; also after loading."""
    model = make(1, activation, loss)
    stage = ElephasEstimator(model, output_type="class", **params)
    fitted = stage._transformer(stage._compiled(), {})
    outputs = [[-0.75], [0.25], [0.75]]
    assert column(fitted, outputs) == ("double", classes)
    fitted.save(str(tmp_path / "a.h5"))
    assert column(load_ml_transformer(str(tmp_path / "a.h5")), outputs) == ("double", classes)


def test_a_loss_given_by_name_decides_the_threshold(make):
    stage = ElephasEstimator(
        keras_model_config=make(1, None).to_json(), loss="hinge", output_type="class"
    )
    fitted = stage._transformer(stage._compiled(), {})
    assert column(fitted, [[-0.75], [0.25], [0.75]]) == ("double", [0.0, 1.0, 1.0])


@pytest.mark.parametrize("output_type", ["probability", "class"])
def test_a_regression_of_several_numbers_gives_arrays(make, output_type):
    stage = transformer(make(2, None, "mse"), model_type=ModelType.REGRESSION)
    found = column(stage.set_output_type(output_type), [[1.0, -2.0], [3.0, 4.0]])
    assert found == ("array<double>", [[1.0, -2.0], [3.0, 4.0]])
