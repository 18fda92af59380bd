"""The `Param`s of kspark's stages, in groups that stages inherit.

Names and meanings are Spark's where Spark has the Param. Every Param has a getter
and a setter: `epochs` has `getEpochs()` and `setEpochs(value)`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pyspark.ml.param import Param, Params

from kspark.errors import invalid
from kspark.learning_rate import RULES
from kspark.ml import converters as to
from kspark.plan import MODES

S = TypeVar("S", bound="StageParams")


def param(name: str, doc: str, converter: to.Converter) -> Param[Any]:
    """A Param that stages inherit."""
    return Param(Params._dummy(), name, doc, typeConverter=converter)


class StageParams(Params):
    """Params of a stage: constructor arguments, getters and setters.

    A subclass lists what its Params are when nobody sets them in `DEFAULTS`.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if isinstance(value, Param):
                add_accessors(cls, name, value.doc)

    def __init__(self, **params: Any) -> None:
        super().__init__()
        for base in reversed(type(self).__mro__):
            defaults = vars(base).get("DEFAULTS", {})
            self._setDefault(**{k: v for k, v in defaults.items() if self.hasParam(k)})
        self.setParams(**params)

    def setParams(self: S, **params: Any) -> S:
        """Set several Params by name; `None` leaves one as it is.

        Raises:
            TypeError: If there is no Param of a name, or a value is of a wrong type.
            ValueError: If a value is out of range.
        """
        names = [p.name for p in self.params]
        for name in params:
            if name not in names:
                raise unknown(name, names)
        return self._set(**{k: v for k, v in params.items() if v is not None})

    def value_of(self, name: str) -> Any:
        """A Param's value or its default; `None` if it has neither.

        Args:
            name: String, the Param's name.
        """
        return self.getOrDefault(name) if self.isDefined(name) else None


def add_accessors(cls: type, name: str, doc: str) -> None:
    """Give a class `getName` and `setName`, unless it has written them itself."""

    def get(self: StageParams) -> Any:
        return self.getOrDefault(name)

    def put(self: StageParams, value: Any) -> Any:
        return self._set(**{name: value})

    title = name[0].upper() + name[1:]
    texts = {"get": f"The value of `{name}`: {doc}", "set": f"Set `{name}`: {doc} Returns `self`."}
    for verb, accessor in (("get", get), ("set", put)):
        if not hasattr(cls, verb + title):
            accessor.__name__ = verb + title
            accessor.__qualname__ = f"{cls.__name__}.{verb}{title}"
            accessor.__doc__ = texts[verb]
            setattr(cls, verb + title, accessor)


def unknown(name: str, names: Iterable[str]) -> TypeError:
    """The error for a Param that does not exist, with the one that was perhaps meant."""
    by_form = {plain(n): n for n in names}
    near = difflib.get_close_matches(plain(name), by_form, n=1, cutoff=0.5)
    hint = f" Did you mean {by_form[near[0]]!r}?" if near else ""
    return TypeError(f"Argument not recognized: {name!r}.{hint}")


def plain(name: str) -> str:
    """A name without the differences between `batch_size`, `batchSize` and `BatchSize`."""
    return name.replace("_", "").lower()


class HasFeatures(StageParams):
    """Where the model's inputs come from."""

    featuresCol = param(
        "featuresCol",
        "column of the features (vectors, numbers, text, nested arrays of numbers), or list of "
        "columns: side by side for a model of one input, one each for a model of several.",
        to.column_names("featuresCol"),
    )
    inputCols = param(
        "inputCols",
        "dictionary from input name to column(s), for a model of several inputs; instead of "
        "featuresCol.",
        to.columns_by_name("inputCols", also_plain=False),
    )
    DEFAULTS = {"featuresCol": "features"}

    def feature_columns(self) -> Any:
        """The columns as `kspark.adapters.Columns` takes them.

        Raises:
            ValueError: If both Params are set.
        """
        if not self.isSet("inputCols"):
            return self.getOrDefault("featuresCol")
        if self.isSet("featuresCol"):
            rule = "left out when `inputCols` is set"
            raise invalid("featuresCol", rule, self.value_of("featuresCol"))
        return self.getOrDefault("inputCols")


class HasTargets(StageParams):
    """What is learned, and from which rows."""

    labelCol = param(
        "labelCol",
        "column of the labels; list, or dictionary from output name, for several outputs.",
        to.columns_by_name("labelCol", also_plain=True),
    )
    weightCol = param("weightCol", "column of sample weights.", to.text("weightCol"))
    validationIndicatorCol = param(
        "validationIndicatorCol",
        "boolean column: rows where it is true validate and do not train.",
        to.text("validationIndicatorCol"),
    )
    validationSplit = param(
        "validationSplit",
        "part of every partition that validates and does not train.",
        to.fraction("validationSplit"),
    )
    DEFAULTS = {"labelCol": "label", "validationSplit": 0.0}


class HasTraining(StageParams):
    """How to train; see `kspark.SparkModel`."""

    epochs = param("epochs", "passes over the data.", to.integer("epochs", 1))
    batchSize = param("batchSize", "examples per batch and worker.", to.integer("batchSize", 1))
    mode = param("mode", "one of " + ", ".join(MODES) + ".", to.mode)
    frequency = param(
        "frequency", "when workers exchange: epoch, batch, or a number of batches.", to.frequency
    )
    serverOptimizer = param(
        "serverOptimizer", "what a merged change does to the weights.", to.server_optimizer
    )
    numWorkers = param(
        "numWorkers", "shards the data is divided into.", to.integer("numWorkers", 1)
    )
    shuffle = param("shuffle", "whether every shard is shuffled.", to.boolean("shuffle"))
    classWeight = param("classWeight", "dictionary from class to weight.", to.class_weight)
    callbacks = param(
        "callbacks",
        "list of keras callbacks, of which every fit gets copies, or a function that returns one "
        "and is called by every fit. Not saved.",
        to.callbacks,
    )
    verbose = param("verbose", "0, 1, 2 or auto, as in keras.Model.fit.", to.verbosity)
    seed = param("seed", "for repeatable fits.", to.integer("seed", 0))
    port = param("port", "where live modes listen: a port, or first and last.", to.port)
    timeout = param("timeout", "seconds to wait for a lost worker.", to.positive("timeout"))
    maxFailures = param(
        "maxFailures", "how often a lost worker is started again.", to.integer("maxFailures", 0)
    )
    onNonfinite = param(
        "onNonfinite",
        "raise or ignore a loss that is not finite.",
        to.choice("onNonfinite", "raise", "ignore"),
    )
    compression = param(
        "compression", "what changes travel as: float16, bfloat16, int8, top_k.", to.compression
    )
    maxStaleness = param(
        "maxStaleness",
        "asynchronous mode: exchanges that a worker may be ahead of the slowest.",
        to.integer("maxStaleness", 0),
    )
    stragglerTimeout = param(
        "stragglerTimeout",
        "seconds that a round waits for its slowest workers once most have come.",
        to.positive("stragglerTimeout"),
    )
    scaleLr = param(
        "scaleLr",
        "how the learning rate follows the number of workers: linear or sqrt.",
        to.choice("scaleLr", *RULES),
    )
    warmupEpochs = param(
        "warmupEpochs",
        "first epochs, in which the learning rate grows to that.",
        to.number_of_epochs("warmupEpochs"),
    )
    DEFAULTS = {
        "epochs": 1,
        "batchSize": 32,
        "mode": "synchronous",
        "frequency": "epoch",
        "serverOptimizer": "average",
        "shuffle": True,
        "verbose": 0,
        "port": 0,
        "timeout": 60.0,
        "maxFailures": 2,
        "onNonfinite": "raise",
        "warmupEpochs": 0.0,
    }

    def model_arguments(self) -> dict[str, Any]:
        """The arguments of `SparkModel` that Params stand for."""
        names = {
            **{n: n for n in ("mode", "frequency", "seed", "port", "timeout", "compression")},
            "serverOptimizer": "server_optimizer",
            "numWorkers": "num_workers",
            "batchSize": "batch_size",
            "maxFailures": "max_failures",
            "onNonfinite": "on_nonfinite",
            "maxStaleness": "max_staleness",
            "stragglerTimeout": "straggler_timeout",
        }
        return {argument: self.value_of(name) for name, argument in names.items()}

    def class_weights(self) -> dict[int, float] | None:
        """`classWeight` with classes as keys."""
        weights: Mapping[str, float] | None = self.value_of("classWeight")
        return None if weights is None else {int(k): w for k, w in weights.items()}


class HasPrediction(StageParams):
    """What `transform` adds, and how."""

    predictionCol = param(
        "predictionCol", "column of the predictions; empty for none.", to.text("predictionCol")
    )
    inferenceBatchSize = param(
        "inferenceBatchSize", "examples per batch.", to.integer("inferenceBatchSize", 1)
    )
    featureLayer = param(
        "featureLayer",
        "layer of the model, or model among its layers, whose activations transform adds, as "
        "vectors in outputCol, in place of predictions.",
        to.text("featureLayer"),
    )
    outputCol = param("outputCol", "column of the activations.", to.text("outputCol"))
    DEFAULTS = {
        "predictionCol": "prediction",
        "inferenceBatchSize": 1024,
        "outputCol": "activations",
    }


class HasClasses(StageParams):
    """What a classifier adds beside its prediction."""

    probabilityCol = param(
        "probabilityCol", "column of probabilities; empty for none.", to.text("probabilityCol")
    )
    rawPredictionCol = param(
        "rawPredictionCol", "column of logits; empty for none.", to.text("rawPredictionCol")
    )
    thresholds = param(
        "thresholds",
        "one number per class, by which its probability is divided before the largest is "
        "chosen; for several labels per row the probability that each must exceed.",
        to.thresholds,
    )
    classification = param(
        "classification",
        "binary, multiclass, multilabel, or auto to decide by loss and output.",
        to.choice("classification", "auto", "binary", "multiclass", "multilabel"),
    )
    fromLogits = param(
        "fromLogits",
        "whether the model's output are logits or margins; decided by the loss if not set.",
        to.boolean("fromLogits"),
    )
    DEFAULTS = {
        "probabilityCol": "probability",
        "rawPredictionCol": "rawPrediction",
        "classification": "auto",
    }
