"""Names of columns are refused where no data has columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kspark.adapters import Columns
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


@pytest.mark.parametrize("x", [TABLE, pd.DataFrame({"a": [1]}), "rows.parquet", "rows.npz"])
def test_columns_of_tables_and_files_are_accepted_also_in_data_to_validate_on(x):
    named = Columns("a", "z", "w")
    check_columns_used(named, x)
    check_columns_used(named, X, X, x)
    check_columns_used(Columns("features", None, None), X)
    check_columns_used(named, X, X, (TABLE, X))
    check_columns_used(named, X, X, ("rows.npz", X))
