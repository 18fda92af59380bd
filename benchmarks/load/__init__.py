"""Let many simulated replicas exchange weights with one driver for some minutes.

    python -m benchmarks.load
    python -m benchmarks.load --seconds 130 --replicas 64

The first command takes ten minutes and 4 GB of memory.

The server and the aggregator are those of an asynchronous `fit`. They run in this process, as in
Spark's driver. The replicas are threads of `--processes` processes. Each replica has a connection
of its own, and pushes a delta of `--megabytes` again and again. Between two pushes it rests as if
it trained, for as long as `--rest` says. Deltas are whole numbers, so that the
weights show in the end whether every push was applied once. Every minute, one replica of each
process drops its connection and comes back as the next attempt of its shard, which first repeats
the push before.

A line per minute shows the exchanges, the median and the 99th percentile of their milliseconds (a
push with its answer, the new weights), and the driver's resident memory, threads and open
descriptors. The last line is the verdict. It is `ok` if no exchange failed, every push was applied
once, memory did not grow by more than 5 % after the first minute, and as many threads and
descriptors are left after the end as there were before the start. Otherwise the exit status is 1.
So `--seconds` must be long enough for two of these lines, 130 or more.
"""
