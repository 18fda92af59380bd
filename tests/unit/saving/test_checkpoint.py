"""The file of a checkpoint: everything comes back as it was, and nothing else is read."""

from __future__ import annotations

import json
import math
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from kspark.saving.checkpoint import DOCUMENT, open_checkpoint, write_checkpoint


def written(path, content, shards=()):
    write_checkpoint(str(path), content, shards)
    with open_checkpoint(str(path), "mine") as reader:
        return reader.content


def test_json_arrays_and_numpy_scalars_come_back_with_their_types(tmp_path):
    content = {
        "text": "ä",
        "numbers": [1, 0.1, True, None, -math.inf],
        "nested": {"a": {"b": [np.arange(3, dtype=np.int8), {"c": np.ones((2, 0))}]}},
        "scalar": np.float32(0.1),
        "flag": np.bool_(True),
        "words": np.array(["one", "three"]),
        "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    found = written(tmp_path / "a", content)
    assert found["text"] == "ä" and found["numbers"] == content["numbers"]
    assert [type(one) for one in found["numbers"]] == [int, float, bool, type(None), float]
    (small, empty) = found["nested"]["a"]["b"]
    assert small.dtype == np.int8 and small.tolist() == [0, 1, 2]
    assert empty["c"].shape == (2, 0)
    assert type(found["scalar"]) is np.float32 and found["scalar"] == np.float32(0.1)
    assert type(found["flag"]) is np.bool_
    assert found["words"].tolist() == ["one", "three"]
    np.testing.assert_array_equal(found["order"], content["order"])


def test_nan_comes_back_and_bfloat16_as_float32(tmp_path):
    given = {"nan": math.nan, "half": np.array([1.5, -2.0], ml_dtypes.bfloat16)}
    found = written(tmp_path / "a", given)
    assert math.isnan(found["nan"])
    assert found["half"].dtype == np.float32 and found["half"].tolist() == [1.5, -2.0]


def test_files_of_shards_come_back_by_kind(tmp_path):
    files = {"state": np.frombuffer(b"abc", np.uint8), "residual": np.empty(0, np.uint8)}
    write_checkpoint(str(tmp_path / "a"), {}, iter([(3, files), (31, {}), (33, files)]))
    with open_checkpoint(str(tmp_path / "a"), "mine") as reader:
        for shard in (3, 33):
            found = reader.shard(shard)
            assert {kind: data.tobytes() for kind, data in found.items()} == {
                "state": b"abc",
                "residual": b"",
            }
        assert reader.shard(31) == reader.shard(1) == {}


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a": {"b": {1, 2}}}, np.array([object()]), {"$array": 0}, b"a"]
)
def test_other_values_are_refused(tmp_path, value):
    with pytest.raises(TypeError, match="must be numbers, text or arrays, in lists"):
        write_checkpoint(str(tmp_path / "a"), {"value": value}, ())


def archive(path, **entries):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name.replace("__", "/").replace("_json", ".json"), content)


def refuse(path):
    rule = r"`checkpoint` must be an intact checkpoint .*the one before\. Received: .*'mine'"
    with pytest.raises(ValueError, match=rule), open_checkpoint(str(path), "mine"):
        raise AssertionError("It was opened.")


def test_damaged_files_and_other_files_are_refused(tmp_path):
    path = tmp_path / "a"
    write_checkpoint(str(path), {"weights": np.arange(1000.0)}, ())
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[: len(whole) // 2],
        b"text",
        whole.replace(b"\0\0\x40\x40", b"1234"),
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        refuse(path)
    archive(path, other="text")
    refuse(path)
    for document in ("[1]", '{"format": 2, "content": {}}', "{", '{"format": 1}'):
        archive(path, checkpoint_json=document)
        refuse(path)
    assert DOCUMENT == "checkpoint.json"


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("It was unpickled.",))


def test_pickles_are_not_read(tmp_path, capsys):
    content = json.dumps({"format": 1, "content": {"a": {"$array": 0}}})
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        file.writestr(DOCUMENT, content)
        with file.open("arrays/0.npy", "w") as entry:
            np.lib.format.write_array(entry, np.array([Harmful()]))
    refuse(tmp_path / "a")
    archive(tmp_path / "a", checkpoint_json=pickle.dumps(Harmful()))
    refuse(tmp_path / "a")
    assert capsys.readouterr().out == ""
