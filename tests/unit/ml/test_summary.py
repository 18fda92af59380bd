"""The summary of a fit."""

import numpy as np

from kspark.ml import (
    TrainingSummary,
)


def test_summary_is_plain_data():
    summary = TrainingSummary({"loss": [np.float32(0.5), 0.25]}, [[{"batches": np.int64(3)}]])
    data = summary.to_dict()
    assert data == {"history": {"loss": [0.5, 0.25]}, "workers": [[{"batches": 3}]]}
    assert type(data["workers"][0][0]["batches"]) is int
    again = TrainingSummary.from_dict(data)
    assert again.objectiveHistory == [0.5, 0.25]
    assert again.totalIterations == 2
