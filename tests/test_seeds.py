"""Random simulators with common random numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gradiator_np import JacobianEstimator, jacobian
from gradiator_np.designs import Hadamard, Pairs

X = np.array([1.0, 2.0, -0.5])
A = np.arange(6.0).reshape(2, 3) - 2.5


def simulate(x, seed, size=1.0):
    """Noise of size 1 that does not depend on x, and a thousandth of it that does."""
    rng = np.random.default_rng(seed)
    return A @ x + size * rng.standard_normal(2) + 1e-3 * rng.standard_normal((2, 3)) @ x


def test_what_does_not_depend_on_x_cancels_and_error_bars_hold_the_rest():
    hits = total = 0
    for trial in range(60):
        estimate = jacobian(simulate, X, seed_arg="seed", rng=trial,
                            method=Pairs(step=0.1, replicates=4))  # fmt: skip
        # Each pair has a slope error of sd 1e-3 |d|: its own random slope, whatever the step.
        assert_allclose(estimate.jac, A, atol=0.02)
        low, high = estimate.confidence_interval(0.95)
        hits += ((low <= A) & (high >= A)).sum()
        total += A.size
    # 360 entries, 3 of an output from one noise level: 120 independent ones at least. A binomial
    # of 0.95 with 120 trials falls below 0.87 less than once in 4000 runs.
    assert hits / total > 0.87


def test_both_ends_of_a_difference_share_a_seed():
    seen = []

    def spy(x, seed):
        seen.append((seed, *(x - X)))
        return A @ x

    jacobian(spy, X, seed_arg="seed", rng=3)
    by_seed = {}
    for seed, *offset in seen[1:]:
        by_seed.setdefault(seed, []).append(np.array(offset))
    for ends in by_seed.values():
        assert len(ends) == 2
        assert_allclose(ends[0], -ends[1], atol=1e-12)
    assert seen[0][0] not in by_seed
    seen.clear()
    jacobian(spy, X, method="2-point", seed_arg="seed", rng=3)
    assert len({seed for seed, *_ in seen}) == 1


def test_seeds_are_reproducible_and_of_the_kind_that_the_name_says():
    first = jacobian(simulate, X, seed_arg="seed", rng=7)
    assert_array_equal(first.jac, jacobian(simulate, X, seed_arg="seed", rng=7).jac)
    assert not np.array_equal(first.jac, jacobian(simulate, X, seed_arg="seed", rng=8).jac)
    assert_array_equal(first.jac, jacobian(simulate, X, seed_arg="seed", rng=7, workers=2).jac)

    def generator(x, rng):
        return A @ x + rng.standard_normal(2)

    # Cancels to rounding, eps |f| / h.
    assert_allclose(jacobian(generator, X, seed_arg="rng", rng=1).jac, A, atol=1e-8)


def test_misuse():
    with pytest.raises(ValueError, match="vectorized"):
        jacobian(simulate, X, seed_arg="seed", vectorized=True)
    with pytest.raises(TypeError, match="int that all seeds"):
        jacobian(simulate, X, seed_arg="seed", rng=np.random.default_rng())
    with pytest.raises(Exception, match="sede"):
        jacobian(simulate, X, seed_arg="sede")


def test_ask_and_tell_tells_the_streams():
    est = JacobianEstimator(X, f0=A @ X, method=Hadamard(step=0.1), common_seeds=True)
    points, ids = est.ask()
    streams = est.streams(ids)
    for stream in np.unique(streams):
        assert_allclose((points[streams == stream] - X).sum(0), 0, atol=1e-12)
