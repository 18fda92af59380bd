"""`tfrecord`, and Elephas' helper functions for data, weights, and models as dictionaries.

The helpers are for programs written for Elephas. `SparkModel.fit` takes arrays, RDDs and DataFrames
without a conversion.
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

__all__ = [
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
    "subtract_params",
    "tfrecord",
    "to_data_frame",
    "to_labeled_point",
    "to_matrix",
    "to_simple_rdd",
    "to_vector",
]
