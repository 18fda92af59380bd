"""Save and load stages, on any path that Spark can write.

```
<path>/metadata/      class, uid, Params and training summary as JSON, like all Spark stages
<path>/model.keras    the Keras model, if the stage has one
<path>/preprocess.keras, <path>/augment.keras    these Params, if they are Keras layers
```

Over Spark Connect, the Keras files are folders of rows, see `row_files.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import FunctionType
from typing import Any, Generic, TypeVar

import keras
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWriter

from kspark import saving
from kspark.cluster.remote import is_connect
from kspark.errors import invalid
from kspark.ml import row_files
from kspark.ml.carried import CarriedModel
from kspark.replica.file_facts import FileFacts
from kspark.replica.import_names import name_to_save, restored
from kspark.replica.model_bytes import REBUILD_ERRORS
from kspark.saving.document import Document
from kspark.saving.hadoop import qualified
from kspark.saving.uncompiled import load_uncompiled
from kspark.spark_model.saved_steps import FUNCTION, kind_of, load_layer, save_layer

MODEL = "model"
"""Name of the model's file, without its extension."""

FILES, ROWS = "files", "rows"
"""Entry of the metadata: the Keras files are written as rows."""

STEPS = ("preprocess", "augment")
"""Params that are functions, of which the name is saved, or layers, which have files."""

NOT_SAVED = frozenset({"callbacks", "custom_objects", *STEPS})

S = TypeVar("S", bound=MLReadable[Any])


class StageWriter(MLWriter):
    """Writes a stage.

    Args:
        stage: `Stage`.
    """

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.stage = stage

    def save(self, path: str) -> None:
        """Write to a path. What is there is replaced after `overwrite()`."""
        if not is_connect(self.sparkSession):
            super().save(path)
            return
        if self.shouldOverwrite:
            row_files.clear(self.sparkSession, path)
        self.saveImpl(path)

    def saveImpl(self, path: str) -> None:
        """Write to a path that does not exist.

        Over Spark Connect, the metadata are written last, so that a stage whose writing failed
        cannot be loaded without its Keras files.
        """
        spark = self.sparkSession
        params = {
            p.name: self.stage.getOrDefault(p)
            for p in self.stage.params
            if self.stage.isSet(p) and p.name not in NOT_SAVED
        }
        carried = self.stage.to_save()
        extra = {**self.stage.extra_metadata(), "hasModel": carried is not None}
        set_steps = {
            name: self.stage.value_of(name)
            for name in STEPS
            if self.stage.hasParam(name) and self.stage.isSet(name)
        }
        extra["steps"] = {name: described_step(name, step) for name, step in set_steps.items()}
        if is_connect(spark):
            extra[FILES] = ROWS
            self._save_files(path, carried, set_steps)
            DefaultParamsWriter.saveMetadata(self.stage, path, spark, extra, params)
        else:
            DefaultParamsWriter.saveMetadata(self.stage, path, self.sc, extra, params)
            self._save_files(path, carried, set_steps)

    def _save_files(
        self, path: str, carried: CarriedModel | None, set_steps: Mapping[str, Any]
    ) -> None:
        """Write the Keras files of a stage: its model, and its steps that are layers.

        Args:
            path: String, the path of the stage.
            carried: `CarriedModel`, or `None`.
            set_steps: Mapping from names to the steps that are set.
        """
        spark = self.sparkSession
        objects = {} if carried is None else carried.custom_objects
        for name, step in set_steps.items():
            if step is not None and kind_of(step) != FUNCTION:
                with self._writing(path, name) as file:
                    save_layer(step, file, objects, spark)
        if carried is not None:
            carried.build_optimizer()
            facts = FileFacts.of(carried.model, carried.custom_objects)
            with self._writing(path, MODEL) as file:
                saving.save_model(
                    carried.model,
                    {},
                    file,
                    spark=spark,
                    server_state=facts.arrays,
                    facts=facts.data,
                )

    def _writing(self, path: str, name: str) -> AbstractContextManager[str]:
        """Provide the path of a Keras file, for a function that writes it."""
        file = keras_file(path, name)
        if is_connect(self.sparkSession):
            return row_files.writing(self.sparkSession, file)
        return nullcontext(qualified(file, self.sparkSession))


class StageReader(MLReader[S], Generic[S]):
    """Reads a stage.

    Args:
        cls: Class of the stage.
    """

    def __init__(self, cls: type[S]) -> None:
        super().__init__()
        self._cls = cls
        self._objects: dict[str, Any] = {}
        self._safe = True

    def customObjects(self, objects: Mapping[str, Any]) -> StageReader[S]:
        """Set custom classes and functions that are not registered with Keras.

        Args:
            objects: Mapping from names to classes or functions.

        Returns:
            `self`.
        """
        self._objects = dict(objects)
        return self

    def safeMode(self, value: bool) -> StageReader[S]:
        """Set whether to refuse a model that contains Python code, as in a `Lambda` layer.

        Args:
            value: Boolean.

        Returns:
            `self`.
        """
        self._safe = value
        return self

    def load(self, path: str) -> S:
        """Read a stage that `StageWriter` wrote.

        Args:
            path: String, the path that was passed to `save`.

        Raises:
            ValueError: If another kind of stage was saved there, or the model contains code
                or needs other custom objects. Its loss, metrics and optimizer may be unknown:
                the model is then not compiled, so that a fitted stage still predicts.
        """
        spark = self.sparkSession
        metadata = DefaultParamsReader.loadMetadata(path, spark if is_connect(spark) else self.sc)
        name = f"{self._cls.__module__}.{self._cls.__name__}"
        if metadata["class"] != name:
            raise invalid("path", f"where a {name} was saved, and not a {metadata['class']}", path)
        stage: Any = self._cls()
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        as_rows = metadata.get(FILES) == ROWS
        if metadata["hasModel"]:
            reading = self._reading(path, MODEL, as_rows)
            with naming_reader(self._cls.__name__), reading as file:
                model, stage.not_compiled = self._load_model(path, file)
            stage.carried = CarriedModel(model, self._objects)
        for step, saved in metadata.get("steps", {}).items():
            stage._set(**{step: self._load_step(path, step, saved, as_rows)})
        stage.take_metadata(metadata)
        return stage

    def _reading(self, path: str, name: str, as_rows: bool) -> AbstractContextManager[str]:
        """Provide the path of a Keras file, for a function that reads it."""
        file, spark = keras_file(path, name), self.sparkSession
        if as_rows or is_connect(spark):
            return row_files.reading(spark, file, as_rows=as_rows)
        return nullcontext(qualified(file, spark))

    def _load_step(
        self, path: str, name: str, saved: Mapping[str, Any] | None, as_rows: bool
    ) -> Any:
        """Load the function or the layer of a Param, or `None`."""
        if saved is None:
            return None
        if saved["kind"] == FUNCTION:
            ways = partial(by_reader, self._cls.__name__)
            return restored(saved["name"], name, self._objects, safe_mode=self._safe, ways=ways)
        objects, spark = {**parts_of_main(), **self._objects}, self.sparkSession
        reading = self._reading(path, name, as_rows)
        with naming_reader(self._cls.__name__), reading as file:
            return load_layer(saved["kind"], file, objects, safe_mode=self._safe, spark=spark)

    def _load_model(self, path: str, file: str) -> tuple[keras.Model, ValueError | None]:
        """Load the model of a stage, compiled if its loss, metrics and optimizer are known.

        Args:
            path: String, the path of the stage.
            file: String, the path of the model.

        Returns:
            Tuple of the model, and the reason why it is not compiled as it was when it was saved.
        """
        objects, spark = {**parts_of_main(), **self._objects}, self.sparkSession
        try:
            loaded = saving.load_model(
                file, custom_objects=objects, safe_mode=self._safe, spark=spark
            )
            facts, _ = FileFacts.loaded(loaded.facts, loaded.server_state)
            facts.apply(loaded.model, objects, safe_mode=self._safe)
            return loaded.model, None
        except REBUILD_ERRORS as error:
            found = load_uncompiled(file, custom_objects=objects, safe_mode=self._safe, spark=spark)
            without_compilation(found.document).apply(found.model, objects)
            return found.model, cannot_train(self._cls.__name__, path, found.missing, error)


def without_compilation(document: Document) -> FileFacts:
    """Return the facts of a model's file that do not belong to its compilation."""
    facts, _ = FileFacts.loaded(document.facts, document.server_state)
    return FileFacts({"attributes": facts.data.get("attributes", [])}, facts.arrays)


def cannot_train(kind: str, path: str, names: list[str], error: Exception) -> ValueError:
    """Return the error for a stage whose model was loaded without its loss, metrics and optimizer.

    Args:
        kind: String, name of the class of the stage.
        path: String, the path of the stage.
        names: List of the names of losses, metrics and optimizers that are unknown.
        error: The error of Keras that is the reason if no name is unknown.
    """
    reason, known = str(error), "..."
    if names:
        reason = f"these parts of it were not found: {', '.join(map(repr, names))}"
        known = ", ".join(f"{name!r}: ..." for name in names)
    return ValueError(
        f"The model of this {kind} cannot train, because it was loaded without its loss, metrics "
        f"and optimizer; {reason}. Load it by "
        f"`{kind}.read().customObjects({{{known}}}).load({path!r})`, or load the pipeline or "
        f"tuner inside `keras.saving.custom_object_scope({{{known}}})`."
    )


def parts_of_main() -> dict[str, Any]:
    """Return the classes and functions of the main program or notebook, by name.

    Keras cannot find them by itself, because its files do not name `__main__` as their module.
    """
    found = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    return {
        name: thing
        for name, thing in list(found.items())
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__"
    }


def keras_file(path: str, name: str) -> str:
    """Return the path of the Keras file of a name in a stage's folder."""
    return f"{path.rstrip('/')}/{name}.keras"


def described_step(name: str, step: Any) -> dict[str, str] | None:
    """Describe a function or a layer as JSON data; `None` stays `None`.

    Raises:
        ValueError: If it is a function that cannot be imported.
    """
    if step is None:
        return None
    kind = kind_of(step)
    if kind != FUNCTION:
        return {"kind": kind}
    return {"kind": kind, "name": step if isinstance(step, str) else name_to_save(step, name)}


def by_reader(stage: str, name: str) -> str:
    """Return how a stage is loaded with a function, or without the safe mode."""
    reader = f"{stage}.read()"
    return f"with `{reader}.customObjects({{{name!r}: ...}})`, or with `{reader}.safeMode(False)`"


@contextmanager
def naming_reader(stage: str) -> Iterator[None]:
    """Say how the reader of a stage leaves the safe mode, in errors that name an argument for it.

    Raises:
        ValueError: If the block raises one.
    """
    try:
        yield
    except ValueError as error:
        argument = "set `safe_mode=False`"
        if argument not in str(error):
            raise
        reader = f"use `{stage}.read().safeMode(False)`"
        raise ValueError(str(error).replace(argument, reader)) from error
