"""Log fits to MLflow while its autologging of Keras is on.

`mlflow.keras.autolog` and `mlflow.tensorflow.autolog` replace `keras.Model.fit`, which
`SparkModel.fit` does not call. So this module logs what they log, with their own callback and
their own `log_model`: parameters, metrics per epoch, the summary of the model, and the model.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import keras

from kspark.plan import TrainingPlan

logger = logging.getLogger("kspark")

FLAVORS = {
    "keras": ("save_exported_model", "save_model_kwargs"),
    "tensorflow": ("saved_model_kwargs", "keras_model_kwargs"),
}
"""MLflow's flavors that log Keras models, and the settings that their `log_model` takes."""

PARAMETERS = (
    *("batch_size", "epochs", "initial_epoch", "shuffle", "reshuffle"),
    *("class_weight", "validation_batch_size", "validation_freq", "steps_per_epoch"),
    *("validation_steps", "mode", "frequency", "num_workers", "seed"),
)
"""Settings of a `TrainingPlan` that are logged as parameters: those of `fit`, and kspark's."""


@dataclass(frozen=True)
class Autologging:
    """MLflow's autologging of Keras, which is on.

    Attributes:
        mlflow: The module `mlflow`.
        name: String, name of the flavor.
        setting: Function of a setting's name and its default that returns the value.
    """

    mlflow: Any
    name: str
    setting: Callable[[str, Any], Any]

    @property
    def flavor(self) -> Any:
        """The module of the flavor."""
        return import_module(f"mlflow.{self.name}")

    def start_run(self) -> Any:
        """Start a run, which ends as failed if its `with` block raises."""
        tags = {**(self.setting("extra_tags", None) or {}), "mlflow.autologging": self.name}
        return self.mlflow.start_run(tags=tags)

    def callback(self) -> keras.callbacks.Callback:
        """Return MLflow's callback."""
        names = {"log_every_epoch": True, "log_every_n_steps": None}
        return self.flavor.MlflowCallback(**{n: self.setting(n, d) for n, d in names.items()})

    def log_model(self, model: keras.Model) -> None:
        """Log a trained model, and its signature if it has a fixed shape."""
        names = ("registered_model_name", *FLAVORS[self.name])
        settings = {name: self.setting(name, None) for name in names}
        if self.setting("log_model_signatures", True):
            settings["signature"] = attempt(signature_of, model)
        self.flavor.log_model(
            model, name="model", **{n: v for n, v in settings.items() if v is not None}
        )


def current() -> Autologging | None:
    """Return the autologging that is on; `None` if there is none. MLflow is not imported.

    MLflow has no public way to ask for this; its module is that of MLflow 3.17.
    """
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:
        return None
    utils = import_module("mlflow.utils.autologging_utils")
    for name in FLAVORS:
        if not utils.autologging_is_disabled(name):
            return Autologging(mlflow, name, partial(utils.get_autologging_config, name))
    return None


def signature_of(model: keras.Model) -> Any:
    """Return MLflow's signature of a Keras model."""
    return import_module("mlflow.keras.utils").get_model_signature(model)


def attempt(log: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that logs. An error of it is a warning, as in MLflow's autologging.

    Returns:
        The result of the function; `None` if it failed.
    """
    try:
        return log(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever a store of MLflow raises
        logger.warning("MLflow's autologging failed. The fit goes on. %s", error)
        return None


@contextmanager
def autologged(
    model: keras.Model,
    plan: TrainingPlan,
    validation_split: float,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Iterator[list[keras.callbacks.Callback]]:
    """Log what the block trains to MLflow, if its autologging is on.

    A run that is active is used; otherwise there is one for the block.

    Args:
        model: `keras.Model`, which the block trains.
        plan: `TrainingPlan`.
        validation_split: Float, as in `fit`.
        callbacks: Sequence of the user's callbacks.

    Yields:
        List of the callbacks, with MLflow's at the end unless the user's are of its kind.
    """
    autologging = attempt(current)
    active = autologging is not None and autologging.mlflow.active_run()
    if autologging is None or (active and autologging.setting("exclusive", False)):
        yield list(callbacks)
        return
    with ExitStack() as stack:
        if not active and not attempt(lambda: stack.enter_context(autologging.start_run())):
            yield list(callbacks)
            return
        parameters = {name: getattr(plan, name) for name in PARAMETERS}
        parameters["validation_split"] = validation_split
        attempt(autologging.mlflow.log_params, parameters)
        own = any(isinstance(c, autologging.flavor.MlflowCallback) for c in callbacks)
        yield [*callbacks] if own else [*callbacks, autologging.callback()]
        if autologging.setting("log_models", True):
            attempt(autologging.log_model, model)
        attempt(autologging.mlflow.flush_async_logging)
