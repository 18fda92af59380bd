"""Measure the driver's memory in training rounds of 4, 16 and 36 shards.

    python -m benchmarks.memory
    python -m benchmarks.memory --megabytes 10 --epochs 1 --only "16/*"

The first command takes some minutes and needs 16 GB of memory. The second takes about a minute.

The model is a perceptron with weights of `--megabytes`, trained with plain SGD on four rows per
shard. Two executors with one core each run as processes of their own, so that the driver's
processes hold only what the driver needs. Each case runs in a process of its own.

From 16 shards on, executors sum the deltas of groups of shards, and the driver merges one sum
per group. In the cases named "N/groups" they do. In the cases named "N/single", every delta
comes to the driver.

The table shows the largest resident sizes of the driver's Python process, which merges the
weights, and of its JVM, which receives the results. The JVM may fill the heap of `--heap`
gigabytes before it frees anything, so that its size is more than it needs.
"""
