"""Settings shared by all tests."""

import os

# Tests measure numbers, not speed: one thread each lets them run side by side.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# Two processes that compile one kernel for different types may each save their code under the name
# of the other's (numba's index of a cache is not locked): every worker has a cache of its own.
if "PYTEST_XDIST_WORKER" in os.environ:
    shared = os.environ.get("NUMBA_CACHE_DIR", os.path.join(os.getcwd(), ".pytest_cache", "numba"))
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(shared, os.environ["PYTEST_XDIST_WORKER"])

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A developer's runs explore; CI repeats the same examples, so that what fails can be repeated.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "explore")


def pytest_addoption(parser):
    parser.addoption(
        "--shift-seeds", type=int, default=0,
        help="added to every integer seed: tests must not live on the luck of the ones they name",
    )  # fmt: skip


def pytest_collection_modifyitems(config, items):
    if config.getoption("--shift-seeds"):
        shown = pytest.mark.skip(reason="prints numbers that hang on its seeds")
        for item in items:
            if item.get_closest_marker("prints"):
                item.add_marker(shown)


def pytest_configure(config):
    shift = config.getoption("--shift-seeds")
    if shift:
        generator = np.random.default_rng

        def shifted(seed=None):
            # What is no seed stays none.
            known = isinstance(seed, int | np.integer) and seed >= 0
            return generator(seed + shift if known else seed)

        np.random.default_rng = shifted
