"""What is in the history and not in the logs that callbacks see."""

from __future__ import annotations

import keras

from kspark.job.callbacks import FitMonitor
from kspark.replica import Replica


def test_recorded_figures_are_in_the_history_and_in_no_callbacks_logs():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(dict(logs)),
        on_train_end=lambda logs: seen.append(dict(logs)),
    )
    monitor = FitMonitor(Replica.of(model), [callback], 0, 2, 0)
    monitor.begin()
    for epoch, loss in enumerate((2.0, 1.0)):
        monitor.begin_epoch(epoch)
        monitor.end_epoch(epoch, monitor.replica.get_vector(), {"loss": loss}, 4)
        monitor.record(staleness_max=epoch + 3)
    monitor.end()
    assert monitor.history.history == {"loss": [2.0, 1.0], "staleness_max": [3, 4]}
    assert seen == [{"loss": 2.0}, {"loss": 1.0}, {"loss": 1.0}]
