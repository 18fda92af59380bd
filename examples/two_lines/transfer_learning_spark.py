"""Transfer learning: train a new head on a frozen base, then tune all layers at a low rate."""

from kspark import SparkModel
import keras
import numpy as np
from sklearn.datasets import load_digits

keras.utils.set_random_seed(1)

digits = load_digits()
images, labels = digits.images[..., None].astype("float32") / 16, digits.target
old, new = labels < 5, labels >= 5

# The base learns its features from the digits 0 to 4. It stands for a network from elsewhere.
base = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.GlobalMaxPooling2D(),
    ],
    name="base",
)
teacher = keras.Sequential([base, keras.layers.Dense(5, activation="softmax")])
teacher.compile("adam", "sparse_categorical_crossentropy")
teacher.fit(images[old], labels[old], epochs=5, verbose=0)

# The digits 5 to 9 are new to it.
x, y = images[new], labels[new] - 5
x_train, x_test, y_train, y_test = x[:600], x[600:], y[:600], y[600:]

base.trainable = False
inputs = keras.Input((8, 8, 1))
features = base(inputs, training=False)  # BatchNormalization keeps its statistics
model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(features))
model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
model = SparkModel(model)
frozen = base.get_weights()
first = model.fit(x_train, y_train, batch_size=20, epochs=6)
print("The base has changed:", not all(map(np.array_equal, frozen, base.get_weights())))

base.trainable = True
model.compile(keras.optimizers.Adam(5e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
print("Variables to tune:", len(model.trainable_variables))
history = model.fit(x_train, y_train, batch_size=20, epochs=10, initial_epoch=len(first.epoch))
print("The base has changed:", not all(map(np.array_equal, frozen, base.get_weights())))

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"Accuracy on new images: {accuracy:.3f}")
