"""Code that runs in Spark tasks: module-level functions with plain arguments.

Tests can call them without Spark. The entry points of tasks are in `spooling`, `inference`,
`groups` and `state`, and for training in `kspark.rounds.task` and `kspark.live.task`.
"""
