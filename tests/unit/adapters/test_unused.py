"""Names of columns are refused where no data has columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import Columns
from kspark.adapters.spooled import adapt_spooled
from kspark.adapters.unused import check_columns_used

X, TABLE = np.zeros((4, 2)), pa.table({"a": [1.0], "label": [0]})


@pytest.mark.parametrize("argument", ["features_col", "label_col", "weight_col"])
@pytest.mark.parametrize("x", [X, [X, X], {"a": X}, ["some text"]])
def test_columns_of_data_without_columns_are_refused(argument, x):
    with pytest.raises(
        ValueError, match=f"`{argument}` must be left out .*Received: {argument}='z'"
    ):
        check_columns_used(Columns(**{argument: "z"}), x)


def test_labels_are_beside_a_table_or_in_it():
    with pytest.raises(ValueError, match="`label_col` must be left out with `y`"):
        check_columns_used(Columns(label_col="z"), TABLE, X)
    check_columns_used(Columns(weight_col="a"), TABLE, X)
    with pytest.raises(ValueError, match="`weight_col` must be left out with `sample_weight`"):
        check_columns_used(Columns(weight_col="a"), TABLE, sample_weight=X)
    check_columns_used(Columns(weight_col="a"), TABLE, X, TABLE, sample_weight=X)


@pytest.mark.parametrize("x", [[TABLE, X], (TABLE, X), ("rows.npz", X)])
def test_labels_are_not_a_part_of_x(x):
    with pytest.raises(ValueError, match="`label_col` must be left out unless `x` is a table"):
        check_columns_used(Columns(label_col="z"), x)


def test_columns_may_be_an_index_of_pandas():
    names = pd.Index(["a", "b"])
    check_columns_used(Columns(names), TABLE)
    for argument in ("features_col", "label_col"):
        with pytest.raises(ValueError, match=f"`{argument}` must be left out unless"):
            check_columns_used(Columns(**{argument: names}), X)
        with pytest.raises(ValueError, match=f"`{argument}` must be left out for spooled rows"):
            adapt_spooled(None, None, None, None, None, Columns(**{argument: names}))
    with pytest.raises(ValueError, match="`label_col` must be left out with `y`"):
        check_columns_used(Columns(label_col=names), TABLE, X)


@pytest.mark.parametrize("x", [TABLE, pd.DataFrame({"a": [1]}), "rows.parquet", "rows.npz"])
def test_columns_of_tables_and_files_are_accepted_also_in_data_to_validate_on(x):
    named = Columns("a", "z", "w")
    check_columns_used(named, x)
    check_columns_used(named, X, X, x)
    check_columns_used(Columns("features", None, None), X)
    check_columns_used(named, X, X, (TABLE, X))
    check_columns_used(named, X, X, ("rows.npz", X))
