"""Call the user's function that makes data, and read what it returns."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from kspark.adapters.refusals import shown, way_out
from kspark.adapters.streams import END, INFINITE, check_elements, is_stream, iterator_of, kind_of
from kspark.cluster.failures import FactoryError
from kspark.errors import Described, invalid, invalid_type
from kspark.replica.backends.randomness import OwnRandomness

RETURNS = (
    "a function of (worker, num_workers) that returns a tf.data.Dataset, a PyDataset, a "
    "DataLoader or a generator of batches"
)


@contextmanager
def users_code(randomness: OwnRandomness | None = None) -> Iterator[None]:
    """Run code of the user inside this block.

    Args:
        randomness: `OwnRandomness` of the code. Defaults to `None`: it shares the generators of
            the process.

    Raises:
        FactoryError: If it raises an exception, or calls `sys.exit`.
            `StopIteration` ends an iterator.
    """
    try:
        with nullcontext() if randomness is None else randomness.used():
            yield
    except (Exception, SystemExit) as error:
        raise FactoryError(str(error)) from error


def users_batches(data: Any, randomness: OwnRandomness | None = None) -> Generator[Any, None, None]:
    """Yield what the user's data contains, and close its iterator at the end.

    Args:
        data: What the user's function returned.
        randomness: See `users_code`.

    Raises:
        FactoryError: If the user's code raises an exception.
    """
    if kind_of(data) == "tf.data":
        check_elements(data.element_spec)
    with users_code(randomness):
        batches = iterator_of(data, limited=True)  # `check_data` has looked for an end.
    try:
        while True:
            with users_code(randomness):
                batch = next(batches, END)
            if batch is END:
                return
            yield batch
    finally:
        if hasattr(batches, "close"):
            with users_code(randomness):
                batches.close()


def check_data(data: Any, *, limited: bool) -> None:
    """Check what the user's function has returned.

    Raises:
        FactoryError: If the user's code raises an exception.
        TypeError: If it is no data of batches.
        ValueError: If it says that it has no end, but has to be read to its end.
    """
    is_other = isinstance(data, str | bytes | Mapping | tuple) or hasattr(data, "shape")
    if not is_stream(data) and (is_other or not isinstance(data, Iterable) or way_out(data)):
        received = f"a function that returned {shown(data)}"
        if isinstance(data, tuple):
            received += ". For a single batch, `yield` it"
        elif is_other or hasattr(data, "columns"):
            received += ". `yield` batches `(x, y)` of arrays in place of it"
        raise invalid_type("x", RETURNS, Described(received))
    kind = kind_of(data)
    with users_code():
        endless = kind == "tf.data" and int(data.cardinality()) == INFINITE
        endless = endless or (kind == "PyDataset" and data.num_batches is None)
    if endless and not limited:
        rule = (
            "a function whose data has an end, or used with `steps_per_epoch`, "
            "`validation_steps` or `steps`"
        )
        raise invalid("x", rule, Described("a function that returned an infinite data set"))
