"""Start Spark on this machine, for notebooks, scripts and tests.

`local` starts a session with the running Python and with memory for Keras; `java` finds a Java.
`default` has the session of a program that has started none.
"""

from kspark.session.local import local_session

__all__ = ["local_session"]
