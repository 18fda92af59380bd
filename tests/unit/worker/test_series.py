"""The pandas series that functions of SQL get before Spark 4.1."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kspark.worker.series import series_array


def test_a_null_among_numbers_is_none_for_a_function_as_in_transform():
    """Spark's nulls of numbers are NaN in pandas."""
    found = series_array("age", pd.Series([1.0, None, 3.0]), True)
    assert found.tolist() == [1.0, None, 3.0]
    found = series_array("scores", pd.Series([np.array([1.0, np.nan]), None]), True)
    np.testing.assert_array_equal(found[0], [1.0, np.nan])
    assert found[1] is None


def test_a_null_is_refused_without_a_function():
    with pytest.raises(
        ValueError, match="Column 'age' must hold no nulls. Received: null in row 1"
    ):
        series_array("age", pd.Series([1.0, None]))
