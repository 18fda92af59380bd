"""Image rows to tensors: values against numpy's own arithmetic, Keras' resizing and Pillow."""

import io
import sys

import keras
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kspark.errors import ClusterError
from kspark.worker import images
from kspark.worker.images import ImageTask

MODES = {1: 0, 3: 16, 4: 24}
STRUCT = pa.struct(
    [
        ("origin", pa.string()),
        *((name, pa.int32()) for name in ("height", "width", "nChannels", "mode")),
        ("data", pa.binary()),
    ]
)


def task(**changes):
    values = {
        "name": "image",
        "index": 1,
        "output": "features",
        "size": (2, 3),
        "channels": "rgb",
        "scale": 1.0,
        "antialias": False,
        "drop_invalid": False,
    }
    return ImageTask(**{**values, **changes})


def struct(pixels, **changes):
    """What the `image` source gives for pixels in its own order, blue first."""
    height, width, channels = pixels.shape
    row = {"origin": "file:/a.png", "height": height, "width": width, "nChannels": channels}
    return {**row, "mode": MODES[channels], "data": pixels.tobytes(), **changes}


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def batch(rows, kind=STRUCT):
    columns = [pa.array(range(len(rows))), pa.array(rows, kind)]
    return pa.RecordBatch.from_arrays(columns, names=["id", "image"])


def converted(rows, kind=STRUCT, **changes):
    """Ids and tensors of some rows."""
    wanted = task(**changes)
    found = list(images.convert_batches(wanted, iter([batch(rows, kind)])))
    table = pa.Table.from_batches(found)
    assert table.column_names == ["id", "image", "features"]
    assert table.schema.field("features").type == pa.list_(pa.float32())
    tensors = np.array(table["features"].to_pylist()).reshape(-1, *wanted.shape)
    return table["id"].to_pylist(), tensors


def random_pixels(*shape):
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


BGR = np.array(
    [[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8
)


@pytest.mark.parametrize(
    ("channels", "first", "last"),
    [("rgb", [3, 2, 1], [90, 80, 70]), ("bgr", [1, 2, 3], [70, 80, 90])],
)
def test_channels_are_ordered_as_requested(channels, first, last):
    _, (tensor,) = converted([struct(BGR)], channels=channels)
    assert tensor[0, 0].tolist() == first
    assert tensor[1, 2].tolist() == last


def test_grey_is_the_weighted_sum_of_red_green_and_blue():
    _, (tensor,) = converted([struct(BGR)], channels="grey")
    # 0.299 * 3 + 0.587 * 2 + 0.114 * 1
    np.testing.assert_allclose(tensor[0, 0], [2.185], rtol=1e-6)
    blue, green, red = np.moveaxis(BGR.astype(float), -1, 0)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(tensor[..., 0], expected, rtol=1e-6)


def test_one_channel_becomes_three_equal_ones_and_alpha_is_left_out():
    grey, with_alpha = BGR[..., :1], np.concatenate([BGR, BGR[..., :1]], axis=-1)
    _, (from_grey, from_alpha) = converted([struct(grey), struct(with_alpha)])
    np.testing.assert_array_equal(from_grey, np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(from_alpha, BGR[..., ::-1])
    _, (stays,) = converted([struct(grey)], channels="grey")
    np.testing.assert_array_equal(stays, grey)


def test_pixel_values_are_multiplied_by_the_scale():
    _, (tensor,) = converted([struct(BGR)], scale=1 / 255)
    np.testing.assert_allclose(tensor, BGR[..., ::-1] / 255, rtol=1e-6)


def test_resizing_matches_a_calculation_by_hand():
    line = np.array([[[0], [100]]], np.uint8)
    _, (tensor,) = converted([struct(line)], channels="grey", size=(1, 4))
    # The middles of the new places lie at -0.25, 0.25, 0.75 and 1.25 of the old ones.
    np.testing.assert_allclose(tensor[0, :, 0], [0, 25, 75, 100], atol=1e-5)
    four = np.array([[[0], [10], [20], [60]]], np.uint8)
    for antialias, expected in [
        (False, [5, 40]),
        # Distances 0.5, 0.5 and 1.5 of 2: weights 3, 3 and 1.
        (True, [(3 * 0 + 3 * 10 + 20) / 7, (10 + 3 * 20 + 3 * 60) / 7]),
    ]:
        _, (tensor,) = converted([struct(four)], channels="grey", size=(1, 2), antialias=antialias)
        np.testing.assert_allclose(tensor[0, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("old", "new"), [((7, 9), (14, 5)), ((8, 8), (28, 28)), ((40, 3), (6, 3))])
def test_resizing_equals_that_of_keras(old, new, antialias):
    pixels = random_pixels(*old, 3)
    _, (tensor,) = converted([struct(pixels)], size=new, antialias=antialias, channels="bgr")
    expected = keras.ops.image.resize(pixels.astype("float32"), new, antialias=antialias)
    np.testing.assert_allclose(tensor, keras.ops.convert_to_numpy(expected), atol=0.01)


def test_images_of_several_sizes_keep_their_rows():
    sizes = [(2, 3), (4, 6), (2, 3), (6, 2), (4, 6)]
    rows = [struct(np.full((*size, 3), 10 * i, np.uint8)) for i, size in enumerate(sizes)]
    ids, tensors = converted(rows)
    assert ids == [0, 1, 2, 3, 4]
    for i, tensor in enumerate(tensors):
        np.testing.assert_allclose(tensor, 10 * i, rtol=1e-6)


def test_files_and_structs_give_the_same_tensors():
    pixels = random_pixels(5, 4, 3)
    for channels, tolerance in [("rgb", 0), ("bgr", 0), ("grey", 0.51)]:
        _, of_struct = converted([struct(pixels[..., ::-1])], channels=channels)
        _, of_file = converted([encoded(pixels)], pa.binary(), channels=channels)
        np.testing.assert_allclose(of_file, of_struct, atol=tolerance)
    _, of_grey = converted([encoded(pixels[..., 0])], pa.binary(), size=(5, 4))
    np.testing.assert_array_equal(of_grey[0], np.repeat(pixels[..., :1], 3, axis=-1))


def test_a_large_batch_is_split_without_losing_rows():
    rows = [struct(np.full((1, 1, 3), i % 256, np.uint8)) for i in range(40)]
    wanted = task(size=(300, 300))
    parts = list(images.convert_batches(wanted, iter([batch(rows[:30]), batch(rows[30:])])))
    assert len(parts) > 4
    assert [i for part in parts for i in part.column("id").to_pylist()] == [*range(30), *range(10)]
    firsts = [row[0].as_py() for part in parts for row in part.column("features")]
    assert firsts == list(range(40))


BAD_STRUCTS = [
    None,
    struct(BGR, height=-1, width=-1, nChannels=-1, mode=-1, data=b""),
    struct(BGR, data=BGR.tobytes()[1:]),
    struct(BGR, data=None),
    struct(BGR, mode=21),  # floats of 32 bits
    struct(BGR, nChannels=2, mode=8),
    struct(BGR[:0], data=b""),
]
GOOD = encoded(BGR)
BAD_FILES = [
    None,
    b"",
    b"text",
    GOOD[:50],
    GOOD[:41] + bytes(len(GOOD) - 41),
    encoded(np.array([[1, 60000]], np.uint16)),
]


@pytest.mark.parametrize(
    ("good", "bad", "kind"),
    [
        *((struct(BGR), bad, STRUCT) for bad in BAD_STRUCTS),
        *((GOOD, bad, pa.binary()) for bad in BAD_FILES),
    ],
    ids=lambda value: "",
)
def test_an_invalid_image_raises_an_error_or_is_dropped(good, bad, kind):
    rows = [good, good, bad, good]
    rule = r"Column 'image' must hold images of 8 bits per channel.* in row 2 of partition 0"
    with pytest.raises(ValueError, match=rule):
        converted(rows, kind)
    ids, tensors = converted(rows, kind, drop_invalid=True)
    assert ids == [0, 1, 3]
    assert tensors.shape == (3, 2, 3, 3)
    np.testing.assert_array_equal(tensors[2], tensors[0])
    assert converted([bad], kind, drop_invalid=True)[0] == []


def test_the_error_describes_the_invalid_image():
    bad = struct(BGR, height=-1, width=-1, nChannels=-1, mode=-1, data=b"")
    with pytest.raises(ValueError, match=r"'origin': 'file:/a.png', 'height': -1.* with 0 bytes"):
        converted([bad])
    with pytest.raises(ValueError, match="4 bytes that begin with b'text' in row 0"):
        converted([b"text"], pa.binary())


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
@pytest.mark.parametrize("channels", ["grey", "rgb"])
def test_grey_images_of_more_than_8_bits_are_refused(kind, channels):
    deep = encoded(np.array([[1, 60000]], np.uint16), kind)
    assert converted([deep], pa.binary(), channels=channels, drop_invalid=True)[0] == []


def test_the_error_without_pillow_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ClusterError, match=r"Pillow, which is missing .* Install pillow"):
        converted([GOOD], pa.binary())
    assert len(converted([struct(BGR)])[0]) == 1
