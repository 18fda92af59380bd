"""The order in which a stage is written, without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kspark.ml import persistence
from kspark.ml.persistence import StageWriter


class Stage:
    params = ()

    def to_save(self):
        return None

    def extra_metadata(self):
        return {}

    def hasParam(self, name):
        return False


@pytest.mark.parametrize(
    ("connect", "order"), [(True, ["files", "metadata"]), (False, ["metadata", "files"])]
)
def test_over_spark_connect_the_metadata_are_written_last(monkeypatch, connect, order):
    """A stage whose writing failed has no metadata, and so it cannot be loaded."""
    written = []
    metadata = SimpleNamespace(saveMetadata=lambda *given: written.append("metadata"))
    monkeypatch.setattr(persistence, "DefaultParamsWriter", metadata)
    monkeypatch.setattr(persistence, "is_connect", lambda spark: connect)
    monkeypatch.setattr(StageWriter, "sparkSession", None)
    monkeypatch.setattr(StageWriter, "sc", None)
    monkeypatch.setattr(StageWriter, "_save_files", lambda *given: written.append("files"))
    StageWriter(Stage()).saveImpl("path")
    assert written == order
