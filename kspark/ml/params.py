"""The `Param`s of kspark's stages, in groups that stages inherit.

A Param that Spark ML also has keeps its name and its meaning there. Every Param has a getter and a
setter: `epochs` has `getEpochs()` and `setEpochs(value)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Signature
from typing import Any, ClassVar, TypeVar, get_type_hints

from pyspark.ml.param import Param, Params

from kspark.errors import invalid, unknown_argument
from kspark.ml import converters as to
from kspark.ml.accessors import (
    ClassAccessors,
    FeatureAccessors,
    PredictionAccessors,
    TargetAccessors,
    TrainingAccessors,
)
from kspark.ml.naming import camel_case
from kspark.ml.signatures import (
    StageParam,
    add_accessors,
    defaults_of,
    documented,
    signature_of,
)
from kspark.ml.unsaved import HoldsSteps
from kspark.plan.checks import (
    check_boolean,
    check_choice,
    check_fraction,
    check_integer,
    check_number_of_epochs,
    check_reshuffle,
)
from kspark.plan.learning_rate import RULES
from kspark.plan.settings import SETTINGS, Settings

BY_NAME = ("compression", "server_optimizer")
"""Settings that are also given by a name or a configuration, and not only by an object."""

SETTING_TYPES: Mapping[str, Any] = get_type_hints(Settings)
"""The type of each setting, by name."""

CLASSIFICATIONS = ("auto", "binary", "multiclass", "multilabel")

S = TypeVar("S", bound="StageParams")


def param(name: str, doc: str, converter: to.Converter, kind: Any) -> Param[Any]:
    """Declare a Param in a class that stages inherit.

    Args:
        name: String, name of the Param.
        doc: String, a short description.
        converter: Function that checks a value and converts it.
        kind: Type of the values that a user sets.
    """
    return StageParam(Params._dummy(), name, doc, converter, kind)


def setting_param(setting: str) -> Param[Any]:
    """Declare the Param of a setting of `SparkModel`, from its declaration in `plan.settings`."""
    kind = Any if setting in BY_NAME else SETTING_TYPES[setting]
    return param(camel_case(setting), SETTINGS[setting].doc, to.setting(setting), kind)


class StageParams(HoldsSteps):
    """Params of a stage: constructor arguments, getters and setters.

    `DEFAULTS` of a subclass has the default values of its Params.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {}
    __signature__: ClassVar[Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if isinstance(value, StageParam):
                add_accessors(cls, name, value)
        cls.__signature__ = signature_of(cls)
        cls.__doc__ = documented(cls)

    def __init__(self, **params: Any) -> None:
        super().__init__()
        defaults = defaults_of(type(self))
        self._setDefault(**{k: v for k, v in defaults.items() if self.hasParam(k)})
        self.setParams(**params)

    def setParams(self: S, **params: Any) -> S:
        """Set Params by name. Values of `None` are ignored.

        Args:
            **params: Values by name of the Param.

        Returns:
            `self`.

        Raises:
            TypeError: If there is no Param of a name, or a value has a wrong type.
            ValueError: If a value is out of range.
        """
        names = [p.name for p in self.params]
        for name in params:
            if name not in names:
                raise unknown_argument(name, names)
        return self._set(**{k: v for k, v in params.items() if v is not None})

    def value_of(self, name: str) -> Any:
        """Return the value of a Param or its default, or `None` if it has neither.

        Args:
            name: String, the Param's name.
        """
        return self.getOrDefault(name) if self.isDefined(name) else None


class HasFeatures(StageParams, FeatureAccessors):
    """Params for the inputs of the model."""

    featuresCol = param(
        "featuresCol",
        "column of the features (vectors, numbers, text, nested arrays of numbers), or list of "
        "columns: a model of one input takes them side by side, a model of several one each.",
        to.column_names("featuresCol"),
        str | Sequence[str],
    )
    inputCols = param(
        "inputCols",
        "dictionary from input name to column(s), in place of featuresCol, for a model of several "
        "inputs.",
        to.columns_by_name("inputCols", also_plain=False),
        Mapping[str, str | Sequence[str]],
    )
    preprocess = param(
        "preprocess",
        "what makes the model's inputs of the columns of features, on the workers, batch by batch: "
        "a function of a dictionary from column to array, its import name, or a Keras layer.",
        to.step("preprocess"),
        Any,
    )
    DEFAULTS = {"featuresCol": "features"}

    def feature_columns(self) -> Any:
        """Return the columns of the features for `kspark.adapters.Columns`.

        Raises:
            ValueError: If both Params are set.
        """
        if not self.isSet("inputCols"):
            return self.getOrDefault("featuresCol")
        if self.isSet("featuresCol"):
            rule = "left out when `inputCols` is set"
            raise invalid("featuresCol", rule, self.value_of("featuresCol"))
        return self.getOrDefault("inputCols")


class HasTargets(StageParams, TargetAccessors):
    """Params for the labels, the sample weights and the rows to validate on."""

    labelCol = param(
        "labelCol",
        "column of the labels; for several outputs, a list of columns, or a dictionary from output "
        "name to column.",
        to.columns_by_name("labelCol", also_plain=True),
        str | Sequence[str] | Mapping[str, str],
    )
    weightCol = param(
        "weightCol",
        "column of sample weights: a number per row, or an array of one per time step; for several "
        "outputs, also a list of columns, or a dictionary from output name to column.",
        to.columns_by_name("weightCol", also_plain=True),
        str | Sequence[str] | Mapping[str, str],
    )
    validationIndicatorCol = param(
        "validationIndicatorCol",
        "boolean column that is true for rows to validate on instead of training.",
        to.text("validationIndicatorCol"),
        str,
    )
    validationSplit = param(
        "validationSplit",
        "fraction of every partition to validate on instead of training.",
        to.checked("validationSplit", check_fraction),
        float,
    )
    DEFAULTS = {"labelCol": "label", "validationSplit": 0.0}


class HasTraining(StageParams, TrainingAccessors):
    """Params of training: the settings of `SparkModel` and the arguments of its `fit`."""

    epochs = param(
        "epochs", "passes over the data.", to.checked("epochs", check_integer, least=1), int
    )
    mode = setting_param("mode")
    frequency = setting_param("frequency")
    numWorkers = setting_param("num_workers")
    serverOptimizer = setting_param("server_optimizer")
    batchSize = setting_param("batch_size")
    port = setting_param("port")
    road = setting_param("road")
    seed = setting_param("seed")
    timeout = setting_param("timeout")
    stepTimeout = setting_param("step_timeout")
    maxFailures = setting_param("max_failures")
    onNonfinite = setting_param("on_nonfinite")
    maxStaleness = setting_param("max_staleness")
    compression = setting_param("compression")
    stragglerTimeout = setting_param("straggler_timeout")
    shuffle = param(
        "shuffle",
        "whether to shuffle every shard before each epoch.",
        to.checked("shuffle", check_boolean),
        bool,
    )
    reshuffle = param(
        "reshuffle",
        "when to mix the rows between the workers: epoch, before every epoch, or before the first "
        "one and after every so many epochs.",
        to.checked("reshuffle", check_reshuffle),
        int | str,
    )
    classWeight = param(
        "classWeight", "dictionary from class to weight.", to.class_weight, Mapping[int, float]
    )
    callbacks = param(
        "callbacks",
        "list of Keras callbacks, which every fit copies, or a function that returns one, which "
        "every fit calls. Not saved.",
        to.callbacks,
        Any,
    )
    verbose = param("verbose", "0, 1, 2 or auto, as in keras.Model.fit.", to.verbosity, int | str)
    augment = param(
        "augment",
        "what changes the model's inputs in training only: a function of a batch of them, its "
        "import name, or a Keras layer.",
        to.step("augment"),
        Any,
    )
    scaleLr = param(
        "scaleLr",
        "how to scale the learning rate with the number of workers: linear or sqrt.",
        to.checked("scaleLr", check_choice, choices=RULES),
        str,
    )
    warmupEpochs = param(
        "warmupEpochs",
        "number of epochs in which the factor of scaleLr grows from 1.",
        to.checked("warmupEpochs", check_number_of_epochs),
        float,
    )
    DEFAULTS = {
        **{camel_case(name): s.default for name, s in SETTINGS.items() if s.default is not None},
        "epochs": 1,
        "shuffle": True,
        "verbose": 0,
        "warmupEpochs": 0.0,
    }

    def model_arguments(self) -> dict[str, Any]:
        """Return the settings for `SparkModel`, from the Params."""
        return {name: self.value_of(camel_case(name)) for name in SETTINGS}

    def class_weights(self) -> dict[int, float] | None:
        """Return `classWeight` with integers as keys."""
        weights: Mapping[str, float] | None = self.value_of("classWeight")
        return None if weights is None else {int(k): w for k, w in weights.items()}


class HasPrediction(StageParams, PredictionAccessors):
    """Params for the columns that `transform` adds."""

    predictionCol = param(
        "predictionCol",
        "new column of the predictions; an empty string adds none.",
        to.text("predictionCol"),
        str,
    )
    inferenceBatchSize = param(
        "inferenceBatchSize",
        "examples per batch in transform.",
        to.checked("inferenceBatchSize", check_integer, least=1),
        int,
    )
    featureLayer = param(
        "featureLayer",
        "name of a layer of the model (which may be a model itself). If it is set, transform adds "
        "the activations of the layer in outputCol, as vectors, in place of predictions.",
        to.text("featureLayer"),
        str,
    )
    outputCol = param("outputCol", "new column of the activations.", to.text("outputCol"), str)
    DEFAULTS = {
        "predictionCol": "prediction",
        "inferenceBatchSize": 1024,
        "outputCol": "activations",
    }


class HasClasses(StageParams, ClassAccessors):
    """Params for the columns that a classifier adds, and for the meaning of its output."""

    probabilityCol = param(
        "probabilityCol",
        "new column of the probabilities; an empty string adds none.",
        to.text("probabilityCol"),
        str,
    )
    rawPredictionCol = param(
        "rawPredictionCol",
        "new column of the logits; an empty string adds none.",
        to.text("rawPredictionCol"),
        str,
    )
    thresholds = param(
        "thresholds",
        "one number per class. The prediction is the class with the largest ratio of probability "
        "to threshold; with several labels per row, each label whose probability exceeds it.",
        to.thresholds,
        Sequence[float],
    )
    classification = param(
        "classification",
        "binary, multiclass, multilabel, or auto: inferred from the loss and the output.",
        to.checked("classification", check_choice, choices=CLASSIFICATIONS),
        str,
    )
    fromLogits = param(
        "fromLogits",
        "whether the model's outputs are logits or margins; inferred from the loss if not set.",
        to.checked("fromLogits", check_boolean),
        bool,
    )
    DEFAULTS = {
        "probabilityCol": "probability",
        "rawPredictionCol": "rawPrediction",
        "classification": "auto",
    }
