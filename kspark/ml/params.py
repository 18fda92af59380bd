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
from kspark.ml import converters as to
from kspark.ml.naming import camel_case
from kspark.plan.checks import (
    check_boolean,
    check_choice,
    check_fraction,
    check_integer,
    check_number_of_epochs,
)
from kspark.plan.learning_rate import RULES
from kspark.plan.settings import SETTINGS

CLASSIFICATIONS = ("auto", "binary", "multiclass", "multilabel")

S = TypeVar("S", bound="StageParams")


def param(name: str, doc: str, converter: to.Converter) -> Param[Any]:
    """A Param that stages inherit."""
    return Param(Params._dummy(), name, doc, typeConverter=converter)


def setting_param(setting: str) -> Param[Any]:
    """The Param of a setting of `SparkModel`, which `kspark.plan.settings` declares."""
    name, declared = camel_case(setting), SETTINGS[setting]
    return param(name, declared.doc, to.setting(name, declared))


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
        to.checked("validationSplit", check_fraction),
    )
    DEFAULTS = {"labelCol": "label", "validationSplit": 0.0}


class HasTraining(StageParams):
    """How to train; see `kspark.SparkModel`."""

    epochs = param("epochs", "passes over the data.", to.checked("epochs", check_integer, least=1))
    mode = setting_param("mode")
    frequency = setting_param("frequency")
    numWorkers = setting_param("num_workers")
    serverOptimizer = setting_param("server_optimizer")
    batchSize = setting_param("batch_size")
    port = setting_param("port")
    seed = setting_param("seed")
    timeout = setting_param("timeout")
    maxFailures = setting_param("max_failures")
    onNonfinite = setting_param("on_nonfinite")
    maxStaleness = setting_param("max_staleness")
    compression = setting_param("compression")
    stragglerTimeout = setting_param("straggler_timeout")
    shuffle = param(
        "shuffle", "whether every shard is shuffled.", to.checked("shuffle", check_boolean)
    )
    classWeight = param("classWeight", "dictionary from class to weight.", to.class_weight)
    callbacks = param(
        "callbacks",
        "list of keras callbacks, of which every fit gets copies, or a function that returns one "
        "and is called by every fit. Not saved.",
        to.callbacks,
    )
    verbose = param("verbose", "0, 1, 2 or auto, as in keras.Model.fit.", to.verbosity)
    scaleLr = param(
        "scaleLr",
        "how the learning rate follows the number of workers: linear or sqrt.",
        to.checked("scaleLr", check_choice, choices=RULES),
    )
    warmupEpochs = param(
        "warmupEpochs",
        "first epochs, in which the learning rate grows to that.",
        to.checked("warmupEpochs", check_number_of_epochs),
    )
    DEFAULTS = {
        **{camel_case(name): s.default for name, s in SETTINGS.items() if s.default is not None},
        "epochs": 1,
        "shuffle": True,
        "verbose": 0,
        "warmupEpochs": 0.0,
    }

    def model_arguments(self) -> dict[str, Any]:
        """The settings of `SparkModel` that Params stand for."""
        return {name: self.value_of(camel_case(name)) for name in SETTINGS}

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
        "inferenceBatchSize",
        "examples per batch.",
        to.checked("inferenceBatchSize", check_integer, least=1),
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
        to.checked("classification", check_choice, choices=CLASSIFICATIONS),
    )
    fromLogits = param(
        "fromLogits",
        "whether the model's output are logits or margins; decided by the loss if not set.",
        to.checked("fromLogits", check_boolean),
    )
    DEFAULTS = {
        "probabilityCol": "probability",
        "rawPredictionCol": "rawPrediction",
        "classification": "auto",
    }
