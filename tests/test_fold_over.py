"""Steps limited by a box: all inputs move at once where noise is what limits."""

from __future__ import annotations

import numpy as np
import pytest

from gradiator_np import jacobian, prepare

M, N = 10, 5
STEP = 1e-3
RUNS = 48  # of the design: 24 directions both ways, of the 50 that 5 m + 10 leave after the pilot


def problem(seed, snr=10.0, step=STEP):
    """A noisy function, its point, Jacobian, noise and box."""
    rng = np.random.default_rng(seed)
    a, x = rng.standard_normal((N, M)), rng.uniform(0.5, 2, M) * rng.choice([-1, 1], M)
    jac = (np.cos(a @ x) + a @ x)[:, None] * a
    sigma = np.sqrt(np.mean(jac**2)) * step / snr

    def fun(z):
        return np.sin(a @ z) + (a @ z) ** 2 / 2 + sigma * rng.standard_normal(N)

    return fun, x, jac, sigma, step * np.abs(x)


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_the_variance_is_that_of_a_box_and_intervals_hold():
    """sigma^2 / (runs h^2) instead of m times that. 20 seeds of 50 entries: entries of one output
    are independent but share their noise estimate, so at least 100 independent trials of 0.95,
    whose mean has a standard deviation of 0.022; the mean square of 1000 entries is good to
    4.5 %. Three of either are a false alarm in 3e-3."""
    held, squares, widths = [], [], []
    for seed in range(20):
        fun, x, jac, sigma, most = problem(seed)
        seen = []

        def spy(z, fun=fun, seen=seen):
            seen.append(z.copy())
            return fun(z)

        estimate = jacobian(spy, x, max_step=most, rng=seed)
        assert estimate.nfev <= 5 * M + 10
        assert (np.abs(np.array(seen) - x) <= most * (1 + 1e-12)).all()
        if estimate.design != "auto, hadamard fold-over":
            continue  # noise passed for curvature
        assert estimate.nfev - 12 == RUNS
        low, high = estimate.confidence_interval(0.95)
        held.append(np.mean((low <= jac) & (jac <= high)))
        squares.append(np.mean(((estimate.jac - jac) * most / sigma) ** 2))
        widths.append(np.median(estimate.stderr * most / sigma))
    assert len(held) >= 17
    assert np.mean(squares) == pytest.approx(1 / RUNS, rel=0.15)
    assert np.mean(held) > 0.88
    assert np.median(widths) < 1.5 / np.sqrt(RUNS)


def test_smooth_functions_and_short_budgets_keep_to_pairs():
    fun, x, _, _, most = problem(0)
    clean = jacobian(lambda z: z**3, x, max_step=most)
    assert clean.design == "auto"
    short = jacobian(fun, x, max_step=most, max_nfev=2 * M + 12)
    assert short.design == "auto"
    assert short.nfev <= 2 * M + 12


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
def test_bounds_and_failing_runs():
    """A bound leaves one input one side only; failed runs cost their pairs."""
    fun, x, jac, sigma, most = problem(1)
    upper = np.full(M, np.inf)
    upper[3] = x[3]
    seen = []

    def spy(z):
        seen.append(z.copy())
        return fun(z)

    estimate = jacobian(spy, x, max_step=most, bounds=(-np.inf, upper))
    assert estimate.design == "auto, hadamard fold-over"
    points = np.array(seen)
    assert (points <= upper).all()
    assert (np.abs(points - x) <= most * (1 + 1e-12)).all()
    # the one-sided rule has 26 / 4 of the variance at half the step: 5 standard errors and no
    # more than twenty times the noise over the box
    assert (np.abs(estimate.jac - jac) <= 6 * estimate.stderr).all()
    assert (estimate.stderr * most < 20 * sigma).all()

    rng = np.random.default_rng(2)

    def fails(z):
        return fun(z) if rng.random() > 0.05 or (z == x).all() else np.full(N, np.nan)

    estimate = jacobian(fails, x, max_step=most)
    assert estimate.n_failed > 0
    assert estimate.nfev <= 5 * M + 10
    assert np.isfinite(estimate.stderr).all()
    assert (np.abs(estimate.jac - jac) <= 8 * estimate.stderr).all()


def test_tolerances_are_met_by_repetition_or_missed_aloud():
    fun, x, _, sigma, most = problem(3)
    wanted = 0.07 * sigma / most
    estimate = jacobian(fun, x, max_step=most, atol=np.broadcast_to(wanted, (N, M)))
    assert estimate.status == "ok"
    assert (estimate.stderr <= wanted).all()
    # a variance of 1 / 0.07^2 = 204 runs; the noise of an output is known to some 20 %
    assert 150 < estimate.nfev < 500
    with pytest.warns(match="errors wanted"):
        short = jacobian(fun, x, max_step=most, atol=1e-9, max_nfev=100)
    assert short.nfev <= 100


def test_a_prepared_function_knows_its_noise():
    fun, x, _, _, most = problem(4)
    prepared = prepare(fun, x, max_step=most)
    prepared(x)
    estimate = prepared(1.01 * x)
    assert estimate.design == "auto, hadamard fold-over"
    assert estimate.nfev <= 4 * M + 1


def test_batches_and_complex_outputs():
    rng = np.random.default_rng(5)
    x = rng.uniform(1, 2, (3, 4))

    def fun(z):
        y = np.stack([z[..., 0] * z[..., 1], np.exp(1j * z[..., 2]) * z[..., 3]], axis=-1)
        return y + 1e-6 * (rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape))

    estimate = jacobian(fun, x, max_step=1e-3, batch_dims=1)
    assert estimate.design == "auto, hadamard fold-over"
    for b, z in enumerate(x):
        e = np.exp(1j * z[2])
        jac = np.array([[z[1], z[0], 0, 0], [0, 0, 1j * e * z[3], e]])
        assert (np.abs(estimate.jac[b] - jac) <= 5 * estimate.stderr[b]).all()
        assert (estimate.stderr[b] < 1e-3).all()
