"""What all tests share: quiet libraries, and no clock in property tests."""

import os

# Before TensorFlow is imported, by whichever test comes first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from hypothesis import settings

settings.register_profile("kspark", deadline=None, print_blob=True)
settings.load_profile("kspark")
