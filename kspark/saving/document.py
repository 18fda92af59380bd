"""The part of a model file that kspark adds: a JSON document, and the arrays that it lists.

```json
{"format": 1, "config": {...}, "server_state": ["first", "second"]}
```

`config` is `SparkModel.get_config()`. `server_state` has the names of the server
optimizer's arrays, which are in the file in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kspark.errors import invalid

FORMAT = 1
FORMAT_WITH_FACTS = 2
"""The format of files with facts, which earlier versions of kspark cannot read."""

NUMBERS = "biuf"  # NumPy's kinds: boolean, signed, unsigned, floating
SPARK_MODELS = ("SparkModel", "AsynchronousSparkModel", "SparkMLlibModel")


@dataclass(frozen=True)
class Document:
    """kspark's own part of a model file.

    Attributes:
        config: Dictionary of JSON data, kspark's configuration.
        server_state: Dictionary of name and array, the server optimizer's state, and arrays of
            the model that Keras' part of the file leaves out.
        class_name: String, the class that wrote the file, by its name in Elephas.
        facts: Dictionary of JSON data, facts of the model that Keras' part of the file leaves
            out. Defaults to `{}`.
    """

    config: dict[str, Any]
    server_state: dict[str, np.ndarray]
    class_name: str = "SparkModel"
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the document as JSON data, with the names of the arrays only."""
        content = {
            "format": FORMAT_WITH_FACTS if self.facts else FORMAT,
            "config": self.config,
            "server_state": list(self.server_state),
        }
        return content | ({"facts": self.facts} if self.facts else {})

    def check(self) -> None:
        """Refuse data that could not be loaded again, before the file is written.

        Raises:
            ValueError: If the configuration is not JSON data, or an array does not contain
                numbers.
        """
        try:
            json.dumps(self.config)
        except (TypeError, ValueError) as error:
            raise invalid("config", f"JSON data ({error})", self.config) from error
        for name, array in self.server_state.items():
            if np.asarray(array).dtype.kind not in NUMBERS:
                raise invalid("server_state", f"arrays of numbers, also {name!r}", array)


def names_in(document: object, path: str) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """Read a document's configuration, the names of its arrays, and its facts.

    Args:
        document: JSON data, as written by `Document.to_dict`.
        path: String, the file, for errors.

    Returns:
        A tuple (configuration, names, facts).

    Raises:
        ValueError: If this is not such a document, or a later kspark wrote it.
    """
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        raise invalid("path", "a file with an intact kspark configuration", path)
    if document.get("format") not in (FORMAT, FORMAT_WITH_FACTS):
        rule = "a file of kspark's format 1 or 2 (this one needs another kspark)"
        raise invalid("path", rule, path)
    names = list(document.get("server_state", []))
    return document["config"], names, dict(document.get("facts", {}))


def checked_class(name: object, path: str) -> str:
    """Check the name of the class that wrote a file.

    Args:
        name: The name in the file.
        path: String, the file, for errors.

    Raises:
        ValueError: If it is not one of `SPARK_MODELS`.
    """
    if name not in SPARK_MODELS:
        rule = f"a file of one of {', '.join(SPARK_MODELS)}, and this one holds {name!r}"
        raise invalid("path", rule, path)
    return str(name)


def named(names: Iterable[str], arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Make a dictionary of names and arrays."""
    return dict(zip(names, arrays, strict=True))
