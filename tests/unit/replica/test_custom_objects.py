"""Custom classes and functions are shipped by value; live models are refused."""

from __future__ import annotations

import pickle
import sys
import types

import keras
import numpy as np
import pytest

from kspark.replica import ReplicaSpec, pickling
from kspark.replica.building import build

layers, ops = keras.layers, keras.ops

FACTOR = 2.0


def swishy(x):
    return x * ops.sigmoid(FACTOR * x)


def absolute(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


class Tenth(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return ops.full(shape, 0.1, dtype=dtype)


class Halved(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return absolute(y_true, y_pred) / 2


class Counted(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(ops.ones_like(y_true))


class Slow(keras.optimizers.SGD):
    pass


class Steps(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1.0 + ops.cast(step, "float32"))

    def get_config(self):
        return {}


class Doubled(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)


class Wrapped(keras.Model):
    """A subclassed model whose configuration does not list its layers."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = Doubled(units, activation=swishy, kernel_initializer=Tenth())

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def everything():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            Doubled(4, activation=swishy, kernel_initializer=Tenth()),
            layers.Dense(2),
        ]
    )
    model.compile(Slow(Steps()), Halved(), metrics=[Counted(), absolute])
    return model


def names_of(spec):
    return sorted(spec.model.objects())


def trained(model):
    x, y = np.ones((8, 3), "float32"), np.ones((8, 2), "float32")
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights()


def test_all_kinds_of_custom_objects_are_found_and_work():
    model = everything()
    spec = ReplicaSpec.of(model)
    assert names_of(spec) == ["Doubled", "Slow", "Tenth", "swishy"]
    rebuilt = build(spec).model
    for ours, theirs in zip(trained(rebuilt), trained(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_objects_inside_a_subclassed_model_are_shipped():
    model = Wrapped(2)
    model(np.ones((1, 3)))
    model.compile("sgd", "mse")
    spec = ReplicaSpec.of(model)
    assert names_of(spec) == ["Wrapped"]
    assert b"swishy" in spec.model.custom_objects
    rebuilt = build(spec).model
    for ours, theirs in zip(trained(rebuilt), trained(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_builtin_functions_are_not_shipped(mlp):
    spec = ReplicaSpec.of(mlp(loss=keras.losses.sparse_categorical_crossentropy))
    assert names_of(spec) == []


def local_layer():
    scale = 3.0

    class Local(layers.Layer):
        def call(self, x):
            return scale * x

    return Local


def test_local_and_notebook_classes_are_shipped_by_value(mlp):
    local = local_layer()
    local.__module__ = "__main__"
    spec = ReplicaSpec.of(mlp("sgd", local()))
    assert names_of(spec) == ["Local"]
    layer = build(spec).model.layers[1]
    np.testing.assert_array_equal(layer(np.ones(2)), [3.0, 3.0])


def test_registered_objects_are_shipped_by_their_registered_names(mlp):
    @keras.saving.register_keras_serializable("kspark tests")
    class Registered(layers.Layer):
        def call(self, x):
            return x

    @keras.saving.register_keras_serializable("kspark tests")
    def squared(x):
        return ops.square(x)

    spec = ReplicaSpec.of(mlp("sgd", Registered(), layers.Dense(2, activation=squared)))
    assert names_of(spec) == ["kspark tests>Registered", "kspark tests>squared"]
    build(spec)


def test_given_objects_are_shipped_and_do_not_replace_those_of_the_model(mlp):
    def replacement(x):
        return 0 * x

    model = mlp("sgd", layers.Dense(2, activation=swishy))
    spec = ReplicaSpec.of(model, {"swishy": replacement, "unused": absolute})
    assert names_of(spec) == ["swishy", "unused"]
    activation = build(spec).model.layers[1].activation
    np.testing.assert_array_equal(activation(np.ones(2)), swishy(np.ones(2)))


@pytest.mark.parametrize("given", [["swishy"], {"swishy": 3}, "swishy"])
def test_invalid_given_objects_are_refused(given, mlp):
    with pytest.raises(TypeError, match="`custom_objects` must be a mapping"):
        ReplicaSpec.of(mlp(), given)


def scaled_loss(factor):
    def loss(y_true, y_pred):
        return factor * ops.mean(ops.square(y_pred), axis=-1)

    return loss


def test_two_functions_of_one_name_stay_apart(mlp):
    model = mlp("sgd", *(layers.Dense(2, activation=scaled(f)) for f in (2.0, 3.0)))
    model.compile("sgd", scaled_loss(1.0), metrics=[scaled_loss(2.0)])
    copy = build(ReplicaSpec.of(model)).model
    assert [float(layer.activation(1.0)) for layer in copy.layers[1:3]] == [2.0, 3.0]
    assert float(copy.loss(0.0, np.ones(1))) == 1.0


def scaled(factor):
    def activation(x):
        return factor * x

    return activation


def test_two_classes_of_one_name_are_refused(mlp):
    with pytest.raises(ValueError, match="one custom object named 'Local'"):
        ReplicaSpec.of(mlp("sgd", local_layer()(), local_layer()()))


TEACHER = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="teacher")


def distilled(y_true, y_pred):
    return ops.mean(ops.abs(y_pred - TEACHER(y_true)), axis=-1)


@pytest.mark.parametrize("thing", [TEACHER, TEACHER.layers[0], keras.optimizers.SGD()])
def test_other_models_layers_and_optimizers_are_refused(thing, monkeypatch, mlp):
    monkeypatch.setitem(globals(), "TEACHER", thing)
    with pytest.raises(ValueError, match="(?s)'distilled' cannot be sent.*live"):
        ReplicaSpec.of(mlp(loss=distilled))


def test_an_object_that_cannot_be_pickled_is_named_in_the_error(mlp):
    import threading

    lock = threading.Lock()

    def locked(y_true, y_pred):
        with lock:
            return ops.mean(y_pred, axis=-1)

    with pytest.raises(ValueError, match="'locked' cannot be sent to the workers"):
        ReplicaSpec.of(mlp(loss=locked, metrics=[absolute]))


@pytest.mark.parametrize("place", ["loss", "layer", "closure", "exec"])
def test_lambdas_are_restored_with_the_names_that_they_use(place, mlp):
    loss, inner = "mse", []
    if place == "loss":
        loss = lambda y_true, y_pred: FACTOR * (y_pred - y_true)  # noqa: E731
    elif place == "layer":
        inner = [layers.Lambda(lambda x: FACTOR * x)]
    elif place == "closure":
        inner = [layers.Lambda((lambda factor: lambda x: factor * x)(FACTOR))]
    else:  # without source code, as in an interactive interpreter
        loss = eval("lambda y_true, y_pred: 2.0 * (y_pred - y_true)")
    copy = build(ReplicaSpec.of(mlp("sgd", *inner, loss=loss))).model
    function = copy.layers[1] if inner else lambda x: copy.loss(0.0, x)
    assert float(np.ravel(function(np.ones((1, 1), "float32")))[0]) == FACTOR


def module_of(name, file, source):
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    exec(source, module.__dict__)
    return module


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two modules of a user's project, which no worker has."""
    names = ("kspark_users_parts", "kspark_users_losses")
    module_of(names[0], tmp_path / "parts.py", "def part(x):\n    return x * 3\n")
    losses = module_of(
        names[1],
        tmp_path / "losses.py",
        "from kspark_users_parts import part\ndef users(t, p):\n    return part((p - t) ** 2)\n",
    )
    yield losses
    for name in names:
        sys.modules.pop(name, None)


def test_user_modules_are_shipped_by_value(project, mlp):
    spec = ReplicaSpec.of(mlp(loss=project.users))
    for name in ("kspark_users_parts", "kspark_users_losses"):
        del sys.modules[name]
    assert float(build(spec).model.loss(1.0, 3.0)) == 12.0


def test_the_registry_of_cloudpickle_is_not_changed(project, mlp):
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(project)
    before = set(cloudpickle.list_registry_pickle_by_value())
    try:
        ReplicaSpec.of(mlp(loss=project.users))
        assert project.__name__ in before
        assert set(cloudpickle.list_registry_pickle_by_value()) == before
    finally:
        cloudpickle.unregister_pickle_by_value(project)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("json", True),
        ("sys", True),
        ("numpy", True),
        ("keras.layers", True),
        ("kspark.replica", True),
        ("pytest", True),
        ("__main__", False),
        (__name__, False),
        ("never_imported", False),
    ],
)
def test_libraries_are_distinguished_from_user_modules(name, library):
    assert pickling.is_library(name) is library


def test_a_linked_module_is_located_at_its_target(tmp_path, monkeypatch):
    """A user's file may be linked into the folder of installed packages."""
    project, installed = tmp_path / "project", tmp_path / "site-packages"
    for folder in (project, installed):
        folder.mkdir()
        (folder / "own.py").touch()
    (installed / "linked.py").symlink_to(project / "own.py")
    module = types.ModuleType("kspark_some_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for file, library in (("own.py", True), ("linked.py", False)):
        module.__file__ = str(installed / file)
        assert pickling.is_library(module.__name__) is library


def test_load_is_the_inverse_of_dump():
    objects = {"swishy": swishy, "Doubled": Doubled}
    loaded = pickling.load(pickling.dump(objects))
    assert loaded.keys() == objects.keys()
    assert loaded["Doubled"](3).units == 3
    assert pickle.loads(pickling.dump({})) == {}
