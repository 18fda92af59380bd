"""What kspark adds to a model file: one JSON document, and the arrays it names.

```json
{"format": 1, "config": {...}, "server_state": ["first", "second"]}
```

`config` is `SparkModel.get_config()`, `server_state` the names of the server
optimizer's arrays, which the file holds as plain arrays in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kspark.errors import invalid

FORMAT = 1
NUMBERS = "biuf"  # NumPy's kinds: boolean, signed, unsigned, floating
SPARK_MODELS = ("SparkModel", "AsynchronousSparkModel", "SparkMLlibModel")


@dataclass(frozen=True)
class Document:
    """kspark's own part of a model file.

    Attributes:
        config: Dictionary of JSON data, kspark's configuration.
        server_state: Dictionary of name and array, the server optimizer's state.
        class_name: String, the class that wrote the file, in Elephas' words.
    """

    config: dict[str, Any]
    server_state: dict[str, np.ndarray]
    class_name: str = "SparkModel"

    def to_dict(self) -> dict[str, Any]:
        """The document as JSON data, with the arrays by name only."""
        return {"format": FORMAT, "config": self.config, "server_state": list(self.server_state)}

    def check(self) -> None:
        """Refuse what could not be read again, before anything is written.

        Raises:
            ValueError: If the configuration is no JSON data, or an array holds no numbers.
        """
        try:
            json.dumps(self.config)
        except (TypeError, ValueError) as error:
            raise invalid("config", f"JSON data ({error})", self.config) from error
        for name, array in self.server_state.items():
            if np.asarray(array).dtype.kind not in NUMBERS:
                raise invalid("server_state", f"arrays of numbers, also {name!r}", array)


def names_in(document: object, path: str) -> tuple[dict[str, Any], list[str]]:
    """Read a document's configuration and the names of its arrays.

    Args:
        document: JSON data, as written by `Document.to_dict`.
        path: String, the file it comes from.

    Returns:
        A pair (configuration, names).

    Raises:
        ValueError: If it is no such document, or one of a later kspark.
    """
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        raise invalid("path", "a file with an intact kspark configuration", path)
    if document.get("format") != FORMAT:
        rule = f"a file of kspark's format {FORMAT} (this one needs another kspark)"
        raise invalid("path", rule, path)
    return document["config"], list(document.get("server_state", []))


def checked_class(name: object, path: str) -> str:
    """The class that wrote a file, if it is one of a model on Spark.

    Args:
        name: What the file says.
        path: String, the file.

    Raises:
        ValueError: If it is another one.
    """
    if name not in SPARK_MODELS:
        rule = f"a file of one of {', '.join(SPARK_MODELS)}, and this one holds {name!r}"
        raise invalid("path", rule, path)
    return str(name)


def named(names: Iterable[str], arrays: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Names and arrays as one dictionary."""
    return dict(zip(names, arrays, strict=True))
