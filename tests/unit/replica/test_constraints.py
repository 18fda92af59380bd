"""Constraints of a model's variables, applied to a vector of weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kspark.replica import Replica

constraints, layers = keras.constraints, keras.layers


class Between(constraints.Constraint):
    """A constraint of one's own."""

    def __call__(self, w):
        return keras.ops.clip(w, -0.1, 0.3)


def takes_functions():
    """Whether this Keras takes functions as constraints; 3.12 does not."""
    try:
        layers.Dense(1, kernel_constraint=lambda w: w).build((None, 1))
    except ValueError:
        return False
    return True


needs_function = pytest.mark.skipif(
    not takes_functions(), reason="this Keras takes no functions as constraints"
)

EVERY = [
    constraints.NonNeg(),
    constraints.MaxNorm(0.5),
    constraints.UnitNorm(),
    constraints.UnitNorm(axis=1),
    constraints.MinMaxNorm(0.2, 0.4, rate=0.5),
    Between(),
    pytest.param(lambda w: w / 2, marks=needs_function),
]


def replica_of(dtype="float32", trainable=True, **arguments):
    model = keras.Sequential(
        [keras.Input((3,)), layers.BatchNormalization(), layers.Dense(4, dtype=dtype, **arguments)]
    )
    model.layers[1].trainable = trainable
    model.compile("sgd", "mse")
    return Replica.of(model)


def random_vector(replica):
    return np.random.default_rng(2).normal(size=replica.spec.size).astype(replica.spec.dtype)


def values_in(replica, vector):
    """The values of kernel and bias in a vector."""
    values = replica.spec.unflatten(vector)
    names = [w.name.rsplit("/", 1)[1] for w in replica.spec.weights]
    return values[names.index("kernel")], values[names.index("bias")]


@pytest.mark.parametrize("constraint", EVERY, ids=lambda c: type(c).__name__)
def test_the_vector_gets_what_the_constraint_of_a_variable_returns(constraint):
    replica = replica_of(kernel_constraint=constraint)
    before = random_vector(replica)
    vector = before.copy()
    replica.projection(vector)
    kernel, bias = values_in(replica, before)
    expected = keras.ops.convert_to_numpy(constraint(keras.ops.convert_to_tensor(kernel)))
    np.testing.assert_array_equal(values_in(replica, vector)[0], expected)
    np.testing.assert_array_equal(values_in(replica, vector)[1], bias)
    assert np.count_nonzero(vector != before) <= kernel.size


def test_constraints_of_several_variables_are_applied():
    replica = replica_of(kernel_constraint="unit_norm", bias_constraint="non_neg")
    vector = random_vector(replica)
    replica.projection(vector)
    kernel, bias = values_in(replica, vector)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, atol=1e-6)
    assert bias.min() == 0 < bias.max()


def test_a_vector_of_trainable_weights_is_enough():
    replica = replica_of(kernel_constraint="unit_norm")
    whole = random_vector(replica)
    trainable = whole[: replica.spec.trainable_size].copy()
    replica.projection(whole)
    replica.projection(trainable)
    np.testing.assert_array_equal(trainable, whole[: len(trainable)])


@needs_function
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_constraint_gets_the_dtype_of_its_variable(dtype):
    seen = []
    replica = replica_of(dtype, kernel_constraint=lambda w: seen.append(w.dtype) or w * 2)
    vector = np.full(replica.spec.size, 1.5, replica.spec.dtype)
    replica.projection(vector)
    is_narrowed = dtype == "float64" and keras.backend.backend() == "jax"  # which has no float64
    expected = "float32" if is_narrowed else dtype
    assert [keras.backend.standardize_dtype(found) for found in seen] == [expected]
    assert values_in(replica, vector)[0].ravel().tolist() == [3.0] * 12


@pytest.mark.parametrize("arguments", [{}, {"kernel_constraint": "non_neg", "trainable": False}])
def test_a_model_without_trainable_constraints_has_nothing_to_apply(arguments):
    assert replica_of(**arguments).projection is None
