"""`SavedModel`: the settings of a model on Spark, and the file that keeps them."""

from __future__ import annotations

from typing import Any

from kspark import optimizers, saving
from kspark.errors import invalid
from kspark.job.report import FitReport
from kspark.plan.settings import SETTINGS
from kspark.replica.file_facts import FileFacts
from kspark.session.default import active_session
from kspark.spark_model.inference import InferenceModel
from kspark.spark_model.saved_steps import SavedStep, check_names
from kspark.spark_model.training import Outcome


class SavedModel(InferenceModel):
    """Keeps the settings of a fit, and saves them with the model. The base of `SparkModel`.

    Subclasses set an attribute for each name in `SETTINGS`.
    """

    saved_as = "SparkModel"
    mode: str
    frequency: str | int
    server_optimizer: Any
    _outcome: Outcome
    _histories: list[dict[str, list[float]]]

    @property
    def last_fit(self) -> FitReport | None:
        """Report of the last `fit` by epoch and worker, or `None`. A failed fit has one, too."""
        return self._outcome.report

    @property
    def training_histories(self) -> list[dict[str, list[float]]]:
        """The `history` dictionaries of all fits, oldest first."""
        return self._histories

    def __repr__(self) -> str:
        size = f"{self._model.count_params():,}" if self._model.built else "not built"
        return (
            f"{type(self).__name__}(model={self._model.name!r}, mode={self.mode!r}, "
            f"frequency={self.frequency!r}, workers={self.num_workers}, parameters={size})"
        )

    def get_config(self) -> dict[str, Any]:
        """Return the settings of this object as JSON data, without the Keras model."""
        values = {n: getattr(self, n) for n in SETTINGS} | {"server_optimizer": self._rule()}
        return {name: s.plain(s.checked(name, values[name])) for name, s in SETTINGS.items()}

    def save(self, path: str, overwrite: bool = True) -> None:
        """Save the model, its optimizer state and the settings of this object to one file.

        `kspark.load_spark_model` reads it. `keras.saving.load_model` reads the model in it. The
        setting `preprocess` is saved, too: a layer as its Keras file, a function by its name.

        Example:

        ```python
        spark_model.save("model.keras")
        ```

        Args:
            path: String that ends in `.keras` or `.h5`: a local path, or a URI that Spark can
                write.
            overwrite: Boolean, whether an existing file may be replaced. Defaults to `True`.

        Raises:
            FileExistsError: If the file exists and `overwrite` is `False`.
            ValueError: If the path has another ending, or `preprocess` is a function that cannot
                be imported.
        """
        facts = FileFacts.of(self._model, self.custom_objects)
        step = SavedStep.of("preprocess", self.preprocess, self.custom_objects)
        check_names(self._outcome.server_state)
        saving.save_model(
            self._model,
            self.get_config() | step.config,
            str(path),
            overwrite=overwrite,
            server_state={**self._outcome.server_state, **facts.arrays, **step.arrays},
            spark=active_session(),
            class_name=self.saved_as,
            facts=facts.data,
        )

    def _rule(self) -> optimizers.ServerOptimizer:
        """Return the server optimizer: `OneShot` with `frequency="fit"`.

        Raises:
            ValueError: If another one is set with `frequency="fit"`.
        """
        rule = optimizers.get(self.server_optimizer, self.custom_objects)
        if self.frequency != "fit":
            return rule
        if rule.name not in ("average", "one_shot"):
            requirement = '"average" with frequency="fit", which averages once, at the end'
            raise invalid("server_optimizer", requirement, rule)
        return optimizers.OneShot()
