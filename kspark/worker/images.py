"""Convert images to tensors in the task that reads them, with NumPy and Pillow, without Keras."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from kspark.adapters.base import CHUNK_BYTES
from kspark.adapters.conform import Place
from kspark.errors import ClusterError
from kspark.worker.scores import nested

CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""

DEEP_MODES = ("I", "F")
"""First letters of Pillow's modes with more than 8 bits, which `convert` would clip at 255."""


@dataclass(frozen=True)
class ImageTask:
    """The conversion of the images in one column.

    Attributes:
        name: String, name of the column.
        index: Integer, position of the column.
        output: String, name of the new column.
        size: Tuple of integers, height and width of the tensors in pixels.
        channels: String, a key of `CHANNELS`.
        scale: Float, factor for all values.
        antialias: Boolean, whether to smooth images that become smaller.
        drop_invalid: Boolean, whether to drop rows without a valid image, instead of an error.
    """

    name: str
    index: int
    output: str
    size: tuple[int, int]
    channels: str
    scale: float
    antialias: bool
    drop_invalid: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one tensor."""
        return (*self.size, CHANNELS[self.channels])


def convert_batches(task: ImageTask, batches: Iterator[Any]) -> Iterator[Any]:
    """Add the column of tensors to record batches."""
    context = TaskContext.get()
    partition = context.partitionId() if context is not None else 0
    first = 0
    for batch in batches:
        row_bytes = batch.column(task.index).nbytes // max(1, batch.num_rows)
        step = max(1, CHUNK_BYTES // max(4 * int(np.prod(task.shape)), row_bytes, 1))
        for start in range(0, batch.num_rows, step):
            place = Place(f"Column {task.name!r}", partition, first + start)
            yield convert(task, batch.slice(start, step), place)
        first += batch.num_rows


def convert(task: ImageTask, batch: Any, place: Place) -> Any:
    """Add the column of tensors to rows. Rows without a valid image are dropped if so configured.

    Raises:
        ValueError: If a row has no valid image and rows are not dropped.
    """
    column = batch.column(task.index)
    of_structs = hasattr(column.type, "num_fields") and column.type.num_fields > 0
    groups = struct_pixels(column) if of_structs else file_pixels(column, task)
    out = np.empty((len(column), *task.shape), np.float32)
    valid = np.zeros(len(column), bool)
    for rows, pixels in groups:
        out[rows] = tensors(pixels, task)
        valid[rows] = True
    if not valid.all():
        if not task.drop_invalid:
            row = int(np.flatnonzero(~valid)[0])
            raise place.error("images of 8 bits per channel", described(column[row]), row)
        kept = np.flatnonzero(valid)
        batch, out = batch.take(kept), out[kept]
    images = nested(out.reshape(-1), (int(np.prod(task.shape)),))
    # `RecordBatch.append_column` needs PyArrow 16.
    return pa.RecordBatch.from_arrays(
        [*batch.columns, images], names=[*batch.schema.names, task.output]
    )


def described(value: Any) -> str:
    """Describe a value that is not a valid image, with its origin if that is known."""
    found = value.as_py()
    if isinstance(found, dict):
        facts = {name: found[name] for name in found if name != "data"}
        return f"{facts} with {len(found['data'] or b'')} bytes"
    return "null" if found is None else f"{len(found)} bytes that begin with {found[:12]!r}"


def struct_pixels(column: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read images of Spark's `image` source, grouped by size.

    Yields:
        Tuples of row numbers and a uint8 array (rows, height, width, channels) in the order red,
        green, blue.
    """
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    fields = dict(zip(names, column.flatten(), strict=True))
    shapes = np.stack(
        [
            fields[name].fill_null(-1).to_numpy(zero_copy_only=False)
            for name in ("height", "width", "nChannels", "mode")
        ],
        axis=1,
    )
    data = fields["data"].to_pylist()
    lengths = np.array([-1 if d is None else len(d) for d in data])
    # OpenCV's type: the depth in the lower three bits (0 for bytes), `channels - 1` in the others.
    fits = (shapes[:, 3] == (shapes[:, 2] - 1) * 8) & np.isin(shapes[:, 2], (1, 3, 4))
    fits &= (shapes[:, :2] > 0).all(axis=1) & (shapes[:, :3].prod(axis=1) == lengths)
    for height, width, depth in np.unique(shapes[fits, :3], axis=0):
        rows = np.flatnonzero(fits & (shapes[:, :3] == (height, width, depth)).all(axis=1))
        flat = np.frombuffer(b"".join(data[row] for row in rows), np.uint8)
        pixels = flat.reshape(len(rows), height, width, depth)
        yield rows, pixels if depth == 1 else pixels[..., 2::-1]


def file_pixels(column: Any, task: ImageTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode image files one by one. Yields the same as `struct_pixels`."""
    for row in range(len(column)):
        image = decoded(column[row].as_py(), task)
        if image is not None:
            yield np.array([row]), image[np.newaxis]


def decoded(content: bytes | None, task: ImageTask) -> np.ndarray | None:
    """Decode an image file. Returns `None` if it is not an image with 8 bits per channel.

    Raises:
        ClusterError: If Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ClusterError(
            "Image files are decoded with Pillow, which is missing on a worker. Install "
            "pillow for the Python of all workers, or read the files with Spark's "
            "source `image`."
        ) from error
    try:
        image = Image.open(io.BytesIO(content or b""))
        if image.mode[0] in DEEP_MODES:
            return None
        pixels = np.asarray(image.convert("L" if task.channels == "grey" else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        # Pillow raises these for a damaged file, and for one with a huge size in its header.
        return None
    return pixels.reshape(*pixels.shape[:2], -1)


def tensors(pixels: np.ndarray, task: ImageTask) -> np.ndarray:
    """Convert images of one size, in the order red, green, blue, to tensors."""
    values = resized(with_channels(pixels, task.channels), task.size, task.antialias)
    return values * np.float32(task.scale)


def with_channels(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Convert images to float32 with the requested channels."""
    values = pixels.astype(np.float32)
    if channels == "grey":
        return values if values.shape[-1] == 1 else (values @ LUMA)[..., np.newaxis]
    if values.shape[-1] == 1:
        return np.repeat(values, 3, axis=-1)
    return values[..., ::-1] if channels == "bgr" else values


def resized(values: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    """Resize images (rows, height, width, channels) with bilinear interpolation."""
    count, height, width, depth = values.shape
    if height != size[0]:
        flat = values.reshape(count, height, width * depth)
        values = axis_weights(height, size[0], antialias) @ flat
    values = values.reshape(count * size[0], width, depth)
    if width != size[1]:
        values = axis_weights(width, size[1], antialias) @ values
    return values.reshape(count, *size, depth)


@functools.lru_cache(maxsize=256)
def axis_weights(old: int, new: int, antialias: bool) -> np.ndarray:
    """Return the matrix (new, old) of the weights of old pixels along an axis for each new pixel.

    A weight decreases linearly with the distance between the centres of both pixels, and is 0 from
    a distance of 1 old pixel on. With `antialias`, it is 0 from `old / new` old pixels on, if that
    is more.
    """
    ratio = old / new
    reach = max(ratio, 1.0) if antialias else 1.0
    middles = (np.arange(new) + 0.5) * ratio - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(middles[:, np.newaxis] - np.arange(old)) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
