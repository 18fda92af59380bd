"""Run callbacks beside a replica, on its worker.

This module imports Keras inside its functions only, because a worker must choose Keras' backend
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import Described, invalid, invalid_type
from kspark.replica.pickling import dump, load

if TYPE_CHECKING:
    import keras

    from kspark.replica.replica import Replica

TRAIN_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
"""Hooks that Keras calls for every batch that it trains."""

NAME = "worker_callbacks"

GENERAL = ("Callback", "LambdaCallback")
"""Keras' own callbacks that do what their user wants. The others belong to the driver."""


def overridden_hooks(callback: keras.callbacks.Callback, hooks: Iterable[str]) -> dict[str, str]:
    """Return the hooks that are not the empty ones of `Callback`, with their modules."""
    import keras

    found = {name: getattr(callback, name) for name in hooks}
    return {
        name: str(getattr(hook, "__module__", ""))
        for name, hook in found.items()
        if getattr(hook, "__func__", hook) is not getattr(keras.callbacks.Callback, name)
    }


def flattened(callbacks: Any) -> list[Any]:
    """Return what a list holds, and lists within it and a `CallbackList`, as Keras does."""
    import keras

    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if not isinstance(callbacks, list | tuple):
        return [callbacks]
    return [one for part in callbacks for one in flattened(part)]


def dump_callbacks(given: Any) -> bytes:
    """Pickle callbacks, or a function that makes them, for the workers.

    Raises:
        ValueError: If they cannot be pickled.
    """
    try:
        return dump({NAME: given})
    except ValueError as error:
        advice = "Or pass a function that makes the callbacks on the worker."
        raise ValueError(f"In `{NAME}`: {error} {advice}") from error


def load_callbacks(pickled: bytes) -> list[keras.callbacks.Callback]:
    """Unpickle callbacks, or let the function make them.

    Raises:
        TypeError: If they are no callbacks.
        ValueError: If one of them belongs to the driver.
    """
    import keras

    given = load(pickled)[NAME]
    if callable(given) and not isinstance(given, keras.callbacks.Callback):
        given = given()
    callbacks = flattened(given)
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise invalid_type(NAME, "a function that returns Keras callbacks", callback)
        check_belongs_to_workers(callback)
    return callbacks


def check_belongs_to_workers(callback: keras.callbacks.Callback) -> None:
    """Refuse callbacks of Keras itself that stop, save or show a whole fit.

    Raises:
        ValueError: If the callback is one of these. Subclasses of a user are not refused.
    """
    kind = type(callback)
    if kind.__module__.startswith("keras.") and kind.__name__ not in GENERAL:
        rule = (
            "callbacks of your own: those of Keras would stop, save or set something for one "
            "worker alone. Pass them as `callbacks`, which see all workers together"
        )
        raise invalid(NAME, rule, Described(kind.__name__))


class ReplicaCallbacks:
    """Runs the `worker_callbacks` of a fit beside one replica.

    Training begins with the first epoch. Without callbacks, nothing is done.

    Args:
        pickled: Bytes that `dump_callbacks` returned. Defaults to `None`: there are no callbacks.
        params: Mapping, what the callbacks get as `params`.
        may_set_weights: Boolean, whether changes of weights are exchanged. If not, they are
            refused. Defaults to `True`.

    Attributes:
        active: Boolean, whether there are callbacks.
        batches: Integer, number of batches from one call of the hooks of batches to the next; 0 if
            no callback has such hooks.
    """

    def __init__(
        self,
        pickled: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        may_set_weights: bool = True,
    ) -> None:
        self.active = pickled is not None
        self.batches = 0
        self._pickled = pickled
        self._params = dict(params or {})
        self._may_set_weights = may_set_weights
        self._attached: tuple[keras.callbacks.CallbackList, Replica] | None = None
        self._began = False
        self._epoch = 0
        self._logs: dict[str, Any] = {}

    def attach(self, replica: Replica) -> None:
        """Make the callbacks, and give them the model of a replica."""
        if self._pickled is None or self._attached is not None:
            return
        import keras

        callbacks = load_callbacks(self._pickled)
        if any(overridden_hooks(c, TRAIN_BATCH_HOOKS) for c in callbacks):
            self.batches = int(replica.model.steps_per_execution)
        replica.model.stop_training = False
        running = keras.callbacks.CallbackList(callbacks, model=replica.model, **self._params)
        self._attached = running, replica

    def precede(self, *, last: bool) -> bool:
        """Whether hooks run after a batch of the epoch, before the exchange that is due there.

        Args:
            last: Boolean, whether it is the last batch of the epoch.
        """
        return self.active and (bool(self.batches) or last)

    def begin_epoch(self, epoch: int) -> None:
        """Run the hooks of an epoch's beginning, and before the first one those of training."""
        if self._attached is None:
            return
        self._epoch = epoch
        if not self._began:
            self._began = True
            self._run("on_train_begin")
        self._run("on_epoch_begin", epoch)

    def begin_batches(self, first: int) -> None:
        """Run the hooks before batches.

        Args:
            first: Integer, number of the first of these batches in the epoch.
        """
        if self.batches:
            self._run("on_train_batch_begin", first)

    def end_batches(self, last: int) -> None:
        """Run the hooks after batches.

        Args:
            last: Integer, number of the last of these batches in the epoch.
        """
        if self.batches:
            self._note_logs()
            self._run("on_train_batch_end", last)

    def end_epoch(self) -> None:
        """Run the hooks of an epoch's end."""
        self._note_logs()
        self._run("on_epoch_end", self._epoch)

    def end(self) -> None:
        """Run the hooks of the end of training, if it has begun."""
        if self._began:
            self._began = False
            self._run("on_train_end")

    def _note_logs(self) -> None:
        if self._attached is not None:
            self._logs = self._attached[1].metric_results()

    def _run(self, hook: str, *number: int) -> None:
        """Run one hook of all callbacks.

        Args:
            hook: String.
            *number: Integer, the number of the epoch or batch, if the hook takes one.

        Raises:
            ValueError: If a callback does what a worker cannot do.
        """
        if self._attached is None:
            return
        callbacks, replica = self._attached
        before = None if self._may_set_weights else replica.get_vector()
        if hook.endswith("end"):
            getattr(callbacks, hook)(*number, dict(self._logs))
        else:
            getattr(callbacks, hook)(*number)
        where = Described(f"{hook} of worker {self._params['worker']}")
        if replica.model.stop_training:
            rule = (
                "callbacks that leave `stop_training` alone, because all workers stop together: "
                "stop in a callback of `callbacks`, which runs on the driver"
            )
            raise invalid(NAME, rule, Described(f"stop_training=True, set in {where}"))
        if before is None or np.array_equal(before, replica.get_vector(), equal_nan=True):
            return
        rule = (
            'callbacks that leave weights alone with mode="synchronous" and '
            'frequency="batch", where workers exchange gradients: use frequency=1'
        )
        raise invalid(NAME, rule, Described(f"other weights, set in {where}"))
