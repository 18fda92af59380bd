"""Stages on any path that Spark can write: Params as JSON, the model as a Keras file.

```
<path>/metadata/      class, uid, Params and the training summary, as every Spark stage
<path>/model.keras    the Keras model, if the stage has one
```
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FunctionType
from typing import Any, Generic, TypeVar

from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWriter

from kspark import saving
from kspark.errors import invalid
from kspark.ml.carried import CarriedModel, need_jvm
from kspark.saving.hadoop import qualified

MODEL_FILE = "model.keras"
NOT_SAVED = frozenset({"callbacks", "custom_objects"})

S = TypeVar("S", bound=MLReadable[Any])


class StageWriter(MLWriter):
    """Writes one stage.

    Args:
        stage: `Stage`.
    """

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.stage = stage

    def saveImpl(self, path: str) -> None:
        """Write to a path where nothing is."""
        need_jvm(self.sparkSession, "`save`")
        params = {
            p.name: self.stage.getOrDefault(p)
            for p in self.stage.params
            if self.stage.isSet(p) and p.name not in NOT_SAVED
        }
        carried = self.stage.to_save()
        extra = {**self.stage.extra_metadata(), "hasModel": carried is not None}
        DefaultParamsWriter.saveMetadata(self.stage, path, self.sc, extra, params)
        if carried is not None:
            file = model_file(self, path)
            carried.build_optimizer()
            saving.save_model(carried.model, {}, file, spark=self.sparkSession)


class StageReader(MLReader[S], Generic[S]):
    """Reads one stage.

    Args:
        cls: Class of the stage.
    """

    def __init__(self, cls: type[S]) -> None:
        super().__init__()
        self._cls = cls
        self._objects: dict[str, Any] = {}
        self._safe = True

    def customObjects(self, objects: Mapping[str, Any]) -> StageReader[S]:
        """Custom classes and functions by name, for what is not registered with Keras."""
        self._objects = dict(objects)
        return self

    def safeMode(self, value: bool) -> StageReader[S]:
        """Whether a model with Python code inside (a `Lambda` layer) is refused."""
        self._safe = value
        return self

    def load(self, path: str) -> S:
        """Read a stage that `StageWriter` wrote.

        Raises:
            ValueError: If another kind of stage was saved there, or the model holds code, or
                needs custom objects.
        """
        need_jvm(self.sparkSession, "`load`")
        metadata = DefaultParamsReader.loadMetadata(path, self.sc)
        name = f"{self._cls.__module__}.{self._cls.__name__}"
        if metadata["class"] != name:
            raise invalid("path", f"where a {name} was saved, and not a {metadata['class']}", path)
        stage: Any = self._cls()
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        if metadata["hasModel"]:
            loaded = saving.load_model(
                model_file(self, path),
                custom_objects={**parts_of_main(), **self._objects},
                safe_mode=self._safe,
                spark=self.sparkSession,
            )
            stage.carried = CarriedModel(loaded.model, self._objects)
        stage.take_metadata(metadata)
        return stage


def parts_of_main() -> dict[str, Any]:
    """Layers, losses and the like that the main program or notebook defines, by name.

    A Keras file names no module for them, so that Keras alone would not find them.
    """
    found = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    return {
        name: thing
        for name, thing in list(found.items())
        if isinstance(thing, type | FunctionType) and thing.__module__ == "__main__"
    }


def model_file(door: MLWriter | MLReader[Any], path: str) -> str:
    """Where the model of a stage is, as a path that means the same to Spark and to Python."""
    return qualified(f"{path.rstrip('/')}/{MODEL_FILE}", door.sparkSession)
