"""Structured data: preprocessing layers turn columns of numbers and strings into features."""

from kspark import SparkModel
import keras
import numpy as np
import pandas as pd

keras.utils.set_random_seed(1)

# Made-up journeys by train: does a passenger miss the connection?
random = np.random.default_rng(1)
count = 800
journeys = pd.DataFrame(
    {
        "minutes_to_change": random.integers(2, 30, count),
        "kilometres": random.uniform(20, 900, count),
        "weather": random.choice(["clear", "rain", "snow"], count),
        "operator": random.choice(["north", "south", "express"], count),
    }
).astype({"weather": "string", "operator": "string"})
delay = (
    journeys["kilometres"] / 60
    + journeys["weather"].map({"clear": 0, "rain": 4, "snow": 12})
    - journeys["operator"].map({"north": 0, "south": 2, "express": 5})
)
missed = (delay > journeys["minutes_to_change"]).astype(int)
train, test = journeys[:600], journeys[600:]

inputs, features = {}, []
for name in ["minutes_to_change", "kilometres"]:
    inputs[name] = keras.Input((1,), name=name)
    scale = keras.layers.Normalization(axis=None)
    scale.adapt(train[name].to_numpy())
    features.append(scale(inputs[name]))
for name in ["weather", "operator"]:
    inputs[name] = keras.Input((1,), name=name, dtype="string")
    encode = keras.layers.StringLookup(output_mode="one_hot")
    encode.adapt(train[name].to_numpy())
    features.append(encode(inputs[name]))
hidden = keras.layers.Dense(16, activation="relu")(keras.layers.Concatenate()(features))
model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
model.compile(
    optimizer=keras.optimizers.Adam(0.02),
    loss="binary_crossentropy",
    metrics=["accuracy", keras.metrics.AUC(name="auc")],
)
model = SparkModel(model)

history = model.fit(
    dict(train), missed[:600], epochs=10, batch_size=30, class_weight={0: 1.0, 1: 1.5}
)

results = model.evaluate(dict(test), missed[600:], return_dict=True, verbose=0)
print("On new journeys:", results)
print("Risk of three journeys:", model.predict(dict(test[:3]), verbose=0).ravel())
