"""Run jobs on Spark. Nothing in here knows about training.

`engine` covers the two kinds of session, classic and Spark Connect; `spark_job` runs one job that
can be watched and cancelled; `results` and `remote` hold the results of tasks; `failures` carries
errors of workers to the driver; `bootstrap` sends kspark's own code to the executors; `slots`
counts task slots, and `slot_wait` waits for them; `accelerators` and `resources` give tasks GPUs,
and `gpu_checks` looks for settings that waste them; `check` and `environment` check the workers'
Python, `preflight` Spark's settings, `memory` what workers need, and `backend` the driver's Python;
`interrupts` defers Ctrl-C.
"""
