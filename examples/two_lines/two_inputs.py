"""Several inputs and outputs: dictionaries of arrays, and a weight for each loss."""

import keras
import numpy as np

keras.utils.set_random_seed(1)

# A delivery service: the parcel and the day of the week tell how long it takes, and by which van.
random = np.random.default_rng(1)
parcels = random.uniform(0, 1, (700, 3)).astype("float32")  # weight, volume, distance
days = random.integers(0, 7, 700)
minutes = parcels @ np.array([10.0, 5.0, 40.0]) + np.where(days >= 5, 15, 0)
vans = np.digitize(parcels[:, 0] + parcels[:, 1], [0.7, 1.3])
x_train, x_test = ({"parcel": parcels[s], "day": days[s]} for s in (slice(600), slice(600, None)))
y_train, y_test = ({"minutes": minutes[s], "van": vans[s]} for s in (slice(600), slice(600, None)))

parcel = keras.Input((3,), name="parcel")
day = keras.Input((), name="day", dtype="int32")
known = keras.layers.Concatenate()([parcel, keras.layers.Embedding(7, 4)(day)])
hidden = keras.layers.Dense(32, activation="relu")(known)
model = keras.Model(
    inputs={"parcel": parcel, "day": day},
    outputs={
        "minutes": keras.layers.Dense(1, name="minutes")(hidden),
        "van": keras.layers.Dense(3, activation="softmax", name="van")(hidden),
    },
)
model.compile(
    optimizer=keras.optimizers.Adam(0.02),
    loss={"minutes": "mean_squared_error", "van": "sparse_categorical_crossentropy"},
    loss_weights={"minutes": 0.01, "van": 1.0},
    metrics={"minutes": ["mean_absolute_error"], "van": ["accuracy"]},
)

history = model.fit(x_train, y_train, batch_size=20, epochs=10, validation_data=(x_test, y_test))
print("Loss by epoch:", history.history["loss"])

results = model.evaluate(x_test, y_test, batch_size=20, return_dict=True, verbose=0)
print("On new parcels:", results)
answers = model.predict({name: part[:3] for name, part in x_test.items()}, verbose=0)
print("Minutes:", answers["minutes"].ravel(), "vans:", answers["van"].argmax(axis=1))
