"""Fits that run off to a plateau, and what they do then; ends that are short of a minimum."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.lsq_coverage import ROWS, data_of, drawn, fitted
from benchmarks.lsq_problems import problems
from benchmarks.lsq_runs import Recorder
from benchmarks.nist import regressions
from gradiator_np import least_squares
from gradiator_np._calibration import search
from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.local_model import fit
from gradiator_np._calibration.refinement import LastPhase
from gradiator_np._calibration.restart import SHORTER_SCALE, End, Restart
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.verdict import Ending
from gradiator_np._status import Status


def an_end(lost, status=Status.UNDETERMINED, center=0):
    scale = np.array([1.0, 2.0])
    region = TrustRegion(scale, np.full(2, -np.inf), np.full(2, np.inf), 0.3)
    return End(status, center, region, None, np.array(lost))


def a_log(*sizes):
    log = FitLog()
    for k, size in enumerate(sizes):
        log.add(np.array([float(k), 0.5]), np.array([size, 0.0]))
    return log


NOWHERE = np.full(2, np.nan)


def test_one_more_start_is_from_x0_with_shorter_steps():
    restart, log = Restart(True), a_log(3.0, 2.0, 1.0)
    scale, center = restart.after(an_end([False, True], center=2), True, NOWHERE, log)
    np.testing.assert_array_equal(scale, [1.0, 2.0 * SHORTER_SCALE])
    assert center == 0
    # once
    assert restart.after(an_end([False, True]), True, NOWHERE, log) is None
    # the end before counts where it is lower
    assert restart.lower_end(1, log).center == 2
    assert restart.lower_end(2, log) is None


def test_one_more_start_is_from_where_the_residuals_answer():
    log = a_log(3.0, 2.0, 1.0)
    found = Restart(True).after(an_end([True, False]), True, np.array([2.0, np.nan]), log)
    np.testing.assert_array_equal(found[0], [2.0, 2.0])
    assert found[1] == 2


@pytest.mark.parametrize(
    "wanted, end, quiet, sizes",
    [
        (False, an_end([True, True]), True, (3.0, 1.0)),  # units were given
        (True, an_end([False, False]), True, (3.0, 1.0)),
        (True, an_end([True, True], Status.CONVERGED), True, (3.0, 1.0)),
        (True, an_end([True, True]), False, (3.0, 1.0)),
        (True, an_end([True, True], center=1), True, (3.0, 1e-9)),  # a root
    ],
)
def test_there_is_no_other_start(wanted, end, quiet, sizes):
    restart, log = Restart(wanted), a_log(*sizes)
    assert restart.after(end, quiet, NOWHERE, log) is None
    assert restart.lower_end(0, log) is None


#: Sets of starts, each shifted by rounding, of fits that ran off (0.5 to 0.9 of them did) or went
#: along a valley.
SETS = 5


@pytest.mark.parametrize("name", ["BoxBOD", "Eckerle4", "MGH17"])
def test_what_ran_off_comes_back(name):
    """4 digits: of 10 starts from the first set of NIST each 8 at least did so."""
    problem = next(p for p in regressions() if p.name == name)
    rng, found = np.random.default_rng(0), []
    for _ in range(SETS):
        start = problem.starts[0] * (1 + 1e-9 * rng.choice((-1.0, 1.0), len(problem.starts[0])))
        fit = least_squares(problem.residuals, start)
        digits = problem.digits(fit.x)
        found.append(digits >= 4)
        assert digits >= 1 or not fit.success
    assert sum(found) >= 2


@pytest.mark.parametrize(
    "cost, gained, due", [(1e-10, 1.0, True), (1e-10, 0.1, False), (1e-14, 1.0, False)]
)
def test_j_is_made_afresh_where_its_errors_cost_more_than_is_left(cost, gained, due):
    """By what J's errors cost, as a share of the sum of squares, and what the phase gained."""
    promised = 1e-6
    phase = LastPhase(0, 1, 1, 3, 1.0 + gained * promised, 0.0, 0.1, promised=promised)
    it = SimpleNamespace(model=SimpleNamespace(sum_of_squares=1.0), loss=SimpleNamespace(jac=cost))
    assert phase.is_due_again(it) == due


@pytest.mark.parametrize("length, stagnant", [(1.0, 0), (0.5, 6)])
def test_steps_that_gain_along_a_valley_are_not_in_vain(length, stagnant):
    """Each promises twice what the one before did, and gains it: the region limits them, or not."""
    phase, total, predicted = LastPhase(0, 1, 1, 3, 1.0, 0.0, 0.1), 1.0, 1e-6
    for _ in range(7):
        model = SimpleNamespace(sum_of_squares=total)
        phase = phase.after(
            SimpleNamespace(model=model, predicted_decrease=predicted, length=length)
        )
        total, predicted = total - predicted, 2.0 * predicted
    assert phase.stagnant == stagnant


@pytest.mark.parametrize(
    "noise, promised, size, early",
    [
        (1e-6, 1e-12, 1.0, False),  # hidden by the noise that there was
        (1e-4, 1e-12, 1.0, True),  # by one that has grown tenfold
        (1e-6, 0.4, 1.0, True),  # by none
        (1e-4, 1e-12, 1e-20, False),  # a root, whose residuals are rounding
    ],
)
def test_a_step_in_vain_is_the_end_only_where_noise_hides_what_it_promised(
    noise, promised, size, early
):
    phase = LastPhase(0, 1, 1, 3, size, 1e-6, 0.1, promised=promised, stagnant=1)
    model = SimpleNamespace(sum_of_squares=size, mean_square_noise=noise**2)
    it = SimpleNamespace(
        model=model, predicted_decrease=promised, limited_by_noise=True,
        is_negligible=lambda decrease: decrease < noise,
    )  # fmt: skip
    assert phase.was_early(it, a_log(1e3)) == early


def test_a_minimum_under_noise_is_a_success():
    """Two rates of a series of reactions, and data that no rates fit: 400 of 400 other seeds."""
    problem = next(p for p in problems() if p.name == "series_misfit")
    for seed in range(10):
        fit = least_squares(Recorder(problem, "1e-4", seed), problem.x0)
        assert fit.reason is Status.NOISE_LIMIT
        assert not fit.undetermined.any()


def test_runs_as_noisy_as_half_of_sigma_tell_the_parameters():
    """Of 300 other fits 2 told none, 31 without the runs that are made where nothing is told."""
    noisy, untold = ROWS["runs noisy at sigma / 2"], 0
    for k in range(90):
        rng = np.random.default_rng([77, k])
        problem = drawn(rng)
        fit = fitted(problem, noisy, data_of(problem, noisy, rng), rng)
        untold += fit.reason is Status.UNDETERMINED
        assert (fit.reason is Status.UNDETERMINED) == fit.undetermined.all()
    # more than 5 at a rate of 2 in 300 (Poisson, 0.6) once in 25 000 times
    assert untold <= 5


def test_runs_that_tell_nothing_are_doubled(monkeypatch):
    """Residuals that noise hides: as many runs as until the search would have stopped, to the end
    of the iteration. 2 more and less in 130 of 150 seeds, and 22 more at most, where the search
    finds a reason of its own: 8 of 15 beyond 2 are seen in 3e-4 of all."""

    def untold(seed, go_on):
        monkeypatch.setattr(search, "GO_ON", go_on)
        rng, t = np.random.default_rng(seed), np.linspace(0, 1, 6)
        return least_squares(
            lambda x: 5 + 0.03 * x[0] * t + 0.03 * x[1] * t**2 + rng.normal(size=6),
            [1.0, 1.0], x_scale=[1.0, 1.0], bounds=(0, 3),
        )  # fmt: skip

    excess = []
    for seed in range(15):
        stopped, went_on = untold(seed, 1.0), untold(seed, 2.0)
        assert stopped.undetermined.all()
        assert stopped.nfev <= went_on.nfev
        excess.append(went_on.nfev - 2 * stopped.nfev)
    assert np.median(excess) <= 2
    assert max(excess) < 60


def test_an_end_short_of_the_minimum_is_no_success():
    """r = (b, 1) + J u with the minimum of |r|^2 at u = -1 in every parameter, without noise."""
    jac = np.array([[1.0, 0.0], [0.0, 1e-3], [0.0, 0.0]])
    model = fit(np.vstack([np.zeros(2), np.eye(2), -np.eye(2)]), 1.0 + LINEAR @ jac.T)
    region = TrustRegion(np.ones(2), np.full(2, -np.inf), np.full(2, np.inf), 1e-3)
    log = a_log(3.0)
    at = Ending(np.ones(2), model, np.zeros(2, bool), np.eye(2), region, log)
    assert at.is_short()
    # a step out of reach tells nothing: one radius is 1e6 times x
    far = replace(region, radius=1e6)
    assert not Ending(np.ones(2), model, np.zeros(2, bool), np.eye(2), far, log).is_short()


LINEAR = np.vstack([np.zeros(2), np.eye(2), -np.eye(2)])


def test_ends_of_large_residuals_keep_to_ftol():
    """Residuals of size 1 that bend: by one J alone Gauss-Newton ends beside the minimum."""

    def fun(x):
        return np.array(
            [1 + x[0] + x[1] ** 2, x[0] - 0.4 * x[1], 0.5 + x[1] + x[0] ** 2, x[0] * x[1]]
        )

    def jac(x):
        return np.array([[1, 2 * x[1]], [1, -0.4], [2 * x[0], 1], [x[1], x[0]]])

    rng = np.random.default_rng(0)
    for _ in range(10):
        fit = least_squares(fun, rng.uniform(-1, 1, 2))
        assert fit.success
        slope = jac(fit.x).T @ fun(fit.x)
        root = np.linalg.inv(np.linalg.cholesky(jac(fit.x).T @ jac(fit.x)))
        # The sum of squares is above its minimum by the gradient's square, in units in which J'J
        # is 1; the second derivatives of fun change that by 3 at most there.
        assert np.sum((root @ slope) ** 2) <= 3e-8 * np.sum(fun(fit.x) ** 2)
