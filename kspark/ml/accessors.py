"""The getters and setters of the stages, for type checkers.

`kspark.ml.params` and `kspark.ml.elephas.params` add the methods when a class is made. Type
checkers read `accessors.pyi` instead of this file. It also has the arguments of the constructors,
as dictionaries with types. Write it again when a Param changes:

    python tests/fixtures/generate_accessors.py
"""

from __future__ import annotations


class FeatureAccessors:
    """Getters and setters of `HasFeatures`."""


class TargetAccessors:
    """Getters and setters of `HasTargets`."""


class TrainingAccessors:
    """Getters and setters of `HasTraining`."""


class PredictionAccessors:
    """Getters and setters of `HasPrediction`."""


class ClassAccessors:
    """Getters and setters of `HasClasses`."""


class ElephasStageAccessors:
    """Getters and setters of both of Elephas' stages."""


class ElephasEstimatorAccessors:
    """Getters and setters of `ElephasEstimator` only."""


class ElephasTransformerAccessors:
    """Getters and setters of `ElephasTransformer` only."""
