"""Mixed precision: layers compute in float16, and the loss is scaled."""

import keras
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

keras.utils.set_random_seed(1)
keras.mixed_precision.set_global_policy("mixed_float16")

x, y = load_wine(return_X_y=True)
x = StandardScaler().fit_transform(x).astype("float32")
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)

model = keras.Sequential(
    [
        keras.Input((13,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(3),
        keras.layers.Activation("softmax", dtype="float32"),  # for the sake of small numbers
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
print(
    "Layers compute in", model.layers[0].compute_dtype, "with the optimizer", model.optimizer.name
)

history = model.fit(x_train, y_train, batch_size=16, epochs=12)

loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"Accuracy on new wines: {accuracy:.3f}")
