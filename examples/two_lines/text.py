"""Text classification: from raw strings to a class, with the vocabulary inside the model."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(1)

# Reports about the weather: do they ask for an umbrella?
random = np.random.default_rng(1)
wet = ["rain", "showers", "drizzle", "thunder", "sleet", "downpour"]
dry = ["sun", "blue sky", "warmth", "a light breeze", "frost", "haze"]
places = ["the coast", "the valley", "the hills", "the city", "the north", "the islands"]
times = ["today", "at noon", "tonight", "until Friday", "later", "over the weekend"]
needs_umbrella = random.integers(0, 2, 600)
texts = tf.constant(
    [
        f"{random.choice(times)} we expect {random.choice(wet if label else dry)} "
        f"in {random.choice(places)}, says the station."
        for label in needs_umbrella
    ]
)

vectorize = keras.layers.TextVectorization(max_tokens=100, output_sequence_length=16)
vectorize.adapt(texts[:500])

model = keras.Sequential(
    [
        keras.Input((1,), dtype="string"),
        vectorize,
        keras.layers.Embedding(vectorize.vocabulary_size(), 8),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(
    optimizer=keras.optimizers.Adam(0.02), loss="binary_crossentropy", metrics=["accuracy"]
)

history = model.fit(texts[:500], needs_umbrella[:500], epochs=8, batch_size=25)

loss, accuracy = model.evaluate(texts[500:], needs_umbrella[500:], verbose=0)
print(f"Accuracy on new reports: {accuracy:.3f}")
report = "tonight we expect a downpour in the city, says the station."
chance = model.predict(tf.constant([report]), verbose=0)[0, 0]
print(f"{report!r} needs an umbrella with probability {chance:.2f}")
print("Size of the word vectors:", model.layers[1].get_weights()[0].shape)
