"""Holds kspark's sources to the picture of its layers, and to the rules of the house.

An import goes down a storey, or to a neighbour that `NEIGHBOURS` names. Whoever
adds a module gives it a place here, and in the picture of `docs/design.md`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Storeys, the lowest first. A package stands for all of its modules.
LAYERS = (
    {"bootstrap", "errors", "interrupts", "version"},
    {"changes", "compression", "shards", "weights", "wire"},
    {
        "adapters",
        "aggregator",
        "backends",
        "coordinator",
        "labels",
        "learning_rate",
        "optimizers",
        "rendezvous",
        "replica",
    },
    {"java", "plan", "saving", "session", "shared_memory", "transport"},
    {"arguments", "callbacks", "job", "report", "worker"},
    {"data", "loading", "ml", "mllib", "source", "spark_model", "training"},
    {"kspark"},
)

# Who may import whom on the same storey. Never both ways.
NEIGHBOURS = {
    "aggregator": {"optimizers"},
    "changes": {"weights"},
    "compression": {"changes", "weights"},
    "coordinator": {"aggregator", "rendezvous"},
    "job": {"callbacks", "report", "worker"},
    "labels": {"replica"},
    "loading": {"mllib", "source", "spark_model"},
    "ml": {"data", "source", "spark_model"},
    "mllib": {"data", "source", "spark_model"},
    "rendezvous": {"aggregator"},
    "replica": {"backends"},
    "session": {"java"},
    "spark_model": {"data", "source", "training"},
    "training": {"source"},
    "wire": {"changes", "compression", "weights"},
}

# Other people's packages that a module may import; the others import none.
LIBRARIES = {
    "adapters": {"numpy", "pandas", "pyarrow", "pyspark"},
    "aggregator": {"numpy"},
    "arguments": {"keras"},
    "backends": {"jax", "keras", "numpy", "tensorflow", "torch"},
    "bootstrap": {"pyspark"},
    "callbacks": {"keras", "numpy"},
    "changes": {"numpy"},
    "compression": {"numpy"},
    "coordinator": {"numpy"},
    "data": {"keras", "numpy", "pyspark"},
    "job": {"numpy", "pandas", "pyarrow", "pyspark"},
    "labels": {"keras", "numpy"},
    "ml": {"h5py", "keras", "numpy", "pyspark"},
    "mllib": {"keras", "numpy", "pyspark"},
    "optimizers": {"numpy"},
    "plan": {"numpy"},
    "rendezvous": {"numpy"},
    "replica": {"keras", "numpy", "pyspark"},
    "report": {"matplotlib"},
    "saving": {"h5py", "keras", "numpy", "py4j", "pyspark"},
    "session": {"py4j", "pyspark"},
    "shards": {"numpy", "pyarrow"},
    "shared_memory": {"numpy"},
    "source": {"keras", "numpy", "pyspark"},
    "spark_model": {"keras", "numpy", "pyspark"},
    "training": {"keras", "numpy"},
    "transport": {"numpy"},
    "weights": {"numpy"},
    "wire": {"numpy"},
    "worker": {"PIL", "numpy", "pyarrow", "pyspark"},
}

# Values and algorithms: nothing in there talks to another process.
PURE = {*LAYERS[0], *LAYERS[1], "aggregator", "coordinator", "optimizers", "rendezvous"}
DOORS = {
    *("asyncio", "http", "multiprocessing", "select", "selectors"),
    *("socket", "socketserver", "ssl", "subprocess", "urllib"),
}

# Unpickling runs what it reads. These read only what Spark brought along with the job.
UNPICKLING = {"bootstrap", "replica"}
PICKLES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}

INTERNALS = ("keras.src", "tensorflow.python")
MAX_FILE_LINES = 350
MAX_BODY_LINES = 50


def layer_of(unit: str) -> int | None:
    """The storey of a module or package, `None` if it has no place in the picture."""
    return next((i for i, layer in enumerate(LAYERS) if unit in layer), None)


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Pairs of (dotted module, name taken from it or ""), also of imports inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def violations(unit: str, source: str) -> list[str]:
    """Every rule that a source file breaks.

    `unit` is the module's name below `kspark`, or its package's; "kspark" for
    `kspark/__init__.py`.
    """
    if layer_of(unit) is None:
        return [f"{unit} has no place in the layers"]
    tree = ast.parse(source)
    found = []
    for module, name in imports(tree):
        found += check_import(unit, module, name)
    for node in ast.walk(tree):
        found += check_node(unit, node)
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        found.append(f"{lines} lines")
    return found


def check_import(unit: str, module: str, name: str) -> list[str]:
    top, *below = module.split(".")
    if not top:
        return [f"relative import of {module}{name}"]
    if top == "kspark":
        inner = below[0] if below else (name if layer_of(name) is not None else "kspark")
        return check_layers(unit, inner)
    if top in PICKLES or "cloudpickle" in (*below, name):
        if unit not in UNPICKLING:
            return [f"imports {module} {name}".strip()]
        return []
    if top in sys.stdlib_module_names:
        return [f"{unit} opens a door: {module}"] if unit in PURE and top in DOORS else []
    if top not in LIBRARIES.get(unit, ()):
        return [f"{unit} imports {top}"]
    if any(part.startswith("_") for part in (*below, name)):
        return [f"private name {module}.{name}"]
    return []


def check_layers(unit: str, imported: str) -> list[str]:
    below, here = layer_of(imported), layer_of(unit)
    if below is None:
        return [f"imports {imported}, which has no place in the layers"]
    if imported == unit or below < here:
        return []
    if below == here and imported in NEIGHBOURS.get(unit, ()):
        return []
    return [f"{unit} (layer {here}) imports {imported} (layer {below})"]


def check_node(unit: str, node: ast.AST) -> list[str]:
    where = f"line {getattr(node, 'lineno', 0)}"
    if isinstance(node, ast.Assert):
        return [f"assert in {where}"]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in {"print", "eval", "exec", "breakpoint"}:
            return [f"{node.func.id}() in {where}"]
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        if not (isinstance(node.value, ast.Constant) and node.value.value is False):
            return [f"allow_pickle in {where}"]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        lines = body_lines(node)
        return [f"{node.name} has a body of {lines} lines"] if lines > MAX_BODY_LINES else []
    dotted = dotted_name(node)
    if dotted and dotted.startswith(INTERNALS):
        return [f"internal module {dotted} in {where}"]
    return []


def dotted_name(node: ast.AST) -> str | None:
    """What a node names: `keras.src.ops`, as an attribute, an import or a string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.ImportFrom):
        return ".".join([node.module or "", node.names[0].name])
    if isinstance(node, ast.alias):
        return node.name
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{'tensorflow' if node.value.id == 'tf' else node.value.id}.{node.attr}"
    return None


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function below its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


PACKAGE = Path(importlib.util.find_spec("kspark").origin).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def unit_of(file: str) -> str:
    return "kspark" if file == "__init__.py" else file.split("/")[0].removesuffix(".py")


def test_finds_the_package():
    assert {"errors.py", "weights.py", "session.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_file_keeps_the_rules(file):
    assert violations(unit_of(file), (PACKAGE / file).read_text(encoding="utf-8")) == []


def test_picture_in_the_docs_is_this_one():
    design = Path(__file__).parents[1] / "docs" / "design.md"
    picture = design.read_text(encoding="utf-8").split("## Layers")[1].split("```")[1]
    drawn = {}
    for line in picture.splitlines():
        if storey := re.match(r" *(\d) ", line):
            units = drawn.setdefault(int(storey[1]), set())
        if line.strip():
            units.update(re.findall(r"(\w+)(?:\.py|/)(?!\w)", line))
    assert drawn == dict(enumerate(LAYERS[:-1]))


def test_neighbours_share_a_storey_and_never_import_each_other():
    for unit, others in NEIGHBOURS.items():
        for other in others:
            assert layer_of(other) == layer_of(unit), (unit, other)
            assert unit not in NEIGHBOURS.get(other, ()), (unit, other)


def test_every_module_has_one_place():
    units = [unit for layer in LAYERS for unit in layer]
    assert len(units) == len(set(units))
    assert set(LIBRARIES) <= set(units)


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("errors", "import json"),
        ("weights", "import numpy as np\nfrom kspark.errors import invalid"),
        ("job", "from kspark.worker.rounds import train"),
        ("job", "from kspark.job.fit import Fit"),
        ("spark_model", "from kspark import job, saving"),
        ("replica", "from pyspark import cloudpickle"),
        ("replica", "from kspark.backends import get_backend"),
        ("transport", "import socket"),
        ("backends", "import tensorflow as tf\ntf.function"),
        ("shards", "np.load(f, allow_pickle=False)"),
        ("shards", "def f():\n    '''Doc.\n" + "\n" * 60 + "'''\n" + "    x = 1\n" * 50),
    ],
)
def test_accepts(unit, source):
    assert violations(unit, source) == []


@pytest.mark.parametrize(
    ("unit", "source", "complaint"),
    [
        ("novelty", "", "no place"),
        ("weights", "from kspark.novelty import x", "no place"),
        ("errors", "from kspark.weights import delta", "errors (layer 0) imports weights"),
        ("worker", "import kspark.job.fit", "worker (layer 4) imports job"),
        ("replica", "def f():\n    from kspark import job", "replica (layer 2) imports job"),
        ("job", "from kspark import __version__", "imports kspark (layer 6)"),
        ("optimizers", "from kspark.aggregator import Aggregator", "imports aggregator"),
        ("plan", "from kspark.saving import save", "imports saving (layer 3)"),
        ("worker", "from .state import x", "relative import"),
        ("worker", "import keras", "worker imports keras"),
        ("replica", "import tensorflow as tf", "replica imports tensorflow"),
        ("spark_model", "def f():\n    import torch", "spark_model imports torch"),
        ("aggregator", "from pyspark.sql import SparkSession", "aggregator imports pyspark"),
        ("java", "import requests", "java imports requests"),
        ("compression", "import socket", "opens a door: socket"),
        ("compression", "from kspark.wire import encode", "compression (layer 1) imports wire"),
        ("wire", "import socket", "opens a door: socket"),
        ("shards", "from urllib.request import urlopen", "opens a door: urllib.request"),
        ("coordinator", "import multiprocessing.shared_memory", "opens a door"),
        ("wire", "import pickle", "imports pickle"),
        ("transport", "from pickle import loads", "imports pickle loads"),
        ("job", "from pyspark import cloudpickle", "imports pyspark cloudpickle"),
        ("job", "import pyspark.cloudpickle", "imports pyspark.cloudpickle"),
        ("saving", "np.load(f, allow_pickle=True)", "allow_pickle"),
        ("saving", "np.load(f, allow_pickle=maybe)", "allow_pickle"),
        ("backends", "from keras.src import ops", "keras.src"),
        ("backends", "import keras.src.ops", "keras.src"),
        ("backends", "from keras import src", "keras.src"),
        ("backends", "import keras\nkeras.src.ops", "keras.src"),
        ("backends", "import_module('keras.src.ops')", "keras.src"),
        ("backends", "import tensorflow as tf\ntf.python.ops", "tensorflow.python"),
        ("backends", "from tensorflow.python.eager import context", "tensorflow.python"),
        ("job", "from pyspark._globals import x", "private name"),
        ("job", "from pyspark.sql import _functions", "private name"),
        ("plan", "assert True", "assert in line 1"),
        ("plan", "\nprint(1)", "print() in line 2"),
        ("plan", "eval('1')", "eval() in line 1"),
        ("plan", "def f():\n" + "    x = 1\n" * 51, "f has a body of 51 lines"),
        ("plan", "class C:\n  async def f():\n" + "    x = 1\n" * 51, "f has a body of 51"),
        ("plan", "x = 1\n" * 351, "351 lines"),
    ],
)
def test_complains(unit, source, complaint):
    assert any(complaint in violation for violation in violations(unit, source))
