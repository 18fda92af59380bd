"""A server of Spark Connect in a process of its own. Prints its port; ends with its input.

The port is the first argument, or a free one.
"""

import socket
import sys

from pyspark.sql import SparkSession

SETTINGS = {
    "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
    "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.python.daemon.module": "kspark.cluster.daemon",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
}


def main():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = sys.argv[1] if sys.argv[1:] else free.getsockname()[1]
    builder = SparkSession.builder.master("local[2]")
    for name, value in {**SETTINGS, "spark.connect.grpc.binding.port": port}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    print("PORT", port, flush=True)
    sys.stdin.read()
    spark.stop()


if __name__ == "__main__":
    main()
