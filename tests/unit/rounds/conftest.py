"""Each test begins and ends with a process that keeps no replica."""

import pytest


@pytest.fixture(autouse=True)
def begin_with_a_clean_process(clean_process):
    """See `clean_process`."""
