"""Disturb many fits at random moments, and check that each ends well.

    python -m benchmarks.chaos
    python -m benchmarks.chaos --scenarios 15 --seed 3
    python -m benchmarks.chaos --only "*/kill an executor/*"

The first command runs 100 scenarios, which takes an hour or two on two cores and 6 GB of memory.
It needs Linux. A scenario is a mode and frequency, a fault, and a moment, all drawn from `--seed`
and the scenario's number. So `--only` repeats single scenarios of a run with the same seed.

A scenario runs in a process of its own, the driver, with two executors that are processes, too
(Spark's `local-cluster`). Most fits train a model that counts: its weight for a row is the number
of times that the row was trained and merged, so that a delta that was lost, or applied twice, shows
in the weights of its rows. The others train a classifier with Adam.

A scenario is `right` if the model counts every row once per epoch, or classifies as well as without
the fault. In hogwild mode, replicas overwrite a few numbers of each other, so rows may count less
there, but not more. With a full disk, a scenario is `clear error` if `fit` raised a `KSparkError`
in time. After all other faults, fits must go on. A scenario is `not struck` if its processes had
ended before the fault came. It is `WRONG` if it is none of these, takes too long, or leaves
something behind: threads of kspark or listening ports after the fit, or files of kspark or
processes after the session. If a scenario is `WRONG` or `not struck`, the exit status is 1.

Only processes that a scenario has started get signals.
"""
