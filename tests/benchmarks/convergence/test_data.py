"""Rows held out of training, encoded rows, and shards that are skewed or spoiled."""

from __future__ import annotations

import numpy as np

from benchmarks.convergence.data import arranged, encoded, held_out, skewed, spoiled


def test_each_skewed_shard_has_its_own_classes() -> None:
    y = np.array([3, 0, 1, 2, 0, 3, 1, 1, 2, 0], "int32")
    x, labels = skewed(y[:, None] * 10.0, y, 2)
    assert labels.tolist() == [0, 1, 0, 1, 3, 2, 3, 2]
    assert x[:, 0].tolist() == [10.0 * label for label in labels]
    assert [set(part.tolist()) for part in np.array_split(labels, 2)] == [{0, 1}, {2, 3}]


def test_sorted_rows_are_all_rows_in_the_order_of_their_labels() -> None:
    y = np.array([3, 0, 1, 2, 0, 3], "int32")
    x, labels = arranged(y[:, None] * 10.0, y, "sorted", 2)
    assert labels.tolist() == [0, 0, 1, 2, 3, 3]
    assert x[:, 0].tolist() == [10.0 * label for label in labels]


def test_only_the_first_spoiled_shard_has_noise() -> None:
    x, y = np.ones((10, 3), "float32"), np.full(10, 4, "int32")
    noisy, labels = spoiled(x, y, 3)
    assert (noisy[4:] == 1).all() and (labels[4:] == 4).all()
    assert (noisy[:4] != 1).all() and np.abs(noisy[:4]).max() > 5
    assert set(labels[:4].tolist()) != {4} and labels.max() <= 4
    assert (x == 1).all() and (y == 4).all()


def test_held_out_rows_are_neither_training_rows_nor_test_rows() -> None:
    x, y = np.arange(20.0)[:, None], np.arange(20)
    x_train, y_train, x_other, y_other = held_out((x, y, -x, -y))
    assert y_train.tolist() == list(range(16)) and y_other.tolist() == [16, 17, 18, 19]
    assert x_train[:, 0].tolist() == y_train.tolist() and x_other[:, 0].tolist() == [16, 17, 18, 19]


def test_numbers_are_standardized_and_categories_are_one_hot() -> None:
    words = "39 a 1 b 13 c d e f g 0 0 {hours} h {income}"
    rows = [
        words.format(hours=hours, income=income).split()
        for hours, income in ((40, "<=50K"), (20, ">50K"))
    ]
    x, y = encoded(rows)
    assert y.tolist() == [0, 1]
    assert x.tolist() == [[0, 0, 0, 0, 1] + [1] * 8, [0, 0, 0, 0, -1] + [1] * 8]
