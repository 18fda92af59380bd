"""A step of preprocessing: a function of a batch, or a Keras layer, as plain data and back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kspark.errors import Described, invalid, invalid_type
from kspark.replica import pickling
from kspark.replica.backends.randomness import kept_randomness
from kspark.replica.import_names import import_name, imported
from kspark.replica.model_spec import ModelSpec
from kspark.replica.signature import symbolic
from kspark.replica.variables import rng_variables
from kspark.shards import RAGGED
from kspark.shards.ragged import kind_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class LayerSpec:
    """A Keras layer as plain data.

    Attributes:
        model: `ModelSpec` of the layer, or of a model that contains it alone.
        is_model: Boolean, whether the layer itself is a model.
        is_by_name: Boolean, whether it takes a dictionary also of one array, as a
            `keras.utils.FeatureSpace` does. Defaults to `False`.
    """

    model: ModelSpec
    is_model: bool
    is_by_name: bool = False

    @classmethod
    def of(cls, layer: keras.Layer, custom_objects: Mapping[str, Any] | None = None) -> LayerSpec:
        """Describe a layer.

        Raises:
            ValueError: If it cannot be rebuilt from its configuration.
        """
        import keras

        model = container_of(layer)
        is_by_name = isinstance(layer, keras.utils.FeatureSpace)
        spec = ModelSpec.of(model, custom_objects)
        return cls(spec, isinstance(layer, keras.Model), is_by_name)

    def make(self) -> tuple[keras.Model, keras.Layer]:
        """Make a copy of the layer, and return the model that contains it and the copy itself."""
        model = self.model.make()
        return model, model if self.is_model else model.layers[0]


@dataclass(frozen=True)
class Step:
    """A function of a batch, or a layer, as plain data. Create it with `Step.of`.

    Attributes:
        argument: String, `"preprocess"` or `"augment"`, for errors.
        title: String, a short description.
        function: Bytes, a pickled function, or `None`.
        layers: Tuple of `LayerSpec`: the layer itself, or those that the function uses.
    """

    argument: str
    title: str
    function: bytes | None = field(repr=False)
    layers: tuple[LayerSpec, ...] = field(repr=False)

    @property
    def shown(self) -> str:
        """The function or layer in errors: a function of the main program by its own name."""
        if self.function is None:
            return self.title
        own = self.title.removeprefix("__main__:").rpartition("<locals>.")[2]
        return "a lambda" if own.endswith("<lambda>") else f"the function {own!r}"

    @property
    def takes_one_array(self) -> bool:
        """Whether it gets an only array itself, and no dictionary; see `arranged_for`."""
        return self.function is None and not any(spec.is_by_name for spec in self.layers)

    @classmethod
    def of(
        cls, argument: str, value: Any, custom_objects: Mapping[str, Any] | None = None
    ) -> Step | None:
        """Describe the value of an argument. `None` stays `None`.

        Args:
            argument: String, the name of the argument.
            value: Function, `keras.Layer`, import name "module:name" of a function, or `None`.
            custom_objects: Mapping from name to class or function that layers need. Defaults to
                `None`.

        Raises:
            TypeError: If it is neither a function nor a layer.
            ValueError: If it cannot be sent to the workers.
        """
        import keras

        value = checked(argument, value)
        if value is None:
            return None
        if isinstance(value, keras.Layer):
            spec = described(argument, value, custom_objects)
            return cls(argument, title_of(value), None, (spec,))
        data, layers = pickling.dump_with_layers({argument: value})
        specs = tuple(described(argument, layer, custom_objects) for layer in layers)
        return cls(argument, import_name(value), data, specs)

    def make(self) -> BuiltStep:
        """Make the function or the layer."""
        made = [spec.make() for spec in self.layers]
        containers, layers = [model for model, _ in made], [layer for _, layer in made]
        if self.function is None:
            return BuiltStep(self, layers[0], containers)
        return BuiltStep(self, pickling.load(self.function, layers)[self.argument], containers)


class BuiltStep:
    """A function or a layer in the process that calls it.

    Args:
        step: `Step` that it was made from.
        call: The function or the layer.
        containers: List of models that contain its layers.
    """

    def __init__(self, step: Step, call: Any, containers: Sequence[keras.Model]) -> None:
        self._step = step
        self._call = call
        self._containers = list(containers)
        self._num_weights = self._count()

    def __call__(self, rows: Any, *, training: bool, seed: Sequence[int] | None = None) -> Any:
        """Call it with a batch.

        Args:
            rows: Array, or list or dictionary of arrays.
            training: Boolean, see `keras.Layer.__call__`. Functions do not get it.
            seed: Sequence of integers, for the random numbers that it draws. Defaults to `None`:
                they are not seeded.

        Raises:
            ValueError: If a layer creates weights, which every worker would initialize by itself.
        """
        with seeded(seed, self._containers, everything=self._step.function is not None):
            if self._step.function is not None:
                found = self._call(rows)
            else:
                options = {"training": training} if takes_training(self._call) else {}
                found = self._call(tensors(arranged_for(self._call, rows)), **options)
        if self._count() != self._num_weights:
            rule = "a layer that has its weights: call it on one batch, or its `adapt`, before"
            raise invalid(self._step.argument, rule, self._step.title)
        return found

    def _count(self) -> int:
        return sum(len(model.weights) for model in self._containers)


def title_of(layer: keras.Layer) -> str:
    """Return the class and the name of a layer."""
    return f"{type(layer).__name__} {layer.name!r}"


def described(
    argument: str, layer: keras.Layer, custom_objects: Mapping[str, Any] | None
) -> LayerSpec:
    """Describe a layer of an argument as plain data.

    Raises:
        ValueError: If it has no vocabulary yet, or cannot be rebuilt from its configuration.
    """
    from kspark.saving.vocabularies import is_lookup, layers_of

    try:
        return LayerSpec.of(layer, custom_objects)
    except ValueError as error:
        lookups: list[Any] = [part for part in layers_of(container_of(layer)) if is_lookup(part)]
        if any(not part.get_vocabulary(include_special_tokens=False) for part in lookups):
            rule = "adapted: call `layer.adapt(texts)` before"
            raise invalid(argument, rule, title_of(layer)) from error
        raise


def checked(argument: str, value: Any) -> Any:
    """Return a function or a layer. That of an import name "module:name" is imported.

    Raises:
        TypeError: If it is neither a function nor a layer, nor `None`.
        ValueError: If there is no function of this name.
    """
    import keras

    if value is None:
        return None
    if isinstance(value, str):
        if value.isidentifier() and hasattr(keras.layers, value):
            rule = f"a layer, and not the name of its class: `keras.layers.{value}(...)`"
            raise invalid(argument, rule, value)
        return imported(value, argument)
    if isinstance(value, type) or not callable(value):
        rule = (
            'a function of a batch, a Keras layer, or the import name "module:name" of a function'
        )
        raise invalid_type(argument, rule, value)
    return value


def container_of(layer: keras.Layer) -> keras.Model:
    """Return a model, or a model that contains a layer alone. It need not be built."""
    import keras

    return layer if isinstance(layer, keras.Model) else keras.Sequential([layer])


def takes_training(layer: keras.Layer) -> bool:
    """Whether a layer is called with `training`, as all are but `keras.utils.FeatureSpace`."""
    parameters = inspect.signature(type(layer).__call__).parameters
    return "training" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def arranged_for(layer: keras.Layer, rows: Any) -> Any:
    """Return the arrays of a batch as a layer takes them.

    A functional model gets its inputs by their names, or in the order of the arrays. A
    `keras.utils.FeatureSpace` gets a dictionary of its features, also of one. Any other layer gets
    the only array itself, or the dictionary.

    Raises:
        ValueError: If there is no array for a feature of a `FeatureSpace`.
    """
    import keras

    if isinstance(layer, keras.utils.FeatureSpace):
        return features_for(list(layer.features), rows)
    if not isinstance(rows, dict):
        return rows
    tensors = symbolic(layer, "input", "inputs") if isinstance(layer, keras.Model) else None
    if isinstance(tensors, Mapping):
        if len(tensors) == len(rows) == 1:
            return dict(zip(tensors, rows.values(), strict=True))
        return {name: rows[name] for name in tensors if name in rows}
    if isinstance(tensors, list | tuple) and len(tensors) > 1:
        names = [tensor.name for tensor in tensors]
        return [rows[n] for n in names] if set(names) <= set(rows) else list(rows.values())
    return next(iter(rows.values())) if len(rows) == 1 else rows


def features_for(names: Sequence[str], rows: Any) -> dict[str, Any]:
    """Return the arrays of a batch by the names of features. The only one may have another name.

    Raises:
        ValueError: If there is no array for a feature.
    """
    if not isinstance(rows, dict):
        parts = rows if isinstance(rows, list | tuple) else [rows]
        rows = dict(zip(names, parts, strict=False)) if len(parts) == len(names) else {}
    if len(names) == len(rows) == 1:
        return dict(zip(names, rows.values(), strict=True))
    if absent := [name for name in names if name not in rows]:
        found = Described(f"rows without {absent}")
        raise invalid("preprocess", "a `FeatureSpace` whose features are all in the rows", found)
    return {name: rows[name] for name in names}


def tensors(rows: Any) -> Any:
    """Convert arrays of text, for layers of a backend that has tensors of text."""
    import keras

    from kspark.replica.backends import get_backend

    if isinstance(rows, dict):
        return {name: tensors(part) for name, part in rows.items()}
    if isinstance(rows, list):
        return [tensors(part) for part in rows]
    if rows.dtype.kind in "OU":
        if rows.dtype == object and kind_of(rows) == RAGGED:
            rule = (
                "a function where rows have different lengths or nulls, which no layer takes. It "
                'may pad them: `lambda batch: layer(keras.utils.pad_sequences(batch["x"], 100))`'
            )
            raise invalid("preprocess", rule, Described("a layer"))
        return get_backend(str(keras.backend.backend())).text_tensor(rows)
    return rows


@contextmanager
def seeded(
    seed: Sequence[int] | None, models: Sequence[keras.Model], *, everything: bool
) -> Iterator[None]:
    """Seed the random numbers inside the block.

    Workers are forks of one process, so that generators of the process would give all of them the
    same numbers.

    Args:
        seed: Sequence of integers, or `None` to seed nothing.
        models: Sequence of `keras.Model`, whose generators are seeded.
        everything: Boolean, whether to seed the generators of Python, NumPy and Keras, too. They
            are restored at the end of the block, as far as a model draws from them.
    """
    import keras

    if seed is None:
        yield
        return
    for index, variable in enumerate(v for model in models for v in rng_variables(model)):
        state = np.zeros(tuple(variable.shape), np.int64)
        state.flat[0] = word(seed, index)
        variable.assign(state.astype(str(variable.dtype)))
    if not everything:
        yield
        return
    with kept_randomness():
        keras.utils.set_random_seed(word(seed, -1))
        yield


def word(seed: Sequence[int], index: int) -> int:
    """Return a positive integer of 31 bits that depends on a seed and an index."""
    words = np.random.SeedSequence([*seed, index + 1]).generate_state(1)
    return int(words[0]) % (2**31 - 1) + 1
