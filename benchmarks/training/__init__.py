"""Compare the training modes of kspark with plain Keras and with Elephas.

    python -m benchmarks.training
    python -m benchmarks.training --repeats 1 --epochs 3 --only keras "synchronous/*"
    ELEPHAS_PYTHON=/path/to/python python -m benchmarks.training

The first command takes about an hour on two cores, the second about two minutes.

Each case trains a 784-128-128-10 perceptron on 48,000 rows with Adam and batches of 64. kspark
and Elephas use two workers with one thread each; plain Keras may use all cores. Synchronous
training that merges after every batch combines two batches into one step, so compare it with
`keras/batch_size=128`. Every fit runs in a process of its own with a seed per repeat, and the
processes run one after the other.

The table shows medians over the repeats. Ratios are relative to plain Keras, and those called "of
tuned" to `keras/steps_per_execution=50`. Columns:

* warm epoch: median seconds from the end of one epoch to the end of the next, measured by a
  callback on the driver. The first epoch is left out. Elephas has no such callback: its value
  is the difference between a whole fit and a fit of one epoch, divided by the number of
  remaining epochs.
* first epoch: seconds from the call of `fit` to the end of the first epoch, in the first fit of the
  session.
* from the start: seconds from the start of the process to the end of the first epoch, with
  the imports and the start of Spark.
* whole fit: seconds from the call of `fit` to its return. Before the call, Keras is imported,
  Spark runs and the rows are NumPy arrays in memory. For kspark and Elephas, the call includes
  handing the rows to Spark, starting its Python workers, and their import of TensorFlow.
* accuracy: accuracy of the trained model on the test rows. Under a seed, plain Keras on TensorFlow
  shuffles every epoch the same way, which costs it accuracy; kspark's order differs from epoch to
  epoch. The case `keras/reshuffled` is plain Keras with a seed per epoch.
* MB per epoch: bytes sent between the aggregator and the replicas, in both directions.
"""
