"""Image classification: a small convolutional network reads handwritten digits."""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(1)

digits = load_digits()
images = digits.images[..., None].astype("float32") / 16
x_train, x_test, y_train, y_test = train_test_split(
    images, digits.target, test_size=0.25, random_state=0
)

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.25),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.003),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
model.summary()

history = model.fit(x_train, y_train, batch_size=32, epochs=6, validation_split=0.1)
print("Accuracy on the validation rows by epoch:", history.history["val_accuracy"])

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
guesses = model.predict(x_test[:5], verbose=0).argmax(axis=1)
print(f"Accuracy on new images: {accuracy:.3f}. The first five: {guesses}, in truth {y_test[:5]}")
model.save("digits.keras")
