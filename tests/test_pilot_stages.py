"""The pilot: its line, noise, wide steps, each by itself, and all together."""

from __future__ import annotations

import numpy as np
import pytest

from gradiator_np.designs._adaptive.model.noise import SECOND_NOISE
from gradiator_np.designs._adaptive.model.scale_consistency import FULL_UP, WIDE
from gradiator_np.designs._adaptive.stages.noise_level import (
    level_of,
    measure_noise,
    measure_staircase,
)
from gradiator_np.designs._adaptive.stages.pilot import run_pilot
from gradiator_np.designs._adaptive.stages.pilot_line import BARELY
from gradiator_np.designs._adaptive.stages.small_scale import small_step
from gradiator_np.designs._adaptive.stages.wide_scale import (
    SHORT,
    compare_rough,
    compare_smooth,
)
from tests.stage_bench import EPS, Bench, contrasts_of, hashed, smooth

FIRST = 1e-8 * FULL_UP
X = np.array([0.5, 1.0, -0.7, 1.4])


# -- the line ----------------------------------------------------------------------------------


def test_the_line_moves_every_input_that_has_room_and_none_beyond_its_bounds():
    """Half to all of what there is room for, rounded to a digit (0.095 to 0.1); what may move by
    less than BARELY of the others stays."""
    x = np.array([1.0, -2.0, 3.0, 40.0, 5.0])
    room = np.array([np.inf, 0.4, 1.5, 40 * 0.5 * 0.9 * BARELY, 0.0])
    for seed in range(20):
        bench = Bench(lambda z: z, x, lower=x - room, upper=x + room, seed=seed)
        bench.line()
        moved = bench.log.direction[0]
        size = np.abs(moved) / np.array([1.0, 0.4, 1.0, 1.0, 1.0])
        assert (size[:3] >= 0.45).all()
        assert (size[:3] <= 1 + 1e-12).all()
        assert not moved[3:].any()
        offsets = moved * np.abs(x)
        assert all(float(f"{a:.0e}") == pytest.approx(a, rel=1e-12) for a in offsets[:3])


def test_the_slope_along_the_line_is_that_of_the_jacobian():
    """A central pair of a parabola: rounding alone, over a step; the second difference is
    d^T H d t^2, with H = a a^T."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 4))
    bench = Bench(lambda z: (a @ z) ** 2 / 2, X)
    line = bench.line(1e-3, 0.3)
    along = bench.along(a)
    for t in (1e-3, 0.3):
        slope, second = line.at(t)
        np.testing.assert_allclose(slope, along * (a @ X), rtol=0, atol=50 * EPS / t)
        np.testing.assert_allclose(second, (along * t) ** 2, rtol=0, atol=50 * EPS)
    assert line.smallest == 1e-3
    assert line.widest(0.1) == 1e-3
    assert line.widest(1e-4) == 0.0


def test_pairs_that_are_there_are_not_asked_for_again():
    bench = Bench(np.sin, X)
    line = bench.line(1e-3, 1e-2)
    asked = bench.log.n_rows
    bench.run(line.pairs([1e-3, 1.005e-2, 5.0]))
    # the last one is drawn in to half of the scale
    assert bench.log.n_rows == asked + 2
    assert bench.log.steps(bench.log.pilot) == [1e-3, 1e-2, 0.5]


def test_the_line_leaves_a_pair_for_every_input():
    """Of 5 m + 10 runs, and of max_nfev: ten runs at first, more as they are allowed."""
    for most in (None, 30):
        bench = Bench(np.sin, X, max_nfev=most)
        line = bench.line(*np.geomspace(1e-6, 0.5, 40))
        assert bench.log.n_rows <= (30 if most is None else most) - 1 - 4 * X.size + 2
        for _ in range(40):
            line.allow(2)
            bench.run(line.pairs(np.geomspace(1e-6, 0.5, 90)))
        assert bench.log.nfev + 2 * X.size <= bench.budget.limit
        assert not line.allow(100)


def test_one_run_is_repeated_once():
    rng = np.random.default_rng(0)
    for sigma in (0.0, 1e-9):
        bench = Bench(lambda z, s=sigma: np.sin(z) + s * rng.standard_normal(4), X)
        line = bench.line(0.1)
        assert not line.repeated
        bench.run(line.pairs([0.2], again=True))
        bench.run(line.pairs([0.3], again=True))
        assert bench.log.n_rows == 7
        assert line.repeated
        assert line.random == (sigma > 0)
        assert line.repetition.any() == (sigma > 0)


def test_a_corner_of_the_bounds_leaves_one_sided_rules():
    """Exact for parabolas but for rounding: 26 runs of it over a step."""
    bench = Bench(lambda z: np.array([z @ z]), X, lower=X, upper=np.inf)
    line = bench.line(0.1)
    assert line.side == 1
    assert (bench.moved() >= 0).all()
    wanted = bench.along(2 * X[None])
    np.testing.assert_allclose(line.view.slope[0, 0], wanted, atol=100 * EPS / 0.1)


@pytest.mark.parametrize("works", [1, -1])
def test_a_side_that_fails_is_turned_away_from(works):
    bench = Bench(lambda z: np.array([z @ z if works * (z[1] - 1) >= 0 else np.nan]), X)
    line = bench.line(0.1)
    assert not np.isfinite(line.view.slope).any()
    line.turn(1)
    bench.run(line.pairs([0.2]))
    assert line.side == 1
    assert np.isfinite(line.view.slope[0, 1]).all()
    np.testing.assert_allclose(
        line.view.slope[0, 1], bench.along(2 * X[None]), atol=100 * EPS / 0.1
    )


# -- noise -------------------------------------------------------------------------------------


def test_noise_that_the_caller_knows_is_taken_as_it_is():
    bench = Bench(np.sin, X, known_noise=1e-3)
    line = bench.line(0.1)
    level = level_of(line, contrasts_of(line).add(np.ones((5, 4)), 1.0))
    np.testing.assert_array_equal(level.noise, 1e-3)
    assert np.isinf(level.dof).all()
    quiet = Bench(np.sin, X, known_noise=0.0)
    line = quiet.line(0.1)
    np.testing.assert_array_equal(
        level_of(line, contrasts_of(line)).noise, contrasts_of(line).least
    )
    unknown = Bench(np.sin, X).line(0.1)
    noise = contrasts_of(unknown).add(np.ones((5, 4)), 1.0)
    # all contrasts alike: they are the common level
    assert level_of(unknown, noise).noise == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("sigma", [1e-9, 1e-5, 1e-2])
def test_contrasts_of_a_random_function_have_the_variance_of_its_noise(sigma):
    """200 seeds of four outputs and of five contrasts each, some of which share f(x): at least 1600
    are as good as independent, whose mean square is good to sqrt(2 / 1600) = 3.5 %, 4.5 times that.
    At steps of 0.1 r^(1/3) curvature adds less than 1 %."""
    squares = count = first = 0.0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        bench = Bench(lambda z, r=rng: np.exp(z) + sigma * r.standard_normal(4), X, seed=seed)
        line = bench.line(FIRST)
        second = line.at(FIRST)[1]
        noise = contrasts_of(line).add(second, SECOND_NOISE)
        noise = bench.run(measure_noise(line, noise))
        first += np.square(second).sum()
        assert line.random
        assert bench.log.n_rows <= 2 + 1 + 8
        squares, count = squares + noise.squares.sum(), count + noise.count.sum()
    # two contrasts alone where wider steps are louder by chance
    assert count >= 200 * 4 * 4
    assert squares / count / sigma**2 == pytest.approx(1, abs=0.01 + 4.5 * 0.035)
    # f+ + f- - 2 f0; 800 squares of one normal each are good to 5 %
    assert first / (200 * 4) / sigma**2 == pytest.approx(SECOND_NOISE, rel=4.5 * 0.05)


def test_noise_that_grows_with_the_step_is_that_of_the_steps_in_use():
    """Quiet at 1e-8, 1e-5 at 1e-6 and beyond: what the smallest pair said does not count. Eight
    contrasts of sines of random phase: their level is good to a factor of two."""

    def fun(z):
        away = np.abs(z - X).max() > 1e-7
        return np.exp(z) + away * 1e-5 * hashed(z + z.sum())

    ratios = []
    for seed in range(30):
        bench = Bench(fun, X, seed=seed)
        line = bench.line(FIRST)
        noise = contrasts_of(line).add(np.full(4, 1e-12), SECOND_NOISE)
        noise = bench.run(measure_noise(line, noise))
        # The quiet pair's would be 1e-24. Two of 1e-10 fall below 1e-18 with a probability of
        # 1e-8, in 120 cases once in a million tests.
        assert noise.squares.min() > 1e-18
        ratios.append(np.sqrt(noise.squares.sum() / noise.count.sum()) / 1e-5)
    # a sine of a sine of random phase has a mean square of 0.5
    assert np.median(ratios) == pytest.approx(0.5**0.5, rel=0.5)


def test_the_noise_of_rounded_inputs_is_that_of_their_grid():
    """Each output is one input, rounded to multiples of some g: errors spread evenly over g,
    g^2 / 12 in the mean; 300 seeds of four outputs and two contrasts, half of them as good as
    independent: sqrt(2 / 1200) = 4 %, 4.5 times that."""
    squares, count = 0.0, 0.0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x, g = rng.uniform(0.5, 2, 4), 1e-4 * rng.uniform(0.7, 1.4)
        bench = Bench(lambda z, g=g: np.round(z / g) * g, x, seed=seed)
        line = bench.line(3e-4 * FULL_UP)
        noise = contrasts_of(line).add(np.ones(4), 1.0)
        noise = bench.run(measure_staircase(line, noise, 3e-4 * FULL_UP))
        assert noise.count.max() == 2  # what the first pair said is no noise
        squares, count = squares + noise.squares.sum() / g**2, count + noise.count.sum()
        assert sorted(bench.log.steps(bench.log.pilot))[1] >= 2.9e-3
    assert 12 * squares / count == pytest.approx(1, abs=4.5 * 0.041)


# -- wide steps --------------------------------------------------------------------------------


def compared(fun, x=X, seed=0, noise=1e-15):
    bench = Bench(fun, x, seed=seed)
    line = bench.line(FIRST, small_step(EPS))
    n = bench.log.f0.size
    found = bench.run(compare_smooth(line, np.full(n, noise), small_step(EPS)))
    return found, bench, line


def test_smooth_functions_agree_at_both_scales():
    """100 functions that bend on the scale of 1, of which 4 inputs together see half: none is
    taken for another. At noise of some eps, rounding, four pairs are all that it takes."""
    for seed in range(100):
        fun, _ = smooth(np.random.default_rng(seed), 4, 3)
        found, bench, _ = compared(fun, seed=seed)
        assert found.agree
        assert found.amplitude is None
        assert found.discrepancy is None
        assert bench.log.n_rows == 8


def test_a_small_wiggle_on_a_trend_is_left_out():
    """1e-4 sin(1e3 z) is a tenth of the slope: pairs below the trend's are left out, and what
    remains has its slope, but for 1e-4 over a step of 0.05. What repeats within such a step and has
    that slope is 0.1 of their product, 5e-4, more than contrasts of 2e-4 at most; the trend is off
    by 1.5e-3 of a gap of 0.07 and more."""
    for phase in (0.0, 0.7, -0.4):
        found, _, line = compared(
            lambda z, p=phase: z + 1e-4 * np.sin(1e3 * (z - 1) + p), np.ones(1)
        )
        assert not found.agree
        assert found.min_step == pytest.approx(WIDE / 4)
        left = line.view.t[0] > 0
        assert (line.view.t[0][left] > 0.98 * WIDE / 4).all()
        np.testing.assert_allclose(line.view.slope[0][left][:, 0], 1.0, rtol=1e-4 / 0.049)
        assert found.amplitude == pytest.approx(0.1 * WIDE / 4 * 0.1 * np.cos(phase), rel=0.03)


def test_a_wiggle_that_is_most_of_the_slope_leaves_a_discrepancy():
    """Slope 2.9 at x, 1 beyond: one input, hence nothing that cancels. The wide pair at 0.1 sees
    the trend to 0.0019 / 0.1."""
    found, _bench, line = compared(lambda z: z + 1.9e-3 * np.sin(1e3 * (z - 1)), np.ones(1))
    assert found.amplitude is None
    assert found.discrepancy == pytest.approx([-1.9], abs=0.02)
    assert line.widest(0.5) <= 1.02 * SHORT


@pytest.mark.parametrize("bend", [0.03, 3e-4])
def test_functions_that_bend_are_seen_at_small_steps_only(bend):
    """No wiggle, no discrepancy, and no pair in the log whose slope is off by more than DEPARTS."""
    for seed in range(10):
        found, bench, line = compared(
            lambda z: np.array([z[0] + z[2] ** 2, bend * np.tanh((z[1] - 1) / bend)]), seed=seed
        )
        assert not found.agree
        assert found.amplitude is None
        assert found.discrepancy is None
        wanted = bench.along(np.array([[1, 0, 2 * X[2], 0], [0, 1, 0, 0]]))
        view = line.view
        for k in np.flatnonzero(view.t[0] > 0):
            np.testing.assert_allclose(view.slope[0, k], wanted, rtol=1.01e-2)


def test_rough_functions_with_a_trend_and_a_wiggle():
    """Noise of 1e-9, a wiggle of 1e-4 on a straight line: the wiggle is the noise that counts.
    Three pairs between the scales come first, for which the 15 runs of one input are not enough."""
    bench = Bench(lambda z: z + 1e-4 * np.sin(1e3 * z) + 1e-9 * hashed(z), np.ones(1), max_nfev=21)
    line = bench.line(1e-5, WIDE)
    found = bench.run(compare_rough(line, np.full(1, 1e-9)))
    assert not found.agree
    assert found.amplitude is not None
    assert 2e-5 < found.amplitude[0] < 5e-4
    assert found.min_step == pytest.approx(WIDE / 4)


def test_rough_functions_without_a_clear_slope_have_one_scale():
    """Nothing is clear at noise of 0.1: no run is made for it."""
    bench = Bench(lambda z: z + 0.1 * hashed(z), np.ones(1))
    line = bench.line(1e-5, WIDE)
    asked = bench.log.n_rows
    assert bench.run(compare_rough(line, np.full(1, 0.1))).agree
    assert bench.log.n_rows == asked


# -- all together ------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 1e-5])
def test_the_pilot_tells_noise_from_curvature(sigma):
    """Slopes along the direction hold within five of the errors that the pilot gives, in 20 seeds
    of six outputs; the noise of six outputs and some three contrasts each is good to 12 % in the
    median, five times that."""
    x = np.array([0.5, 1.0, -0.7, 0.2, 1.4, 0.9])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bench = Bench(lambda z, r=rng: np.exp(z) + sigma * r.standard_normal(6), x, seed=seed)
        found = bench.run(run_pilot(bench.context, bench.budget))
        assert found.profile.noisy == found.profile.random == (sigma > 0)
        assert bench.log.nfev <= 5 * 6 + 10 - 2 * 6
        if sigma:
            assert np.median(found.profile.noise) == pytest.approx(sigma, rel=0.6)
        else:
            assert found.profile.noise.max() < 1e-13
            assert np.isinf(found.profile.max_step)
        # a typical slope per unit of one input: one to a factor of some
        assert found.profile.slope.shape == (6,)
        assert (found.profile.slope > 0).all()
        assert found.profile.prior.sum() == pytest.approx(1.0)


def test_a_pilot_that_fails_everywhere_says_so():
    bench = Bench(lambda z: np.where((z == X).all(), np.sin(z), np.nan), X)
    found = bench.run(run_pilot(bench.context, bench.budget))
    assert found.profile is None
    assert found.posterior is None


@pytest.mark.parametrize("hit", [0, 5, 8, 9, 11])
def test_a_pair_that_garbage_hit_is_left_out(hit):
    """One run of four outputs of noise 1e-4 gives 1e3. In 60 seeds each that pair was left out, and
    the largest noise found was 0.6 to 2.9 of it; without a hit none was, and 0.65 to 2."""
    for seed in range(20):
        rng, runs = np.random.default_rng(seed), []

        def fun(z, rng=rng, runs=runs):
            runs.append(z)
            y = np.exp(z) + 1e-4 * rng.standard_normal(4)
            return np.full(4, 1e3) if len(runs) == hit else y

        bench = Bench(fun, X, seed=seed)
        found = bench.run(run_pilot(bench.context, bench.budget))
        assert len(found.line.view.t[0]) == (4 if hit else 5)
        assert found.profile.noise.max() < 1e-3


def test_the_pilot_of_a_printing_program_knows_its_rounding():
    """Four decimals: errors spread evenly over 1e-4."""
    bench = Bench(lambda z: np.round(10 * np.exp(z), 4), X)
    found = bench.run(run_pilot(bench.context, bench.budget))
    assert found.profile.noisy
    assert not found.profile.random
    np.testing.assert_allclose(found.profile.noise, 1e-4 / 12**0.5, rtol=0.5)


@pytest.mark.parametrize("way", [1, -1])
def test_what_worked_beside_failed_runs_is_no_run_again(way):
    """A direction whose one side fails beyond t = 1e-4: four runs worked on the other, two at small
    steps and two at wide ones, each at a step and at twice that, which is a one-sided rule."""
    sigma = 1e-6
    for seed in range(10):
        rng = np.random.default_rng(seed)
        bench = Bench(lambda z, r=rng: z**2 + sigma * r.standard_normal(4), X, seed=seed)
        line = bench.line(FIRST)
        ahead = line.log.direction[0] * line.log.scale[0] * way

        def fun(z, r=rng, ahead=ahead):
            beyond = (z - X) @ ahead > 1e-4 * (ahead @ ahead)
            return np.full(4, np.nan) if beyond else z**2 + sigma * r.standard_normal(4)

        bench.fun = fun
        noise = contrasts_of(line).add(line.at(FIRST)[1], SECOND_NOISE)
        bench.run(measure_noise(line, noise))
        before = bench.log.n_rows
        bench.run(line.replace_wide(True))
        view = line.view
        sided = view.sided[0]
        assert bench.log.n_rows == before
        assert sided.sum() == 2
        # (4 f(s) - f(2 s) - 3 f(x)) / 2 s is exact for squares: noise of 26 variances over 2 t^2,
        # of which 80 numbers are within five deviations
        sd = sigma * np.sqrt(view.noise_factor[0][sided] / 2) / view.t[0][sided]
        off = view.slope[0][sided] - bench.along(np.diag(2 * X))
        assert (np.abs(off) < 5 * sd[:, None]).all()


@pytest.mark.parametrize("sigma", [0.0, 1e-6])
def test_a_domain_that_ends_early_limits_the_steps(sigma):
    """Runs fail beyond 0.05 of an input: none of its pairs will be as wide as those that did."""
    rng = np.random.default_rng(0)

    def fun(z):
        inside = abs(z[1] - 1) < 0.05
        return np.exp(z) + sigma * rng.standard_normal(4) if inside else np.full(4, np.nan)

    bench = Bench(fun, X)
    found = bench.run(run_pilot(bench.context, bench.budget))
    assert found.profile.noisy == (sigma > 0)
    assert min(found.max_step, found.profile.max_step) <= WIDE / 2
    assert found.line.widest(0.5) >= 1e-3
