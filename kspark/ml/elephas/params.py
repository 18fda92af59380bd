"""Params of the Elephas-compatible stages, with Elephas' names and defaults.

Most classes have one Param with its setter and getter, and can be used separately.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, ClassVar

from kspark.ml import converters as to
from kspark.ml.elephas import compiling as compiling
from kspark.ml.params import StageParams, param
from kspark.ml.signatures import StageParam
from kspark.ml.unsaved import CustomObjects
from kspark.plan.checks import check_boolean, check_choice, check_fraction, check_integer


class ElephasParams(StageParams):
    """Params with setters and getters of the form `set_epochs`, `get_epochs`.

    `ACCESSORS` and `KEYWORDS` list the Params whose setter, or whose setter's argument, has
    another name than the Param.
    """

    ACCESSORS: ClassVar[dict[str, str]] = {}
    KEYWORDS: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in list(vars(cls).items()):
            if isinstance(value, StageParam):
                add_snake_accessors(cls, name, value)


def add_snake_accessors(cls: type[ElephasParams], name: str, param: StageParam) -> None:
    """Add a getter and a setter for a Param to a class, unless the class defines them.

    They are named `get_title` and `set_title`, where the title is the entry in `ACCESSORS` or
    else the Param's name.
    """
    title, keyword = cls.ACCESSORS.get(name, name), cls.KEYWORDS.get(name, name)
    words = (("self", Parameter.empty), (keyword, param.kind))
    signature = Signature(
        [Parameter(w, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for w, kind in words]
    )

    def get(self: ElephasParams) -> Any:
        return self.getOrDefault(name)

    def put(self: ElephasParams, *values: Any, **named: Any) -> Any:
        given = signature.bind(self, *values, **named).arguments
        return self._set(**{name: given[keyword]})

    vars(put)["__signature__"] = signature
    for verb, accessor in (("get", get), ("set", put)):
        accessor.__name__ = f"{verb}_{title}"
        accessor.__qualname__ = f"{cls.__name__}.{verb}_{title}"
        accessor.__doc__ = f"{verb.capitalize()} `{name}`: {param.doc}"
        if not hasattr(cls, accessor.__name__):
            setattr(cls, accessor.__name__, accessor)


def custom_objects(value: Any) -> CustomObjects:
    """Check and copy a dictionary from name to custom object."""
    return CustomObjects(compiling.dictionary("custom_objects")(value))


class HasKerasModelConfig(ElephasParams):
    """The model, as JSON."""

    keras_model_config = param(
        "keras_model_config",
        "the model as model.to_json() gives it.",
        to.text("keras_model_config"),
        str,
    )


class HasMode(ElephasParams):
    """The training mode."""

    mode = param("mode", "synchronous, asynchronous or hogwild.", to.setting("mode"), str)
    DEFAULTS = {"mode": "asynchronous"}


class HasFrequency(ElephasParams):
    """How often workers exchange weights."""

    frequency = param(
        "frequency", "epoch, batch, or a number of batches.", to.setting("frequency"), str | int
    )
    DEFAULTS = {"frequency": "epoch"}


class HasNumberOfClasses(ElephasParams):
    """The number of classes."""

    nb_classes = param(
        "nb_classes", "number of classes.", to.checked("nb_classes", check_integer, least=1), int
    )
    DEFAULTS = {"nb_classes": 10}


class HasCategoricalLabels(ElephasParams):
    """Whether to convert labels to one-hot."""

    categorical = param(
        "categorical",
        "whether labels become one-hot.",
        to.checked("categorical", check_boolean),
        bool,
    )
    DEFAULTS = {"categorical": True}
    ACCESSORS = {"categorical": "categorical_labels"}


class HasEpochs(ElephasParams):
    """Passes over the data."""

    epochs = param(
        "epochs", "passes over the data.", to.checked("epochs", check_integer, least=1), int
    )
    DEFAULTS = {"epochs": 10}


class HasBatchSize(ElephasParams):
    """Examples per batch and worker."""

    batch_size = param(
        "batch_size", "examples per batch.", to.checked("batch_size", check_integer, least=1), int
    )
    DEFAULTS = {"batch_size": 32}


class HasVerbosity(ElephasParams):
    """The output while training."""

    verbose = param("verbose", "0, 1 or 2.", to.verbosity, int | str)
    DEFAULTS = {"verbose": 0}
    ACCESSORS = {"verbose": "verbosity"}


class HasValidationSplit(ElephasParams):
    """The part of the data for validation."""

    validation_split = param(
        "validation_split",
        "part of every partition.",
        to.checked("validation_split", check_fraction),
        float,
    )
    DEFAULTS = {"validation_split": 0.1}


class HasNumberOfWorkers(ElephasParams):
    """The number of shards that the data is divided into."""

    num_workers = param(
        "num_workers", "number of workers.", to.checked("num_workers", check_integer, least=1), int
    )
    DEFAULTS = {"num_workers": 8}


class HasKerasOptimizerConfig(ElephasParams):
    """The optimizer."""

    optimizer_config = param(
        "optimizer_config",
        "an optimizer's name, or its configuration as keras.optimizers.serialize returns it.",
        compiling.optimizer_config,
        str | Mapping[str, Any],
    )
    DEFAULTS = {"optimizer_config": None}


class HasMetrics(ElephasParams):
    """The metrics."""

    metrics = param("metrics", "list of metrics.", compiling.metrics, Sequence[Any])
    DEFAULTS = {"metrics": ["acc"]}


class HasLoss(ElephasParams):
    """The loss."""

    loss = param("loss", "the loss' name.", compiling.loss, Any)


class HasCustomObjects(ElephasParams):
    """Custom layers, losses and other custom objects."""

    custom_objects = param(
        "custom_objects",
        "dictionary from name to object. Not saved.",
        custom_objects,
        Mapping[str, Any],
    )
    DEFAULTS: ClassVar[dict[str, Any]] = {"custom_objects": {}}


class HasInferenceBatchSize(ElephasParams):
    """Examples per batch of `transform`."""

    inference_batch_size = param(
        "inference_batch_size",
        "examples per batch of transform.",
        to.checked("inference_batch_size", check_integer, least=1),
        int,
    )
    DEFAULTS = {"inference_batch_size": None}
    KEYWORDS = {"inference_batch_size": "batch_size"}


class HasOutputType(ElephasParams):
    """The content of a classifier's output column. Elephas does not have these Params."""

    output_type = param(
        "output_type",
        "probability for an array of class probabilities, class for the class as a double.",
        to.checked("output_type", check_choice, choices=("probability", "class")),
        str,
    )
    from_logits = param(
        "from_logits",
        "whether a classifier's output are logits or margins, for output_type='class'; decided by "
        "the loss if not set.",
        to.checked("from_logits", check_boolean),
        bool,
    )
    DEFAULTS = {"output_type": "probability", "from_logits": None}


class HasElephasColumns(StageParams):
    """Names of columns. Elephas deprecates their setters in favour of the constructor."""

    featuresCol = param(
        "featuresCol",
        "column of the features.",
        to.column_names("featuresCol"),
        str | Sequence[str],
    )
    labelCol = param("labelCol", "column of the labels.", to.text("labelCol"), str)
    outputCol = param("outputCol", "column of the predictions.", to.text("outputCol"), str)
    DEFAULTS = {"featuresCol": "features", "labelCol": "label"}

    def setFeaturesCol(self, value: Any) -> Any:
        """Deprecated: pass `featuresCol` to the constructor."""
        return self._deprecated("featuresCol", value)

    def setLabelCol(self, value: Any) -> Any:
        """Deprecated: pass `labelCol` to the constructor."""
        return self._deprecated("labelCol", value)

    def setOutputCol(self, value: Any) -> Any:
        """Deprecated: pass `outputCol` to the constructor."""
        return self._deprecated("outputCol", value)

    def _deprecated(self, name: str, value: Any) -> Any:
        title = name[0].upper() + name[1:]
        text = f"`set{title}` is deprecated: pass `{name}` to the constructor."
        warnings.warn(text, DeprecationWarning, stacklevel=3)
        return self.setParams(**{name: value})
