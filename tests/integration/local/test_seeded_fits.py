"""Seeded fits give what they gave with kspark 0.1.

`tests/fixtures/v0.1/fits.py` has the fits and wrote their results. In the environment that it
recorded, results are the same bytes; elsewhere they are the same up to rounding. Which of the two
is compared is in the message of a failure. A change that makes other results on purpose runs the
script again, and says so in the change log.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "fixtures" / "v0.1" / "fits.py"
FITS = runpy.run_path(str(SCRIPT))
RECORDED = json.loads(FITS["FACTS"].read_text(encoding="utf-8"))
ATOL = 1e-3
"""Adam divides each gradient by its size. So where a gradient is almost zero, the rounding of
another processor moves a weight by up to the learning rate, 0.01, in each step: 2e-4 was seen."""


@pytest.fixture(scope="module")
def arrays():
    with np.load(FITS["ARRAYS"]) as file:
        return dict(file)


@pytest.fixture(scope="module")
def other():
    """What of this environment differs from the recorded one."""
    here, recorded = FITS["environment"](), RECORDED["environment"]
    return [name for name in recorded if here.get(name) != recorded[name]]


def compare(name, found, expected, other):
    if other:
        message = f"{name}: within {ATOL}, because of another {', '.join(other)} than recorded"
        np.testing.assert_allclose(found, expected, rtol=0, atol=ATOL, err_msg=message)
        return
    message = f"{name}: byte for byte, because the environment is the recorded one"
    assert found.dtype == expected.dtype, message
    np.testing.assert_array_equal(found, expected, err_msg=message)
    assert found.tobytes() == expected.tobytes(), message


@pytest.mark.parametrize("name", FITS["CASES"])
def test_seeded_fit_gives_the_recorded_weights_and_report(spark, arrays, other, name):
    found, facts = FITS["trained"](spark, name)
    expected = {
        k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")
    }
    assert set(found) == set(expected)
    for key, value in found.items():
        compare(f"{name}/{key}", value, expected[key], other)
    assert json.loads(json.dumps(facts)) == RECORDED["fits"][name]


def test_comparison_tells_which_one_it_is():
    one = np.float32([1.0])
    other = one + np.float32(1e-6)
    compare("weights", other, one, ["processor"])
    with pytest.raises(AssertionError, match="byte for byte, because the environment is the rec"):
        compare("weights", other, one, [])
    with pytest.raises(AssertionError, match="within 0.001, because of another processor, keras"):
        compare("weights", one + 1, one, ["processor", "keras"])
