"""Labels that Spark refused."""

from kspark.errors import ClusterError
from kspark.ml.label_columns import REFUSAL, refusal


def test_a_refused_label_is_read_from_the_error_of_spark():
    for found in ("3.5", "null", "2 values", "2 values, none above 0"):
        text = f"{REFUSAL} class numbers from 0 to 2 for it. Received: labelCol='a' with {found}"
        error = ClusterError(f"Spark gave up: [USER_RAISED_EXCEPTION] {text}. SQLSTATE: P0001")
        assert refusal(error) == text
    assert refusal(ClusterError("lost")) is None
