"""The stages that follow the pilot, each by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradiator_np import jacobian
from gradiator_np.designs._adaptive.evaluation_log import PairRequest
from gradiator_np.designs._adaptive.model.mixture import NORMAL_95
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.stages.failures import replace_failed
from gradiator_np.designs._adaptive.stages.fold_over import select_fold_over
from gradiator_np.designs._adaptive.stages.inactive import find_inactive
from gradiator_np.designs._adaptive.stages.nonsmooth import find_kinks
from gradiator_np.designs._adaptive.stages.outliers import exclude_outliers
from gradiator_np.designs._adaptive.stages.pilot import run_pilot
from gradiator_np.designs._adaptive.stages.reuse import TRUST, adopt, is_stale, noise_of_pairs
from gradiator_np.designs._adaptive.stages.rounds import measure, request_pairs
from gradiator_np.designs._adaptive.stages.scale_search import search_scales
from gradiator_np.designs._adaptive.stages.sharpening import ENOUGH, MOST, sharpen
from gradiator_np.designs._adaptive.stages.unused_step import ASIDE, unused_step
from gradiator_np.designs._adaptive.state import Budget, Tolerance
from tests.stage_bench import Bench, smooth

X = np.array([0.4, 1.0, 2.0])


# -- rounds ------------------------------------------------------------------------------------


def test_rounds_end_with_one_pair_where_nothing_is_noisy():
    bench = Bench(np.sin, X, noise=1e-16)
    noise = NoiseEstimator.empty(3)
    done = bench.run(measure(bench.context, bench.profile, bench.axes, noise, bench.budget))
    assert done.axes.n_pairs.tolist() == [1, 1, 1]
    assert not done.short
    slopes = bench.context.slopes(done.profile, done.axes)
    error = np.abs(slopes.mean - np.diag(np.cos(X) * X))
    assert (error <= slopes.half_width).all()


@pytest.mark.parametrize("most", [None, 9, 60])
def test_rounds_of_noise_spend_what_there_is(most):
    """All but what is no pair; each input as many as the others but for one; and the noise is that
    of the pairs: 12 contrasts of three outputs and more are good to 25 %, three times that."""
    rng = np.random.default_rng(0)
    bench = Bench(
        lambda z: np.sin(z) + 1e-3 * rng.standard_normal(3), X, noise=1e-3, noisy=True,
        random=True, max_nfev=most,
    )  # fmt: skip
    noise = replace(NoiseEstimator.empty(3), size=np.ones(3))
    noise = noise.add(1e-3 * rng.standard_normal((3, 3)), 1.0)
    done = bench.run(measure(bench.context, bench.profile, bench.axes, noise, bench.budget))
    assert 0 <= bench.budget.limit - bench.log.nfev < 2
    assert np.ptp(done.axes.n_pairs) <= (2 if most is None else 4)
    assert done.axes.n_pairs.sum() == (bench.log.nfev - 1) // 2
    if most == 60:
        np.testing.assert_allclose(done.profile.noise, 1e-3, rtol=0.75)


@pytest.mark.parametrize("loud", range(3))
def test_the_last_pair_goes_where_the_error_is_largest(loud):
    """Two pairs each; those of one input are a hundredth as wide."""
    rng = np.random.default_rng(0)
    bench = Bench(
        lambda z: np.sin(z) + 1e-3 * rng.standard_normal(3), X, noise=1e-3, noisy=True,
        random=True, max_nfev=15,
    )  # fmt: skip
    for t in (0.4, 0.3):
        steps = [t * (0.01 if j == loud else 1.0) for j in range(3)]
        bench.answer(bench.log.request([PairRequest(j, s) for j, s in enumerate(steps)]))
    axes = replace(bench.axes, n_pairs=np.full(3, 2))
    noise = replace(NoiseEstimator.empty(3), size=np.ones(3)).add(np.full((3, 3), 1e-3), 1.0)
    done = bench.run(measure(bench.context, bench.profile, axes, noise, bench.budget))
    assert done.axes.n_pairs.tolist() == [3 if j == loud else 2 for j in range(3)]


# -- failures, inactive inputs, outliers, kinks ------------------------------------------------


def test_a_failing_side_is_left():
    def fun(x):
        return np.array([x[0] ** 2 + x[1] if x[0] <= 1.0 else np.nan])

    bench = Bench(fun, [1.0, 2.0])
    bench.pairs(0.1)
    who = np.array([0, 1])
    axes = bench.run(replace_failed(bench.context, bench.profile, bench.axes, who, bench.budget))
    assert axes.side.tolist() == [-1, 0]
    assert axes.max_step.tolist() == [0.05, 0.5]
    # f(-0.1) is there already
    assert bench.log.n_rows == 4 + 1
    # (4 f(-t) - f(-2t) - 3 f0) / 2t is exact for squares
    view = bench.context.differences(bench.profile)
    assert view.slope[0, -1, 0] == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("way", [1, -1])
def test_no_pair_leads_to_where_a_run_failed(way):
    """Failed once at 0.1 x on one side: what follows keeps to the other, or within 0.1 / 8."""
    bench = Bench(lambda z: z**2, X, noise=1e-4, noisy=True)
    limit = X[1] + way * 0.05 * X[1]
    bench.fun = lambda z: z**2 if (z[1] - limit) * way < 0 else np.full(3, np.nan)
    bench.pairs(0.1)
    who = np.arange(3)
    bench.run(request_pairs(bench.context, bench.profile, bench.axes, who, 1))
    latest = bench.moved(slice(6, None)) / X
    assert (way * latest[:, 1]).max() <= 0.1 / 8


def test_silent_inputs_are_inactive_or_gridded():
    def fun(x):
        return np.array([np.round(x[0] / 0.3) + x[1], x[1]])

    bench = Bench(fun, [1.2, 2.0, 5.0])
    bench.pairs(0.01)
    axes, gridded = bench.run(
        find_inactive(bench.context, bench.profile, bench.axes, Budget(200, 3))
    )
    assert axes.inactive.tolist() == [False, False, True]
    assert gridded
    # the first answer is at 0.15 of 1.2, found by bisection to a factor of 4
    assert 0.125 <= axes.jitter[0] < 0.5
    assert axes.jitter[1] == axes.jitter[2] == 0


def test_an_outlier_is_excluded_and_a_clean_line_is_not():
    rng = np.random.default_rng(1)
    hit = [0]

    def fun(x):
        hit[0] += 1
        return 3 * x + 1e-6 * rng.standard_normal(2) + (1e-2 * (hit[0] == 8) * np.array([1.0, 1.0]))

    bench = Bench(fun, [1.0, 2.0], noise=1e-6, noisy=True, random=True)
    # a pilot has told that nothing bends below 1
    late = np.where(bench.context.states.bend_length(np.eye(bench.profile.prior.size)) >= 1, 1, 0)
    late = late * bench.profile.prior
    bench.profile = replace(bench.profile, prior=late / late.sum())
    bench.pairs(0.02, 0.014, 0.01)  # the eighth run is the second input's at 0.014
    exclude_outliers(bench.context, bench.profile, bench.axes)
    assert bench.context.differences(bench.profile).n_pairs.tolist() == [3, 2]


@pytest.mark.parametrize("nonsmooth", [True, False])
def test_kinks_are_told_from_curvature_where_the_pilot_saw_one(nonsmooth):
    def fun(x):
        return np.array([np.abs(x[0] - 1) + x[1] ** 2, np.exp(x[1])])

    bench = Bench(fun, [1.0, 2.0], noise=1e-15)
    bench.pairs(0.01)
    profile = replace(bench.profile, nonsmooth=nonsmooth)
    kinks = bench.run(find_kinks(bench.context, profile, bench.axes, bench.budget))
    assert kinks.tolist() == [[nonsmooth, False], [False, False]]
    assert bench.log.n_rows == 4 + 2 * nonsmooth


def test_a_fold_over_needs_noise():
    bench = Bench(np.sin, X)
    limit, cap = np.full((1, 3), 0.01), np.full(3, 0.02)
    assert select_fold_over(bench.context, bench.profile, limit, cap, 40) is None
    loud = Bench(np.sin, X, noise=0.1, noisy=True, random=True)
    chosen = select_fold_over(loud.context, loud.profile, limit, cap, 40)
    assert chosen is not None
    assert chosen.runs <= 40


# -- steps -------------------------------------------------------------------------------------


def test_steps_of_deterministic_functions_are_new_and_of_one_digit():
    """Near what is wanted: where nothing is used yet, the digit that t is rounded to."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        bench = Bench(np.sin, [rng.uniform(0.5, 20)])
        scale, taken = bench.log.scale[0, 0], []
        t = 10.0 ** rng.uniform(-6, -1)
        for _ in range(6):
            step = unused_step(bench.context, bench.profile, bench.axes, 0, t, taken)
            assert float(f"{step * scale:.0e}") == pytest.approx(step * scale, rel=1e-12)
            assert all(abs(step / other - 1) > 1e-6 for other in taken)
            taken.append(step)
        # one digit is 1 / 3 off at most (1.5 to 2, or to 1)
        assert 0.66 < taken[0] / t < 1.34
        # six of one digit: less than a decade
        assert min(taken) > 0.1 * t
        if (t * scale) % 1:
            assert taken[0] * scale == pytest.approx(float(f"{t * scale:.0e}"), rel=1e-12)


def test_steps_stay_between_their_limits():
    bench = Bench(np.sin, [1.0])
    axes = replace(bench.axes, min_step=np.array([0.02]), max_step=np.array([0.05]))
    taken = []
    for _ in range(4):
        taken.append(unused_step(bench.context, bench.profile, axes, 0, 0.04, taken))
    np.testing.assert_allclose(sorted(taken), [0.02, 0.03, 0.04, 0.05], rtol=1e-12)


def test_steps_of_random_functions_are_repeated_at_two_places():
    bench = Bench(np.sin, [1.3], random=True)
    taken = []
    for _ in range(4):
        taken.append(unused_step(bench.context, bench.profile, bench.axes, 0, 0.1, taken))
    np.testing.assert_allclose(taken, [0.1, 0.1 * ASIDE, 0.1, 0.1 * ASIDE], rtol=1e-15)


# -- sharpening --------------------------------------------------------------------------------


def share(bench, profile, axes):
    """Standard errors over rows of J, the largest of each input, one by one."""
    found = bench.context.slopes(profile, axes)
    return [
        max(found.half_width[i, j] / NORMAL_95 / np.linalg.norm(found.mean[i]) for i in range(2))
        for j in range(found.mean.shape[1])
    ]


def test_wide_error_bars_are_sharpened_and_narrow_ones_left():
    """One pair at 0.02 says nothing of curvature: up to three more, until the error is ENOUGH. One
    at 1e-5 is good enough."""
    bench = Bench(lambda z: np.array([z.sum(), np.sin(z[0]) + z[1] ** 3]), X, noise=1e-15)
    bench.answer(bench.log.request([PairRequest(j, t) for j, t in enumerate((0.02, 1e-5, 0.02))]))
    axes = replace(bench.axes, n_pairs=np.ones(3, int)).at(2, inactive=True)
    before = share(bench, bench.profile, axes)
    assert before[0] > ENOUGH > before[1]
    after = bench.run(
        sharpen(bench.context, bench.profile, axes, np.zeros(3, bool), Budget(100, 3))
    )
    assert after.n_pairs[2] == 1
    now = share(bench, bench.profile, after)
    for j in (0, 1):
        assert after.n_pairs[j] > 1 if before[j] > ENOUGH else after.n_pairs[j] == 1
        assert now[j] <= ENOUGH or after.n_pairs[j] == 1 + MOST
    assert bench.log.n_rows == 6 + 2 * (after.n_pairs.sum() - 3)
    found = bench.context.slopes(bench.profile, after)
    truth = np.array([X, [np.cos(X[0]) * X[0], 3 * X[1] ** 3, 0]])
    assert (np.abs(found.mean - truth) <= found.half_width + 1e-15).all()


def test_what_is_left_goes_where_the_error_is_widest():
    bench = Bench(lambda z: np.array([z.sum(), np.sin(z[0]) + z[1] ** 3]), X, noise=1e-15)
    bench.pairs(0.01)
    axes = replace(bench.axes, n_pairs=np.ones(3, int))
    worst = int(np.argmax(share(bench, bench.profile, axes)))
    after = bench.run(sharpen(bench.context, bench.profile, axes, np.zeros(3, bool), Budget(9, 3)))
    assert bench.log.nfev == 9
    assert (after.n_pairs - 1).tolist() == np.eye(3, dtype=int)[worst].tolist()


@pytest.mark.parametrize("how", ["noisy", "tolerance", "kinked", "spent"])
def test_nothing_is_sharpened_where_more_pairs_tell_nothing_or_the_caller_decides(how):
    tolerance = Tolerance(rtol=0.1) if how == "tolerance" else None
    bench = Bench(
        lambda z: np.array([z.sum(), z[1] ** 3]), X, noisy=how == "noisy", tolerance=tolerance
    )
    bench.pairs(0.01)
    budget = Budget(8 if how == "spent" else 100, 3)
    kinked = np.full(3, how == "kinked")
    after = bench.run(sharpen(bench.context, bench.profile, bench.axes, kinked, budget))
    assert bench.log.n_rows == 6
    np.testing.assert_array_equal(after.n_pairs, bench.axes.n_pairs)


# -- units of inputs next to 0 -----------------------------------------------------------------


def test_an_input_that_does_not_answer_at_its_own_size_gets_another_unit():
    """1e-9 beside 1.5, at noise of 1e-4: steps grow by 100 until the answer clears it."""
    rng = np.random.default_rng(0)
    fun = lambda z: np.array([z[0] + z[1] ** 2]) + 1e-4 * rng.standard_normal(1)  # noqa: E731
    bench = Bench(fun, [1e-9, 1.5], noise=1e-4, noisy=True, random=True, max_nfev=100)
    found = bench.run(search_scales(bench.context, bench.profile, bench.axes, bench.budget))
    assert found.rescaled == (0,)
    # no signal of 1e4 up to the most that is tried, the median size
    moved = bench.moved()[:, 0]
    np.testing.assert_allclose(moved, [1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 0.75], rtol=1e-6)
    assert bench.log.scale[0, 0] == pytest.approx(0.75, rel=1e-6)
    assert found.axes.max_step[0] == 0.5
    assert found.budget.extra == bench.log.n_rows + 4


@pytest.mark.parametrize("how", ["answers", "smooth"])
def test_an_input_that_answers_or_has_no_noise_keeps_its_unit(how):
    gain = 1e12 if how == "answers" else 1.0
    bench = Bench(
        lambda z: np.array([gain * z[0] + z[1]]), [1e-9, 1.5], noise=1e-4,
        noisy=how == "answers", max_nfev=100,
    )  # fmt: skip
    found = bench.run(search_scales(bench.context, bench.profile, bench.axes, bench.budget))
    assert found.rescaled == ()
    assert bench.log.scale[0, 0] == 1e-9
    assert bench.log.n_rows == (how == "answers")


# -- what was learned elsewhere ----------------------------------------------------------------


def test_a_profile_is_taken_over_with_as_much_trust_as_it_has():
    bench = Bench(np.sin, X)
    given = replace(
        bench.profile, noise=np.full(3, 1e-4), dof=np.array([0.0, 7.0, np.inf]), min_step=1e-3
    )
    start = adopt(bench.context, given, bench.axes)
    assert start.noise.count.tolist() == [0.0, 7.0, TRUST]
    np.testing.assert_allclose(start.noise.squares, start.noise.count * 1e-8)
    assert (start.axes.min_step >= 1e-3).all()
    # another batch: the mean of the priors of its points
    both = np.concatenate([given.prior, given.prior[:, ::-1]])
    other = adopt(bench.context, replace(given, prior=both), bench.axes).profile.prior
    np.testing.assert_allclose(other, both.mean(axis=0)[None], rtol=1e-15)


def again(fun, x, given, seed):
    """Whether a profile is found to be stale at another point."""
    bench = Bench(fun, x, seed=seed)
    start = adopt(bench.context, given, bench.axes)
    done = bench.run(
        measure(bench.context, start.profile, start.axes, start.noise, bench.budget, again=True)
    )
    return is_stale(bench.context, done, given)


def stale(sigma, change, functions=40):
    """Of how many functions a profile is stale 2 % away, where the function is another."""
    x, count = np.array([0.5, 1.0, -0.7, 1.4]), 0
    for seed in range(functions):
        rng = np.random.default_rng(seed)
        clean, _ = smooth(rng, 4, 3)

        def fun(z, clean=clean, rng=rng):
            return clean(z) + sigma * rng.standard_normal(3)

        bench = Bench(fun, x, seed=seed)
        given = bench.run(run_pilot(bench.context, bench.budget)).profile
        count += again(change(fun, 1.02 * x, rng), 1.02 * x, given, seed)
    return count


@pytest.mark.parametrize("sigma", [0.0, 1e-4])
def test_profiles_of_the_same_function_last(sigma):
    """No false alarm of 400 without noise. With it the mean square of some 12 contrasts has to be 9
    times that of a noise that few contrasts tell: 8 % of 400, ten of 40 once in 1000. One costs a
    pilot, and no more."""
    assert stale(sigma, lambda fun, near, rng: fun) <= (9 if sigma else 0)


def test_profiles_of_a_function_that_bends_within_a_step_do_not():
    """3e-6 of where the other bends, which pairs at 1e-5 show."""

    def change(fun, near, rng):
        return lambda z: fun(near) + 3e-6 * (fun(near + (z - near) / 3e-6) - fun(near))

    assert stale(0.0, change) >= 38


def test_profiles_of_a_function_of_30_times_the_noise_do_not():
    """A mean square of some 900 where 9 is the limit: 235 of 240, and less than 114 of 120 once in
    100."""

    def change(fun, near, rng):
        return lambda z: fun(z) + 3e-3 * rng.standard_normal(3)

    assert stale(1e-4, change, 120) >= 114


@pytest.mark.parametrize("sigma", [1e-8, 1e-3])
def test_the_noise_of_pairs_without_a_pilot(sigma):
    """Second differences at 1e-6 of five inputs, which share the noise of f(x): five contrasts of
    four outputs in 200 seeds, whose mean square is good to sqrt(2 / 4000) = 2.2 %; shrinkage
    moves what is common to the outputs by less than a tenth."""
    x, squares = np.linspace(0.5, 1.5, 5), []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        clean, _ = smooth(rng, 5, 4)
        bench = Bench(lambda z, r=rng, f=clean: f(z) + sigma * r.standard_normal(4), x, noise=1e-16)
        bench.pairs(1e-6)
        level = noise_of_pairs(bench.context, bench.profile)
        squares.append(np.square(level.noise / sigma).mean())
        assert (level.dof > 4).all()
    assert np.mean(squares) == pytest.approx(1, abs=0.1 + 4.5 * 0.022)
    known = Bench(np.sin, x, known_noise=0.1)
    known.pairs(1e-6)
    assert noise_of_pairs(known.context, known.profile) is known.profile


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("most, which", [(1, "0, 1, 2"), (3, "1, 2")])
def test_budgets_that_end_before_inputs_were_moved_say_which(most, which):
    found = jacobian(lambda x: x**2, [1.0, 2.0, 3.0], max_nfev=most)
    assert found.status == "budget"
    assert f"before inputs {which} were moved" in found.message
