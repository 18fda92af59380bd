"""The messages that each side accepts, and their sizes."""

from __future__ import annotations

import numpy as np

from kspark.live.wire import (
    Kind,
    Limit,
    reply_limits,
    request_limits,
)
from kspark.weights import (
    PACKED,
    STATE,
    TRAINABLE,
    Changes,
    Layout,
    Table,
    Weight,
    WeightSpec,
    Whole,
)

SIZE, PART, DTYPE = 6, 4, np.dtype("float32")
SPEC = WeightSpec((Weight("w", (PART,), "float32", TRAINABLE), Weight("m", (2,), "float32", STATE)))
REQUESTS, REPLIES = request_limits(Whole(SPEC)), reply_limits(Whole(SPEC))
LAYOUT = Layout(SIZE, DTYPE, (Table(PART, 1, 2),))

"""One block: the two elements that are not trained. Its bitmap takes 8 bytes."""


def test_documents_may_hold_eight_times_the_weights():
    limits = request_limits(Whole(WeightSpec((Weight("m", (10 << 20,), "float64", STATE),))))
    assert 640 << 20 in limits[Kind.REPORT].sizes
    assert (640 << 20) + 1 not in limits[Kind.REPORT].sizes


def test_weights_without_unchanged_blocks_are_accepted_only_with_a_layout():
    without, requests = REQUESTS, request_limits(Whole(SPEC), LAYOUT)
    assert requests.keys() - without.keys() == {Kind.REDUCE_CHANGED}
    assert requests[Kind.REDUCE_CHANGED] == Limit(0, range(8, SIZE * 4), PACKED)
    replies = reply_limits(Whole(SPEC), LAYOUT)
    assert replies.keys() - REPLIES.keys() == {Kind.VECTOR_KEPT, Kind.VECTOR_CHANGED}
    assert replies[Kind.VECTOR_KEPT].sizes == (SIZE * 4,)
    assert replies[Kind.VECTOR_CHANGED].sizes == range(8, SIZE * 4)


def test_a_gradient_without_zero_rows_may_be_answered_whole_or_packed():
    spec = WeightSpec((Weight("table", (4096, 4), "float32", TRAINABLE),))
    gradients = Changes.of(spec, gradients=True)
    replies = reply_limits(gradients)
    assert replies[Kind.VECTOR_PACKED].sizes == gradients.sizes
    assert spec.nbytes in replies[Kind.VECTOR].sizes
