"""Cut a model off after one of its layers, for the activations of `featureLayer`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import keras

from kspark.errors import invalid
from kspark.replica.outputs import text_outputs


def up_to(model: keras.Model, name: str) -> keras.Model:
    """Make a model with the same inputs and layers whose output is that of one layer.

    The layer may itself be a model.

    Args:
        model: A functional or sequential `keras.Model`.
        name: String, name of the layer.

    Raises:
        ValueError: If there is no such layer, it has several outputs or is called several
            times, or its output is text, or the model is subclassed.
    """
    layer = layer_of(model, name)
    calls = outputs_of_calls(model, layer)
    if len(calls) != 1:
        rule = f"a layer that the model calls once, not {len(calls)} times"
        raise invalid("featureLayer", rule, name)
    inner = keras.Model(inputs_of(model), keras.tree.flatten(calls[0])[0])
    if text_outputs(inner):
        raise invalid("featureLayer", "a layer that returns numbers, not text", name)
    return inner


def layer_of(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return a layer by its name.

    Raises:
        ValueError: If there is no such layer, it has several outputs, or the model is
            subclassed.
    """
    if not getattr(model, "inputs", None):
        rule = "left out for a subclassed model, whose graph of layers is not known"
        raise invalid("featureLayer", rule, name)
    names = [layer.name for layer in model.layers]
    if name not in names:
        rule = f"the name of one of the layers {names}{hint(model, name)}"
        raise invalid("featureLayer", rule, name)
    layer = model.get_layer(name)
    if len(keras.tree.flatten(layer.output)) != 1:
        rule = "a layer of one output"
        raise invalid("featureLayer", rule, name)
    return layer


def hint(model: keras.Model, name: str) -> str:
    """Return a hint for the name of a layer that the model does not have, or an empty string."""
    holder = next((one.name for one in model.layers if name in names_inside(one)), None)
    if holder is not None:
        return f" (this one is inside {holder!r}; only the output of {holder!r} can be used)"
    near = difflib.get_close_matches(name, [layer.name for layer in model.layers], n=1)
    return f" (perhaps {near[0]!r})" if near else ""


def names_inside(layer: keras.layers.Layer) -> Iterator[str]:
    """Yield the names of all layers inside a layer that is a model, at any depth."""
    for one in layer.layers if isinstance(layer, keras.Model) else ():
        yield one.name
        yield from names_inside(one)


def outputs_of_calls(model: keras.Model, layer: keras.layers.Layer) -> list[Any]:
    """Return the symbolic output of each call of a layer in a model.

    `layer.output` is not enough: it belongs to the first call of the layer in any model, and of
    a layer that is a model, to that model's own inputs. So this calls all layers again, by
    cloning the model with the same layers, and records the calls of this one.
    """
    if isinstance(layer, keras.layers.InputLayer):  # cloning does not call these
        return [layer.output]
    outputs: list[Any] = []

    def call(one: Any, *args: Any, **kwargs: Any) -> Any:
        found = one(*args, **kwargs)
        if one is layer:
            outputs.append(found)
        return found

    # A clone of a compiled model would be compiled, which may need custom objects.
    bare = keras.Model(inputs_of(model), outputs_of(model))
    keras.models.clone_model(
        bare, input_tensors=bare.input, clone_function=lambda one: one, call_function=call
    )
    return outputs


def inputs_of(model: keras.Model) -> Any:
    """Return the inputs of a functional or sequential model, in their structure."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def outputs_of(model: keras.Model) -> Any:
    """Return the outputs of a functional or sequential model, in their structure."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output
