"""What a noise level and a slope rest on: none of these calls has bars that rest on nothing."""

import numpy as np
import pytest

from gradiator_np import EvaluationError, jacobian

pytestmark = pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")

X = np.array([1.2, 0.7, 2.0])
A = np.array([[1.0, 0.5, -0.3], [0.2, -1.0, 0.6]])
EXACT = np.cos(A @ X)[:, None] * A


class Program:
    """2 + sin(A x) with noise, whose k-th run ``spoil(k, y, random)`` may change."""

    def __init__(self, seed, level, spoil):
        self.rng, self.level, self.spoil, self.runs = np.random.default_rng(seed), level, spoil, 0

    def __call__(self, z):
        self.runs += 1
        y = 2 + np.sin(A @ z) + self.level * self.rng.standard_normal(2)
        return self.spoil(self.runs, y, self.rng.random())


def off(found, exact):
    """The largest error, and the largest in units of its bar."""
    error = np.abs(found.jac - exact)
    return error.max(), (error / found.stderr).max()


@pytest.mark.parametrize("level, most, few", [(0.0, 1e-6, 3), (1e-4, 0.1, 8)])
def test_runs_that_fail_at_random_cost_accuracy_only(level, most, few):
    """Three in ten fail, fun(x) included. Of 400 calls one was off by more than five bars; that
    one call in 7000 raises makes two of 30 have a probability of 1e-5. Errors were beyond ``most``
    in 1 % of 200 calls without noise and in 8 % with it: more than ``few`` of 30 in 9e-4. (One in
    three had J = 0, or an error of 30 and more, and one in thirty bars of a hundredth of that.)"""

    def spoil(k, y, random):
        if random < 0.3:
            raise RuntimeError("by chance")
        return y

    errors, ratios, raised = [], [], 0
    for seed in range(30):
        try:
            error, ratio = off(jacobian(Program(seed, level, spoil), X, rng=seed), EXACT)
        except EvaluationError:
            raised += 1
        else:
            errors.append(error)
            ratios.append(ratio)
    assert raised <= 1
    assert np.sum(np.array(ratios) > 5) <= 2
    assert np.sum(np.array(errors) > most) <= few


def test_a_domain_that_ends_is_asked_once():
    """What fails beyond a point is not run again there: all failed points differ."""
    for seed in range(10):
        failed = []

        def fun(z, failed=failed):
            if z[0] > 1.01 * X[0]:
                failed.append(z.tobytes())
                raise ValueError("outside")
            return np.sin(A @ z)

        found = jacobian(fun, X, rng=seed)
        assert found.status == "failed_runs"
        assert len(set(failed)) == len(failed)


def test_noise_of_rounded_inputs_on_bounds():
    """One-sided pairs tell noise as well as central ones: half of these calls had J = 0 under bars
    of 1e-12 of the error. Of 200 none was off by more than five bars, or by 0.1."""
    wrong = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        a, x = rng.normal(size=(3, 2)), np.round(rng.uniform(1, 9, 2), 3)
        above = rng.random(2) < 0.5
        bounds = np.where(above, x, -np.inf), np.where(above, np.inf, x)
        found = jacobian(lambda z, a=a: np.sin(a @ np.round(z, 3) / 5), x, bounds=bounds, rng=seed)
        error, ratio = off(found, np.cos(a @ x / 5)[:, None] * a / 5)
        wrong += ratio > 5
        assert error < 0.1
    assert wrong <= 1


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (21.3, np.inf)])
def test_what_stands_still_along_the_pilot_is_not_smooth(bounds):
    """Whole tens are read; at steps of 1e-2 nothing answers, and J was 0 under bars of 1e-12."""
    for seed in range(10):
        found = jacobian(lambda z: np.round(z, -1) * 1.37, [21.3], bounds=bounds, rng=seed)
        assert np.abs(found.jac - 1.37) <= 5 * found.stderr


def test_a_bend_whose_slopes_come_back():
    """Terms of third and fifth order cancel at 1e-5 of x: that is a bend, and no noise. It was
    taken for noise in one of eight calls, with errors of the size of the slope."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, width, third = rng.uniform(0.5, 2, 3), 10 ** rng.uniform(-5.1, -4.8), 0.3
        a = rng.normal(size=(2, 3))

        def fun(z, a=a, x=x, width=width, third=third):
            u = (z[0] / x[0] - 1) / width
            u3 = third * u**3 * np.exp(-((u / 0.8) ** 2))
            narrow = (u + 0.5 * u**2 + u3) * np.exp(-((u / 30) ** 2))
            return np.sin(a @ z) + np.array([narrow, -narrow])

        exact = np.cos(a @ x)[:, None] * a
        exact[:, 0] += np.array([1, -1]) / (x[0] * width)
        found = jacobian(fun, x, rng=seed)
        # 3e-7 at most in 200 calls
        assert np.abs(found.jac - exact).max() < 1e-4 * np.abs(exact).max()


def test_a_kink_within_the_smallest_pair():
    """Between the steps at which the pilot saw the slope and that of the input's own pair: its one
    side is off by 3, and the other right. Told by what J misses of the pilot's slope, at a step
    within the kink again; bars hold the miss where no run is left to mend it. One of 150 calls was
    off by 1e8 bars. (Pairs at 8e-9 of x: rounding of a @ z, up to 4 eps, is an error of 1e-7, which
    bars of single small slopes may miss.)"""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, a = rng.uniform(0.5, 2, 6), rng.normal(size=(2, 6))
        at = x[0] * (1 + 10 ** rng.uniform(-5.7, -5.4))
        found = jacobian(lambda z, a=a, at=at: np.sin(a @ z) + 3 * max(z[0] - at, 0), x, rng=seed)
        error = np.abs(found.jac - np.cos(a @ x)[:, None] * a)
        assert (error <= 5 * found.stderr + 1e-7).all()


def test_one_run_of_garbage():
    """Wherever it comes, in the pilot or after it, the pair that it hit is told by its second
    difference: errors stay at those of the noise (0.08 at most of 480 calls, bars 0.09; from the
    13th run on they were 0.5 to 7000, and bars as well). 1 % of 192 were off by more than five
    bars: four of 33 in 5e-4."""
    wrong = 0
    for k in (2, 3, 4, 5, 6, 7, 12, 15, 18, 21, 24):
        for seed in range(3):
            program = Program(seed, 1e-4, lambda run, y, _, k=k: np.full(2, 1e3) if run == k else y)
            found = jacobian(program, X, rng=seed)
            error, ratio = off(found, EXACT)
            assert error < 0.3
            assert found.stderr.max() < 0.3
            wrong += ratio > 5
    assert wrong <= 3


@pytest.mark.parametrize("wrong", [lambda y: 1.5 * y, lambda y: 0 * y + 1e3])
def test_outliers_cost_hardly_any_accuracy(wrong):
    """One run in twenty. Of 200 calls each 3 % were off by more than five bars, and 2.5 and 5.5 %
    by more than 0.1 (25 % before the pair was told that was hit): 7 and 9 of 40 in 5e-4."""
    errors, ratios = [], []
    for seed in range(40):
        program = Program(
            seed, 1e-4, lambda run, y, random: wrong(y) if run > 1 and random < 0.05 else y
        )
        error, ratio = off(jacobian(program, X, rng=seed), EXACT)
        errors.append(error)
        ratios.append(ratio)
    assert np.sum(np.array(ratios) > 5) <= 6
    assert np.sum(np.array(errors) > 0.1) <= 8
