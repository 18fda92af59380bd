"""Compare the steps of a Spark ML pipeline with plain Keras, Elephas and functions of Spark.

    python -m benchmarks.inference
    python -m benchmarks.inference --repeats 1 --epochs 1 --only keras kspark
    python -m benchmarks.inference --repeats 1 --only "scoring/*"
    ELEPHAS_PYTHON=/path/to/python python -m benchmarks.inference

The first command takes about an hour on two cores, the second about two minutes, and the third
about ten. A case of `scoring` may take longer than the default `--timeout` on a busy machine.

Each case trains a 784-128-128-10 perceptron on 48,000 rows with Adam, batches of 64, three
epochs (`--epochs`) and two workers, and predicts the same rows. Every repeat of a case runs in a
process of its own. The table shows medians over the repeats. Ratios are relative to plain Keras.
Columns:

* DataFrame: seconds to make a cached DataFrame of vectors and labels from NumPy arrays.
* fit: seconds to train on that DataFrame. The first fit includes starting Spark's Python
  workers and their import of TensorFlow. "fit again" trains a new model with workers that run.
  Plain Keras calls `model.fit` with the arrays.
* transform: seconds to predict all rows and average the predictions, for the first time, and
  the median of three more times ("warm"). Plain Keras calls `model.predict`.

The cases `memory/24000` and `memory/240000` measure the largest resident size of a Python
worker that trains on and predicts so many rows. The executors make these rows, so that the
driver holds none.

The cases `scoring/narrow`, `scoring/arrays` and `scoring/vectors` compare `KerasModel.transform`
with other functions of Spark on the same rows, in one session and in turn:

* an `arrow_udf` that takes the features and returns zeros in place of predictions. It takes the
  time that Spark needs to read the rows, send them to Python and back, and use the result;
* an `arrow_udf` that multiplies the features with the kernels of the layers in NumPy, the least
  that a function can do which uses the model;
* Spark's `predict_batch_udf` around `predict_on_batch`, and around `predict`, as Spark documents
  it.

The case `scoring/files` compares `SparkModel.predict(path, output=...)` with `transform`, Parquet
to Parquet, and the seconds until the first epoch of `fit(path)` with those of `fit(frame)`, on rows
as those of `narrow` with a label.

`narrow` reads 1,000,000 rows of 20 features from Parquet, scores them with a 20-64-64-1 perceptron
and writes Parquet. The others average the predictions of the 48,000 rows above, which are cached.
The first `transform` of the session includes all that starts only then, in Spark as well as in
kspark. Seconds are medians of five turns per repeat.
"""
