"""What stages do with their models before Spark comes in."""

import threading
import types

import keras
import numpy as np
import pytest

from kspark.errors import ClusterError
from kspark.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressor,
    TrainingSummary,
)
from kspark.ml.carried import CarriedModel, weights_digest
from kspark.ml.estimator import own_callbacks
from kspark.ml.label_columns import REFUSAL, refusal
from kspark.ml.scoring import classifier_facts
from kspark.spark_model import SparkModel

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(2)

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.dense(x)


def losses(**arguments):
    return keras.losses.BinaryCrossentropy(**arguments)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "kind", "classes", "logits"),
    [
        (1, "sigmoid", "binary_crossentropy", "binary", 2, False),
        (1, None, losses(from_logits=True), "binary", 2, True),
        (3, "softmax", "categorical_crossentropy", "multiclass", 3, False),
        (3, "softmax", "sparse_categorical_crossentropy", "multiclass", 3, False),
        (
            3,
            None,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "multiclass",
            3,
            True,
        ),
        (3, "sigmoid", "binary_crossentropy", "multilabel", 3, False),
        (3, None, losses(from_logits=True), "multilabel", 3, True),
        (2, "softmax", "mse", "multiclass", 2, False),
        (1, "tanh", "hinge", "binary", 2, True),
        (1, None, keras.losses.SquaredHinge(), "binary", 2, True),
        (1, "sigmoid", "hinge", "binary", 2, False),
        (3, None, "categorical_hinge", "multiclass", 3, True),
        (3, "softmax", "categorical_hinge", "multiclass", 3, False),
        (2, "sigmoid", lambda y, p: keras.ops.mean(y - p, -1), "multilabel", 2, False),
    ],
)
def test_loss_and_output_tell_what_a_classifier_means(
    make, units, activation, loss, kind, classes, logits
):
    facts = classifier_facts(make(units, activation, loss))
    assert (facts.kind, facts.num_classes, facts.logits) == (kind, classes, logits)


class Stepping(keras.Sequential):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


@pytest.mark.parametrize(("kind", "own"), [(keras.Sequential, False), (Stepping, True)])
def test_a_step_of_the_model_s_own_is_told(kind, own):
    model = kind([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    assert classifier_facts(model).own_step is own


def test_the_user_knows_better(make):
    facts = classifier_facts(make(3, None, "binary_crossentropy"), "multiclass", True)
    assert (facts.kind, facts.logits) == ("multiclass", True)
    model = KerasClassificationModel(make(3, None, "mse"), classification="multilabel")
    assert model._facts().kind == "multilabel"
    assert model.numClasses == 3


@pytest.mark.parametrize(("units", "kind"), [(1, "multiclass"), (2, "binary")])
def test_a_kind_that_cannot_be_is_refused(make, units, kind):
    with pytest.raises(ValueError, match="`classification` must be"):
        KerasClassifier(make(units), classification=kind)


def test_a_model_without_a_loss_is_told_by_its_activation():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, "sigmoid")(inputs))
    assert classifier_facts(model).kind == "multilabel"


def sequence_model():
    inputs = keras.Input((4, 2))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("stage", [KerasClassifier, KerasRegressor])
def test_outputs_of_another_form_are_refused(stage):
    with pytest.raises(ValueError, match="one output, a number or a vector of fixed length"):
        stage(sequence_model())
    assert KerasEstimator(sequence_model()).getModel() is not None


def test_thresholds_must_be_one_per_class(make):
    model = KerasClassificationModel(make(3), thresholds=[0.5, 0.5])
    with pytest.raises(ValueError, match="`thresholds` must be 3 numbers, one per class"):
        model._scores()


def test_only_keras_models_become_stages(make):
    with pytest.raises(TypeError, match="`model` must be a compiled `keras.Model`"):
        KerasEstimator("model")
    with pytest.raises(TypeError, match="`model` must be a `keras.Model`"):
        KerasModel("model")
    with pytest.raises(ValueError, match="`model` must be compiled"):
        KerasEstimator(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    assert isinstance(KerasEstimator(make).getModel(), keras.Model)


def test_a_stage_without_a_model_says_so():
    with pytest.raises(ValueError, match="`model` must be given to `KerasEstimator`"):
        KerasEstimator().getModel()
    with pytest.raises(ValueError, match="`model` must be given to `KerasModel`"):
        KerasModel().kerasModel  # noqa: B018
    with pytest.raises(ValueError, match="`customObjects` must be left out without a model"):
        KerasEstimator(customObjects={"Twice": Twice})


def test_a_new_model_keeps_the_custom_objects(make):
    stage = KerasEstimator(make(), customObjects={"Twice": Twice})
    first = stage.getModel()
    assert stage.setModel(make()) is stage
    assert stage.getModel() is not first
    assert stage.carried.custom_objects == {"Twice": Twice}


def test_a_clone_is_the_same_and_apart(make):
    model = make(optimizer=keras.optimizers.Adam(0.125), metrics=["accuracy"])
    model.fit(X, np.arange(6) % 3, verbose=0)
    clone = CarriedModel(model).clone()
    np.testing.assert_array_equal(clone.predict(X, verbose=0), model.predict(X, verbose=0))
    assert clone.optimizer.iterations == model.optimizer.iterations == 1
    assert float(clone.optimizer.learning_rate) == 0.125
    before = weights_digest(model)
    clone.fit(X, np.arange(6) % 3, verbose=0)
    assert weights_digest(model) == before != weights_digest(clone)


def test_cloning_warns_of_nothing(make, recwarn):
    CarriedModel(make()).clone()
    assert [w for w in recwarn if "optimizer" in str(w.message)] == []


def test_a_clone_has_custom_parts_by_itself():
    model = keras.Sequential([keras.Input((4,)), Twice(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    clone = CarriedModel(model).clone()
    assert type(clone.layers[0]) is Twice


def test_a_predicting_model_has_no_optimizer_state_but_the_same_outputs(make):
    model = make()
    lean = CarriedModel(model).predicting()
    assert lean.optimizer is not model.optimizer
    assert [v.shape for v in lean.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]
    np.testing.assert_array_equal(lean.predict(X, verbose=0), model.predict(X, verbose=0))
    assert model.loss == "sparse_categorical_crossentropy"


def test_a_layer_is_an_output_of_its_own(make):
    model = make()
    inner = CarriedModel(model).predicting("hidden")
    expected = keras.ops.convert_to_numpy(model.layers[0](X))
    np.testing.assert_allclose(inner.predict(X, verbose=0), expected, rtol=1e-6)


def test_a_layer_that_is_not_there_is_refused_with_the_nearest(make):
    with pytest.raises(ValueError, match=r"\['hidden', 'out'\] \(perhaps 'hidden'\)"):
        CarriedModel(make()).predicting("hiden")


def test_a_subclassed_model_that_is_not_compiled_is_shared(monkeypatch):
    model = Subclassed()
    model.build((None, 4))
    made = []
    application = types.SimpleNamespace(application="a")
    monkeypatch.setattr("kspark.ml.carried.engine_of", lambda spark: application)
    monkeypatch.setattr("kspark.ml.carried.SharedModel", lambda spark, spec, key: made.append(spec))
    stage = CarriedModel(model, {"Subclassed": Subclassed})
    thread = threading.Thread(target=stage.shared, args=(None,), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for itself"
    assert [spec.weights.size for spec in made] == [4 * 2 + 2]


def test_subclassed_models_predict_but_have_no_layers_to_show():
    model = Subclassed()
    model.build((None, 4))
    carried = CarriedModel(model, {"Subclassed": Subclassed})
    with pytest.raises(ValueError, match="left out for a subclassed model"):
        carried.predicting("dense")
    lean = carried.predicting()
    assert lean.compiled
    assert not model.compiled
    np.testing.assert_array_equal(lean.predict(X, verbose=0), model.predict(X, verbose=0))


def test_callbacks_are_each_fit_s_own():
    given = keras.callbacks.EarlyStopping(patience=3)
    (first,), (second,) = own_callbacks([given]), own_callbacks([given])
    assert len({id(c) for c in (given, first, second)}) == 3
    assert first.patience == 3
    made = own_callbacks(lambda: [given])
    assert made == [given]
    assert own_callbacks(None) is None


def test_summary_is_plain_data():
    summary = TrainingSummary({"loss": [np.float32(0.5), 0.25]}, [[{"batches": np.int64(3)}]])
    data = summary.to_dict()
    assert data == {"history": {"loss": [0.5, 0.25]}, "workers": [[{"batches": 3}]]}
    assert type(data["workers"][0][0]["batches"]) is int
    again = TrainingSummary.from_dict(data)
    assert again.objectiveHistory == [0.5, 0.25]
    assert again.totalIterations == 2


def test_scaling_of_the_learning_rate_is_handed_to_fit(monkeypatch):
    class Seen(Exception):
        pass

    def fit(self, x, **arguments):
        raise Seen(arguments["scale_lr"], arguments["warmup_epochs"])

    monkeypatch.setattr(SparkModel, "fit", fit)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for params, handed in (
        ({}, (None, 0.0)),
        ({"scaleLr": "sqrt", "warmupEpochs": 2}, ("sqrt", 2.0)),
    ):
        with pytest.raises(Seen) as seen:
            KerasEstimator(model, **params)._fit(None)
        assert seen.value.args == handed


def test_errors_about_it_name_the_params():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`scaleLr` must be None with mode.*: scaleLr='sqrt'$"):
        KerasEstimator(model, scaleLr="sqrt")._fit(None)
    with pytest.raises(ValueError, match="`warmupEpochs` must be 0 without `scaleLr`"):
        KerasEstimator(model, warmupEpochs=2)._fit(None)


def test_a_model_without_a_fit_has_no_summary(make):
    model = KerasModel(make())
    assert (model.hasSummary, model.history) == (False, {})
    with pytest.raises(RuntimeError, match="No training summary available for this KerasModel"):
        model.summary  # noqa: B018


def test_a_refused_label_is_found_in_what_spark_says():
    for found in ("3.5", "null", "2 values", "2 values, none above 0"):
        text = f"{REFUSAL} class numbers from 0 to 2 for it. Received: labelCol='a' with {found}"
        error = ClusterError(f"Spark gave up: [USER_RAISED_EXCEPTION] {text}. SQLSTATE: P0001")
        assert refusal(error) == text
    assert refusal(ClusterError("lost")) is None


def test_a_layer_of_several_outputs_has_none_to_show():
    entry = keras.Input((3, 2))
    out, *states = keras.layers.LSTM(4, return_state=True, name="memory")(entry)
    model = keras.Model(entry, keras.layers.Dense(1, name="one")(out))
    with pytest.raises(ValueError, match="`featureLayer` must be a layer of one output.*'memory'"):
        CarriedModel(model).predicting("memory")
    assert CarriedModel(model).predicting("one").output_shape == (None, 1)
