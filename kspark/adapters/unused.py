"""Refuse names of columns where nothing has columns of these names."""

from __future__ import annotations

from typing import Any

from kspark.adapters import is_table
from kspark.adapters.array_files import is_array_file
from kspark.adapters.base import Columns
from kspark.adapters.file_paths import is_files
from kspark.errors import invalid

USUAL = Columns()


def check_columns_used(
    columns: Columns, x: Any, y: Any = None, validation_data: Any = None, *, name: str = "x"
) -> None:
    """Check that columns are named only for a table.

    Args:
        columns: `Columns`.
        x: The user's data.
        y: Labels beside it. Defaults to `None`.
        validation_data: Data to validate on, of which columns may be named, too. Defaults to
            `None`.
        name: String, the argument that `x` is. Defaults to `"x"`.

    Raises:
        ValueError: If a column is named that nothing reads.
    """
    if has_columns(validation_data):
        return
    if not has_columns(x):
        rule = f"left out unless `{name}` is a table or names files with columns"
        for argument in ("features_col", "label_col", "weight_col"):
            value = getattr(columns, argument)
            if value is not None and value != getattr(USUAL, argument):
                raise invalid(argument, rule, value)
    elif y is not None and columns.label_col not in (None, USUAL.label_col):
        raise invalid("label_col", "left out with `y`, which has the labels", columns.label_col)


def has_columns(value: Any) -> bool:
    """Whether data has columns: a table, or files of one, also in `(x, y)`."""
    if isinstance(value, list | tuple) and value and not is_files(value):
        value = value[0]
        if isinstance(value, str):  # Other strings in a list are text.
            return is_array_file(value)
    return is_table(value) or is_files(value) or is_array_file(value)
