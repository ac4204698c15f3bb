"""The front door for samples."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from gradiator_np._fit import fit_jacobian, fit_points, fit_vjp
from gradiator_np._status import GradiatorWarning
from gradiator_np.solvers._least_squares.huber import Huber
from gradiator_np.solvers._least_squares.pinv import Pinv
from gradiator_np.solvers._registry import ROWS, Capability
from gradiator_np.solvers._solution import Constraints

EPS = np.finfo(float).eps


def samples(k, m, n, seed=0, batch=(), noise=0.1):
    rng = np.random.default_rng(seed)
    jac = rng.normal(size=(*batch, n, m))
    dx = rng.normal(size=(*batch, k, m))
    return dx, dx @ jac.swapaxes(-1, -2) + noise * rng.normal(size=(*batch, k, n)), jac


def coverage(fit, trials, truth=0.0):
    """Share of seeds in whose 95 % interval of one entry the truth lies."""
    held = 0
    for seed in range(trials):
        low, high = fit(np.random.default_rng(seed)).confidence_interval(0.95)
        held += int(low[0, 0] < truth < high[0, 0])
    return held / trials


# -- what the differences share ---------------------------------------------------------------


# 800 independent seeds: the share of a true 0.95 has a standard deviation of 0.0077, so leaving
# 0.95 -+ 0.034 has a probability of 1e-5.
TRIALS, MARGIN = 800, 0.034


@pytest.mark.slow
def test_a_shared_base_is_fitted_as_a_sample():
    # Steps to one side, as forward differences have them: the base's error looks like a slope.
    random = np.abs(np.random.default_rng(99).normal(size=(24, 3)))
    forward = np.repeat(np.eye(3), 8, 0)

    def held(base, dx):
        def fit(rng):
            return fit_jacobian(dx, rng.normal(size=(24, 1)) - rng.normal(), base=base)

        return coverage(fit, TRIALS)

    assert abs(held("shared", random) - 0.95) < MARGIN
    assert abs(held("shared", forward) - 0.95) < MARGIN
    # Through the origin the same rows are over-confident, and this is why base= exists: a slope
    # has the variance 1/8 + 1 and is given 1/8, P(|t| < 2.08 / 3) = 0.50 at 21 degrees of freedom.
    # A share of 0.5 has a standard deviation of 0.0177 in 800, 4.4 of which are 0.078.
    assert abs(held("own", forward) - 0.50) < 0.078


@pytest.mark.slow
def test_own_and_exact_bases_hold_their_level():
    dx = np.random.default_rng(99).normal(size=(9, 3))
    noise = {"own": [], "exact": []}

    def fit(base):
        def once(rng):
            df = rng.normal(size=(9, 1))
            if base == "own":
                df -= rng.normal(size=(9, 1))
            estimate = fit_jacobian(dx, df, base=base)
            noise[base].append(estimate.noise[0] ** 2)
            return estimate

        return once

    for base in noise:
        assert abs(coverage(fit(base), TRIALS) - 0.95) < MARGIN
        # chi^2 / 6 with 6 degrees of freedom has variance 1/3; 4.4 sigma of the mean of 800.
        assert abs(np.mean(noise[base]) - 1) < 4.4 * np.sqrt(1 / 3 / TRIALS)


@pytest.mark.slow
def test_points_hold_value_and_slope():
    points = np.random.default_rng(99).normal(size=(9, 3)) + 0.5
    value = 0

    def fit(rng):
        nonlocal value
        values = 3 + rng.normal(size=(9, 1))
        estimate = fit_points(points, values, x=np.zeros(3), solver="pinv")
        t = 2.5706  # 97.5 % point of Student's t, 5 degrees of freedom
        value += abs(estimate.y[0] - 3) < t * estimate.solution.value_stderr[0]
        return estimate

    assert abs(coverage(fit, TRIALS) - 0.95) < MARGIN
    assert abs(value / TRIALS - 0.95) < MARGIN


@pytest.mark.parametrize("base", ["own", "shared", "exact"])
def test_known_noise_gives_the_covariance_of_the_differences(base):
    """Against generalised least squares with the covariance of the rows written down."""
    dx, df, _ = samples(6, 3, 2)
    shape = {"own": 2 * np.eye(6), "exact": np.eye(6), "shared": np.eye(6) + 1}[base]
    inverse = np.linalg.inv(shape)
    unit = np.linalg.inv(dx.T @ inverse @ dx)
    estimate = fit_jacobian(dx, df, base=base, noise=[0.1, 0.2])
    np.testing.assert_allclose(estimate.jac, (unit @ dx.T @ inverse @ df).T, rtol=0, atol=1e-12)
    want = np.outer([0.1, 0.2], np.sqrt(np.diag(unit)))
    np.testing.assert_allclose(estimate.stderr, want, rtol=1e-11)
    u = np.array([1.0, 2.0, -1.0])
    want = np.array([0.1, 0.2]) * np.sqrt(u @ unit @ u)
    np.testing.assert_allclose(estimate.jvp_stderr(u), want, rtol=1e-11)
    assert np.isinf(estimate.dof).all()


def test_a_shared_base_corrects_the_value():
    dx, df, jac = samples(40, 2, 1, noise=1e-9)
    # The run at x was off by 0.5: every difference is too small by that.
    estimate = fit_jacobian(dx, df - 0.5, base="shared", x=[1.0, 2.0], f0=[7.5])
    # The base counts as one sample of 41 whose residual is 0.5: at leverage h it moves the fit
    # by h / (1 - h) of that.
    np.testing.assert_allclose(estimate.y, 7.0, atol=0.5 * 0.05)
    np.testing.assert_allclose(estimate.jac, jac, atol=0.05)


def test_replicates_of_the_base():
    dx, df, _ = samples(6, 3, 2)
    dx[4] = 0
    with pytest.raises(ValueError, match="sample 4"):
        fit_jacobian(dx, df)
    exact = fit_jacobian(dx, df, base="exact")
    # It says nothing of J, but of the noise.
    keep = np.arange(6) != 4
    without = fit_jacobian(dx[keep], df[keep], base="exact")
    np.testing.assert_allclose(exact.jac, without.jac, rtol=0, atol=1e-13)
    assert exact.dof[0] == without.dof[0] + 1


# -- shapes -----------------------------------------------------------------------------------


def test_shapes_of_x_and_y():
    dx, df, jac = samples(9, 6, 4, noise=0)
    x, y = np.arange(6.0).reshape(2, 3), np.zeros((2, 2))
    estimate = fit_jacobian(dx.reshape(9, 2, 3), df.reshape(9, 2, 2), x=x, f0=y)
    assert estimate.jac.shape == estimate.stderr.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(estimate.jac.reshape(4, 6), jac, atol=1e-12)
    np.testing.assert_array_equal(estimate.x, x)


def test_scalars():
    dx, df, jac = samples(9, 3, 1, noise=0)
    assert fit_jacobian(dx, df[:, 0]).jac.shape == (3,)
    np.testing.assert_allclose(fit_jacobian(dx, df[:, 0]).jac, jac[0], atol=1e-13)
    slope = fit_jacobian([0.1, 0.2, -0.1], [0.3, 0.6, -0.3], x=1.0, f0=2.0)
    np.testing.assert_allclose(slope.jac, 3.0, rtol=1e-14)
    assert np.shape(slope.jac) == ()


def test_named_inputs_and_outputs():
    dx, df, jac = samples(9, 3, 3, noise=0)
    x = {"rate": dx[:, 0], "shape": dx[:, 1:]}
    y = {"mean": df[:, :2], "peak": df[:, 2]}
    estimate = fit_jacobian(x, y)
    np.testing.assert_allclose(estimate.jac["mean"]["shape"], jac[:2, 1:], atol=1e-13)
    np.testing.assert_allclose(estimate.jac["peak"]["rate"], jac[2, 0], atol=1e-13)
    at = {"rate": 1.0, "shape": np.zeros(2)}
    np.testing.assert_allclose(fit_points(x, y, x=at).jac["mean"]["rate"], jac[:2, 0], atol=1e-12)


@pytest.mark.parametrize("base", ["own", "shared"])
def test_batches(base):
    dx, df, _ = samples(8, 3, 2, 0, (2, 3))
    w = np.random.default_rng(1).uniform(0.5, 2, size=(2, 3, 8))
    estimate = fit_jacobian(dx, df, base=base, weights=w)
    assert estimate.jac.shape == (2, 3, 2, 3)
    for i in np.ndindex(2, 3):
        one = fit_jacobian(dx[i], df[i], base=base, weights=w[i])
        np.testing.assert_allclose(estimate.jac[i], one.jac, rtol=0, atol=1e-12)
        np.testing.assert_allclose(estimate.stderr[i], one.stderr, rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99),
    st.sampled_from(["own", "shared", "exact"]),
)  # fmt: skip
def test_any_shape_and_rank(k, m, n, seed, base):
    """Few samples, repeated samples, one input, one output: finite, and honest about the rest."""
    rng = np.random.default_rng(seed)
    jac = rng.normal(size=(n, m))
    dx = rng.normal(size=(k, m)) * 10.0 ** rng.integers(-8, 9, size=m)
    dx = dx[rng.integers(0, k, size=k)]
    scale = np.abs(dx).max(0)
    df = dx @ (jac / scale).T
    estimate = fit_jacobian(dx, df, base=base, noise=1e-3)
    rank = np.linalg.matrix_rank(dx / scale, tol=1e-9)
    assert estimate.rank == rank
    assert np.isfinite(estimate.jac).all()
    determined = np.isfinite(estimate.stderr)
    assert not np.isnan(estimate.stderr).any()
    if rank == m:
        assert determined.all()
    # What is called determined is right: exact data leave cond eps, in units of each input.
    cond = np.linalg.cond(dx / scale) if rank == m else 1e6
    error = np.abs(estimate.jac * scale - jac)[determined]
    assert (error < 1e3 * EPS * cond * np.abs(jac).max()).all()
    # And every sample is met, in whatever way its direction is undetermined.
    met = dx @ estimate.jac.T
    np.testing.assert_allclose(met, df, rtol=0, atol=1e-7 * (1 + np.abs(df).max()))


# -- failed samples, errors ---------------------------------------------------------------------


def test_failed_outputs_drop_out_one_by_one():
    dx, df, _ = samples(9, 3, 2)
    df[1, 0], df[2, 0] = np.nan, np.inf
    estimate = fit_jacobian(dx, df)
    keep = [0, 3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(
        estimate.jac[0], fit_jacobian(dx[keep], df[keep]).jac[0], rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(estimate.jac[1], fit_jacobian(dx, df[:, 1]).jac, rtol=0, atol=1e-13)
    assert estimate.n_failed == 2
    with pytest.raises(ValueError, match=r"df is not finite in sample 1, output 0"):
        fit_jacobian(dx, df, nan_policy="raise")


@pytest.mark.parametrize("batch", [(), (3,)])
def test_samples_with_lost_inputs_drop_out(batch):
    dx, df, _ = samples(9, 3, 2, 0, batch)
    dx[..., 4, 1] = np.nan
    keep = np.arange(9) != 4
    estimate = fit_jacobian(dx, df, base="exact")
    want = fit_jacobian(dx[..., keep, :], df[..., keep, :], base="exact")
    np.testing.assert_allclose(estimate.jac, want.jac, rtol=0, atol=1e-13)
    np.testing.assert_allclose(estimate.stderr, want.stderr, rtol=1e-11)
    with pytest.raises(ValueError, match="dx is not finite in sample"):
        fit_jacobian(dx, df, nan_policy="raise")
    dx[..., 2, 0] = np.inf
    with pytest.raises(ValueError, match=r"sample (2|\(0, 2\))"):
        fit_jacobian(dx, df)


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"dx": np.zeros((0, 3)), "df": np.zeros((0, 2))}, ValueError, "empty"),
        ({"dx": np.zeros((6, 0))}, ValueError, "empty"),
        ({"dx": np.ones((5, 3))}, ValueError, r"samples \(5,\) and df has \(6,\)"),
        ({"dx": np.ones(6)}, ValueError, r"shape \(k, x entries\)"),
        ({"dx": np.ones((6, 3)) + 1j}, TypeError, "complex"),
        ({"dx": [["a"] * 3] * 6}, TypeError, "must be numbers"),
        ({"base": "mine"}, ValueError, "'own', 'shared', 'exact'"),
        ({"solver": "svd"}, ValueError, "'pinv'"),
        ({"solver": Pinv}, TypeError, "brackets"),
        ({"weights": np.ones(4)}, ValueError, "one per sample"),
        ({"weights": -np.ones(6)}, ValueError, "not negative"),
        ({"noise": 0.0}, ValueError, "positive"),
        ({"noise": [1.0, 1.0, 1.0]}, ValueError, "2 outputs"),
        ({"jac0": np.ones((3, 2, 2))}, ValueError, r"\(2, 3\)"),
        ({"jac0": np.full((2, 3), np.nan)}, ValueError, "finite"),
        ({"sparsity": np.ones((2, 2))}, ValueError, "sparsity"),
        ({"known": np.full((2, 3), np.inf)}, ValueError, "nan where"),
        ({"x": np.zeros((2, 2))}, ValueError, "expected one sample"),
        ({"x": {"a": 1.0}}, ValueError, "dict"),
        ({"x": [np.nan, 0, 0]}, ValueError, "finite"),
        ({"nan_policy": "drop"}, ValueError, "'omit', 'raise'"),
        ({"solver": Pinv(errors="hc3"), "noise": 1.0}, ValueError, "drop one"),
    ],
)
def test_clear_errors(change, error, text):
    dx, df, _ = samples(6, 3, 2)
    options = {"dx": dx, "df": df, **change}
    with pytest.raises(error, match=text):
        fit_jacobian(options.pop("dx"), options.pop("df"), **options)


def test_zero_by_the_pattern_and_known_otherwise():
    dx, df, _ = samples(6, 3, 2)
    known = np.full((2, 3), np.nan)
    known[0, 1] = 2.0
    with pytest.raises(ValueError, match=r"\(0, 1\) is 2.0"):
        fit_jacobian(dx, df, known=known, sparsity=np.eye(2, 3))


def test_what_is_known_in_advance():
    dx, df, jac = samples(6, 3, 3)
    pattern = np.eye(3, dtype=bool)
    dense = fit_jacobian(dx, df, sparsity=pattern)
    same = fit_jacobian(dx, df, sparsity=sparse.csr_array(pattern))
    np.testing.assert_array_equal(dense.jac, same.jac)
    assert (dense.stderr[~pattern] == 0).all()
    known = np.where(pattern, jac, np.nan)
    np.testing.assert_array_equal(np.diag(fit_jacobian(dx, df, known=known).jac), np.diag(jac))
    symmetric = fit_jacobian(dx, df, symmetric=True)
    np.testing.assert_array_equal(symmetric.jac, symmetric.jac.T)


# -- points, products, solvers ------------------------------------------------------------------


def test_points_and_differences_agree():
    dx, df, jac = samples(9, 3, 2, noise=0)
    x = np.array([1.0, 2.0, 3.0])
    estimate = fit_points(x + dx, df + 5, x=x)
    np.testing.assert_allclose(estimate.jac, jac, atol=1e-12)
    np.testing.assert_allclose(estimate.y, 5.0, atol=1e-12)
    centre = fit_points(x + dx, df + 5)
    np.testing.assert_allclose(centre.x, (x + dx).mean(0))
    np.testing.assert_allclose(centre.y, 5 + jac @ dx.mean(0), atol=1e-12)
    np.testing.assert_array_equal(estimate.samples.points, x + dx)


def test_one_cotangent_needs_only_its_products():
    dx, df, _ = samples(9, 3, 4)
    v = np.array([1.0, -2.0, 0.0, 0.5])
    whole = fit_jacobian(dx, df)
    one = fit_vjp(dx, df, v)
    np.testing.assert_allclose(one.jac, v @ whole.jac, rtol=0, atol=1e-13)
    # The founding formula: v^T df dx^+.
    np.testing.assert_allclose(one.jac, np.linalg.pinv(dx) @ (df @ v), rtol=0, atol=1e-13)
    known = fit_vjp(dx, df, v, noise=0.3)
    other = fit_jacobian(dx, df, noise=0.3)
    np.testing.assert_allclose(known.stderr, other.vjp_stderr(v), rtol=1e-12)
    # An output that v does not use may fail.
    df[3, 2] = np.nan
    np.testing.assert_allclose(fit_vjp(dx, df, v).jac, one.jac, rtol=0, atol=1e-13)


def test_products_alone_determine_the_jacobian():
    dx, df, jac = samples(40, 3, 4, noise=0.01)
    v = np.random.default_rng(1).normal(size=(40, 4))
    estimate = fit_vjp(dx, (v * df).sum(1), v, base="exact")
    rows = np.einsum("ki,kj->kij", v, dx).reshape(40, 12)
    want, rss, *_ = np.linalg.lstsq(rows, (v * df).sum(1), rcond=None)
    np.testing.assert_allclose(estimate.jac, want.reshape(4, 3), rtol=0, atol=1e-11)
    error = np.sqrt(rss / 28 * np.diag(np.linalg.inv(rows.T @ rows))).reshape(4, 3)
    np.testing.assert_allclose(estimate.stderr, error, rtol=1e-10)
    np.testing.assert_allclose(estimate.jac, jac, atol=0.05)
    # With one product too few nothing is determined, and nothing pretends to be.
    few = fit_vjp(dx[:11], (v * df).sum(1)[:11], v[:11], base="exact", noise=0.01)
    assert np.isinf(few.stderr).all()


def test_bad_cotangents():
    dx, df, _ = samples(9, 3, 4)
    with pytest.raises(ValueError, match="one cotangent"):
        fit_vjp(dx, df, np.ones((2, 4)))
    with pytest.raises(ValueError, match="v has shape"):
        fit_vjp(dx, df, np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        fit_vjp(dx, df, [1, np.nan, 0, 0])
    with pytest.raises(ValueError, match="not possible"):
        fit_vjp(dx, df[:, 0], np.ones((9, 4)), base="shared")
    with pytest.raises(ValueError, match="each of the 9"):
        fit_vjp(dx, df[:, 0], np.ones((8, 4)))


@pytest.mark.parametrize(
    "solver", [row.name for row in ROWS if Capability.INTERCEPT in row.capabilities]
)
@pytest.mark.parametrize("base", ["exact", "shared"])
def test_every_solver_fits_exact_samples(solver, base):
    dx, df, jac = samples(14, 3, 2, noise=0)
    estimate = fit_jacobian(dx, df, solver=solver, base=base)
    # The loosest of them carries a flat prior of 1e-8 relative weight, or stops at such a gap.
    np.testing.assert_allclose(estimate.jac, jac, atol=1e-6)
    assert estimate.stderr.shape == (2, 3)


def test_a_fit_that_did_not_converge_warns():
    dx, df, _ = samples(14, 3, 2)
    df[0] += 100  # without a sample far off the first weights may be the last
    with pytest.warns(GradiatorWarning, match="max_iter"):
        estimate = fit_jacobian(dx, df, solver=Huber(max_iter=1))
    assert estimate.status == "not_converged"


def test_structure_reaches_the_solver():
    dx, df, _ = samples(14, 3, 3)
    known = np.full((3, 3), np.nan)
    known[1, 1] = 4.0
    direct = Pinv().solve(dx, df, constraints=Constraints(known=known, symmetric=True))
    np.testing.assert_array_equal(
        fit_jacobian(dx, df, known=known, symmetric=True, base="exact").jac, direct.coef
    )


# -- size -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch, k, m, n", [((2000,), 8, 6, 4), ((30,), 40, 32, 16), ((), 400, 200, 40)]
)
def test_memory_is_at_most_three_times_inputs_and_outputs(batch, k, m, n):
    dx, df, _ = samples(k, m, n, 0, batch)
    fit_jacobian(dx, df)  # compiles
    tracemalloc.start()
    estimate = fit_jacobian(dx, df)
    jac, err = estimate.jac, estimate.stderr
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The covariance of the rows is part of the answer.
    factor = estimate.covariance.factor.nbytes
    assert peak < 3 * (dx.nbytes + df.nbytes + jac.nbytes + err.nbytes + factor)
