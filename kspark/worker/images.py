"""Images to tensors, in the task that reads them. Needs no Keras: NumPy resizes, Pillow decodes."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark import TaskContext

from kspark.adapters.base import CHUNK_BYTES
from kspark.adapters.conform import Place
from kspark.errors import ClusterError
from kspark.worker.scores import nested

CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""How much red, green and blue count for grey (ITU-R BT.601)."""

DEEP_MODES = ("I", "F")
"""First letters of Pillow's modes of more than 8 bits, which `convert` would cut off at 255."""


@dataclass(frozen=True)
class ImageTask:
    """What becomes of the images of one column.

    Attributes:
        name: String, the column.
        index: Integer, its place among the columns.
        output: String, the new column.
        size: Tuple of integers (height, width).
        channels: String, a key of `CHANNELS`.
        scale: Float.
        antialias: Boolean.
        drop_invalid: Boolean.
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
        """The shape of one tensor."""
        return (*self.size, CHANNELS[self.channels])


def convert_batches(task: ImageTask, batches: Iterator[Any]) -> Iterator[Any]:
    """Record batches with one more column, that of the tensors."""
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
    """Some rows with their tensors, without those that hold no image if they are dropped.

    Raises:
        ValueError: For the first row that holds none, if they are not dropped.
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
    return batch.append_column(task.output, nested(out.reshape(-1), (int(np.prod(task.shape)),)))


def described(value: Any) -> str:
    """What was found in place of an image, and where it came from if that is known."""
    found = value.as_py()
    if isinstance(found, dict):
        facts = {name: found[name] for name in found if name != "data"}
        return f"{facts} with {len(found['data'] or b'')} bytes"
    return "null" if found is None else f"{len(found)} bytes that begin with {found[:12]!r}"


def struct_pixels(column: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images of Spark's `image` source, those of one size together.

    Yields:
        Pairs of rows and array (rows, height, width, channels) of bytes, red first.
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
    # OpenCV's types: the depth in the lower three bits, 0 for bytes, and channels - 1 above.
    fits = (shapes[:, 3] == (shapes[:, 2] - 1) * 8) & np.isin(shapes[:, 2], (1, 3, 4))
    fits &= (shapes[:, :2] > 0).all(axis=1) & (shapes[:, :3].prod(axis=1) == lengths)
    for height, width, depth in np.unique(shapes[fits, :3], axis=0):
        rows = np.flatnonzero(fits & (shapes[:, :3] == (height, width, depth)).all(axis=1))
        flat = np.frombuffer(b"".join(data[row] for row in rows), np.uint8)
        pixels = flat.reshape(len(rows), height, width, depth)
        yield rows, pixels if depth == 1 else pixels[..., 2::-1]


def file_pixels(column: Any, task: ImageTask) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decoded image files, one by one, as `struct_pixels` gives them."""
    for row in range(len(column)):
        image = decoded(column[row].as_py(), task)
        if image is not None:
            yield np.array([row]), image[np.newaxis]


def decoded(content: bytes | None, task: ImageTask) -> np.ndarray | None:
    """The pixels of an image file, or `None` if it is none of 8 bits per channel.

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
        # Pillow's words for a damaged file, and for one that claims a huge size.
        return None
    return pixels.reshape(*pixels.shape[:2], -1)


def tensors(pixels: np.ndarray, task: ImageTask) -> np.ndarray:
    """Images of one size, red first, as a task wants them."""
    values = resized(with_channels(pixels, task.channels), task.size, task.antialias)
    return values * np.float32(task.scale)


def with_channels(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Images as float32 with the channels asked for, in their order."""
    values = pixels.astype(np.float32)
    if channels == "grey":
        return values if values.shape[-1] == 1 else (values @ LUMA)[..., np.newaxis]
    if values.shape[-1] == 1:
        return np.repeat(values, 3, axis=-1)
    return values[..., ::-1] if channels == "bgr" else values


def resized(values: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    """Images (rows, height, width, channels) of another size, bilinearly."""
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
    """Matrix (new, old): how much each old place along an axis counts for each new one.

    A place counts the less the farther its middle is from the new one's, down to nothing at
    a distance of 1, or, smoothed, of as many places as become one.
    """
    ratio = old / new
    reach = max(ratio, 1.0) if antialias else 1.0
    middles = (np.arange(new) + 0.5) * ratio - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(middles[:, np.newaxis] - np.arange(old)) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
