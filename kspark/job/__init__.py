"""The only place that starts Spark jobs.

`fit` trains over one of the two roads, `evaluate` and `predict` read the data
once, `check_cluster` looks at the workers. What runs *inside* the tasks is
`worker` and `live_worker`.
"""

from kspark.job.cluster import check_cluster as check_cluster
from kspark.job.cluster import check_cluster_once as check_cluster_once
from kspark.job.engine import check_road as check_road
from kspark.job.engine import engine_of as engine_of
from kspark.job.example import first_example as first_example
from kspark.job.fit import Fit as Fit
from kspark.job.inference import SharedModel as SharedModel
from kspark.job.inference import evaluate as evaluate
from kspark.job.inference import predict as predict
from kspark.job.inference import predict_frame as predict_frame
from kspark.job.inference import score_frame as score_frame
from kspark.job.inference import score_udf as score_udf
from kspark.job.train import fit as fit
