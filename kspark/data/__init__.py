"""`spool`, `tfrecord`, and Elephas' helper functions.

`spool` keeps rows on the executors for several fits, and `tfrecord` reads TFRecord files. Elephas'
functions for data, lists of weights, and models as dictionaries are for programs written for
Elephas. `SparkModel.fit` takes arrays, RDDs and DataFrames without a conversion.
"""

from kspark.data.conversions import (
    df_to_simple_rdd,
    encode_label,
    from_data_frame,
    from_labeled_point,
    lp_to_simple_rdd,
    to_data_frame,
    to_labeled_point,
    to_simple_rdd,
)
from kspark.data.linalg import from_matrix, from_vector, to_matrix, to_vector
from kspark.data.parameters import (
    add_params,
    dict_to_model,
    divide_by,
    get_neutral,
    model_to_dict,
    subtract_params,
)
from kspark.data.records import tfrecord
from kspark.data.spooling import SpooledData, spool

__all__ = [
    "SpooledData",
    "add_params",
    "df_to_simple_rdd",
    "dict_to_model",
    "divide_by",
    "encode_label",
    "from_data_frame",
    "from_labeled_point",
    "from_matrix",
    "from_vector",
    "get_neutral",
    "lp_to_simple_rdd",
    "model_to_dict",
    "spool",
    "subtract_params",
    "tfrecord",
    "to_data_frame",
    "to_labeled_point",
    "to_matrix",
    "to_simple_rdd",
    "to_vector",
]
