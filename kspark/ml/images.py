"""`image_columns`: rows of Spark's `image` and `binaryFile` sources as tensors for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, BinaryType, DataType, FloatType, StructField, StructType

from kspark.adapters.dataframe import column_name
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
    """Add a column of tensors of equal size, made of images, for a Keras model.

    Example:

    ```python
    images = spark.read.format("image").load("folder")
    rows = image_columns(images, size=(32, 32))
    KerasClassifier(model, featuresCol="features").fit(rows)  # keras.Input((32, 32, 3))
    ```

    The images are structs of Spark's `image` source (blue first, 8 bits per channel), or
    the bytes of files in any format that Pillow reads, as of the `binaryFile` source. An
    alpha channel is left out; grey images become three equal channels, and coloured ones
    a single channel, as `channels` wants it. For files, the workers need Pillow.

    The work is done when the rows are read, also on streaming DataFrames, and all columns
    are kept; `drop` the images if nothing needs them any more. Spark hands up to
    `spark.sql.execution.arrow.maxRecordsPerBatch` rows to a worker at once: set it to a
    few hundred if an image takes megabytes.

    Args:
        frame: DataFrame.
        input_col: String, the column of images. Defaults to `None`: `"image"` if there is
            such a column, else `"content"`.
        size: Pair of integers (height, width). Images are resized bilinearly, as by
            `keras.ops.image.resize`.
        channels: String, `"rgb"`, `"bgr"` or `"grey"`.
        scale: Float, what the bytes (0 to 255) are multiplied with.
        output_col: String, the new column: arrays of height × width × channels floats in
            that order, which kspark reshapes to what the model takes.
        antialias: Boolean, whether an image that shrinks is smoothed.
        drop_invalid: Boolean. What is no image (a null, a damaged file, a row of Spark's
            `image` source without size) is an error when it is read, or, if `True`, its
            row is left out, as with the `image` source's own option `dropInvalid`.

    Returns:
        A lazy DataFrame.

    Raises:
        TypeError: If the column holds no images.
        ValueError: If there is no such column, or an argument is wrong.
    """
    index, name = image_column(frame, input_col)
    if not output_col or column_name(frame, output_col) is not None:
        rule = f"a name that is not among the columns {frame.columns}"
        raise invalid("output_col", rule, output_col)
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
    """Place and name of the column of images.

    Raises:
        TypeError: If it holds none.
        ValueError: If it is not there.
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
    """Whether a type is that of Spark's `image` source."""
    return isinstance(kind, StructType) and set(STRUCT_FIELDS) <= set(kind.fieldNames())


def checked_size(size: Any) -> tuple[int, int]:
    """Height and width.

    Raises:
        ValueError: If they are not two integers from 1 on.
    """
    values = tuple(size) if isinstance(size, Sequence) else ()
    whole = [isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values]
    if len(values) != 2 or not all(whole) or min(values) < 1:
        raise invalid("size", "a pair of integers >= 1, height and width", size)
    return int(values[0]), int(values[1])
