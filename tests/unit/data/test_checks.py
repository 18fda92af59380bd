"""Arguments of a wrong type are refused, with what makes the right ones."""

import numpy as np
import pytest

import kspark.data as data

X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.to_simple_rdd(None, X, X), "`sc` must be a SparkContext, such as `spark."),
        (lambda: data.to_labeled_point(X, X, X), "`sc` must .*Received: <numpy.ndarray object>"),
        (lambda: data.to_data_frame(None, X, X), "`sc` must be a SparkContext"),
        (
            lambda: data.from_labeled_point(X),
            "`rdd` must be an RDD of LabeledPoint, such as `to",
        ),
        (lambda: data.lp_to_simple_rdd(X), "`lp_rdd` must be an RDD of LabeledPoint"),
        (lambda: data.from_data_frame(X), "`df` must be a Spark DataFrame; make one with `spark.c"),
        (lambda: data.df_to_simple_rdd(X), "`df` must be a Spark DataFrame"),
        (lambda: data.encode_label("a", 3), "`label` must be a number. Received: 'a'"),
        (lambda: data.from_matrix(X), "`matrix` must be a matrix, such as `to_matrix"),
        (lambda: data.from_vector([1]), "`vector` must be a vector, such as `to_vector"),
        (lambda: data.add_params(X, [X]), "`param_list_left` must be a list of arrays, such as"),
        (lambda: data.subtract_params([X], None), "`param_list_right` must be a list of arrays"),
        (lambda: data.get_neutral(3), "`array_list` must be a list of arrays"),
        (lambda: data.divide_by([X], "2"), "`num_workers` must be a number. Received: '2'"),
        (lambda: data.model_to_dict("model"), "`model` must be a keras.Model"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_arrays_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"`param_list_right` must be arrays of the same shapes"):
        data.add_params([X], [X[0]])
