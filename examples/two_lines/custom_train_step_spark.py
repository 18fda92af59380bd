"""A training step of one's own: `fit` calls it for every batch.

The network learns from each image and, with the same label, from a noisy copy of it.
"""

from kspark import SparkModel
import keras
import tensorflow as tf
from sklearn.datasets import load_digits

keras.utils.set_random_seed(1)

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
x_train, x_test, y_train, y_test = x[:1400], x[1400:], y[:1400], y[1400:]


class WithNoise(keras.Model):
    """A functional model that trains on noisy copies, too."""

    def train_step(self, data):
        """Learn from one batch."""
        x, y = data
        noise = tf.random.stateless_normal(tf.shape(x), seed=(1, 2), stddev=0.1)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            loss += self.compute_loss(x, y, self(x + noise, training=True))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


inputs = keras.Input((64,))
hidden = keras.layers.Dense(64, activation="relu")(inputs)
model = WithNoise(inputs, keras.layers.Dense(10, activation="softmax")(hidden))
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
model = SparkModel(model)

history = model.fit(x_train, y_train, epochs=8, batch_size=32)
print("Loss of both images together by epoch:", history.history["loss"])

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"Accuracy on new images: {accuracy:.3f}")
