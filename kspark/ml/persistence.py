"""Stages on any path that Spark can write: Params as JSON, the model as a Keras file.

```
<path>/metadata/      class, uid, Params and the training summary, as every Spark stage
<path>/model.keras    the Keras model, if the stage has one
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReadable, MLReader, MLWriter

from kspark import saving
from kspark.ml.carried import CarriedModel
from kspark.saving.hadoop import qualified

MODEL_FILE = "model.keras"
NOT_SAVED = frozenset({"callbacks"})

S = TypeVar("S", bound=MLReadable[Any])


class StageWriter(MLWriter):
    """Writes one stage.

    Args:
        stage: Stage with `extra_metadata()` and `carried`.
    """

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.stage = stage

    def saveImpl(self, path: str) -> None:
        """Write to a path where nothing is."""
        params = {
            p.name: self.stage.getOrDefault(p)
            for p in self.stage.params
            if self.stage.isSet(p) and p.name not in NOT_SAVED
        }
        carried = self.stage.carried
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
            ValueError: If the model holds code, or needs custom objects.
        """
        metadata = DefaultParamsReader.loadMetadata(path, self.sc)
        stage: Any = self._cls()
        stage._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(stage, metadata)
        if metadata["hasModel"]:
            loaded = saving.load_model(
                model_file(self, path),
                custom_objects=self._objects,
                safe_mode=self._safe,
                spark=self.sparkSession,
            )
            stage.carried = CarriedModel(loaded.model, self._objects)
        stage.take_metadata(metadata)
        return stage


def model_file(door: MLWriter | MLReader[Any], path: str) -> str:
    """Where the model of a stage is, as a path that means the same to Spark and to Python."""
    return qualified(f"{path.rstrip('/')}/{MODEL_FILE}", door.sparkSession)
