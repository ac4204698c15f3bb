"""Settings shared by all tests."""

import os

# Tests measure numbers, not speed: one thread each lets them run side by side.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from hypothesis import settings  # noqa: E402

# A developer's runs explore; CI repeats the same examples, so that what fails can be repeated.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "explore")
