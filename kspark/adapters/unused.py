"""Refuse names of columns where nothing has columns of these names."""

from __future__ import annotations

from typing import Any

from kspark.adapters import is_table
from kspark.adapters.array_files import is_array_file
from kspark.adapters.base import Columns
from kspark.adapters.column_names import is_other
from kspark.adapters.file_paths import is_files
from kspark.errors import invalid

USUAL = Columns()


def check_columns_used(
    columns: Columns,
    x: Any,
    y: Any = None,
    validation_data: Any = None,
    *,
    sample_weight: Any = None,
    name: str = "x",
) -> None:
    """Check that columns are named only for a table.

    Args:
        columns: `Columns`.
        x: The user's data.
        y: Labels beside it. Defaults to `None`.
        validation_data: Data to validate on, of which columns may be named, too. Defaults to
            `None`.
        sample_weight: Weights beside `x`. Defaults to `None`.
        name: String, the argument that `x` is. Defaults to `"x"`.

    Raises:
        ValueError: If a column is named that nothing reads.
    """
    if has_columns(first_of(validation_data)):
        return
    if not has_columns(x):
        rule = f"left out unless `{name}` is a table or names files with columns"
        for argument in ("features_col", "label_col", "weight_col"):
            value = getattr(columns, argument)
            if is_other(value, getattr(USUAL, argument)):
                raise invalid(argument, rule, value)
        return
    if y is not None and is_other(columns.label_col, USUAL.label_col):
        raise invalid("label_col", "left out with `y`, which has the labels", columns.label_col)
    if sample_weight is not None and is_other(columns.weight_col, USUAL.weight_col):
        rule = "left out with `sample_weight`, which has the weights"
        raise invalid("weight_col", rule, columns.weight_col)


def first_of(validation_data: Any) -> Any:
    """Return the features of data to validate on: those of `(x, y)`, or the data itself."""
    is_many = isinstance(validation_data, list | tuple) and not is_files(validation_data)
    if not is_many or not validation_data:
        return validation_data
    first = validation_data[0]
    is_text = isinstance(first, str) and not is_array_file(first)
    return None if is_text else first  # Other strings in a list are text.


def has_columns(value: Any) -> bool:
    """Whether data has columns: a table, or files of one."""
    return is_table(value) or is_files(value) or is_array_file(value)
