"""Hold kspark's sources to the picture of its layers, and to the rules of the house.

A *unit* is the first part of a module's path below `kspark`, or the first two parts for the units
of `NESTED`. An import goes down a storey, or to a neighbour that `NEIGHBOURS` names. Whoever adds
a unit gives it a place here, and in the picture of `docs/how-it-works.md`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Storeys, the lowest first. A unit stands for all of its modules.
LAYERS = (
    {"classic", "errors", "logs", "temporary", "tracebacks", "version"},
    {"cluster", "files", "saving", "shards", "weights"},
    {"adapters", "compression", "optimizers", "replica", "replica.backends", "session"},
    {"aggregator", "live.wire", "plan"},
    {"live.coordinator", "live.transport", "worker"},
    {"data", "job"},
    {"live", "rounds"},
    {"spark_model"},
    {"loading", "ml", "ml.elephas", "mllib"},
    {"kspark"},
)

# Units inside of a unit: they have a place of their own.
NESTED = {unit for layer in LAYERS for unit in layer if "." in unit}

# Who may import whom on the same storey. Never both ways.
NEIGHBOURS = {
    "adapters": {"replica.backends"},
    "data": {"job"},
    "loading": {"mllib"},
    "ml.elephas": {"ml"},
    "replica": {"replica.backends"},
    "saving": {"files"},
}

# `ml/__init__.py` hands on the names of `ml.elephas`, which no other module of `ml` imports.
HANDED_ON = {("ml/__init__.py", "ml.elephas")}

# Modules that may stand beside the folders.
LOOSE_FILES = {
    *("__init__.py", "aggregator.py", "classic.py", "errors.py", "loading.py", "logs.py"),
    *("mllib.py", "temporary.py", "tracebacks.py", "version.py"),
}

# Other people's packages that a module may import; the others import none.
LIBRARIES = {
    "adapters": {"numpy", "pandas", "pyarrow", "pyspark"},
    "aggregator": {"numpy"},
    "classic": {"py4j", "pyspark"},
    "cluster": {"pyarrow", "pyspark"},
    "compression": {"numpy"},
    "data": {"keras", "numpy", "pyspark"},
    "files": {"fsspec", "numpy", "pyarrow", "pyspark"},
    "job": {"keras", "matplotlib", "numpy", "pandas", "pyarrow", "pyspark"},
    "live": {"numpy"},
    "live.coordinator": {"numpy"},
    "live.transport": {"numpy"},
    "live.wire": {"numpy"},
    "ml": {"keras", "numpy", "pyspark"},
    "ml.elephas": {"h5py", "keras", "numpy", "pyspark"},
    "mllib": {"keras", "numpy", "pyspark"},
    "optimizers": {"keras", "numpy"},
    "plan": {"numpy"},
    "replica": {"keras", "numpy", "pyspark"},
    "replica.backends": {"jax", "keras", "numpy", "tensorflow", "torch"},
    "rounds": {"numpy"},
    "saving": {"h5py", "keras", "numpy", "pyspark"},
    "session": {"pyspark"},
    "shards": {"numpy", "pyarrow"},
    "spark_model": {"keras", "numpy", "pyspark"},
    "tracebacks": {"keras"},
    "weights": {"numpy"},
    "worker": {"PIL", "numpy", "pyarrow", "pyspark"},
}

# Values and algorithms: nothing in there talks to another process.
PURE = {
    *("errors", "version", "shards", "weights", "compression", "optimizers", "aggregator"),
    *("plan", "live.wire", "live.coordinator"),
}
DOORS = {
    *("asyncio", "http", "multiprocessing", "select", "selectors"),
    *("socket", "socketserver", "ssl", "subprocess", "urllib"),
}

# Unpickling runs what it reads. These read only what Spark brought with a job, or back from one.
UNPICKLING = {"cluster/bootstrap.py", "cluster/records.py", "replica/pickling.py"}
PICKLES = {"cloudpickle", "dill", "marshal", "pickle", "shelve"}

INTERNALS = ("keras.src", "tensorflow.python")
MAX_FILE_LINES = 350
MAX_BODY_LINES = 50

DRAWN = re.compile(r"(\w+(?:/\w+)?)(?:\.py|/(?!\w))")
"""A unit in the picture of the docs: `errors.py`, `job/`, `live/wire/`."""


PACKAGE = Path(importlib.util.find_spec("kspark").origin).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def layer_of(unit: str) -> int | None:
    """The storey of a unit, `None` if it has no place in the picture."""
    return next((i for i, layer in enumerate(LAYERS) if unit in layer), None)


def unit_of(file: str) -> str:
    """The unit of a file below `kspark/`; "kspark" for `kspark/__init__.py`."""
    if file == "__init__.py":
        return "kspark"
    return unit_of_parts(file.removesuffix("/__init__.py").removesuffix(".py").split("/"))


def unit_of_parts(parts: list[str]) -> str:
    """The unit of a dotted name's parts below `kspark`."""
    nested = ".".join(parts[:2])
    return nested if nested in NESTED else parts[0]


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Pairs of (dotted module, name taken from it or ""), also of imports inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def violations(file: str, source: str) -> list[str]:
    """Every rule that a source file breaks; `file` is its path below `kspark/`."""
    if layer_of(unit_of(file)) is None:
        return [f"{unit_of(file)} has no place in the layers"]
    tree = ast.parse(source)
    found = []
    for module, name in imports(tree):
        found += check_import(file, module, name)
    for node in ast.walk(tree):
        found += check_node(node)
    if (lines := len(source.splitlines())) > MAX_FILE_LINES:
        found.append(f"{lines} lines")
    return found


def check_import(file: str, module: str, name: str) -> list[str]:
    top, *below = module.split(".")
    unit = unit_of(file)
    if not top:
        return [f"relative import of {module}{name}"]
    if top == "kspark":
        return check_layers(file, [*below, *([name] if name else [])])
    if top in PICKLES or "cloudpickle" in (*below, name):
        return [] if file in UNPICKLING else [f"imports {module} {name}".strip()]
    if top in sys.stdlib_module_names:
        return [f"{unit} opens a door: {module}"] if unit in PURE and top in DOORS else []
    if top not in LIBRARIES.get(unit, ()):
        return [f"{unit} imports {top}"]
    if any(part.startswith("_") for part in (*below, name)):
        return [f"private name {module}.{name}"]
    return []


def check_layers(file: str, parts: list[str]) -> list[str]:
    """Whether a file may import what `parts`, a dotted name below `kspark`, names."""
    unit, imported = unit_of(file), unit_of_parts(parts)
    if layer_of(imported) is None and len(parts) == 1:
        imported = "kspark"  # a name that `kspark` itself hands on
    below, here = layer_of(imported), layer_of(unit)
    if below is None:
        return [f"imports {imported}, which has no place in the layers"]
    if file.endswith("/task.py") and imported == "job":
        return [f"{file} runs in a task and imports job"]
    if imported == unit or below < here or (file, imported) in HANDED_ON:
        return []
    if below == here and imported in NEIGHBOURS.get(unit, ()):
        return []
    return [f"{unit} (layer {here}) imports {imported} (layer {below})"]


def check_node(node: ast.AST) -> list[str]:
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


def import_graph() -> dict[str, set[str]]:
    """The files that each file imports, also inside functions and for types only."""
    return {file: imported_files(file) for file in FILES}


def imported_files(file: str) -> set[str]:
    found = set()
    for module, name in imports(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
        top, *below = module.split(".")
        if top == "kspark":
            found.add(file_of([*below, name]) or file_of(below))
    return found - {file, None}


def file_of(parts: list[str]) -> str | None:
    """The file of a dotted name below `kspark`, `None` if the name is not that of a module."""
    path = "/".join(part for part in parts if part)
    candidates = [f"{path}.py", f"{path}/__init__.py"] if path else ["__init__.py"]
    return next((candidate for candidate in candidates if candidate in FILES), None)


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a circle, the first one again at the end; else empty."""
    done: set[str] = set()

    def search(file: str, path: list[str]) -> list[str]:
        if file in path:
            return [*path[path.index(file) :], file]
        if file in done:
            return []
        for imported in sorted(graph.get(file, ())):
            if circle := search(imported, [*path, file]):
                return circle
        done.add(file)
        return []

    return next(filter(None, (search(file, []) for file in sorted(graph))), [])


def test_finds_the_package():
    assert {"errors.py", "weights/spec.py", "rounds/task.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_file_keeps_the_rules(file):
    assert violations(file, (PACKAGE / file).read_text(encoding="utf-8")) == []


def test_no_files_import_each_other_in_a_circle():
    assert circle_in(import_graph()) == []


def test_a_circle_is_found():
    graph = {"a.py": {"b.py"}, "b.py": {"c.py", "d.py"}, "c.py": set(), "d.py": {"b.py"}}
    assert circle_in(graph) == ["b.py", "d.py", "b.py"]


def test_few_modules_stand_beside_the_folders():
    assert {file for file in FILES if "/" not in file} == LOOSE_FILES


def test_picture_in_the_docs_is_this_one():
    design = Path(__file__).parents[1] / "docs" / "how-it-works.md"
    picture = design.read_text(encoding="utf-8").split("## Layers")[1].split("```")[1]
    drawn = {}
    for line in picture.splitlines():
        if storey := re.match(r" *(\d) ", line):
            units = drawn.setdefault(int(storey[1]), set())
        if line.strip():
            units.update(path.replace("/", ".") for path in DRAWN.findall(line))
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
    ("file", "source"),
    [
        ("errors.py", "import json"),
        ("weights/spec.py", "import numpy as np\nfrom kspark.errors import invalid"),
        ("job/fit.py", "from kspark.worker.tasks import FitTask"),
        ("job/epochs.py", "from kspark.job.fit import Fit"),
        ("rounds/task.py", "from kspark.worker import state"),
        ("spark_model/model.py", "from kspark import job, saving"),
        ("replica/pickling.py", "from pyspark import cloudpickle"),
        ("replica/spec.py", "from kspark.replica.backends import use_backend"),
        ("live/task.py", "from kspark.live.transport import AggregatorClient"),
        ("live/task.py", "from kspark.live import transport"),
        ("live/transport/channel.py", "import socket"),
        ("ml/__init__.py", "from kspark.ml.elephas.estimator import ElephasEstimator"),
        ("replica/backends/tensorflow.py", "import tensorflow as tf\ntf.function"),
        ("shards/files.py", "np.load(f, allow_pickle=False)"),
        ("shards/files.py", "def f():\n    '''Doc.\n" + "\n" * 60 + "'''\n" + "    x = 1\n" * 50),
    ],
)
def test_accepts(file, source):
    assert violations(file, source) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("novelty.py", "", "no place"),
        ("weights/spec.py", "from kspark.novelty import x", "no place"),
        (
            "errors.py",
            "from kspark.weights import compute_delta",
            "errors (layer 0) imports weights",
        ),
        ("worker/state.py", "import kspark.job.fit", "worker (layer 4) imports job"),
        ("replica/state.py", "def f():\n    from kspark import job", "(layer 2) imports job"),
        ("job/fit.py", "from kspark import __version__", "imports kspark (layer 9)"),
        ("optimizers/base.py", "from kspark.aggregator import Aggregator", "imports aggregator"),
        ("cluster/engine.py", "from kspark.saving import save", "imports saving (layer 1)"),
        (
            "rounds/driver.py",
            "from kspark.live.run import LiveRun",
            "(layer 6) imports live",
        ),
        ("live/driver.py", "from kspark import rounds", "live (layer 6) imports rounds"),
        ("rounds/task.py", "from kspark.job.fit import Fit", "runs in a task and imports job"),
        ("live/task.py", "from kspark import job", "runs in a task and imports job"),
        ("live/wire/frames.py", "from kspark.live.run import LiveRun", "live.wire (layer 3)"),
        ("ml/stage.py", "from kspark.ml.elephas.stage import x", "imports ml.elephas"),
        (
            "replica/backends/base.py",
            "from kspark.replica import spec",
            "imports replica",
        ),
        ("worker/state.py", "from .state import x", "relative import"),
        ("worker/state.py", "import keras", "worker imports keras"),
        ("replica/spec.py", "import tensorflow as tf", "replica imports tensorflow"),
        ("spark_model/model.py", "def f():\n    import torch", "spark_model imports torch"),
        ("aggregator.py", "from pyspark.sql import SparkSession", "aggregator imports pyspark"),
        ("session/java.py", "import requests", "session imports requests"),
        ("compression/int8.py", "import socket", "opens a door: socket"),
        ("compression/int8.py", "from kspark.live.wire import encode", "imports live.wire"),
        ("live/wire/frames.py", "import socket", "opens a door: socket"),
        ("shards/files.py", "from urllib.request import urlopen", "opens a door: urllib.request"),
        ("live/coordinator/gate.py", "import multiprocessing.shared_memory", "opens a door"),
        ("live/wire/frames.py", "import pickle", "imports pickle"),
        ("live/transport/client.py", "from pickle import loads", "imports pickle loads"),
        ("job/fit.py", "from pyspark import cloudpickle", "imports pyspark cloudpickle"),
        ("job/fit.py", "import pyspark.cloudpickle", "imports pyspark.cloudpickle"),
        ("replica/spec.py", "import pickle", "imports pickle"),
        ("saving/document.py", "np.load(f, allow_pickle=True)", "allow_pickle"),
        ("saving/document.py", "np.load(f, allow_pickle=maybe)", "allow_pickle"),
        ("replica/backends/base.py", "from keras.src import ops", "keras.src"),
        ("replica/backends/base.py", "import keras.src.ops", "keras.src"),
        ("replica/backends/base.py", "from keras import src", "keras.src"),
        ("replica/backends/base.py", "import keras\nkeras.src.ops", "keras.src"),
        ("replica/backends/base.py", "import_module('keras.src.ops')", "keras.src"),
        ("replica/backends/base.py", "import tensorflow as tf\ntf.python.ops", "tensorflow.py"),
        (
            "replica/backends/base.py",
            "from tensorflow.python.eager import context",
            "tensorflow.python",
        ),
        ("job/fit.py", "from pyspark._globals import x", "private name"),
        ("job/fit.py", "from pyspark.sql import _functions", "private name"),
        ("plan/checks.py", "assert True", "assert in line 1"),
        ("plan/checks.py", "\nprint(1)", "print() in line 2"),
        ("plan/checks.py", "eval('1')", "eval() in line 1"),
        ("plan/checks.py", "def f():\n" + "    x = 1\n" * 51, "f has a body of 51 lines"),
        (
            "plan/checks.py",
            "class C:\n  async def f():\n" + "    x = 1\n" * 51,
            "f has a body of 51",
        ),
        ("plan/checks.py", "x = 1\n" * 351, "351 lines"),
    ],
)
def test_complains(file, source, complaint):
    assert any(complaint in violation for violation in violations(file, source))
