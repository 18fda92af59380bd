"""The verdicts of the check on a GPU, without one: each fails for what it is about, and only it."""

import copy

import numpy as np
import pytest

from benchmarks.gpu.verdicts import equal_weights, is_on, verdicts

GPU, CPU = "/job:localhost/replica:0/task:0/device:GPU:0", "cpu"


def figures():
    workers = [
        {"process": 7, "visible": "0", "warm": "tensorflow", "place": GPU},
        {"process": 8, "visible": "0", "warm": "tensorflow", "place": GPU},
    ]
    fits = {name: {"accuracy": 0.9, "workers": copy.deepcopy(workers)} for name in "ab"}
    return {
        "keras": {"place": GPU, "accuracy": 0.94},
        "kspark": {"fits": fits, "driver": CPU},
    }


def failed(found):
    return [text for holds, text in verdicts("gpu", "0", "tensorflow", found) if not holds]


def worker(found):
    return found["kspark"]["fits"]["b"]["workers"][1]


def test_all_checks_hold():
    assert failed(figures()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: worker(f).update(place=CPU), "the weights are on: .*cpu"),
        (lambda f: f["keras"].update(place=CPU), "the weights are on: .*cpu"),
        (lambda f: f["kspark"].update(driver="cuda:0"), "the driver's weights are on: cuda:0"),
        (lambda f: worker(f).update(visible=None), "workers see the GPUs: 0, None"),
        (lambda f: worker(f).update(process=7), "b: 1 workers share it"),
        (lambda f: worker(f).update(warm=None), "forked with the backend: None, tensorflow"),
        (lambda f: f["kspark"]["fits"]["a"].update(accuracy=0.8), "a: accuracy 0.800, plain"),
    ],
)
def test_a_check_fails(change, complaint):
    found = figures()
    change(found)
    (text,) = failed(found)
    assert complaint.split(".*")[0] in text
    assert complaint.split(".*")[-1] in text


@pytest.mark.parametrize("place", [GPU, "cuda:0", "[CudaDevice(id=0)]"])
def test_backends_name_gpus_in_their_own_words(place):
    assert is_on("gpu", place)
    assert not is_on("cpu", place)
    assert is_on("cpu", "TFRT_CPU_0")


def test_weights_may_differ_by_rounding_only():
    weights = np.full(4, 0.25, "f4")
    other = {"a": weights * (1 + 1e-5), "b": weights + 0.01}
    found = dict(zip("ab", equal_weights({"a": weights, "b": weights}, other), strict=True))
    assert found["a"][0]
    assert found["b"] == (False, "b: weights differ from those on the CPU by 1.0e-02 at most")
