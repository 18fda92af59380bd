"""A loss function and a metric of one's own."""

from kspark import SparkModel
import keras
from keras import ops
from sklearn.datasets import load_diabetes

keras.utils.set_random_seed(1)

x, y = load_diabetes(return_X_y=True)
x, y = (x * 20).astype("float32"), (y / 100).astype("float32")
x_train, x_test, y_train, y_test = x[:380], x[380:], y[:380], y[380:]


def pinball(y_true, y_pred):
    """The loss of a quantile, here of 0.8: too low costs four times as much as too high."""
    error = y_true - y_pred
    return ops.mean(ops.maximum(0.8 * error, -0.2 * error), axis=-1)


class Covered(keras.metrics.Metric):
    """The share of the examples that lie below the prediction."""

    def __init__(self, name="covered", **kwargs):
        super().__init__(name=name, **kwargs)
        self.below = self.add_weight(name="below", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count the examples of a batch."""
        below = ops.cast(y_true <= y_pred, self.dtype)
        self.below.assign_add(ops.sum(below))
        self.count.assign_add(ops.cast(ops.size(below), self.dtype))

    def result(self):
        """Return the share so far."""
        return self.below / self.count


model = keras.Sequential(
    [keras.Input((10,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)]
)
model.compile(optimizer=keras.optimizers.Adam(0.01), loss=pinball, metrics=[Covered(), "mae"])
model = SparkModel(model)

history = model.fit(x_train, y_train, batch_size=20, epochs=12, validation_split=0.1)

loss, covered, error = model.evaluate(x_test, y_test, verbose=0)
print(f"Loss {loss:.3f}. {covered:.0%} of new patients lie below the prediction")
print("Predictions:", model.predict(x_test[:3], verbose=0).ravel())
