"""Parameters and their standard errors: beside curve_fit, SciPy's losses, closed forms, books."""

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, curve_fit, minimize
from scipy.optimize import least_squares as scipy_least_squares
from scipy.special import stdtrit

from gradiator_np import EvaluationError, GradiatorWarning, LeastSquares, Status, least_squares
from gradiator_np._calibration.constraints import least_distance
from gradiator_np._calibration.objective import LOSSES

T = np.linspace(0, 4, 40)
#: Treated enzyme of Bates and Watts, Nonlinear Regression Analysis (1988), A1.3.
CONCENTRATION = np.array([0.02, 0.02, 0.06, 0.06, 0.11, 0.11, 0.22, 0.22, 0.56, 0.56, 1.1, 1.1])
VELOCITY = np.array([76.0, 47, 97, 107, 123, 139, 159, 152, 191, 201, 207, 200])


def decay(t, a, b):
    return a * np.exp(-b * t)


def measured(seed, sigma=0.05):
    return decay(T, 2.0, 0.7) + sigma * np.random.default_rng(seed).standard_normal(T.size)


def enzyme(x):
    return x[0] * CONCENTRATION / (x[1] + CONCENTRATION) - VELOCITY


# -- standard errors -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("weights", ["none", "one", "each"])
def test_standard_errors_are_those_of_curve_fit(seed, absolute, weights):
    y = measured(seed)
    sigma = {"none": None, "one": 0.05, "each": np.linspace(0.03, 0.1, T.size)}[weights]
    ours = least_squares(
        lambda x: decay(T, *x) - y, [1.0, 1.0], sigma=sigma, absolute_sigma=absolute
    )
    theirs = None if sigma is None else np.broadcast_to(sigma, T.shape)
    if absolute and sigma is None:
        theirs = np.ones(T.shape)
    best, cov = curve_fit(decay, T, y, [1.0, 1.0], sigma=theirs, absolute_sigma=absolute)
    bars = np.sqrt(np.diag(cov))
    # Both stop at 1e-8 of the sum of squares of n - m = 38 errors: x to 1e-3 of its bar. J bends
    # by a part in one over that distance, so bars agree better; the 1e-3 is for J by differences.
    np.testing.assert_allclose(ours.x, best, rtol=0, atol=2e-3 * bars.min())
    np.testing.assert_allclose(ours.stderr, bars, rtol=2e-3)
    np.testing.assert_allclose(ours.cov, cov, rtol=4e-3, atol=4e-3 * bars.min() ** 2)
    assert (ours.run_stderr < 1e-2 * ours.stderr).all()
    z = 1.959963985 if absolute else stdtrit(38, 0.975)
    low, high = ours.confidence_interval()
    np.testing.assert_allclose(high - low, 2 * z * ours.stderr, rtol=1e-9)


def test_as_many_residuals_as_parameters_tell_no_error_of_data():
    r = least_squares(lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0])
    assert np.isnan(r.stderr).all()
    assert np.isfinite(r.run_stderr).all()
    assert "nothing tells the errors of data" in r.message
    assert "by noise of the runs alone" in repr(r)
    known = least_squares(
        lambda x: [x[0] - 3, x[0] * x[1] - 6], [1.0, 1.0], sigma=0.1, absolute_sigma=True
    )
    # x1 = y1 / x0 at (3, 2): its variance is (sigma / 3)^2 (1 + 2^2) of independent y.
    np.testing.assert_allclose(known.stderr, [0.1, 0.1 * np.sqrt(5) / 3], rtol=1e-3)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
def test_covariances_by_the_residuals_are_whites(kind):
    """A linear model, by the formulas of MacKinnon and White (1985) written out."""
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(25), rng.uniform(0, 3, 25)])
    y = design @ [1.0, 2.0] + rng.standard_normal(25) * design[:, 1]
    r = least_squares(lambda x: design @ x - y, [1.0, 1.0])
    best = np.linalg.lstsq(design, y)[0]
    residuals, inverse = y - design @ best, np.linalg.inv(design.T @ design)
    leverage = np.diag(design @ inverse @ design.T)
    weight = {"HC0": 1.0, "HC1": 25 / 23, "HC2": 1 / (1 - leverage), "HC3": (1 - leverage) ** -2}
    meat = (design.T * residuals**2 * weight[kind]) @ design
    # a linear model: J by differences is right to rounding, x to 1e-4 of its scale
    np.testing.assert_allclose(r.covariance(kind), inverse @ meat @ inverse, rtol=1e-3)
    with pytest.raises(ValueError, match="HC4"):
        r.covariance("HC4")


def test_the_hessian_is_in_the_runs():
    """Few data of a saturating model: J'J is 5 % off, the curvature that the runs show mends it.

    Against second differences of the sum of squares. Medians of what the logarithms of standard
    errors are off by, ten sets of ten fits: 0.0002 to 0.0014, 0.025 to 0.052 by J'J.
    """
    t, sigma = np.linspace(0.3, 3, 8), 0.15
    off = {"gauss-newton": [], "hessian": []}
    for seed in range(10):
        y = 3 * t / (2.5 + t) + sigma * np.random.default_rng(seed).standard_normal(t.size)

        def residuals(x, y=y):
            return x[0] * t / (x[1] + t) - y

        r = least_squares(residuals, [3.0, 2.5], sigma=sigma, absolute_sigma=True)
        if r.undetermined.any():
            continue
        steps = np.diag(1e-3 * r.x)

        def cost(x, residuals=residuals):
            return 0.5 * np.sum(np.square(residuals(x))) / sigma**2

        hessian = np.array([
            [sum(a * b * cost(r.x + a * p + b * q) for a in (1, -1) for b in (1, -1))
             / (4 * p.sum() * q.sum()) for p in steps]
            for q in steps
        ])  # fmt: skip
        bars = np.sqrt(np.diag(np.linalg.inv(hessian)))
        for kind, logs in off.items():
            logs += np.log(np.sqrt(np.diag(r.covariance(kind))) / bars).tolist()
    median = {kind: np.median(np.abs(logs)) for kind, logs in off.items()}
    assert median["hessian"] < 0.01
    assert median["hessian"] < 0.3 * median["gauss-newton"]


def test_a_fixed_parameter_is_taken_for_known():
    y = measured(0)
    r = least_squares(
        lambda x: decay(T, x["a"], x["b"]) - y, {"a": 1.0, "b": 0.7},
        fixed={"a": False, "b": True},
    )  # fmt: skip
    best, cov = curve_fit(lambda t, a: decay(t, a, 0.7), T, y, [1.0])
    assert r.x["b"] == 0.7
    assert r.stderr["b"] == 0
    np.testing.assert_allclose(r.x["a"], best[0], atol=1e-3 * np.sqrt(cov[0, 0]))
    np.testing.assert_allclose(r.stderr["a"], np.sqrt(cov[0, 0]), rtol=1e-3)
    assert "x.b = 0.7 (fixed)" in repr(r)
    low, high = r.confidence_interval()
    assert low["b"] == high["b"] == 0.7


def test_intervals_keep_to_bounds_and_what_a_bound_holds_is_told():
    y = measured(1)
    r = least_squares(lambda x: decay(T, *x) - y, [1.0, 0.5], bounds=([0, 0], [1.9, np.inf]))
    assert r.x[0] == r.confidence_interval().high[0] == 1.9
    assert "x[0] at the upper bound" in r.message


# -- what is minimised -----------------------------------------------------------------------

RHO = {  # as in the documentation of scipy.optimize.least_squares
    "linear": lambda z: z,
    "soft_l1": lambda z: 2 * ((1 + z) ** 0.5 - 1),
    "huber": lambda z: z if z <= 1 else 2 * z**0.5 - 1,
    "cauchy": np.log1p,
}


@pytest.mark.parametrize("name", sorted(LOSSES))
@given(r=st.floats(-20, 20).filter(lambda r: abs(r) > 1e-3))
def test_signed_roots_are_roots_of_the_losses(name, r):
    """Squares are rho; the rest are derivatives, by central differences of 1e-6.

    Their error is 1e-12 / 6 of a third derivative (below 10) and 1e-16 / 1e-6 of rounding.
    """
    loss, h = LOSSES[name], 1e-6

    def root(r):
        return float(loss.root(np.array([r]))[0])

    def influence(r):
        return r * float(loss.weight(np.array([r]))[0])

    assert root(r) ** 2 == pytest.approx(RHO[name](r * r), rel=1e-7)  # rho cancels at small z
    assert np.sign(root(r)) == np.sign(r)
    assert float(loss.inverse(np.array([root(r)]))[0]) == pytest.approx(r, rel=1e-9)
    slope = (RHO[name]((r + h) ** 2) - RHO[name]((r - h) ** 2)) / (4 * h)
    assert influence(r) == pytest.approx(slope, rel=1e-6, abs=1e-6)
    if name != "huber" or abs(abs(r) - 1) > 1e-5:  # a kink of its influence
        slope = (influence(r + h) - influence(r - h)) / (2 * h)
        found = float(loss.influence_slope(np.array([r]))[0])
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy"])
@pytest.mark.parametrize("seed", range(3))
def test_robust_losses_find_what_scipy_does(loss, seed):
    y = measured(seed)
    y[[3, 17, 30]] += [1.0, 1.5, -1.0]
    ours = least_squares(lambda x: decay(T, *x) - y, [1.0, 1.0], sigma=0.05, loss=loss, f_scale=2.0)
    theirs = scipy_least_squares(
        lambda x: (decay(T, *x) - y) / 0.05, [1.0, 1.0], loss=loss, f_scale=2.0,
        ftol=1e-14, xtol=1e-14, gtol=1e-14,
    )  # fmt: skip
    # 1e-8 of the cost, as without a loss; the cost is 1e2 standard errors of x
    assert ours.cost == pytest.approx(theirs.cost, rel=1e-7)
    np.testing.assert_allclose(ours.x, theirs.x, atol=2e-3 * ours.stderr.min())
    # residuals come back as fun returns them, and grad is that of the cost
    np.testing.assert_allclose(ours.fun, decay(T, *ours.x) - y, atol=1e-5)
    assert np.abs(ours.grad * ours.stderr).max() < 1e-2


@pytest.mark.parametrize("f_scale", [0.01, 0.1])
def test_a_loss_next_to_absolute_values_passes_for_no_noise(f_scale):
    """Signed roots of it bend by 1 / f_scale where residuals change sign."""
    for seed in range(6):
        y = measured(seed)
        y[[3, 17]] += 1.0
        options = {"loss": "soft_l1", "f_scale": f_scale}
        ours = least_squares(lambda x, y=y: decay(T, *x) - y, [1.0, 1.0], sigma=0.05, **options)
        theirs = scipy_least_squares(
            lambda x, y=y: (decay(T, *x) - y) / 0.05, [1.0, 1.0], **options,
            ftol=1e-14, xtol=1e-14, gtol=1e-14,
        )  # fmt: skip
        assert ours.reason is Status.CONVERGED
        assert ours.cost <= theirs.cost * (1 + 1e-7)
        assert np.isfinite(ours.stderr).all()


def test_outliers_cost_a_robust_fit_little():
    """5 % of the data off by 20 sigma: 95 % intervals hold the truth.

    20 sigma in 2 of 40 data move psi of soft_l1 at 1.5 sigma by 2 x 1.5 in 40, a third of a
    standard error at most; 0.9 and more of 120 parameters were held at each of 10 shifts, which
    fail by chance with less than 1e-4 where 0.95 hold. By squares 0.4 are.
    """
    held = {"soft_l1": [], "linear": []}
    for seed in range(60):
        rng = np.random.default_rng([seed, 1])
        y = measured(seed)
        y[rng.permutation(T.size)[:2]] += 1.0
        for loss, hits in held.items():
            r = least_squares(
                lambda x, y=y: decay(T, *x) - y, [1.0, 1.0], sigma=0.05, loss=loss, f_scale=1.5,
                absolute_sigma=True,
            )  # fmt: skip
            low, high = r.confidence_interval()
            hits += ((low <= [2.0, 0.7]) & (high >= [2.0, 0.7])).tolist()
    assert np.mean(held["soft_l1"]) > 0.85
    assert np.mean(held["linear"]) < 0.7


@pytest.mark.parametrize("as_cov", [False, True])
def test_a_prior_is_data(as_cov):
    y = measured(2)
    prior = {"prior_std": [np.inf, 0.02]}
    rows = np.array([[0.0, 1 / 0.02]])
    if as_cov:
        cov = np.array([[0.04, 0.001], [0.001, 0.0004]])
        prior, rows = {"prior_cov": cov}, np.linalg.inv(np.linalg.cholesky(cov))
    ours = least_squares(
        lambda x: decay(T, *x) - y, [1.0, 1.0], sigma=0.05, prior_mean=[1.9, 0.6], **prior
    )
    theirs = scipy_least_squares(
        lambda x: np.r_[(decay(T, *x) - y) / 0.05, rows @ (x - [1.9, 0.6])], [1.0, 1.0],
        ftol=1e-14, xtol=1e-14,
    )  # fmt: skip
    bars = np.sqrt(np.diag(np.linalg.inv(theirs.jac.T @ theirs.jac)))
    assert ours.cost == pytest.approx(theirs.cost, rel=1e-6)
    np.testing.assert_allclose(ours.x, theirs.x, atol=2e-3 * bars.min())
    np.testing.assert_allclose(ours.stderr, bars, rtol=2e-3)
    assert ours.fun.shape == y.shape


def test_a_prior_makes_up_for_data_that_are_too_few():
    """One datum, x0 + x1 = 3 +- 0.1, and x = (1, 1) +- 1: closed form of a linear model."""
    r = least_squares(
        lambda x: [x[0] + x[1] - 3], [0.5, 2.0], sigma=0.1, prior_mean=1.0, prior_std=1.0
    )
    precision = np.eye(2) + 100 * np.ones((2, 2))
    cov = np.linalg.inv(precision)
    np.testing.assert_allclose(r.x, cov @ (np.ones(2) + 300), atol=1e-4)
    np.testing.assert_allclose(r.stderr, np.sqrt(np.diag(cov)), rtol=1e-3)
    assert not r.undetermined.any()
    alone = least_squares(lambda x: [x[0] + x[1] - 3], [0.5, 2.0])
    assert np.isinf(alone.stderr).all()


# -- constraints -----------------------------------------------------------------------------


def two_decays(x):
    return x[0] * np.exp(-x[1] * T) + x[2] * np.exp(-x[3] * T)


@pytest.mark.parametrize("equality", [False, True])
def test_constrained_minima_are_those_of_slsqp(equality):
    """And no run breaks a constraint by more than rounding. One of 108 such fits knows nothing of J
    at its end, by the last bit of the BLAS, and says so: two of eight do with a probability of
    2e-3."""
    succeeded = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        start = np.array([1.5, 0.6, 1.5, 1.8])
        truth = [2, 0.5, 1, 2.0] * rng.uniform(0.7, 1.4, 4)
        y = two_decays(truth) + 0.02 * rng.normal(size=T.size)
        matrix = rng.standard_normal((2, 4))
        here = matrix @ start
        high = here + 0.1 * rng.random(2)
        low = np.array([-np.inf, -np.inf])
        if equality:
            low[0] = high[0] = here[0]
        # one row each: SLSQP warns of an equality beside inequalities
        within = [LinearConstraint(*row) for row in zip(matrix, low, high)]

        def fun(x, y=y):
            return two_decays(x) - y

        ours = least_squares(fun, start, constraints=within, bounds=(0.05, 5))
        seen = ours.samples.points @ matrix.T
        # 1e-12 of the sums of four products of size 10
        assert np.all(seen <= high + 1e-10)
        assert np.all(seen >= low - 1e-10)
        succeeded += ours.success
        if not ours.success:
            assert ours.reason is Status.UNDETERMINED
            continue
        # there may be several minima: from ours SLSQP finds no lower one
        best = minimize(
            lambda x, fun=fun: 0.5 * np.sum(fun(x) ** 2), ours.x, method="SLSQP",
            constraints=within, bounds=[(0.05, 5)] * 4, options={"ftol": 1e-14, "maxiter": 1000},
        ).fun  # fmt: skip
        # SLSQP keeps constraints to 1e-8 or so, of a slope of 10 at most
        assert ours.cost <= best * (1 + 1e-4) + 1e-7
    assert succeeded >= 7


def test_equalities_tie_parameters_and_their_errors():
    """x1 = 1 - x0 in a linear model: one slope, whose error both have, in closed form."""
    y = 0.3 * T + 0.7 + 0.1 * np.random.default_rng(0).standard_normal(T.size)
    r = least_squares(
        lambda x: x["a"] * T + x["b"] - y, {"a": 0.5, "b": 0.5}, sigma=0.1, absolute_sigma=True,
        constraints=LinearConstraint([1.0, 1.0], 1.0, 1.0),
    )  # fmt: skip
    slope = T - 1
    a = slope @ (y - 1) / (slope @ slope)
    bar = 0.1 / np.linalg.norm(slope)
    np.testing.assert_allclose([r.x["a"], r.x["b"]], [a, 1 - a], atol=1e-6)
    np.testing.assert_allclose([r.stderr["a"], r.stderr["b"]], bar, rtol=1e-6)
    np.testing.assert_allclose(r.cov, bar**2 * np.array([[1, -1], [-1, 1]]), rtol=1e-6)
    # J along what the constraint leaves, (1, -1)
    np.testing.assert_allclose(r.jac @ [1, -1], slope, atol=1e-6)
    assert r.jac.shape == (T.size, 2)
    np.testing.assert_allclose(r.samples.points.sum(axis=1), 1.0, atol=1e-12)
    again = least_squares(
        lambda x: x["a"] * T + x["b"] - y, {"a": r.x["a"], "b": r.x["b"]}, samples=r.samples,
        constraints=LinearConstraint([1.0, 1.0], 1.0, 1.0),
    )  # fmt: skip
    assert again.nfev < r.nfev


@given(seed=st.integers(0, 10**6))
@settings(max_examples=50)
def test_the_least_distance_is_the_projection(seed):
    """Against SLSQP; feasible to rounding."""
    rng = np.random.default_rng(seed)
    m, q = rng.integers(1, 5), rng.integers(1, 6)
    g = rng.standard_normal((q, m))
    h = g @ rng.standard_normal(m) + rng.random(q)
    u = least_distance(g, h)
    peer = minimize(
        lambda v: v @ v, np.zeros(m), constraints=LinearConstraint(g, -np.inf, h), method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )  # fmt: skip
    assert (g @ u <= h + 1e-9).all()
    assert u @ u <= peer.fun + 1e-6


# -- the noise of the runs -------------------------------------------------------------------


@pytest.mark.parametrize("given_noise", [0.05, 1.0])
def test_the_error_of_the_data_given_as_noise_of_the_runs_is_not_believed(given_noise):
    y = measured(0)
    exact = least_squares(lambda x: decay(T, *x) - y, [1.0, 1.0])
    with pytest.warns(GradiatorWarning, match="run_noise was not believed") as told:
        r = least_squares(lambda x: decay(T, *x) - y, [1.0, 1.0], run_noise=given_noise)
    assert told[0].message.estimate is r
    assert r.run_noise < 1e-6
    # both end where 1e-8 of the sum of squares is to be gained: 1e-3 of the bars
    np.testing.assert_allclose(r.x, exact.x, atol=2e-3 * exact.stderr.min())


def test_the_right_noise_of_the_runs_is_believed():
    """Of 450 fits the noise found was 0.50 to 3.2 times the right one; 0.1 to 10 are believed."""
    for seed in range(20):
        rng, y = np.random.default_rng(seed), measured(seed)

        def residuals(x, rng=rng, y=y):
            return decay(T, *x) - y + 1e-3 * rng.standard_normal(T.size)

        with warnings.catch_warnings():
            warnings.simplefilter("error", GradiatorWarning)
            r = least_squares(residuals, [1.0, 1.0], run_noise=1e-3)
        assert r.run_noise == pytest.approx(1e-3, rel=1e-12)


def test_noise_has_two_names_in_fits():
    with pytest.raises(TypeError, match=r"run_noise= .*or sigma= \(errors of the data\)"):
        least_squares(lambda x: x, [1.0], noise=0.1)


# -- never a false success -------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1.2, 1.5])
@pytest.mark.parametrize("start", [[1.0, 1.0], [0.5, 2.0]])
def test_a_failing_region_before_the_minimum_is_named(limit, start):
    def fun(x):
        if x[0] > limit:
            raise RuntimeError("solver diverged")
        return np.array([x[0] - 2, 10 * (x[1] - x[0] ** 2), 0.1 * x[1]])

    r = least_squares(fun, start)
    assert r.reason is Status.FAILING_REGION
    assert not r.success
    assert "runs failed: RuntimeError: solver diverged" in r.message
    # a bound that leaves it out makes the same point a minimum
    bounded = least_squares(fun, start, bounds=(-np.inf, [limit, np.inf]))
    assert bounded.success
    assert bounded.x[0] == limit
    assert bounded.cost <= r.cost * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_runs_that_fail_by_chance_cost_runs_only(share):
    """Of 150 fits none had an endless bar, or ended as no success, at either share.

    Seven rounds of runs that fail at 0.3 leave 0.02 % of two columns: two of 40 fits have 1e-4.
    Before failed runs of the last J were replaced, 13 and 70 % of fits had no end of the bar.
    """
    exact = measured(1, 0.02)
    best = least_squares(lambda x: decay(T, *x) - exact, [1.0, 1.0])
    useless = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)

        def fun(x, rng=rng):
            if rng.random() < share:
                raise RuntimeError("no licence")
            return decay(T, *x) - exact

        try:
            r = least_squares(fun, [1.0, 1.0])
        except EvaluationError:  # every run beside x0 failed: 0.3^17
            useless += 1
            continue
        useless += not (r.success and np.isfinite(r.stderr).all())
        np.testing.assert_allclose(r.x, best.x, rtol=0, atol=0.01 * best.stderr.min())
    assert useless <= 1


# -- profiles --------------------------------------------------------------------------------


def test_profile_intervals_of_a_textbook():
    """Bates and Watts (1988), sections 1.4 and 6.1: 212.7 +- 6.95, 0.0641 +- 0.00828.

    Profile intervals: 197.30 to 229.29 and 0.04693 to 0.08616, as R's confint of an nls fit prints.
    """
    r = least_squares(enzyme, [205.0, 0.08])
    np.testing.assert_allclose(r.x, [212.7, 0.0641], rtol=2e-3)
    np.testing.assert_allclose(r.stderr, [6.95, 0.00828], rtol=2e-3)
    first, second = r.profile(0), r.profile(1)
    # ends are searched to a fiftieth of the half width and then interpolated
    np.testing.assert_allclose([first.low, first.high], [197.3, 229.3], atol=0.2)
    np.testing.assert_allclose([second.low, second.high], [0.0469, 0.0862], atol=2e-4)
    assert (np.diff(second.value) > 0).all()
    assert (np.diff(second.t) > 0).all()
    assert first.nfev < 60
    assert "x[1] in [0.0469, 0.086" in repr(second)


def test_a_profile_ends_at_a_bound_or_nowhere():
    def fun(x):  # the response to x1 levels off: no value above is excluded
        return np.r_[x[0] - 1.0, x[0] + np.arctan(x[1]) - 2.2, 0.5 * np.arctan(x[1]) - 0.55]

    r = least_squares(fun, [1.0, 1.5], sigma=0.3, absolute_sigma=True)
    p = r.profile(1)
    assert p.high == np.inf
    assert "does not rise enough" in p.message
    assert np.isfinite(p.low)
    bounded = least_squares(
        fun, [1.0, 1.5], sigma=0.3, absolute_sigma=True, bounds=([-9, 0.8], [9, 4.0])
    )
    p = bounded.profile(1)
    assert (p.low, p.high) == (0.8, 4.0)


def test_what_has_no_profile_says_so():
    y = measured(0)
    r = least_squares(lambda x: decay(T, *x) - y, [1.0, 0.7], fixed=[False, True])
    with pytest.raises(ValueError, match=r"x\[1\] is fixed"):
        r.profile(1)
    with pytest.raises(ValueError, match="no parameter 2"):
        r.profile(2)
    with pytest.raises(ValueError, match="cannot run fun"):
        pickle.loads(pickle.dumps(r)).profile(0)
    search = LeastSquares([1.0, 1.0])
    while len((asked := search.ask())[1]):
        search.tell([decay(T, *x) - y for x in asked[0]], asked[1])
    with pytest.raises(ValueError, match="least_squares"):
        search.result().profile(0)
