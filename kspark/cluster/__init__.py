"""Spark as the rest of kspark uses it, without any notion of training.

`engine` tells a classic session from one of Spark Connect; `spark_job` runs one job that can be
watched and cancelled; `results` and `remote` hold what tasks yield; `failures` carries errors
of workers to the driver; `bootstrap` sends kspark's own code along; `slots` counts where tasks
can run; `check` and `environment` look at the workers' Python; `interrupts` defers Ctrl-C.
"""
