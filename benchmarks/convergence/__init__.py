"""Measure accuracy and exchanged bytes of every mode, update rule and compression.

    python -m benchmarks.convergence --results results.jsonl
    python -m benchmarks.convergence --only "4/synchronous/epoch/Average" --seeds 1
    python -m benchmarks.convergence --dataset adult --shards 4
    python -m benchmarks.convergence --sorted --shards 4
    python -m benchmarks.convergence --claims

The first command runs 90 fits with each of three seeds, about three to five seconds per fit on
two cores; the second takes about 15 seconds. With `--claims`, a fit takes up to 20 seconds. If
a run is interrupted, the same command with the same `--results` continues it.

Each fit trains on 8,000 rows: a 784-64-10 perceptron on MNIST, or one with 32 hidden units on
the census data set Adult. Replicas use batches of 25 and Adam with a learning rate of 0.001,
unless the case's name says otherwise. A name is shards / mode / frequency / rule / compression,
and a number after the rule is its learning rate. The rule `Average` is measured with every
number of `--shards`, all other rules with the middle one. All fits run one after the other in
this process, on one local Spark, because no time is measured.

The table shows for each case:

* test accuracy: accuracy of the trained model on rows that were not used for training, as mean
  and standard deviation over the seeds. A seed determines the initial weights and the order of
  the rows.
* bytes per example: bytes sent between the aggregator and the replicas, in both directions,
  divided by the number of examples of all epochs. It is 0 for hogwild, whose replicas share
  memory here.

With `--sorted`, the rows are in random order, sorted by label, or sorted and mixed between the
workers by `reshuffle`, once or before every epoch, in the modes of the rule `Average`.

With `--claims`, the benchmark tests claims of papers instead and prints a verdict for each. One
rule is better than another if its mean accuracy is higher by more than either standard
deviation.
"""
