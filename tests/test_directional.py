"""Designs that move many inputs at once: their bounds on the variance, failures, bounds, noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradiator_np import GradiatorWarning, Status, jacobian
from gradiator_np.designs._displacements import Displacements
from gradiator_np.designs._factorial import orthogonal_arrays as directions
from gradiator_np.designs._factorial.design import (
    Directions,
    Hadamard,
    Pairs,
    Simplex,
    choose_design,
)
from gradiator_np.designs._protocol import Problem, Rows
from gradiator_np.solvers._least_squares.pinv import Pinv

EPS = np.finfo(float).eps
M = 11


def problem(x, y, *, lower=-np.inf, upper=np.inf, noise=None, seed=0):
    x = np.atleast_2d(np.asarray(x, float))
    y = np.atleast_2d(y)
    return Problem(
        x,
        y,
        np.broadcast_to(np.asarray(lower, float), x.shape),
        np.broadcast_to(np.asarray(upper, float), x.shape),
        np.where(x == 0, 1.0, np.abs(x)),
        EPS,
        np.random.default_rng(seed),
        True,
        noise,
    )


def run(design, fun, x, *, fail=(), each=None, **options):
    """Ask, run, tell, solve; returns plan, solution and offsets (k, B, m)."""
    x = np.atleast_2d(np.asarray(x, float))
    y = np.array([np.atleast_1d(fun(row)) for row in x])
    site = problem(x, y, **options)
    plan = design.start(site)
    empty = Rows(
        Displacements(np.zeros((0, *x.shape))), np.zeros((0, *y.shape)), np.zeros(0, bool), y
    )
    offsets = plan.ask(empty).offsets
    points = x + offsets
    assert (points <= site.upper).all()
    assert (points >= site.lower).all()
    values = np.array([[np.atleast_1d(fun(p)) for p in row] for row in points])
    values = values.reshape(len(points), *y.shape)
    values[list(fail)] = np.nan
    if each is not None:
        values = each(values)
    rows = Rows(Displacements(points - x), values, np.ones(len(offsets), bool), y)
    assert plan.ask(rows) is None
    return plan, plan.solve(rows), offsets


A = np.random.default_rng(7).standard_normal((3, M))
X = np.linspace(1, 2, M)


def linear(x):
    return A @ x + 1


# -- directions ------------------------------------------------------------------------------


def test_hadamard_matrices_are_hadamard():
    """Entries are integers, so the product is exact."""
    found = []
    for order in range(1, 140):
        if directions.hadamard_order(order) == order:
            h = directions.hadamard(order)
            assert np.array_equal(h.T @ h, order * np.eye(order))
            assert (h[:, 0] == 1).all()
            found.append(order)
    # 52, 92, 100 and 116 need prime powers or other constructions.
    assert found == [1, 2, *(k for k in range(4, 140, 4) if k not in (52, 92, 100, 116))]
    with pytest.raises(ValueError, match="next order is 56"):
        directions.hadamard(52)


@given(m=st.integers(1, 40), spare=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_directions_attain_their_bounds(m, spare):
    """D^T D = k I in a box, (k / m) I in a ball: sums of k terms of size 1, each rounded once."""
    box = directions.two_level(m, m + spare)
    assert np.array_equal(box.T @ box, len(box) * np.eye(m))
    assert not box.sum(0).any()
    rng = np.random.default_rng(m * 100 + spare)
    for ball in (directions.simplex(m), directions.tight_frame(m, m + spare)):
        turned = ball @ directions.rotation(m, rng)
        k = len(ball)
        np.testing.assert_allclose((turned**2).sum(1), 1, atol=20 * m * EPS)
        np.testing.assert_allclose(turned.T @ turned, k / m * np.eye(m), atol=20 * k * EPS)


# -- variance --------------------------------------------------------------------------------

BOUNDS = [
    ("forward, one at a time", Directions(rows=np.eye(M)), 11, 2.0),
    ("Plackett-Burman", Hadamard(step=1, fold_over=False, spare=0), 12, 1 / 12),
    ("fold-over", Hadamard(step=1, spare=0), 24, 1 / 24),
    ("fold-over, 4 to spare", Hadamard(step=1), 32, 1 / 32),
    ("simplex", Simplex(step=1), 12, M / 12),
    ("central, one at a time", Pairs(step=1, spare=0, rotate=False), 22, 0.5),
    ("rotated pairs", Pairs(step=1, spare=0), 22, 0.5),
    ("frame of pairs", Pairs(step=1, spare=3), 28, M / 28),
    ("fold-over, 3 replicates", Hadamard(step=1, spare=0, replicates=3), 72, 1 / 72),
    # (4 J_h - J_2h) / 3 with h = 1/2, 2h = 1: (16 * 4 + 1) / 9 of the variance at 1.
    ("fold-over, extrapolated", Hadamard(step=1, spare=0, richardson=True), 48, 65 / 9 / 24),
]


@pytest.mark.parametrize("name, design, runs, variance", BOUNDS)
def test_variance_equals_its_bound(name, design, runs, variance):
    """From the covariance returned, at unit noise; a sum of k squares rounds k times."""
    _, solution, offsets = run(design, linear, X, noise=np.ones(3))
    assert len(offsets) == runs
    np.testing.assert_allclose(solution.cov.variance(), variance, rtol=100 * M * EPS)
    # Exact for a linear function: values near 30, m entries, steps of 1.
    np.testing.assert_allclose(solution.coef[0], A, atol=30 * 100 * EPS)
    assert np.isinf(solution.dof).all()


def test_the_least_variance_in_a_ball_does_not_depend_on_the_rotation():
    """Along any direction, not only along inputs: the covariance is a multiple of I."""
    u = np.random.default_rng(0).standard_normal((5, M))
    for seed in range(3):
        _, s, _ = run(Pairs(step=1, spare=2), linear, X, noise=np.ones(3), seed=seed)
        for row in u:
            got = s.cov.jvp_variance(row[None])
            np.testing.assert_allclose(got, M / 26 * (row @ row), rtol=1e-12)


# -- what is exact ---------------------------------------------------------------------------


def curved(x):
    return np.array([x @ x, x[0] * x[1] + x[2] * x[3], np.cos(x[0] - X[0])]) + A @ x


def curved_jac(x):
    j = A.copy()
    j[0] += 2 * x
    j[1, :4] += x[[1, 0, 3, 2]]
    j[2, 0] -= np.sin(x[0] - X[0])
    return j


@pytest.mark.parametrize("design", [Hadamard(step=0.5), Pairs(step=0.5)])
def test_pairs_cancel_even_orders(design):
    """Squares, products and a cosine about its top: what is left is rounding of values near 50,
    divided by a step of 0.5."""
    _, s, _ = run(design, curved, X)
    np.testing.assert_allclose(s.coef[0], curved_jac(X), atol=1e-13)
    assert (s.info["even"][0] > 0.01).all()
    assert "richardson" in s.message


def cubic(x):
    d = x - X
    return np.array([np.sum(d**3), d[0] ** 2 * d[1], d[0] * d[1] * d[2]]) + A @ x


def test_extrapolation_cancels_third_order():
    """(8 o(h) - o(2h)) / 6 is free of t^3; rounding as above, times 65/36."""
    for option in (True, "auto"):
        _, s, _ = run(Hadamard(step=0.5, richardson=option), cubic, X)
        np.testing.assert_allclose(s.coef[0], A, atol=1e-12)
    _, s, _ = run(Hadamard(step=0.5), cubic, X)
    # h^2 (T_iii / 6 + ...) = 0.25 for the sum of cubes.
    np.testing.assert_allclose(s.coef[0, 0] - A[0], 0.25, atol=1e-12)


ANALYTIC = {
    "exponentials": (lambda x: np.exp(x), lambda x: np.diag(np.exp(x))),
    "their sum": (lambda x: [np.exp(x).sum()], lambda x: np.exp(x)[None]),
    "a fraction": (
        lambda x: [5 / (20 - x.sum())], lambda x: np.full((1, 5), 5 / (20 - x.sum()) ** 2),
    ),
    "a product": (lambda x: [np.prod(x)], lambda x: (np.prod(x) / x)[None]),
}  # fmt: skip


@pytest.mark.parametrize("name", ANALYTIC)
@pytest.mark.parametrize("step", [0.02, 0.3])
def test_truncation_without_noise_is_not_silent(name, step):
    """Third derivatives pass for slopes in two-level designs, and no residual tells. A guess from
    the second order (squared over the first: equal to the third for a geometric series, 3/2 of
    it for the exponential) covers them, within a factor of 3. What extrapolation leaves is guessed
    in the same way from the correction that it made: h^2 of the plain design's error, or less."""
    fun, jac = ANALYTIC[name]
    x = np.linspace(1, 2, 5)
    errors = []
    for design, seed in (
        (Hadamard(step=step), 0),
        (Hadamard(step=step, richardson=True), 0),
        (Hadamard(step=step, richardson="auto"), 0),
        # Drawn rotations, of which 38 % were too much for the exponentials at 0.3, by 4.0 bars; 2.9
        # are needed at most, by the product.
        *((Pairs(step=step), seed) for seed in range(20)),
    ):
        _, s, _ = run(design, fun, x, seed=seed)
        error = np.abs(s.coef[0] - jac(x))
        # Rounding: values up to 32 over steps of 0.01, weights of 4/3.
        assert (error <= 3 * s.cov.stderr()[0] + 32 * EPS / 0.01 * 3).all()
        errors.append(error.max())
    assert errors[1] < errors[0] * step**2 * 2 + 1e-12
    assert errors[2] == pytest.approx(errors[1], rel=0.05, abs=1e-12)


@given(
    m=st.integers(1, 7),
    b=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["hadamard", "pairs", "simplex", "plain", "auto"]),
)
@settings(max_examples=60, deadline=None)
def test_linear_functions_are_exact_within_any_bounds(m, b, seed, kind):
    """Batches of points with bounds near, at and around them; fixed inputs are inf and 0."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 2, (b, m))
    lower = x - rng.choice([0, 0.01, 5], (b, m))
    upper = x + rng.choice([0, 0.02, 5], (b, m))
    jac = rng.standard_normal((2, m))
    design = {
        "hadamard": Hadamard(step=0.3),
        "pairs": Pairs(step=0.3),
        "simplex": Simplex(step=0.3),
        "plain": Hadamard(step=0.3, fold_over=False),
        "auto": Hadamard(step=0.3, richardson="auto"),
    }[kind]
    _, s, _ = run(design, lambda p: jac @ p, x, lower=lower, upper=upper, noise=np.ones(2))
    fixed = lower == upper
    assert np.array_equal(np.isinf(s.cov.variance()).all(1), fixed)
    assert np.array_equal(s.rank, (~fixed).sum(1))
    # Steps of at least 0.01 / 2, values of size 2 m, weights up to 3 / h.
    want = np.where(fixed[:, None, :], 0, jac)
    np.testing.assert_allclose(s.coef, want, atol=3 / 0.005 * 2 * m * 4 * EPS * 8)


def test_inputs_on_a_bound_are_stepped_inward_with_second_order():
    """x^2 exactly, with the variance (16 + 1 + 9) / 4 / h^2 and 9/4 of it shared."""
    x = np.array([1.0, 2.0, 3.0])
    lower, upper = np.array([1.0, -9, -9]), np.array([9.0, 2.0, 9])
    plan, s, offsets = run(
        Hadamard(step=0.2), lambda p: [np.sum(p**2)], x, lower=lower, upper=upper, noise=np.ones(1)
    )
    np.testing.assert_allclose(plan.step, [[0.1, 0.1, 0.2]], rtol=1e-12)
    assert np.abs(offsets).max() <= 0.2
    # Values near 14, rounded, over a step of 0.1.
    np.testing.assert_allclose(s.coef[0, 0], 2 * x, atol=14 * 26 / 0.1 * EPS)
    np.testing.assert_allclose(s.cov.variance()[0, 0, :2], 26 / 4 / 0.01, rtol=1e-9)
    both = s.cov.jvp_variance(np.array([[1.0, 1, 0]]))[0, 0]
    # One steps ahead, one back: the base enters both with opposite signs.
    np.testing.assert_allclose(both, 2 * 17 / 4 / 0.01, rtol=1e-9)


def test_a_step_that_rounds_to_nothing_is_refused():
    with pytest.raises(ValueError, match="rounds to nothing"):
        jacobian(lambda x: x, [1.0, 1e20], method=Hadamard(step=1.0))


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="replicates"):
        Hadamard(replicates=0)
    with pytest.raises(ValueError, match="antithetic"):
        Simplex(richardson=True)
    with pytest.raises(ValueError, match="shape"):
        Directions(rows=[1.0, 2.0])
    with pytest.raises(ValueError, match="2 columns"):
        jacobian(lambda x: x, [1.0, 2, 3], method=Directions(rows=np.eye(2)))
    with pytest.raises(ValueError, match="2 entries"):
        jacobian(lambda x: x, [1.0, 2, 3], method=Hadamard(step=[1, 2]))


# -- failures --------------------------------------------------------------------------------


def test_a_lost_side_drops_its_pair_and_leaves_j_unbiased():
    """Curvature would show as an error of 0.5: the partner must not be used by itself."""
    _, s, _ = run(Hadamard(step=0.5, richardson=False), curved, X, fail=(1, 20))
    np.testing.assert_allclose(s.coef[0], curved_jac(X), atol=1e-12)
    assert s.status == Status.FAILED_RUNS
    assert "2 of 32 runs failed" in s.message
    # 16 pairs, 2 lost: never better than a whole design of 14 pairs.
    _, s, _ = run(Hadamard(step=0.5), curved, X, fail=(1, 20), noise=np.ones(3))
    assert (s.cov.variance() >= 1 / (28 * 0.25) * (1 - 1e-12)).all()


def test_runs_without_partner_serve_where_nothing_else_does():
    """Central pairs lose one side: linear functions stay exact, and it is said what that costs."""
    design = Pairs(step=0.5, spare=0)
    _, s, _ = run(design, linear, X, fail=(3,))
    np.testing.assert_allclose(s.coef[0], A, atol=30 * 100 * EPS * M)
    assert np.isfinite(s.cov.variance()).all() or np.isnan(s.cov.scale).all()
    assert "curvature biases" in s.message


def test_directions_lost_altogether_are_inf():
    design = Pairs(step=0.5, spare=0, rotate=False)
    _, s, _ = run(design, linear, X, fail=(3, 3 + M))
    assert np.array_equal(np.isinf(s.cov.stderr()[0]).all(0), np.arange(M) == 3)
    assert s.status == Status.UNDETERMINED
    assert "1 inputs" in s.message


def test_outputs_fail_one_by_one():
    def lose(values):
        values[2, :, 1] = np.nan
        return values

    _, s, _ = run(Hadamard(step=0.5), curved, X, each=lose)
    np.testing.assert_allclose(s.coef[0], curved_jac(X), atol=1e-12)
    assert s.dof[0].tolist() == [5, 4, 5]  # 16 odd parts, 11 inputs, one lost


# -- noise -----------------------------------------------------------------------------------

# Errors of one estimate share the noise level, so intervals are counted by estimate: the spread
# of the share held over SEEDS estimates is measured from the estimates themselves, and 4 of its
# standard errors are exceeded once in 15 000.
SEEDS = 150


def coverage(design, fun, jac, sigma, **options):
    held = []
    x = X[: jac.shape[1]]
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        noisy = lambda p, r=rng: fun(p) + sigma(p) * r.standard_normal(jac.shape[0])  # noqa: E731
        _, s, _ = run(design, noisy, x, seed=seed, **options)
        held.append((np.abs(s.coef[0] - jac) <= s.interval(0.95)[0]).mean())
    held = np.array(held)
    return held.mean(), 4 * held.std() / np.sqrt(SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [
        Hadamard(step=0.3),
        Hadamard(step=0.3, replicates=2),
        Hadamard(step=0.3, richardson=True),
        Pairs(step=0.3),
        Simplex(step=0.3),
        Hadamard(step=0.3, fold_over=False),
    ],
)
@pytest.mark.parametrize("fail", [(), (1,)])
def test_intervals_hold_95_percent(design, fail):
    """Student t is exact for linear functions under Gaussian noise."""
    if fail and isinstance(design, Simplex):
        pytest.skip("a simplex has no run to lose")
    m = 5
    share, slack = coverage(design, lambda p: A[:, :m] @ p, A[:, :m], lambda p: 0.01, fail=fail)
    assert abs(share - 0.95) < slack


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.0, 0.25, 0.6, 1.2, 10.0])
def test_auto_richardson_holds_whatever_the_truncation(size):
    """Third-order terms of ``size`` times the noise; the shrunken estimate was measured to hold
    0.933 to 0.956, and 0.98 at ten times, where the guess of the fifth order exceeds the noise."""
    m, h, sigma = 6, 0.3, 0.01
    jac = A[:, :m]

    def fun(p):
        return jac @ p + size * sigma * ((p - X[:m]) / h)[:3] ** 3

    share, slack = coverage(Hadamard(step=h, richardson="auto"), fun, jac, lambda p: sigma)
    assert 0.92 - slack < share < (0.97 if size < 5 else 0.99) + slack


@pytest.mark.slow
def test_hc3_holds_where_the_noise_differs_from_run_to_run():
    """Noise ten times larger where the first input is up: plain bars are padded or too short."""
    m = 6

    def sigma(p):
        return 0.1 if p[0] > X[0] and p[1] > X[1] else 0.01

    jac = A[:, :m]
    share, slack = coverage(
        Hadamard(step=0.3, spare=14, fold_over=False, solver=Pinv(errors="hc3")),
        lambda p: jac @ p, jac, sigma,
    )  # fmt: skip
    assert share > 0.92 - slack


def test_huber_resists_outliers():
    """Two wild runs of 64: least squares is off by their size over the runs, Huber by noise."""
    robust = pytest.importorskip("gradiator_np.solvers._least_squares.huber")
    m = 6

    def spoil(values):
        values[[3, 40]] += 100.0
        return values

    rng = np.random.default_rng(1)
    fun = lambda p: A[:, :m] @ p + 0.01 * rng.standard_normal(3)  # noqa: E731
    errors = {}
    for name, solver in (("pinv", None), ("huber", robust.Huber())):
        design = Hadamard(step=1.0, spare=26, solver=solver)
        _, s, _ = run(design, fun, X[:m], each=spoil)
        errors[name] = np.abs(s.coef[0] - A[:, :m]).max()
    assert errors["pinv"] > 1.0  # 100 / 64 at least for one input
    # 64 runs: sd 0.01 / 8; 6 sd, and 20 % for the runs that are downweighted.
    assert errors["huber"] < 6 * 0.01 / 8 * 1.2


def test_replicates_tell_the_noise_from_the_misfit():
    """Third-order terms of 50 times the noise: replicates see it, one run a point cannot."""
    rng = np.random.default_rng(0)

    def fun(p):
        d = p - X[:5]
        return np.array([d[0] * d[1] * d[2] * 400]) + 0.01 * rng.standard_normal(1)

    _, s, _ = run(Hadamard(step=0.2, replicates=3, spare=8), fun, X[:5])
    assert s.info["pure_dof"][0, 0] == 16 * 2
    # 32 degrees of freedom: within 1 +- 5 / sqrt(64).
    assert 0.4 < s.info["pure_noise"][0, 0] / 0.01 < 1.6
    assert s.info["lack_of_fit"].all()
    assert s.status == Status.LACK_OF_FIT
    assert "smaller step" in s.message
    assert s.cov.scale[0, 0] > 0.1  # the misfit, not the noise, is the error


def test_known_noise_finds_lack_of_fit_and_sound_fits_pass():
    """At 1e-3 per estimate, 200 sound ones have 3 or more alarms with probability 1e-3."""
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        fun = lambda p, r=rng: A[:, :4] @ p + 0.1 * r.standard_normal(3)  # noqa: E731
        _, s, _ = run(Hadamard(step=1.0), fun, X[:4], noise=np.full(3, 0.1))
        alarms += s.status == Status.LACK_OF_FIT
    assert alarms < 3
    # Cubes are those of +-1 and pass for slopes; products of three inputs do not.
    fun = lambda p: [np.sum((p - X[:5]) ** 3), np.prod((p - X[:5])[:3])]  # noqa: E731
    _, s, _ = run(Hadamard(step=1.0, spare=8), fun, X[:5], noise=np.full(2, 1e-3))
    assert s.info["lack_of_fit"][0].tolist() == [False, True]


def test_a_kink_at_x_is_noticed():
    _, s, _ = run(Hadamard(step=0.1), lambda p: [np.abs(p - X[:5]).sum() + 0.01 * p[0]], X[:5])
    assert s.status == Status.LACK_OF_FIT
    assert "kink" in s.message


# -- the rest --------------------------------------------------------------------------------


def test_both_ends_of_a_difference_share_a_seed():
    plan = Hadamard(step=1.0, replicates=2).start(problem(X, np.ones(3)))
    seeds = plan.ask(None).streams
    offsets = plan.offsets()[:, 0]
    assert len(seeds) == len(offsets)
    for stream in np.unique(seeds):
        ends = offsets[seeds == stream]
        assert np.array_equal(ends[0], -ends[1])
        assert len(ends) == 2
    assert seeds.min() == 1  # 0 is the stream of x itself
    forward = Directions(rows=np.eye(M)).start(problem(X, np.ones(3)))
    assert not forward.ask(None).streams.any()


def test_common_random_numbers_cancel_in_differences():
    """A shift of the whole output by its seed costs the slope nothing."""
    plan = Hadamard(step=1.0).start(problem(X, linear(X)))
    asked = plan.ask(None)
    offsets, seeds = asked.offsets, asked.streams
    shift = np.random.default_rng(0).standard_normal(seeds.max() + 1)
    values = np.array([[linear(X + row[0]) + shift[s]] for row, s in zip(offsets, seeds)])
    rows = Rows(asked, values, np.ones(len(offsets), bool), linear(X)[None])
    s = plan.solve(rows)
    np.testing.assert_allclose(s.coef[0], A, atol=1e-13)
    assert (s.cov.stderr() < 1e-13).all()


def test_choose_design():
    assert isinstance(choose_design(), Pairs)
    box = choose_design(max_step=[0.1, 0.2])
    assert isinstance(box, Hadamard)
    assert box.fold_over


def test_partial_answers_are_incomplete():
    plan = Hadamard(step=1.0).start(problem(X, linear(X)))
    offsets = plan.ask(None).offsets[:30]
    values = np.array([[linear(X + row[0])] for row in offsets])
    rows = Rows(Displacements(offsets), values, np.ones(30, bool), linear(X)[None])
    s = plan.solve(rows)
    assert s.status == Status.INCOMPLETE
    np.testing.assert_allclose(s.coef[0], A, atol=1e-12)  # 14 whole pairs for 11 inputs


def test_through_the_front_door():
    """Values near 50, steps 0.5: rounding."""
    for design in (Hadamard(step=0.5), Pairs(step=0.5)):
        estimate = jacobian(curved, X, method=design, rng=0)
        np.testing.assert_allclose(estimate.jac, curved_jac(X), atol=1e-12)
        assert estimate.nfev == len(design.start(problem(X, curved(X))).offsets()) + 1
    with pytest.warns(GradiatorWarning, match="kink"):
        jacobian(lambda p: np.abs(p - X).sum(), X, method=Hadamard(step=0.1))


def test_default_steps_follow_the_noise():
    """eps^(1/3) of |x| without noise, (sigma / y)^(1/3) with: 1e-3 of y gives 0.1."""
    quiet = Pairs().start(problem([2.0, 4.0], [10.0]))
    np.testing.assert_allclose(quiet.step, [[2 * EPS ** (1 / 3), 4 * EPS ** (1 / 3)]])
    loud = Pairs().start(problem([2.0, 4.0], [10.0], noise=np.array([0.01])))
    np.testing.assert_allclose(loud.step, [[0.2, 0.4]])
