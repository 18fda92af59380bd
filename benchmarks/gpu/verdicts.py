"""What the figures of the processes say: one verdict per check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

RTOL, ATOL = 1e-3, 1e-5
"""How far weights may differ between devices that add in another order."""

POINTS = 0.05
"""How much lower than that of plain Keras an accuracy may be."""

Verdict = tuple[bool, str]


def verdicts(
    device: str, address: str, backend: str, found: Mapping[str, Any]
) -> Iterator[Verdict]:
    """Judge the results of all processes.

    Args:
        device: String, `"gpu"` or `"cpu"`.
        address: String, the address of the GPU that Spark gave the tasks.
        backend: String, the Keras backend.
        found: Mapping from `"keras"` and `"kspark"` to the results on the device.
    """
    fits = found["kspark"]["fits"]
    workers = [worker for fit in fits.values() for worker in fit["workers"]]
    places = {worker["place"] for worker in workers} | {found["keras"]["place"]}
    yield all(is_on(device, p) for p in places), f"the weights are on: {', '.join(sorted(places))}"
    driver = found["kspark"]["driver"]
    yield is_on("cpu", driver), f"the driver's weights are on: {driver}"
    seen = {str(worker["visible"]) for worker in workers}
    yield seen == {address}, f"workers see the GPUs: {', '.join(sorted(seen))}"
    for name, fit in fits.items():
        processes = {worker["process"] for worker in fit["workers"]}
        yield len(processes) == 2, f"{name}: {len(processes)} workers share it"
    warm = {str(worker["warm"]) for worker in workers}
    yield warm == {backend}, f"workers were forked with the backend: {', '.join(sorted(warm))}"
    for name, fit in fits.items():
        accuracy, plain = fit["accuracy"], found["keras"]["accuracy"]
        text = f"{name}: accuracy {accuracy:.3f}, plain Keras {plain:.3f}"
        yield accuracy >= plain - POINTS, text


def is_on(device: str, place: str) -> bool:
    """Whether a backend's words for a device mean a GPU, or the CPU."""
    on_gpu = any(word in place.lower() for word in ("gpu", "cuda", "rocm"))
    return on_gpu == (device == "gpu")


def equal_weights(
    device: Mapping[str, np.ndarray], cpu: Mapping[str, np.ndarray]
) -> Iterator[Verdict]:
    """Compare the weights of the same fits on two devices."""
    for name in device:
        close = np.allclose(device[name], cpu[name], rtol=RTOL, atol=ATOL)
        difference = float(np.abs(device[name] - cpu[name]).max())
        yield (
            bool(close),
            f"{name}: weights differ from those on the CPU by {difference:.1e} at most",
        )
