"""A model up to one of its layers, for the activations of `featureLayer`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import keras

from kspark.errors import invalid


def up_to(model: keras.Model, name: str) -> keras.Model:
    """A model with the same inputs and layers, whose output is that of one layer.

    The layer may be a model itself: its output is then what it gives inside `model`.

    Args:
        model: A functional or sequential `keras.Model`.
        name: String, the layer's name.

    Raises:
        ValueError: If there is no such layer, it has several outputs or is called several
            times, or the model does not tell what its layers compute.
    """
    layer = layer_of(model, name)
    calls = outputs_of_calls(model, layer)
    if len(calls) != 1:
        rule = f"a layer that the model calls once, and this one is called {len(calls)} times"
        raise invalid("featureLayer", rule, name)
    return keras.Model(inputs_of(model), keras.tree.flatten(calls[0])[0])


def layer_of(model: keras.Model, name: str) -> keras.layers.Layer:
    """A layer by its name.

    Raises:
        ValueError: If there is none, it has several outputs, or the model does not tell what
            its layers compute.
    """
    if not getattr(model, "inputs", None):
        rule = "left out for a subclassed model, which does not tell what its layers compute"
        raise invalid("featureLayer", rule, name)
    names = [layer.name for layer in model.layers]
    if name not in names:
        rule = f"the name of one of the layers {names}{hint(model, name)}"
        raise invalid("featureLayer", rule, name)
    layer = model.get_layer(name)
    if len(keras.tree.flatten(layer.output)) != 1:
        rule = "a layer of one output, and this one has several"
        raise invalid("featureLayer", rule, name)
    return layer


def hint(model: keras.Model, name: str) -> str:
    """What was perhaps meant by a name that none of the model's own layers has."""
    holder = next((one.name for one in model.layers if name in names_inside(one)), None)
    if holder is not None:
        return f", of which {holder!r} has this one inside and gives its own output only"
    near = difflib.get_close_matches(name, [layer.name for layer in model.layers], n=1)
    return f" (perhaps {near[0]!r})" if near else ""


def names_inside(layer: keras.layers.Layer) -> Iterator[str]:
    """Names of the layers at any depth of a layer that is a model."""
    for one in layer.layers if isinstance(layer, keras.Model) else ():
        yield one.name
        yield from names_inside(one)


def outputs_of_calls(model: keras.Model, layer: keras.layers.Layer) -> list[Any]:
    """What a layer gives at each of its calls in a model, computed of the model's inputs.

    `layer.output` does not tell that: it is what the layer gave at its first call anywhere, and
    of a layer that is a model what it gives for inputs of its own. So all layers are called
    once more, and it is seen who is.
    """
    if isinstance(layer, keras.layers.InputLayer):  # nobody calls these
        return [layer.output]
    outputs: list[Any] = []

    def call(one: Any, *args: Any, **kwargs: Any) -> Any:
        found = one(*args, **kwargs)
        if one is layer:
            outputs.append(found)
        return found

    # Keras would compile the copy as the model is, with objects that it may not know.
    bare = keras.Model(inputs_of(model), outputs_of(model))
    keras.models.clone_model(
        bare, input_tensors=bare.input, clone_function=lambda one: one, call_function=call
    )
    return outputs


def inputs_of(model: keras.Model) -> Any:
    """A functional or sequential model's inputs, as they are arranged."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def outputs_of(model: keras.Model) -> Any:
    """A functional or sequential model's outputs, as they are arranged."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output
