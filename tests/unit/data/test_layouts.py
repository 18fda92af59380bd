"""The arrays of spooled rows, found without a model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import Columns, readable
from kspark.adapters.spooled import Group
from kspark.data.layouts import layout_of

A, B = np.zeros((3, 2)), np.zeros((3, 4))
X, Y = Group(("x",)), Group(("y",))
COLUMNS = Columns()
TABLE = {"a": [1, 2], "b": [3, 4], "label": [0, 1], "w": [1.0, 2.0]}


def batches():
    yield {"u": A, "v": B}, A[:, 0], A[:, 1]


@pytest.mark.parametrize(
    ("data", "groups"),
    [
        ((A, None, None), (X, Group(), Group())),
        (([[1, 2], [3, 4]], [0, 1], None), (X, Y, Group())),
        (([A], A[:, 0], A[:, 1]), (X, Y, Group(("sample_weight",)))),
        (([A, B], A, None), (Group(("x0", "x1"), "list"), Y, Group())),
        (
            ({"u": A, "v": B}, {"p": A, "q": B}, {"p": A[:, 0], "q": A[:, 1]}),
            (Group(("u", "v"), "dict"), Group(("p", "q"), "dict"), Group(("p", "q"), "dict")),
        ),
        (
            (A, [A, B], [A[:, 0], A[:, 1]]),
            (X, Group(("y0", "y1"), "list"), Group(("y0", "y1"), "list")),
        ),
    ],
)
def test_arrays(data, groups):
    found = layout_of(None, *data, COLUMNS)
    assert (found.x, found.y, found.sample_weight) == groups
    assert found.floatx == "float32"


def test_batches_have_the_structure_of_the_first_one():
    found = layout_of(None, readable(batches()), None, None, COLUMNS)
    assert found.x == Group(("u", "v"), "dict")
    assert (found.y, found.sample_weight) == (Y, Group(("sample_weight",)))
    bare = layout_of(None, readable(batches()), None, None, Columns(label_col=None))
    assert not bare.y.names and not bare.sample_weight.names


@pytest.mark.parametrize("make", [pd.DataFrame, pa.table])
def test_tables(make):
    table = make(TABLE)
    found = layout_of(None, table, None, None, Columns(["a", "b"], "label", "w"))
    both = Group(("x",), columns=("a", "b"))
    assert (found.x, found.y, found.sample_weight) == (both, Y, Group(("sample_weight",)))
    named = layout_of(None, table, None, None, Columns({"u": "a", "v": ["b", "w"]}, None))
    assert (named.x, named.y) == (Group(("u", "v"), "dict"), Group())
    found = layout_of(None, table, A, None, COLUMNS).x  # all columns, as in `fit`
    assert found == Group(("x",), columns=("a", "b", "label", "w"))
