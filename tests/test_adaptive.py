"""The default design: pilot, line model, rounds, and what it says when it fails."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from benchmarks.noise import deterministic, limit, printed
from benchmarks.problems import PROBLEMS, by_name
from gradiator_np import GradiatorWarning, jacobian
from gradiator_np.designs._adaptive.design import Auto
from gradiator_np.designs._adaptive.evaluation_log import EvaluationLog, PairRequest
from gradiator_np.designs._adaptive.model.differences import CentralDifferences, merge_repeats
from gradiator_np.designs._adaptive.model.likelihood import likelihood
from gradiator_np.designs._adaptive.model.mixture import mixture, variances
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.prior import RHO, TAIL, States
from gradiator_np.designs._adaptive.model.step_selection import best_steps
from gradiator_np.designs._displacements import AxisDisplacements
from gradiator_np.designs._protocol import Problem, Rows

EPS = np.finfo(float).eps


def scales(x):
    known = np.abs(x)
    return np.where(known > 0, known, np.median(known[known > 0]) if known.any() else 1.0)


class Driven:
    """A plan run to its end: the solution, the plan, and the runs that it took."""

    def __init__(self, fun, x, options=None, lower=None, upper=None, seed=0, learned=None):
        x = np.atleast_2d(np.asarray(x, float))
        b, m = x.shape
        self.lower = np.full((b, m), -np.inf) if lower is None else np.atleast_2d(lower)
        self.upper = np.full((b, m), np.inf) if upper is None else np.atleast_2d(upper)

        def run(points):
            return np.stack([np.atleast_1d(fun(p)) for p in points])

        y = run(x)
        scale = np.stack([scales(p) for p in x])
        problem = Problem(x, y, self.lower, self.upper, scale, EPS, np.random.default_rng(seed))
        self.problem = problem
        self.plan = (options or Auto()).start(problem, learned)
        moves = AxisDisplacements(np.empty(0, np.intp), np.empty((0, b)))
        values = np.empty((0, *y.shape), y.dtype)
        while True:
            rows = Rows(moves, values, np.ones(len(values), bool), y)
            wanted = self.plan.ask(rows)
            if wanted is None:
                break
            moved = wanted.realised(x, (self.lower, self.upper))
            points, moves = moved.points(x, slice(None)), moves.joined(moved)
            values = np.concatenate([values, np.stack([run(p) for p in points])])
        self.rows, self.offsets = rows, moves.dense(slice(None), m)
        self.nfev = 1 + len(values)
        self.solution = self.plan.solve(rows)
        self.jac = self.solution.coef[0]
        self.stderr = self.solution.cov.stderr()[0]

    def error(self, truth):
        return np.linalg.norm(self.jac - truth) / np.linalg.norm(truth)

    def held(self, truth):
        t = stdtrit(np.clip(self.solution.dof[0], 1, 1e6), 0.975)[:, None]
        return np.abs(self.jac - truth) <= t * self.stderr


def noisy(p, level, seed):
    rng = np.random.default_rng(seed)
    sigma = level * np.sqrt(np.mean(np.square(p.fun(p.x0))))
    return lambda x: p.fun(x) + sigma * rng.standard_normal(p.n)


# -- the line model --------------------------------------------------------------------------


def dense(t, odd, noise, slope, sd):
    """Slow twin: generalised least squares with the covariance written out."""
    cov = np.diag(noise**2 / (2 * t**2))
    for q, s in enumerate(sd, 1):
        cov = cov + (slope * s) ** 2 * np.outer(t ** (2 * q), t ** (2 * q))
    inverse = np.linalg.inv(cov)
    precision = inverse.sum()
    g = inverse.sum(axis=0) @ odd / precision
    left = odd - g
    log = -0.5 * (np.linalg.slogdet(cov)[1] + np.log(precision) + left @ inverse @ left)
    return g, 1 / precision, log


@pytest.mark.kernel
@pytest.mark.parametrize("pairs, level", [(3, 1e-2), (5, 1e-5)])
@pytest.mark.parametrize("seed", range(3))
def test_the_kernel_equals_generalised_least_squares(seed, pairs, level):
    """Three pairs are done in closed form, five by the kernel, which leaves out terms below 1e-4 of
    the noise: at a noise of 1e-5 and steps of 0.15 and more the states with rho late in (0.4, 1]
    have none. The covariances of the twin have a condition of up to 6e8 there: at worst 1e-7 of
    what they give, times a log-likelihood of some ten."""
    rng = np.random.default_rng(seed)
    states = States.grid()
    rho, late = RHO[states.rho], TAIL[states.tail]
    keep = (states.jitter == 0) & (rho >= 1) & (rho < 10)
    if pairs > 3:
        keep &= (rho * late > 0.4) & (rho * late <= 1)
    states = states.take(np.flatnonzero(keep))
    t = np.sort(rng.uniform(0.15, 0.5, pairs))[None]
    noise, slope = level * np.array([1, 2]), np.array([[1.0, 0.7]])
    powers = t[0][:, None] ** (2 * np.arange(1, 5))
    odd = 1 + powers @ rng.standard_normal((4, 2)) * slope
    odd = (odd + noise / (2**0.5 * t[0][:, None]) * rng.standard_normal((pairs, 2)))[None]
    empty, central = np.full_like(odd, np.nan), np.zeros(t.shape, bool)
    logs = np.empty((states.rho.size, 2))
    for i in range(2):
        parts = odd[..., [i]], empty[..., [i]]
        one = CentralDifferences(t, np.ones_like(t), np.ones((1, pairs, 1)), *parts, central)
        logs[:, i] = likelihood(one, states, noise[[i]], slope[:, [i]])[0][0]
    view = CentralDifferences(t, np.ones_like(t), np.ones_like(odd), odd, empty, central)
    for s in range(states.rho.size):
        weights = np.zeros((1, states.rho.size))
        weights[0, s] = 1.0
        known = Posterior(view, states, weights, slope, noise)
        found = mixture(known)
        for i in range(2):
            g, var, log = dense(t[0], odd[0, :, i], noise[i], slope[0, i], states.sd_odd[s])
            np.testing.assert_allclose(found.mean[i, 0], g, rtol=1e-6)
            np.testing.assert_allclose(variances(known)[0, i], var, rtol=1e-6)
            half = found.half_width[i, 0]
            np.testing.assert_allclose(half, 1.959963984540054 * var**0.5, rtol=1e-6)
            logs[s, i] -= log
    # equal up to a constant
    np.testing.assert_allclose(logs, np.broadcast_to(logs[0], logs.shape), atol=2e-5)


@pytest.mark.kernel
def test_the_log_likelihood_of_many_pairs_does_not_overflow():
    """150 pairs whose weights multiply to 1e450: equal to the twin up to a constant."""
    states = States.grid()
    # higher terms that set in early are beyond the twin: its condition number would be 1e16
    keep = (states.jitter == 0) & (RHO[states.rho] == 1) & (TAIL[states.tail] >= 1)
    states = states.take(np.flatnonzero(keep))
    t = np.linspace(0.1, 0.5, 150)[None]
    noise, slope = np.array([1e-4]), np.ones((1, 1))
    odd = 1 + 1e-4 * np.random.default_rng(0).standard_normal((1, 150, 1)) / t[..., None]
    empty, central = np.full_like(odd, np.nan), np.zeros(t.shape, bool)
    view = CentralDifferences(t, np.ones_like(t), np.ones_like(odd), odd, empty, central)
    logs = likelihood(view, states, noise, slope)[0][0]
    logs -= [dense(t[0], odd[0, :, 0], noise[0], 1.0, sd)[2] for sd in states.sd_odd]
    # the dense covariance is solved to 150 eps times its condition number, 1e8: 3e-6 of logs of
    # 1e3
    np.testing.assert_allclose(logs, logs[0], atol=3e-3)


@pytest.mark.kernel
def test_the_mixture_interval_holds_95_percent():
    """Two states of very different width: the half-width against the mixture's own tail."""
    states = States.grid()
    keep = [np.flatnonzero((RHO[states.rho] == r) & (states.jitter == 0))[0] for r in (0.1, 10)]
    states = states.take(np.array(keep))
    weights = np.array([[0.3, 0.7]])
    t, one = np.array([[0.1]]), np.ones((1, 1, 1))
    view = CentralDifferences(t, np.ones((1, 1)), one, one, one, np.zeros((1, 1), bool))
    known = Posterior(view, states, weights, np.ones((1, 1)), np.array([1e-3]))
    half = mixture(known).half_width
    powers = 0.1 ** (2 * np.arange(1, 5))
    sd = np.sqrt(1e-6 / (2 * 0.01) + np.square(states.sd_odd * powers).sum(axis=1))
    from scipy.special import ndtr

    outside = (weights[0] * 2 * ndtr(-half[0, 0] / sd)).sum()
    # the width is solved for to 1e-6
    assert outside == pytest.approx(0.05, abs=1e-6)


@pytest.mark.kernel
def test_the_design_never_repeats_a_step_and_stays_between_its_limits():
    states = States.grid()
    states = states.take(np.flatnonzero(states.jitter == 0))
    prior = states.prior(0.0)[None]
    for have in (np.array([[np.nan]]), np.array([[0.5]]), np.array([[0.02]])):
        out = best_steps(
            have, np.ones_like(have), have < 0, 1.0, np.array([1e-3]), prior, states,
            np.array([0.01]), np.array([0.5]), np.linspace(0, 1, 20), np.array([[1.0]]),
        )  # fmt: skip
        assert 0.01 <= out[0, 0] <= 0.5 * (1 + 4 * EPS)
        if np.isfinite(have[0, 0]):
            assert max(out[0, 0] / have[0, 0], have[0, 0] / out[0, 0]) >= 1.24


# -- noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [False, True])
def test_noise_is_shrunk_towards_the_hypothesis_that_scatters_less(relative):
    rng = np.random.default_rng(3)
    n = 40
    size = 10.0 ** rng.uniform(-3, 3, n)
    truth = 0.1 * size if relative else np.full(n, 0.1)
    estimator = replace(NoiseEstimator.empty(n), size=size, least=1e-12 * size)
    level = estimator.add(truth * rng.standard_normal((2, n)), 1.0).level()
    found = level.noise
    assert level.relative == relative
    # two contrasts alone scatter by a factor of 2; pooled over 40 outputs, 80 degrees of freedom,
    # the common level is good to 8 %: five times that is a false alarm in 1e-6
    assert np.median(found / truth) == pytest.approx(1, abs=0.4)
    assert np.std(np.log(found / truth)) < 0.35
    assert (level.dof > 10).all()


@pytest.mark.parametrize("level", [1e-8, 1e-4, 1e-2])
def test_the_noise_level_is_found(level):
    p = by_name("extended_powell")
    rms = np.sqrt(np.mean(np.square(p.fun(p.x0))))
    ratios = []
    for seed in range(5):
        d = Driven(noisy(p, level, seed), p.x0, seed=seed)
        ratios.append(np.median(d.solution.cov.scale[0]) / (level * rms))
    # 12 outputs with some 4 contrasts each: 10 % per seed, 5 % in the median
    assert np.median(ratios) == pytest.approx(1, abs=0.25)


# -- what it costs and how close it gets -----------------------------------------------------


@pytest.mark.parametrize("p", PROBLEMS, ids=lambda p: p.name)
def test_deterministic_functions_cost_a_pair_for_each_input_and_sixteen(p):
    d = Driven(p.fun, p.x0)
    assert d.solution.status == "ok"
    # beyond a pair for each input: f(x), pairs of the pilot at 1e-8, 1e-5, 0.1 and 0.2, four more
    # where these do not agree on a bend (Osborne 2 bends at 0.08 x), and a pair or group run for
    # inputs with wide error bars, or to which nothing answers at x
    # (twelve other seeds of each: beyond 9 in 0.20, beyond 14 in 0.012, beyond 16 in 0.007)
    assert d.nfev <= 2 * p.m + 16
    # SciPy's 3-point rule is good to eps^(2/3) = 4e-11 times how fast f bends; the worst of these
    # (Osborne 2, Chebyquad) bend on a tenth of their scale, where that is 4e-9, and Brown's badly
    # scaled one rounds at 1e6 times its slopes
    assert d.error(p.jac(p.x0)) < (1e-7 if p.name == "brown_badly_scaled" else 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "level, per_input, bound",
    # medians of all problems and five seeds are 2.3, 1.2 and 1.35 (benchmarks/noise.py); those of a
    # third of the problems and two seeds scatter by 0.43, 0.1 and 0.05: six have 1.8 to 3.0, 1.2 to
    # 1.5, 1.3 to 1.5
    [(1e-8, 4, 3.8), (1e-2, 4, 1.7), (1e-4, 8, 1.9)],
)
def test_within_reach_of_the_best_stencil_in_hindsight(level, per_input, bound):
    ratios = []
    for p in PROBLEMS[::3]:
        sigma = level * np.sqrt(np.mean(np.square(p.fun(p.x0))))
        best = limit(p, sigma, per_input // 2, points=25)
        for seed in range(1, 3):
            d = Driven(noisy(p, level, seed), p.x0, Auto(max_nfev=per_input * p.m + 10), seed=seed)
            assert d.nfev <= per_input * p.m + 10
            ratios.append(d.error(p.jac(p.x0)) / best)
    assert np.median(ratios) < bound


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("level", [1e-6, 1e-3])
def test_intervals_hold_95_percent(level, known):
    held, widths = [], []
    for p in (by_name(n) for n in ("bard", "kowalik_osborne", "trigonometric", "broyden_banded")):
        truth = p.jac(p.x0)
        sigma = level * np.sqrt(np.mean(np.square(p.fun(p.x0))))
        for seed in range(15):
            options = Auto(noise=sigma) if known else Auto()
            d = Driven(noisy(p, level, seed), p.x0, options, seed=seed)
            held.append(d.held(truth).mean())
            widths.append(np.median(d.stderr) / np.sqrt(np.mean((d.jac - truth) ** 2)))
    # 60 Jacobians; entries of one column share their step and state, so a Jacobian counts for
    # some 5 independent entries: 300 trials of 0.95 have a standard deviation of 0.013. Three of
    # them are a false alarm in 3e-3 where the coverage is exactly 0.95
    assert 0.91 < np.mean(held) < 0.99
    assert np.median(widths) < 1.5


def test_budgets_are_kept_and_spent():
    p = by_name("wood")
    truth = p.jac(p.x0)
    errors = []
    for most in (7, 20, 60, 240):
        d = Driven(noisy(p, 1e-3, 1), p.x0, Auto(max_nfev=most))
        assert d.nfev <= most
        assert d.nfev >= most - 3 if most > 20 else True
        errors.append(d.error(truth))
    # 240 evaluations against 20: noise alone falls by a factor of 3.5
    assert errors[3] < errors[1]
    few = Driven(noisy(p, 1e-3, 1), p.x0, Auto(max_nfev=7))
    assert few.solution.status == "budget"
    assert "inputs" in few.solution.message


def test_tolerances_are_met_or_missed_aloud():
    p = by_name("bard")
    d = Driven(noisy(p, 1e-4, 0), p.x0, Auto(atol=5e-4, max_nfev=800))
    assert d.solution.status == "ok"
    assert (d.stderr <= 5e-4).all()
    assert d.nfev < 800
    short = Driven(noisy(p, 1e-4, 0), p.x0, Auto(atol=1e-9, max_nfev=60))
    assert short.solution.status == "budget"
    assert short.nfev <= 60
    loose = Driven(noisy(p, 1e-4, 0), p.x0, Auto(rtol=0.5))
    assert loose.nfev <= 5 * p.m + 10


def test_what_was_learned_saves_the_pilot():
    p = by_name("broyden_banded")
    first = Driven(noisy(p, 1e-4, 0), p.x0)
    x = 1.02 * p.x0
    again = Driven(noisy(p, 1e-4, 1), x, learned=first.plan.learned)
    assert again.nfev == 4 * p.m + 1
    assert again.error(p.jac(x)) < 3 * first.error(p.jac(p.x0))
    clean = Driven(p.fun, p.x0)
    assert Driven(p.fun, x, learned=clean.plan.learned).nfev == 2 * p.m + 1


def test_another_noise_calls_for_a_new_pilot():
    p = by_name("trigonometric")
    clean = Driven(p.fun, p.x0)
    d = Driven(noisy(p, 1e-3, 1), p.x0, learned=clean.plan.learned)
    truth = p.jac(p.x0)
    assert d.plan.learned.noisy
    assert d.held(truth).mean() > 0.8


# -- where it may look -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-3.0, -1e-3, 0.0, 1e-14, 0.7, 2.0]),
            st.sampled_from([0.0, 1e-9, 1e-4, 0.01, 0.3, 10.0, np.inf]),
            st.sampled_from([0.0, 1e-9, 1e-4, 0.01, 0.3, 10.0, np.inf]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_no_offset_leaves_the_bounds(inputs, loud):
    x, below, above = np.array(inputs).T
    lower, upper = x - below, x + above
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, x.size))

    def fun(z):
        assert (z >= lower).all()
        assert (z <= upper).all()
        return np.sin(a @ z) + (1e-5 * rng.standard_normal(3) if loud else 0)

    d = Driven(fun, x, lower=lower, upper=upper)
    fixed = lower == upper
    assert not d.offsets[:, 0, fixed].any()
    assert np.isinf(d.stderr[:, fixed]).all()
    assert np.isfinite(d.jac).all()


def test_one_sided_rules_next_to_a_bound():
    d = Driven(lambda z: np.array([np.exp(z[0]) + z[1] ** 2]), [0.0, 2.0], lower=[0.0, -np.inf])
    # a one-sided rule of second order balances at eps^(2/3) with constants of 26
    assert d.error(np.array([[1.0, 4.0]])) < 1e-6
    assert (d.offsets[:, 0, 0] >= 0).all()


def test_small_inputs_have_steps_of_their_own_scale():
    d = Driven(lambda z: np.array([1e14 * z[0] * z[1]]), [1e-14, 2.0])
    assert np.abs(d.offsets[:, 0, 0]).max() <= 0.5e-14 * (1 + 4 * EPS)
    assert d.error(np.array([[2e14, 1.0]])) < 1e-9


def test_batches_are_planned_together():
    rng = np.random.default_rng(2)
    x = rng.uniform(1, 2, (3, 2))

    def fun(z):
        return np.array([z[0] * z[1], np.sin(z[0]), z[1] ** 3])

    d = Driven(fun, x)
    for b, (u, v) in enumerate(x):
        truth = np.array([[v, u], [np.cos(u), 0], [0, 3 * v**2]])
        np.testing.assert_allclose(d.solution.coef[b], truth, atol=1e-9)
    assert d.nfev <= 2 * 2 + 9 + 1
    assert d.solution.cov.scale.shape == (3, 3)


def test_complex_outputs_are_pairs_of_real_ones():
    d = Driven(lambda z: np.exp(1j * z[0]) * z, [1.0, 2.0])
    e = np.exp(1j)
    truth = np.array([[e * (1 + 1j), 0], [2j * e, e]])
    assert np.abs(d.jac - truth).max() < 1e-9
    assert (np.abs(d.jac - truth) <= 3 * d.stderr + 1e-15).all()


def test_one_input_uses_its_pilot():
    d = Driven(np.exp, [1.0])
    assert d.nfev <= 11
    assert abs(d.jac[0, 0] / np.e - 1) < 1e-11


# -- failures, each with a name of its own ---------------------------------------------------


def test_solving_early_is_incomplete():
    p = by_name("bard")
    problem = Driven(p.fun, p.x0).problem
    fresh = Auto().start(problem)
    rows = Rows(
        AxisDisplacements(np.empty(0, np.intp), np.empty((0, 1))),
        np.empty((0, 1, 15)), np.empty(0, bool), problem.y,
    )  # fmt: skip
    wanted = fresh.ask(rows)
    values = np.full((len(wanted), 1, 15), np.nan)
    rows = Rows(wanted, values, np.zeros(len(wanted), bool), problem.y)
    solution = fresh.solve(rows)
    assert solution.status == "incomplete"
    assert np.isinf(solution.cov.stderr()).all()


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_domains_that_end_at_x_or_close_to_it(level):
    """With noise one call in five has but one pair of short steps left to an input, and says that
    noise hides it: eleven of 20 with failed_runs are missed once in 400."""
    truth, statuses, errors = np.array([[np.e, 4.0, 1.0]]), [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def fun(z, rng=rng):
            if z[0] < 1 or abs(z[1] - 2) > 1e-2:
                return np.full(1, np.nan)
            return np.array([np.exp(z[0]) + z[1] ** 2 + z[2]]) + level * rng.standard_normal(1)

        d = Driven(fun, [1.0, 2.0, 3.0], seed=seed)
        statuses.append(str(d.solution.status))
        errors.append(d.error(truth))
    assert set(statuses) <= {"failed_runs", "no_signal"}
    if level == 0:
        assert "no_signal" not in statuses
        assert max(errors) < 1e-7
    else:
        assert statuses.count("failed_runs") >= 11
        # a step of 1e-2 x at most for the second input: noise leaves 1e-5 / 1e-3 of it
        assert np.median(errors) < 2e-2


def test_outputs_that_fail_everywhere_are_undetermined_and_cost_nothing_to_others():
    d = Driven(lambda z: np.array([np.nan, z[0] * z[1]]), [1.0, 2.0])
    assert d.solution.status == "undetermined"
    assert np.isinf(d.stderr[0]).all()
    np.testing.assert_allclose(d.jac[1], [2, 1], rtol=1e-9)


def test_random_failures_are_worked_around():
    p = by_name("watson")
    for seed in range(5):
        rng = np.random.default_rng(seed)

        def fun(z, rng=rng):
            return p.fun(z) if rng.random() > 0.05 or (z == p.x0).all() else np.full(p.n, np.nan)

        d = Driven(fun, p.x0, seed=seed)
        assert np.isfinite(d.stderr).all()
        assert d.error(p.jac(p.x0)) < 1e-4


def test_a_kink_at_x_is_reported():
    d = Driven(lambda z: np.array([abs(z[0] - 1) + z[1]]), [1.0, 2.0])
    assert d.solution.status == "lack_of_fit"
    assert "inputs 0" in d.solution.message
    # slopes are -1 and 1: the error bar must reach both
    assert d.stderr[0, 0] >= 0.9
    smooth = Driven(lambda z: np.array([(z[0] - 1) ** 2 + z[1]]), [1.0, 2.0])
    assert smooth.solution.status == "ok"


def test_noise_alone_is_no_signal():
    rng = np.random.default_rng(0)
    d = Driven(lambda z: rng.standard_normal(3), [1.0, 2.0])
    assert d.solution.status == "no_signal"


def test_a_wiggle_is_told_from_the_trend():
    """By small steps J is off by the wiggle's own slope, 1e-3 times 600 or 5.6 % of it: right, and
    once in 200 seeds said to be; else trend and slope at x are said to differ."""
    p = by_name("rosenbrock")
    fun, doubts = deterministic(p, 1e-3, None), 0
    own = np.transpose([
        (fun(p.x0 + h) - fun(p.x0 - h)) / 2e-6 for h in 1e-6 * np.eye(2)
    ])  # fmt: skip
    for seed in range(20):
        d = Driven(fun, p.x0, seed=seed)
        doubt = d.solution.status in ("two_scales", "lack_of_fit")
        doubts += doubt
        assert doubt or d.solution.status == "ok"
        # the slope of central differences at 1e-6 is good to 1e-6
        assert min(d.error(own), d.error(p.jac(p.x0)) if doubt else np.inf) < (
            0.03 if doubt else 1e-5
        )
    assert doubts >= 17


@pytest.mark.parametrize("digits", [4, 6])
def test_printed_digits(digits):
    errors = []
    for name in ("bard", "wood", "trigonometric", "watson", "kowalik_osborne"):
        p = by_name(name)
        d = Driven(printed(p, 10.0**-digits, None), p.x0)
        errors.append(d.error(p.jac(p.x0)))
    # a rounding error of 0.3 units of the last digit over a step of a tenth, and as much again
    # for curvature
    assert np.median(errors) < 30 * 10.0**-digits


def test_inputs_on_a_grid_are_stepped_over():
    def fun(z):
        return np.array([np.sin(np.round(z[0], 3)) + np.round(z[1], 2) ** 2])

    d = Driven(fun, [1.0, 2.0])
    assert d.error(np.array([[np.cos(1), 4.0]])) < 1e-2
    whole = Driven(lambda z: np.array([np.exp(-np.round(z[0]) / 100) * z[1]]), [100.0, 2.0])
    assert whole.error(np.array([[-2 * np.exp(-1) / 100, np.exp(-1)]])) < 1e-2


def test_inputs_without_effect_have_slope_zero():
    d = Driven(lambda z: np.array([z[0] ** 3]), [1.0, 2.0, 3.0])
    assert (d.jac[0, 1:] == 0).all()
    assert np.isfinite(d.stderr).all()
    assert d.nfev <= 2 * 3 + 9 + 1


def test_merging_repetitions_loses_nothing():
    """Equal steps become one pair of half the noise; failed outputs keep what there is, and the
    variance of repetitions that noise does not explain is their squared difference over 4."""
    rng = np.random.default_rng(4)
    x = np.array([[1.0, 2.0]])
    y = np.zeros((1, 2))
    inf = np.full((1, 2), np.inf)
    log = EvaluationLog(Problem(x, y, -inf, inf, x, EPS, rng))
    wanted = ((0, 0.5), (0, 0.5), (0, 0.1), (1, 0.2))
    moves = log.request([PairRequest(line, t) for line, t in wanted])
    values = rng.standard_normal((8, 1, 2))
    values[2, 0, 1] = np.nan
    log.record(Rows(moves, values, np.ones(8, bool), y))
    single = log.differences([0, 1])
    merged = merge_repeats(single, np.ones(2))
    mean = single.slope[0, :2, 0].mean()
    assert merged.slope[0, 0, 0] == pytest.approx(mean)
    assert merged.slope[0, 0, 1] == single.slope[0, 0, 1]
    assert merged.noise_factor[0, 0] == 0.5
    # alone, the other output has the whole noise of one pair
    assert merged.noise_ratio[0, 0].tolist() == [1.0, 2.0]
    assert np.isnan(merged.t[0, 1])
    loud = merge_repeats(single, np.full(2, 1e-3))
    # variance of D at unit noise: factor size / (2 t^2)
    variance = 1e-6 * loud.noise_factor[0, 0] * loud.noise_ratio[0, 0, 0] / (2 * 0.5**2)
    assert variance == pytest.approx((single.slope[0, 0, 0] - single.slope[0, 1, 0]) ** 2 / 4)


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_outputs_twelve_decades_apart_do_not_disturb_each_other(level):
    rng = np.random.default_rng(1)

    def fun(z):
        y = np.array([1e6 * np.exp(z[0]) * z[1], 1e-6 * np.sin(z[1])])
        return y * (1 + level * rng.standard_normal(2))

    d = Driven(fun, [1.0, 2.0])
    truth = np.array([[2e6 * np.e, 1e6 * np.e], [0, 1e-6 * np.cos(2)]])
    size = np.linalg.norm(truth, axis=1, keepdims=True)
    # steps of a quarter and more would leave the noise divided by 0.3; twenty times that allows
    # for curvature
    assert (np.abs(d.jac - truth) < max(20 * level, 1e-7) * size).all()
    assert (np.abs(d.jac - truth) < 5 * d.stderr).all()


@pytest.mark.parametrize("ulps", [2, 5, 20, 1000])
@pytest.mark.parametrize("below", [0, 1])
def test_rooms_of_a_few_ulps(ulps, below):
    """A run there is rounded by 1 ulp of y = 2, over a step of half the room at least."""
    room = ulps * np.spacing(1.0)

    def fun(z):
        assert 1 - below * room <= z[0] <= 1 + room
        return np.array([z[0] ** 2 * z[1]])

    d = Driven(fun, [1.0, 2.0], lower=[1 - below * room, 1], upper=[1 + room, 3])
    assert abs(d.jac[0, 0] - 4) <= 26**0.5 * 2 * np.spacing(2.0) / room
    assert abs(d.jac[0, 0] - 4) <= 3 * d.stderr[0, 0]
    assert abs(d.jac[0, 1] - 1) < 1e-9


def test_no_room_at_all_is_fixed():
    d = Driven(lambda z: z, [1.0, 2.0], upper=[1 + np.spacing(1.0), 3], lower=[1.0, 1.0])
    assert d.solution.status == "undetermined"
    assert np.isinf(d.stderr[:, 0]).all()
    with pytest.raises(ValueError, match="max_step of input 0"):
        Driven(lambda z: z, [1.0, 2.0], Auto(max_step=1e-17))


def test_budgets_below_a_pilot_do_not_claim_what_they_cannot_know():
    """Steps for smooth functions, noise of 1e-3: intervals still hold 95 %.

    Nine entries a seed share one noise estimate: as good as some three independent ones, and 120
    trials of 0.95 have a standard deviation of 0.02. Three of them are a false alarm in 1e-3.
    """
    held = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        d = Driven(lambda z, r=rng: z**2 + 1e-3 * r.standard_normal(3), [1.0, 2.0, 3.0],
                   Auto(max_nfev=7))  # fmt: skip
        assert d.nfev <= 7
        held.append(d.held(np.diag([2, 4, 6])).mean())
    assert np.mean(held) > 0.89


def displacements(**options):
    """What the runs move inputs by, under rounding, ripples and noise in turn: lists of (m,)."""
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(5, 4)), 1 + rng.random(4)
    for noise in (lambda y, z: np.round(y, 3), lambda y, z: y + 1e-3 * np.sin(300 * z.sum()),
                  lambda y, z: y + 1e-3 * rng.normal(size=5)):  # fmt: skip
        moved = []

        def fun(z, noise=noise, moved=moved):
            moved.append(np.abs(z - x))
            return noise(np.tanh(a @ z), z)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradiatorWarning)
            jacobian(fun, x, **options)
        yield moved


@pytest.mark.parametrize("most", [0.26, 0.017, 0.0049])
def test_no_run_moves_an_input_by_more_than_max_step(most):
    """Steps of one digit too: 0.26 is not 0.3. One rounding of x + h allowed for."""
    for moved in displacements(max_step=most):
        assert np.max(moved) <= most + 4 * EPS


@pytest.mark.parametrize("least", [0.017, 0.12])
def test_no_pair_of_the_answer_is_below_min_step(least):
    """One rounding of x + h allowed for."""
    for moved in displacements(min_step=least):
        alone = [step.max() for step in moved if np.count_nonzero(step) == 1]
        assert min(alone) >= least - 4 * EPS
