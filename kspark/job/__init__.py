"""What the driver does with the workers, whichever way a fit trains.

`Fit` holds what one fit works with and what survives a change of road: weights, optimizer state,
epochs and their report. `preparing`, `epochs` and `optimizer_state` are its steps. `evaluate` and
`predict` read the data once. What runs inside the tasks is in `kspark.worker`.
"""

from kspark.job.example import first_example as first_example
from kspark.job.inference import SharedModel as SharedModel
from kspark.job.inference import evaluate as evaluate
from kspark.job.inference import predict as predict
from kspark.job.inference import predict_frame as predict_frame
from kspark.job.inference import score_frame as score_frame
from kspark.job.inference import score_udf as score_udf
