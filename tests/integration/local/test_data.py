"""`kspark.data` has Elephas' helpers, and refuses what Elephas converted wrongly."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.linalg import Vectors as NewVectors
from pyspark.mllib.linalg import Matrices, Vectors
from pyspark.mllib.regression import LabeledPoint
from pyspark.mllib.util import MLUtils

from kspark import data

FEATURES = np.arange(14, dtype=np.float32).reshape(7, 2)
CLASSES = np.array([0, 2, 1, 2, 0, 1, 2])
PRICES = np.array([0.5, 1.5, -2.25, 3.0, 4.0, 5.0, 6.0])


@pytest.fixture
def sc(spark):
    return spark.sparkContext


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Both ways to the executors: inside the tasks, and as broadcasts."""
    if request.param == "large":
        monkeypatch.setattr("kspark.adapters.slices.CHUNK_BYTES", 8)


def test_simple_rdd_keeps_the_order(sc, size):
    rdd = data.to_simple_rdd(sc, FEATURES, CLASSES)
    rows = rdd.collect()
    assert [x.tolist() for x, _ in rows] == FEATURES.tolist()
    assert [y for _, y in rows] == CLASSES.tolist()
    assert rdd.getNumPartitions() == 2
    assert rdd.count() == 7


def test_a_simple_rdd_may_hold_lists_and_fewer_rows_than_slots(sc):
    rows = data.to_simple_rdd(sc, [[1, 2]], ["a"]).collect()
    assert rows == [([1, 2], "a")]


def test_features_and_labels_must_have_the_same_length(sc):
    for convert in (data.to_simple_rdd, data.to_labeled_point, data.to_data_frame):
        with pytest.raises(ValueError, match="as many as the 7 rows of features.*3 rows"):
            convert(sc, FEATURES, CLASSES[:3])


def test_labeled_points_survive_a_round_trip(sc, size):
    points = data.to_labeled_point(sc, FEATURES, PRICES)
    assert str(points.first()) == "(0.5,[0.0,1.0])"
    features, labels = data.from_labeled_point(points)
    assert features.tolist() == FEATURES.tolist()
    # Elephas cut these to integers.
    assert (labels.dtype, labels.tolist()) == (np.float64, PRICES.tolist())


def test_class_labels_are_returned_as_integers(sc):
    _, labels = data.from_labeled_point(data.to_labeled_point(sc, FEATURES, CLASSES))
    assert (labels.dtype, labels.tolist()) == (np.int64, CLASSES.tolist())


def test_one_hot_labels_survive_a_round_trip(sc):
    one_hot = np.eye(3)[CLASSES]
    points = data.to_labeled_point(sc, FEATURES, one_hot, categorical=True)
    assert [p.label for p in points.collect()] == CLASSES.tolist()
    _, labels = data.from_labeled_point(points, categorical=True)
    assert labels.tolist() == one_hot.tolist()
    _, wider = data.from_labeled_point(points, categorical=True, nb_classes=5)
    assert wider.tolist() == np.eye(5)[CLASSES].tolist()
    with pytest.raises(ValueError, match="one-hot row"):
        data.to_labeled_point(sc, FEATURES, CLASSES, categorical=True)


def test_a_label_that_is_not_a_class_is_refused(sc):
    points = data.to_labeled_point(sc, FEATURES, PRICES)
    with pytest.raises(ValueError, match="`label` must be a class.*Received: label=.*0.5"):
        data.from_labeled_point(points, categorical=True, nb_classes=7)
    for label in (3, -1, 0.5):
        with pytest.raises(ValueError, match="from 0 to 2"):
            data.encode_label(label, 3)
    assert data.encode_label(2.0, 3).tolist() == [0, 0, 1]


def test_an_empty_rdd_is_refused(sc):
    with pytest.raises(ValueError, match="at least one row"):
        data.from_labeled_point(sc.parallelize([], 2))


def test_empty_partitions_are_skipped(sc):
    points = sc.parallelize([LabeledPoint(1.0, Vectors.sparse(3, {1: 5.0}))], 4)
    features, labels = data.from_labeled_point(points)
    assert (features.tolist(), labels.tolist()) == ([[0, 5, 0]], [1])


def test_labeled_points_become_rows(sc):
    points = data.to_labeled_point(sc, FEATURES, CLASSES)
    rows = data.lp_to_simple_rdd(points).collect()
    assert [x.tolist() for x, _ in rows] == FEATURES.tolist()
    assert [y for _, y in rows] == CLASSES.tolist()
    encoded = data.lp_to_simple_rdd(points, categorical=True).collect()
    assert [y.tolist() for _, y in encoded] == np.eye(3)[CLASSES].tolist()
    wider = data.lp_to_simple_rdd(points, categorical=True, nb_classes=4).collect()
    assert [len(y) for _, y in wider] == [4] * 7


def test_a_data_frame_survives_a_round_trip(sc, size):
    frame = data.to_data_frame(sc, FEATURES, PRICES)
    assert [f.simpleString() for f in frame.schema.fields] == ["features:vector", "label:double"]
    assert frame.first().features == Vectors.dense([0, 1])
    features, labels = data.from_data_frame(frame)
    assert features.tolist() == FEATURES.tolist()
    assert labels.tolist() == PRICES.tolist()


def test_a_data_frame_stores_one_hot_labels_as_classes(sc):
    frame = data.to_data_frame(sc, FEATURES, np.eye(3)[CLASSES], categorical=True)
    assert [row.label for row in frame.collect()] == CLASSES.tolist()
    _, labels = data.from_data_frame(frame)
    assert (labels.dtype, labels.tolist()) == (np.int64, CLASSES.tolist())
    _, one_hot = data.from_data_frame(frame, categorical=True, nb_classes=3)
    assert one_hot.tolist() == np.eye(3)[CLASSES].tolist()
    with pytest.raises(ValueError, match="a matrix"):
        data.to_data_frame(sc, FEATURES.reshape(7, 2, 1), CLASSES)


def test_vectors_can_be_converted_to_those_of_spark_ml(sc):
    frame = MLUtils.convertVectorColumnsToML(data.to_data_frame(sc, FEATURES, PRICES), "features")
    both = VectorAssembler(inputCols=["features", "label"], outputCol="both").transform(frame)
    assert both.first().both == NewVectors.dense([0, 1, 0.5])


@pytest.mark.parametrize("vectors", [Vectors, NewVectors])
def test_a_data_frame_becomes_rows(spark, vectors):
    tables = spark.catalog.listTables()
    frame = spark.createDataFrame(
        [(vectors.dense([1, 2]), 1, 0.5), (vectors.sparse(2, {1: 9.0}), 0, 1.5)],
        ["my features", "class.id", "price"],
    )
    rows = data.df_to_simple_rdd(frame, features_col="my features", label_col="price").collect()
    assert sorted((x.tolist(), y) for x, y in rows) == [([0, 9], 1.5), ([1, 2], 0.5)]
    rows = data.df_to_simple_rdd(
        frame, categorical=True, features_col="my features", label_col="class.id"
    ).collect()
    assert sorted((x.tolist(), y.tolist()) for x, y in rows) == [([0, 9], [1, 0]), ([1, 2], [0, 1])]
    assert spark.catalog.listTables() == tables


def test_a_missing_column_is_named_in_the_error(spark):
    frame = spark.createDataFrame([(1.0, 2.0)], ["a", "b"])
    text = r"no column 'features', which .features_col. names. The columns are: \['a', 'b'\]"
    with pytest.raises(ValueError, match=text):
        data.df_to_simple_rdd(frame)


def test_matrices_keep_rows_and_columns():
    array = np.array([[1.0, 2, 3], [4, 5, 6]])
    matrix = data.to_matrix(array)
    assert (matrix.numRows, matrix.numCols, matrix[0, 1], matrix[1, 0]) == (2, 3, 2, 4)
    assert data.from_matrix(matrix).tolist() == array.tolist()
    sparse = Matrices.sparse(2, 2, [0, 1, 1], [1], [7.0])
    assert data.from_matrix(sparse).tolist() == [[0, 0], [7, 0]]
    with pytest.raises(ValueError, match="two axes"):
        data.to_matrix(np.zeros(3))


def test_vectors_survive_a_round_trip():
    assert data.from_vector(data.to_vector(np.array([1.0, 2]))).tolist() == [1, 2]
    assert data.from_vector(Vectors.sparse(3, {2: 4.0})).tolist() == [0, 0, 4]
    with pytest.raises(ValueError, match="one axis"):
        data.to_vector(np.zeros((2, 2)))


def test_classes_cannot_be_counted_without_rows(sc, spark):
    none = sc.parallelize([], 2)
    with pytest.raises(ValueError, match="`lp_rdd` must be .* one row.*set nb_classes.*: lp_rdd="):
        data.lp_to_simple_rdd(none, categorical=True)
    assert data.lp_to_simple_rdd(none, categorical=True, nb_classes=3).collect() == []
    with pytest.raises(ValueError, match="`rdd` must be a data set with at least one row"):
        data.from_labeled_point(none)
    frame = data.to_data_frame(sc, FEATURES, CLASSES).limit(0)
    with pytest.raises(ValueError, match="`df` must be a data set with at least one row"):
        data.from_data_frame(frame)
    with pytest.raises(ValueError, match="`df` must be .* one row .or set nb_classes."):
        data.df_to_simple_rdd(frame, categorical=True)
    assert data.df_to_simple_rdd(frame, categorical=True, nb_classes=3).collect() == []


def test_empty_partitions_do_not_change_the_count_of_classes(sc):
    points = sc.parallelize([LabeledPoint(2.0, [1.0]), LabeledPoint(0.0, [2.0])], 4)
    rows = data.lp_to_simple_rdd(points, categorical=True).collect()
    assert [y.tolist() for _, y in rows] == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("convert", [data.to_data_frame, data.to_labeled_point])
def test_one_hot_labels_are_refused_without_categorical(sc, convert):
    rule = r"`labels` must be one number per example .set categorical=True.*shape \(7, 3\)"
    with pytest.raises(ValueError, match=rule):
        convert(sc, FEATURES, np.eye(3)[CLASSES])
    columns = convert(sc, FEATURES, CLASSES[:, None]).collect()
    assert [row.label for row in columns] == CLASSES.tolist()


def test_array_labels_are_refused_with_categorical(spark):
    rows = [(NewVectors.dense([1.0]), [0.0, 1.0], NewVectors.dense([1.0, 0.0]))]
    frame = spark.createDataFrame(rows, ["features", "label", "vector"])
    rule = "`df` must be .* class numbers in 'label' when categorical=True.*df='array<double>'"
    with pytest.raises(ValueError, match=rule):
        data.df_to_simple_rdd(frame, categorical=True)
    with pytest.raises(ValueError, match=rule):
        data.from_data_frame(frame, categorical=True)
    with pytest.raises(ValueError, match="class numbers in 'vector'.*df='vector'"):
        data.df_to_simple_rdd(frame, categorical=True, label_col="vector")
    assert data.df_to_simple_rdd(frame).first()[1].tolist() == [0, 1]


def test_features_of_labeled_points_must_be_a_matrix(sc):
    with pytest.raises(Exception, match="`features` must be a matrix, one row per example"):
        data.to_labeled_point(sc, FEATURES.reshape(7, 2, 1), CLASSES).collect()
