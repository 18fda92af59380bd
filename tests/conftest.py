"""What all tests share: quiet libraries, and property tests without a clock."""

import os

# Before TensorFlow is imported, by whichever test comes first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from hypothesis import settings

# In CI, a run tries the same examples as the run before. Elsewhere, each run tries new ones.
settings.register_profile(
    "kspark", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("kspark")
