"""Forecasting: a recurrent network reads the last hours and predicts the next one."""

from kspark import SparkModel
import keras
import numpy as np

keras.utils.set_random_seed(1)

# Made-up temperatures: days, a slow swing and noise.
hours = np.arange(1200)
random = np.random.default_rng(1)
temperature = (
    np.sin(hours * 2 * np.pi / 24)
    + 0.5 * np.sin(hours * 2 * np.pi / 290)
    + random.normal(0, 0.1, len(hours))
).astype("float32")

past = 12
windows = np.lib.stride_tricks.sliding_window_view(temperature, past + 1)
x, y = windows[:, :past, None], windows[:, past]
x_train, y_train, x_test, y_test = x[:900], y[:900], x[900 + past :], y[900 + past :]

model = keras.Sequential([keras.Input((past, 1)), keras.layers.GRU(16), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse", metrics=["mae"])
model = SparkModel(model)

history = model.fit(x_train, y_train, batch_size=32, epochs=5, shuffle=False)

loss, error = model.evaluate(x_test, y_test, verbose=0)
persistence = np.abs(np.diff(temperature[900 + past :])).mean()
print(f"Mean error {error:.3f}; of the guess that nothing changes, {persistence:.3f}")
print("The next hour:", model.predict(temperature[None, -past:, None], verbose=0)[0, 0])
model.save("forecast.keras")
