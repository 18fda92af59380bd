"""`KerasClassifier` and its fitted stage, whose predictions all evaluators of Spark ML take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DataType, DoubleType, StructField

from kspark.errors import invalid
from kspark.ml.carried import CarriedModel
from kspark.ml.estimator import KerasEstimator
from kspark.ml.label_columns import refused_labels, with_labels
from kspark.ml.model import KerasModel
from kspark.ml.params import HasClasses
from kspark.ml.scoring import ClassifierFacts, check_thresholds, classifier_facts
from kspark.spark_model.arguments import compiled_model
from kspark.tracebacks import shows_the_users_line
from kspark.worker.scores import MULTILABEL, ClassScores, Scores

if TYPE_CHECKING:
    from kspark.ml.accessors import ClassificationModelArguments, ClassifierArguments, Unpack


class KerasClassificationModel(KerasModel, HasClasses):
    """A fitted `KerasClassifier`.

    `transform` adds `rawPredictionCol` (logits) and `probabilityCol`, both vectors, and
    `predictionCol`, the class as a double. With several labels per row, `predictionCol` is an
    array of the indices of the labels.

    Example:

    ```python
    fitted = KerasClassifier(model, epochs=5).fit(train)
    probabilities = fitted.transform(test).select("probability", "prediction")
    ```

    Args:
        model: As for `KerasModel`.
        customObjects: As for `KerasModel`.
        **params: Params by name.
    """

    __module__ = "kspark.ml"

    if TYPE_CHECKING:

        def __init__(
            self,
            model: Any = None,
            *,
            customObjects: Mapping[str, Any] | None = None,
            **params: Unpack[ClassificationModelArguments],
        ) -> None: ...

    _saved_outputs: Mapping[str, Any] | None = None
    """Kind and logits as they were inferred when the stage was saved, for a model without loss."""

    @property
    def numClasses(self) -> int:
        """Number of classes; with several labels per row, number of labels."""
        return self._facts().num_classes

    def extra_metadata(self) -> dict[str, Any]:
        """See `Stage.extra_metadata`. The loss may be unknown where the stage is loaded."""
        outputs = self._saved_outputs
        if self.carried is not None and self.carried.model.compiled:
            facts = classifier_facts(self.carried.model)
            outputs = {"kind": facts.kind, "logits": facts.logits}
        return {**super().extra_metadata(), "outputs": outputs}

    def take_metadata(self, metadata: dict[str, Any]) -> None:
        """See `Stage.take_metadata`.

        Raises:
            ValueError: If the model was loaded without its loss, and kspark 0.1 saved it, which
                did not save the meaning of the outputs.
        """
        super().take_metadata(metadata)
        self._saved_outputs = metadata.get("outputs")
        if self._saved_outputs is None and self.not_compiled is not None:
            raise ValueError(
                "A stage that kspark 0.1 saved needs its loss, which says whether the outputs are "
                f"logits. {self.not_compiled}"
            ) from self.not_compiled

    def _facts(self) -> ClassifierFacts:
        model = self.kerasModel
        kind, logits = self.getOrDefault("classification"), self.value_of("fromLogits")
        if self._saved_outputs is not None and not model.compiled:
            kind = self._saved_outputs["kind"] if kind == "auto" else kind
            logits = self._saved_outputs["logits"] if logits is None else logits
        return classifier_facts(model, kind, logits)

    def _scores(self) -> tuple[list[StructField], Scores]:
        facts = self._facts()
        thresholds = self.value_of("thresholds")
        check_thresholds(thresholds, facts)
        kind: DataType = DoubleType()
        if facts.kind == MULTILABEL:
            kind = ArrayType(kind)
        columns = [
            (self.getOrDefault("rawPredictionCol"), VectorUDT()),
            (self.getOrDefault("probabilityCol"), VectorUDT()),
            (self.getOrDefault("predictionCol"), kind),
        ]
        scores = ClassScores(
            facts.kind,
            facts.logits,
            None if thresholds is None else tuple(thresholds),
            *(bool(name) for name, _ in columns),
        )
        return [StructField(name, kind) for name, kind in columns if name], scores


class KerasClassifier(KerasEstimator, HasClasses):
    """A `KerasEstimator` for classification.

    The model has one output with, per row, one number for two classes (a sigmoid or a logit),
    one number per class (softmax or logits) or, with a binary loss, one number per label.
    Outputs of a hinge loss count as logits unless their activation is sigmoid or softmax.

    Labels are class numbers of any numeric type, or one-hot arrays or vectors; both work with
    all of Keras' losses. With several labels per row, they are arrays or vectors of 0 and 1.

    Example:

    ```python
    classifier = KerasClassifier(model, featuresCol="features", labelCol="label", epochs=5)
    predictions = classifier.fit(train).transform(test)
    ```

    Args:
        model: As for `KerasEstimator`.
        customObjects: As for `KerasEstimator`.
        **params: Params by name.
    """

    __module__ = "kspark.ml"

    if TYPE_CHECKING:

        def __init__(
            self,
            model: Any = None,
            *,
            customObjects: Mapping[str, Any] | None = None,
            **params: Unpack[ClassifierArguments],
        ) -> None: ...

    def _checked(self, model: Any) -> keras.Model:
        checked = compiled_model(model)
        if checked.built:
            facts_of(self, checked)
        return checked

    @shows_the_users_line
    def _fit(self, dataset: DataFrame) -> KerasModel:
        with refused_labels():
            return super()._fit(dataset)

    def _labelled(self, dataset: DataFrame, model: keras.Model) -> DataFrame:
        label = self.getOrDefault("labelCol")
        if not isinstance(label, str):
            raise invalid("labelCol", "one column for a classifier", label)
        facts = facts_of(self, model)
        check_thresholds(self.value_of("thresholds"), facts)
        return with_labels(dataset, label, facts)

    def _fitted(self, carried: CarriedModel) -> KerasClassificationModel:
        return self._as(KerasClassificationModel(), carried)


def facts_of(stage: HasClasses, model: keras.Model) -> ClassifierFacts:
    """Return the meaning of a model's output, from a stage's Params and from the model."""
    return classifier_facts(
        model, stage.getOrDefault("classification"), stage.value_of("fromLogits")
    )
