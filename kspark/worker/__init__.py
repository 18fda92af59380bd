"""What runs in Spark tasks: module-level functions with plain arguments.

A test can call each of them without Spark. `spooling`, `rounds`, `live` and
`inference` hold the entry points; the other modules serve them.
"""
