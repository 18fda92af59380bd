"""The driver's part of training, evaluation and prediction that both roads share.

`Fit` is the state of one fit: weights, optimizer state, epochs and their report, which survive a
change of road. `preparing`, `epochs` and `optimizer_state` are the steps of a fit. `evaluate` and
`predict` read the data once and keep nothing. The code of the tasks is in `kspark.worker`.
"""

from kspark.job.example import first_arrays as first_arrays
from kspark.job.example import first_arrays_of_rdd as first_arrays_of_rdd
from kspark.job.example import first_example as first_example
from kspark.job.example import first_of_factory as first_of_factory
from kspark.job.example import first_of_rdd as first_of_rdd
from kspark.job.files import Scoring as Scoring
from kspark.job.files import score_files as score_files
from kspark.job.frame_scoring import SharedModel as SharedModel
from kspark.job.frame_scoring import predict_frame as predict_frame
from kspark.job.frame_scoring import score_frame as score_frame
from kspark.job.frame_scoring import score_udf as score_udf
from kspark.job.inference import evaluate as evaluate
from kspark.job.inference import predict as predict
from kspark.job.outputs import output_fields as output_fields
