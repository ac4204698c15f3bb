"""Settings shared by all tests."""

import os

# Tests measure numbers, not speed: one thread each lets them run side by side.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
