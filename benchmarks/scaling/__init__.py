"""Predict how far each way of training scales, from costs measured on one machine.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --picture docs/scaling.png
    python -m benchmarks.scaling --measure

The first command reads the costs in `benchmarks/scaling/costs.json` and takes about 15 seconds.
The second also needs matplotlib. `--measure` takes some minutes: it measures the costs and the
epochs of 1, 2 and 4 workers on this machine, and writes them to that file. Fits run in one process,
because costs are differences between them. On a machine with other load, measure several times
with `--repeats`, or again later with `--more`: the shortest time counts.

The ways of training, or roads, are:

* rounds: synchronous, frequency "epoch"; all deltas come to the driver.
* groups: the same, but from 16 workers on executors sum the deltas of groups of workers.
* batch: synchronous, frequency "batch".
* asynchronous and hogwild: a push every `--frequency` steps.

An epoch has `--batches` batches of 64, divided among the workers. Predictions are seconds per
epoch, not seconds until the model is accurate: more workers mean larger steps or fewer merges.
The benchmark prints:

* Costs: the measured costs.
* Model against measurement: predicted and measured seconds of epochs in which all workers share
  this machine's cores.
* Where each road stops: the largest number of workers that are each at least half as useful as a
  single one, and what limits larger numbers; then the largest speed-up of any number of workers.
  "! N" means that N workers need more than `--memory` gigabytes on the driver, "2 GB" that a
  delta is too large for a record of Spark.
* Seconds per epoch (with `--seconds`): the predictions for all numbers of workers.

`docs/scaling.md` explains the equations and discusses the results.
"""
