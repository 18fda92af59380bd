"""Measure how long it takes to exchange weights with the aggregator.

    python -m benchmarks.exchange
    python -m benchmarks.exchange --runs 1 --megabytes 0.5

The first command takes about two minutes, the second about 15 seconds.

The servers run in this process, as they do in Spark's driver. Each replica is a process of its
own. The table compares four ways to exchange a vector:

* memory copy: two copies inside the replica's memory, without any connection.
* raw sockets: send a vector and receive one, the least that a connection needs.
* transport: kspark's client and server with a handler that does nothing.
* aggregator: the same with the handler that `fit` uses.

"push + pull" sends one vector each way; the aggregator adds the delta to the weights, and copies
the weights out under a lock, as in asynchronous training. In "reduce", two replicas send a
vector and receive the mean of both, as after every batch of synchronous training.

A figure is the median over `--runs` runs. Each run measures all ways in turn, so that other load
on the machine affects all ways alike. The ratios to raw sockets, in parentheses, are medians of
the ratios within each run.
"""
