"""What is wrong with a shard, and what is not."""

from __future__ import annotations

from types import ModuleType

import numpy as np


def test_each_shard_of_a_skewed_split_sees_classes_of_its_own(data: ModuleType) -> None:
    y = np.array([3, 0, 1, 2, 0, 3, 1, 1, 2, 0], "int32")
    x, labels = data.skewed(y[:, None] * 10.0, y, 2)
    assert labels.tolist() == [0, 1, 0, 1, 3, 2, 3, 2]
    assert x[:, 0].tolist() == [10.0 * label for label in labels]
    assert [set(part.tolist()) for part in np.array_split(labels, 2)] == [{0, 1}, {2, 3}]


def test_noise_is_in_the_first_shard_only(data: ModuleType) -> None:
    x, y = np.ones((10, 3), "float32"), np.full(10, 4, "int32")
    spoiled, labels = data.spoiled(x, y, 3)
    assert (spoiled[4:] == 1).all() and (labels[4:] == 4).all()
    assert (spoiled[:4] != 1).all() and np.abs(spoiled[:4]).max() > 5
    assert set(labels[:4].tolist()) != {4} and labels.max() <= 4
    assert (x == 1).all() and (y == 4).all()


def test_rates_are_chosen_on_rows_that_neither_train_nor_test(data: ModuleType) -> None:
    x, y = np.arange(20.0)[:, None], np.arange(20)
    x_train, y_train, x_other, y_other = data.held_out((x, y, -x, -y))
    assert y_train.tolist() == list(range(16)) and y_other.tolist() == [16, 17, 18, 19]
    assert x_train[:, 0].tolist() == y_train.tolist() and x_other[:, 0].tolist() == [16, 17, 18, 19]


def test_the_census_becomes_numbers(data: ModuleType) -> None:
    words = "39 a 1 b 13 c d e f g 0 0 {hours} h {income}"
    rows = [
        words.format(hours=hours, income=income).split()
        for hours, income in ((40, "<=50K"), (20, ">50K"))
    ]
    x, y = data.encoded(rows)
    assert y.tolist() == [0, 1]
    assert x.tolist() == [[0, 0, 0, 0, 1] + [1] * 8, [0, 0, 0, 0, -1] + [1] * 8]
