"""A Spark on this machine, for notebooks, scripts and tests.

`local` starts it with the Python that runs and with memory for Keras; `java` finds a Java.
"""

from kspark.session.local import local_session

__all__ = ["local_session"]
