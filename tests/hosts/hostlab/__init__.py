"""Several hosts on one Linux machine, and a cluster of Spark on them.

`namespaces` makes hosts, `network` connects them, `standalone` runs Spark on them, and `driver` a
program that trains on it. Only `standalone` knows Spark, and only `driver` knows kspark's programs.
"""
