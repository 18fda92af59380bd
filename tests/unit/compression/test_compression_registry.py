"""Which codec is meant, and what a wrong answer says."""

from __future__ import annotations

import json
import pickle

import pytest

from kspark import compression
from kspark.compression import BFloat16, Float16, Int8, TopK

ALL = [BFloat16(), Float16(), Int8(), TopK(), TopK(0.25)]


@pytest.mark.parametrize(
    ("identifier", "codec"),
    [("float16", Float16()), ("Float16", Float16()), ("bfloat16", BFloat16()), ("int8", Int8()),
     ("top_k", TopK(0.01)), ("TopK", TopK(0.01)), (TopK, TopK(0.01)), (TopK(0.5), TopK(0.5)),
     ({"class_name": "int8"}, Int8()), ({"class_name": "top_k", "config": None}, TopK(0.01)),
     ({"class_name": "top_k", "config": {"fraction": 0.5}}, TopK(0.5)), (None, None)],
)  # fmt: skip
def test_what_is_meant(identifier, codec):
    assert compression.get(identifier) == codec


@pytest.mark.parametrize("codec", [*ALL, None])
def test_a_codec_is_plain_data(codec):
    config = json.loads(json.dumps(compression.serialize(codec)))
    assert compression.deserialize(config) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec


def test_codecs_differ():
    assert len(set(ALL)) == len(ALL)
    assert repr(TopK(0.25)) == "TopK(fraction=0.25)"


KNOWN = 'one of "bfloat16", "float16", "int8", "top_k"'


@pytest.mark.parametrize(
    ("identifier", "kind", "text"),
    [
        ("flaot16", ValueError, f'{KNOWN} ("float16" is the nearest). Received: compression=\'fl'),
        ("zip", ValueError, f"None or {KNOWN}. Received: compression='zip'"),
        (
            16,
            TypeError,
            "its configuration, or a codec of `kspark.compression`. Received: compress",
        ),
        (True, TypeError, "Received: compression=True"),
        ({"name": "int8"}, ValueError, 'must be {"class_name": a codec\'s name'),
        ({"class_name": "int8", "x": 1}, ValueError, 'must be {"class_name": a codec\'s name'),
        ({"class_name": 8}, ValueError, 'must be {"class_name": a codec\'s name'),
        ({"class_name": "top_k", "config": {"k": 1}}, ValueError, 'of "top_k" ("fraction"). Rec'),
        ({"class_name": "int8", "config": {"k": 1}}, ValueError, 'of "int8" (none). Received: c'),
        ({"class_name": "int8", "config": [1]}, ValueError, 'of "int8" (none). Received: c'),
    ],
)
def test_what_is_refused(identifier, kind, text):
    with pytest.raises(kind) as caught:
        compression.get(identifier)
    assert text in str(caught.value)
    assert str(caught.value).startswith("`compression` must be ")


def test_a_codec_that_no_saved_model_could_name_is_refused():
    class Own(Int8):
        pass

    for identifier in (Own, Own()):
        with pytest.raises(TypeError, match="or a codec of `kspark.compression`. Received: comp"):
            compression.get(identifier)


@pytest.mark.parametrize(
    ("fraction", "kind"),
    [(0, ValueError), (1.1, ValueError), (-1, ValueError), (float("nan"), ValueError),
     ("1", TypeError), (True, TypeError), (None, TypeError)],
)  # fmt: skip
def test_a_fraction_is_a_part(fraction, kind):
    with pytest.raises(kind, match="`fraction` must be a number > 0 and <= 1. Received: fraction="):
        TopK(fraction)
