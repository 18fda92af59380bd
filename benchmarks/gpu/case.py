"""Run the fits of one process. `benchmarks.gpu` starts this as a process.

What a process sees of the GPUs must be decided before the backend is imported.
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks.common.runs import answer


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case, whose `visible` is the address of the GPU, or -1 to hide all of them."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    if case["visible"] == "-1":  # JAX with CUDA raises an error where it sees no GPU.
        os.environ["JAX_PLATFORMS"] = "cpu"
    if case["engine"] == "keras" or case["address"] is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = case["visible"]
    else:  # Spark says what the tasks see, and kspark hides it from the driver.
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import kspark  # noqa: F401 - It lets the memory of GPUs grow.
    from benchmarks.gpu import fits

    return fits.run_keras(case) if case["engine"] == "keras" else fits.run_kspark(case)


if __name__ == "__main__":
    answer(run)
