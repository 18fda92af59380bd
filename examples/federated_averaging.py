"""Federated averaging in plain Keras and NumPy: what kspark's default mode computes.

In each round, every shard trains for one epoch from the same weights, and the new weights
are averaged by number of examples. Each shard keeps its own optimizer state between rounds.

Reference: McMahan, Moore, Ramage, Hampson and Agüera y Arcas, 2017,
"Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS.
"""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
from sklearn.datasets import load_digits

Arrays = Sequence[np.ndarray]


def federated_averaging(
    model: keras.Model, shards: Sequence[Arrays], epochs: int, batch_size: int, shuffle: bool = True
) -> Iterator[list[np.ndarray]]:
    """Train a compiled model on shards `(x, y)`. Yields the averaged weights of each round."""
    model.optimizer.build(model.trainable_variables)
    averaged = [v for v in model.variables if "float" in v.dtype]  # no counters, no random seeds
    kept = [v for v in model.variables if "float" not in v.dtype] + model.optimizer.variables
    weights, states = read(averaged), [read(kept) for _ in shards]
    num_examples = [len(y) for _, y in shards]
    for _ in range(epochs):
        trained = []
        for k, (x, y) in enumerate(shards):
            write(averaged + kept, weights + states[k])
            model.fit(x, y, batch_size=batch_size, shuffle=shuffle, verbose=0)
            trained.append(read(averaged))
            states[k] = read(kept)
        weights = [np.average(w, axis=0, weights=num_examples) for w in zip(*trained, strict=True)]
        write(averaged, weights)
        yield weights


def read(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def write(variables: list[keras.Variable], values: Arrays) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def main() -> None:
    x, y = load_digits(return_X_y=True)
    *shards, test = zip(np.array_split(x / 16, 4), np.array_split(y, 4), strict=True)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["acc"])
    for epoch, _ in enumerate(federated_averaging(model, shards, epochs=10, batch_size=16)):
        print(f"Round {epoch + 1}: accuracy {model.evaluate(*test, verbose=0)[1]:.3f}")


if __name__ == "__main__":
    main()
