"""Several hosts on one Linux machine, and a cluster of Spark on them.

`namespaces` makes hosts, `network` connects them, `standalone` runs Spark on them, `driver` a
program that trains on it, and `sessions` has the drivers of a run of tests. Only `standalone` knows
Spark, and only `driver` and `sessions` know kspark's programs.
"""
