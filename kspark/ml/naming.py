"""What was set on a stage is called by its Param's name in errors, also in those of the engine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kspark.plan.settings import SETTINGS


def camel_case(name: str) -> str:
    """The name of a Param for an argument: `batchSize` for `batch_size`."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


FIT_ARGUMENTS = (
    *("features_col", "label_col", "weight_col", "validation_split", "class_weight"),
    *("custom_objects", "scale_lr", "warmup_epochs"),
)
"""Arguments of `SparkModel` and its `fit` that are Params but no settings."""

KERAS = {
    "x": "dataset",
    "y": "labelCol",
    "sample_weight": "weightCol",
    "validation_data": "validationIndicatorCol",
    **{name: camel_case(name) for name in (*SETTINGS, *FIT_ARGUMENTS)},
}
"""Arguments of `SparkModel`, and the Params of `KerasEstimator` that they come from."""

ELEPHAS = {
    "validationSplit": "validation_split",
    "customObjects": "custom_objects",
    "batchSize": "batch_size",
    "numWorkers": "num_workers",
}
"""Params of `KerasEstimator`, and those of `ElephasEstimator` that they come from."""


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Around a block: errors about an argument become errors about the Param it comes from.

    Args:
        names: Mapping from argument to Param.

    Raises:
        ValueError: As the block did, with other names.
        TypeError: Likewise.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        text = named(str(error), names)
        if type(error) not in (ValueError, TypeError) or text == str(error):
            raise
        raise type(error)(text) from error


def named(text: str, names: Mapping[str, str]) -> str:
    """An error's text with other names of arguments."""

    def other(match: re.Match[str]) -> str:
        return f"{match[1]}{names.get(match[2], match[2])}{match[3]}"

    return re.sub(r"(Received: )(\w+)(=)", other, re.sub(r"(`)(\w+)(`)", other, text))
