"""Replace the names of arguments by the names of Params in errors.

A stage passes its Params to `SparkModel` as arguments. If one of them is refused, the error names
the Param that the user has set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kspark.plan.settings import SETTINGS


def camel_case(name: str) -> str:
    """Turn the name of an argument into that of a Param: `batch_size` into `batchSize`."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


FIT_ARGUMENTS = (
    *("features_col", "label_col", "weight_col", "validation_split", "class_weight"),
    *("custom_objects", "reshuffle", "scale_lr", "warmup_epochs", "preprocess", "augment"),
)
"""Arguments of `SparkModel` and its `fit` that have a Param and are not settings."""

KERAS = {
    "x": "dataset",
    "y": "labelCol",
    "sample_weight": "weightCol",
    "validation_data": "validationIndicatorCol",
    **{name: camel_case(name) for name in (*SETTINGS, *FIT_ARGUMENTS)},
}
"""Arguments of `SparkModel` and its `fit`, with the Param of `KerasEstimator` for each."""

ELEPHAS = {
    "validationSplit": "validation_split",
    "customObjects": "custom_objects",
    "batchSize": "batch_size",
    "numWorkers": "num_workers",
}
"""Params of `KerasEstimator`, with the Param of `ElephasEstimator` for each."""


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Replace names in the `ValueError` or `TypeError` that a block raises.

    Args:
        names: Mapping from argument to Param.

    Raises:
        ValueError: If the block raises one; with the names replaced.
        TypeError: If the block raises one; with the names replaced.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        text = named(str(error), names)
        if type(error) not in (ValueError, TypeError) or text == str(error):
            raise
        raise type(error)(text) from error


def named(text: str, names: Mapping[str, str]) -> str:
    """Replace the names of arguments in the text of an error."""

    def other(match: re.Match[str]) -> str:
        return f"{match[1]}{names.get(match[2], match[2])}{match[3]}"

    return re.sub(r"(Received: )(\w+)(=)", other, re.sub(r"(`)(\w+)(`)", other, text))
