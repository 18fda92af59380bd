"""`image_columns`: turn images of Spark's `image` and `binaryFile` sources into tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, BinaryType, DataType, FloatType, StructField, StructType

from kspark.adapters.dataframe import check_new_column, column_name
from kspark.cluster.bootstrap import ship
from kspark.errors import invalid, invalid_type
from kspark.worker.images import CHANNELS, ImageTask, convert_batches

STRUCT_FIELDS = ("height", "width", "nChannels", "mode", "data")


def image_columns(
    frame: DataFrame,
    input_col: str | None = None,
    *,
    size: Sequence[int],
    channels: str = "rgb",
    scale: float = 1 / 255,
    output_col: str = "features",
    antialias: bool = False,
    drop_invalid: bool = False,
) -> DataFrame:
    """Add a column of tensors of equal size, made from images, for a Keras model.

    Example:

    ```python
    images = spark.read.format("image").load("folder")
    rows = image_columns(images, size=(32, 32))
    KerasClassifier(model, featuresCol="features").fit(rows)  # keras.Input((32, 32, 3))
    ```

    The images are structs of Spark's `image` source (blue first, 8 bits per channel), or
    bytes in any format that Pillow reads, as from the `binaryFile` source. For bytes, the
    workers need Pillow. An alpha channel is dropped. Grey images are repeated to three
    channels and coloured images reduced to one, depending on `channels`.

    The DataFrame is lazy, may be a streaming one, and keeps all columns; `drop` the images if
    you no longer need them. Spark sends up to
    `spark.sql.execution.arrow.maxRecordsPerBatch` rows to a worker at once: set it to a few
    hundred if an image takes megabytes.

    Args:
        frame: DataFrame.
        input_col: String, the column of images. Defaults to `None`: `"image"` if there is
            such a column, else `"content"`.
        size: Pair of integers (height, width) in pixels. Images are resized bilinearly, as by
            `keras.ops.image.resize`.
        channels: String, `"rgb"`, `"bgr"` or `"grey"`. Defaults to `"rgb"`.
        scale: Float, the factor for values from 0 to 255. Defaults to `1 / 255`.
        output_col: String, the new column. It has flat arrays of floats, ordered by height,
            width and channel, which kspark reshapes to the input shape of the model. Defaults
            to `"features"`.
        antialias: Boolean, whether to smooth an image that is reduced in size. Defaults to
            `False`.
        drop_invalid: Boolean, whether to drop rows without a valid image (a null, a damaged
            file, a row of the `image` source without size), like the option `dropInvalid` of
            the `image` source. Otherwise, they are an error when they are read. Defaults to
            `False`.

    Returns:
        A lazy DataFrame.

    Raises:
        TypeError: If the column does not contain images.
        ValueError: If there is no such column, or an argument is out of range.
    """
    index, name = image_column(frame, input_col)
    if not output_col:
        raise invalid("output_col", "the name of a new column", output_col)
    check_new_column(frame, output_col, "output_col")
    if channels not in CHANNELS:
        raise invalid("channels", "one of " + ", ".join(f'"{c}"' for c in CHANNELS), channels)
    if not np.isfinite(scale):
        raise invalid("scale", "a finite number", scale)
    shape = checked_size(size)
    task = ImageTask(
        name, index, output_col, shape, channels, float(scale), antialias, drop_invalid
    )
    added = StructField(output_col, ArrayType(FloatType()))
    schema = StructType([*frame.schema.fields, added])
    return frame.mapInArrow(ship(convert_batches, task), schema)


def image_column(frame: DataFrame, name: str | None) -> tuple[int, str]:
    """Find the column of images.

    Returns:
        A pair (index, name) of the column.

    Raises:
        TypeError: If the column does not contain images.
        ValueError: If there is no such column.
    """
    wanted = ("image", "content") if name is None else (name,)
    own = next((n for n in (column_name(frame, w) for w in wanted) if n is not None), None)
    if own is None:
        raise invalid("input_col", f"one of the columns {frame.columns}", name)
    index = frame.columns.index(own)
    kind = frame.schema.fields[index].dataType
    if not isinstance(kind, BinaryType) and not is_image(kind):
        rule = "a column of images, as Spark's sources `image` and `binaryFile` give"
        raise invalid_type("input_col", rule, f"{own} ({kind.simpleString()})")
    return index, own


def is_image(kind: DataType) -> bool:
    """Whether a type is the struct of Spark's `image` source."""
    return isinstance(kind, StructType) and set(STRUCT_FIELDS) <= set(kind.fieldNames())


def checked_size(size: Any) -> tuple[int, int]:
    """Check the pair (height, width).

    Raises:
        ValueError: If it is not a pair of integers >= 1.
    """
    values = tuple(size) if isinstance(size, Sequence) else ()
    whole = [isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values]
    if len(values) != 2 or not all(whole) or min(values) < 1:
        raise invalid("size", "a pair of integers >= 1, height and width", size)
    return int(values[0]), int(values[1])
