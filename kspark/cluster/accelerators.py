"""Give each Python worker the GPUs that Spark has assigned to its task.

Spark counts GPUs (`spark.task.resource.gpu.amount`) and tells a task the addresses of its own, but
does not hide the others. TensorFlow, JAX and PyTorch see the GPUs in `CUDA_VISIBLE_DEVICES`, which
they read when they first use a device, not when they are imported. So every task of kspark sets it
before anything else, also in a worker that was forked with the backend imported.

A process cannot change its GPUs after the backend has used them. If Spark reuses a worker for a
task with other addresses, the task fails at once, and Spark starts it again in another worker.

This module imports nothing of kspark, because `import kspark` imports it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

logger = logging.getLogger("kspark")

GPU = "gpu"
"""Spark's name of the resource."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable of CUDA: the GPUs that a process sees, in the order of its devices."""

NONE = "-1"
"""Value of `VISIBLE` that hides all GPUs."""

JAX_PLATFORMS = "JAX_PLATFORMS"
"""Environment variable of JAX: the kinds of devices that it looks for."""

TORCH_DEVICE = "KERAS_TORCH_DEVICE"
"""Environment variable of Keras: the device of the backend PyTorch. Keras reads it, and looks for a
GPU otherwise, when it is imported."""

ORDER = "CUDA_DEVICE_ORDER"
"""Environment variable of CUDA: how GPUs are numbered. Spark's discovery script prints the numbers
of `nvidia-smi`, which are those of the PCI bus; CUDA by default begins with the fastest GPU."""

HIDES = "KSPARK_HIDES"
"""Environment variable of kspark: a JSON object with the variables that kspark has set to hide GPUs
from the driver. Processes that the driver starts inherit it, as they do these variables."""

TAKEN = "KSPARK_GPUS"
"""Environment variable of the workers: the addresses of the first task of kspark in a process."""

GROWING = {
    # TensorFlow otherwise takes all the memory of each GPU that it sees, and JAX three quarters.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
"""Variables that let backends take a GPU's memory as they need it, so that tasks can share one."""

BACKENDS = ("tensorflow", "jax", "torch")

REPLACEMENTS = 2
"""How often Spark starts a task again to find a worker with its GPUs. By default, Spark gives up
after four failures of a task, so the others are left for failures of another kind."""


class DevicesChangedError(RuntimeError):
    """A worker cannot take the GPUs of its task. Spark starts the task again in another one."""


def grow_memory() -> None:
    """Let the backend of this process take the memory of GPUs as it needs it.

    Has no effect on variables that the user has set, or on a backend that uses a GPU already.
    """
    for name, value in GROWING.items():
        os.environ.setdefault(name, value)


def take_devices() -> None:
    """Let this process see the GPUs of the task that it runs, and no others.

    Does nothing outside of tasks. A task without GPUs leaves what the process sees as it is.

    Raises:
        DevicesChangedError: If the backend may use other GPUs already.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    if context is None:
        return
    grow_memory()
    wanted, taken = ",".join(addresses_of(context)), os.environ.get(TAKEN)
    if taken is not None and taken != wanted and has_backend():
        leave_or_stay(wanted, taken, context.attemptNumber())
        return
    os.environ[TAKEN] = wanted
    if wanted:
        unhide()  # A worker may have inherited what hides the GPUs from the driver.
        os.environ[VISIBLE] = wanted
        os.environ.setdefault(ORDER, "PCI_BUS_ID")


def addresses_of(context: Any) -> list[str]:
    """Return the addresses of a task's GPUs, which Spark may list in any order.

    Args:
        context: `pyspark.TaskContext`.
    """
    found = (context.resources() or {}).get(GPU)
    return [] if found is None else in_order(found.addresses)


def in_order(addresses: Iterable[str]) -> list[str]:
    """Sort addresses, numbers by their value."""
    return sorted(addresses, key=lambda address: (len(address), address))


def has_backend() -> bool:
    """Whether the code of a backend is in memory, which may then have used a GPU."""
    return any(name in sys.modules for name in BACKENDS)


def leave_or_stay(wanted: str, taken: str, attempt: int) -> None:
    """Fail, so that another worker runs the task; or stay, if Spark has tried that often enough.

    Raises:
        DevicesChangedError: Unless `attempt` is at least `REPLACEMENTS`.
    """
    if attempt < REPLACEMENTS:
        raise DevicesChangedError(
            f"This Python worker uses {described(taken)}, and its task may use "
            f"{described(wanted)}. Spark starts the task again in another worker."
        )
    logger.warning(
        "A Python worker goes on with %s instead of %s: Spark found no other worker for its task.",
        described(taken),
        described(wanted),
    )


def described(addresses: str) -> str:
    """Return the addresses of GPUs for messages."""
    return f"GPU {addresses}" if addresses else "no GPU of Spark"


def keep_from_driver(spark: Any) -> None:
    """Hide the GPUs from this process, if they are for tasks, and the driver has none of its own.

    The driver's are those of `spark.driver.resource.gpu.amount`, or what the user has set in
    `CUDA_VISIBLE_DEVICES`. What kspark has set for an earlier session is taken back first. Has no
    effect on a backend that uses a GPU already.

    Args:
        spark: `SparkSession`. Those of Spark Connect are left alone.
    """
    context = getattr(spark, "sparkContext", None)
    if context is None:
        return
    unhide()
    if VISIBLE in os.environ:
        return
    if not float(context.getConf().get(f"spark.task.resource.{GPU}.amount", "0") or 0):
        return
    own = context.resources.get(GPU)
    if own is None:
        hide_all()
    else:
        set_own({VISIBLE: ",".join(in_order(own.addresses))})
        os.environ.setdefault(ORDER, "PCI_BUS_ID")


def hide_all() -> None:
    """Hide all GPUs from the backend of this process, unless it uses one already."""
    # JAX with CUDA, at least up to 0.9, raises an error if it looks for a GPU and sees none. It
    # reads its variable when it is imported.
    others = [name for name in (JAX_PLATFORMS, TORCH_DEVICE) if name not in os.environ]
    set_own({VISIBLE: NONE, **dict.fromkeys(others, "cpu")})
    jax: Any = sys.modules.get("jax")
    if jax is not None and not jax.config.jax_platforms:
        jax.config.update("jax_platforms", "cpu")


def set_own(values: Mapping[str, str]) -> None:
    """Set environment variables, and note that it was kspark that set them."""
    os.environ.update(values)
    os.environ[HIDES] = json.dumps(dict(values))


def unhide() -> None:
    """Remove the variables that kspark has set to hide GPUs, unless they were changed since."""
    for name, value in json.loads(os.environ.pop(HIDES, "{}")).items():
        if os.environ.get(name) != value:
            continue
        del os.environ[name]
        jax: Any = sys.modules.get("jax")
        if name == JAX_PLATFORMS and jax is not None and jax.config.jax_platforms == value:
            jax.config.update("jax_platforms", None)
