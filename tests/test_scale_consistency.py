"""Slopes at two scales: smooth functions agree, wiggles and their size are found."""

from __future__ import annotations

import numpy as np
import pytest

from gradiator_np.designs._adaptive.model.differences import CentralDifferences
from gradiator_np.designs._adaptive.model.scale_consistency import (
    AT_STAKE,
    CLEAR_SLOPE,
    WIDE,
    consistent,
    is_minor,
    shortest_clear,
    wiggle,
)

SHORT = WIDE / 4
# Steps as the pilot takes them, from small to wide.
STEPS = (1e-7, 1e-4, WIDE / 4, WIDE / 2, WIDE)
SMALL = 1


def line(fun, steps=STEPS, sigma=0.0, rng=None):
    """Pairs of a function (N,) of one number along it, with noise in every run."""

    def run(z):
        y = np.atleast_1d(fun(z))
        return y + (sigma * rng.standard_normal(y.shape) if sigma else 0.0)

    here = run(0.0)
    ends = [(run(t), run(-t)) for t in steps]
    t = np.array(steps)[None]
    slope = np.array([(a - b) / (2 * s) for (a, b), s in zip(ends, steps)])[None]
    second = np.array([(a - here) + (b - here) for a, b in ends])[None]
    one = np.ones_like(slope)
    return CentralDifferences(t, np.ones_like(t), one, slope, second, np.zeros(t.shape, bool))


# -- is there a clear slope? -------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1e-12, 1e-9, 1e-6, 1e-5])
def test_the_shortest_clear_pair(sigma):
    """Slope 1 to CLEAR_SLOPE of itself: from t = sigma / (sqrt(2) CLEAR_SLOPE) on, and beyond 1e-6,
    where rounding would pass for it."""
    steps = 10.0 ** np.arange(-8, 0)
    found = shortest_clear(line(lambda z: np.array([z, 2 * z]), steps), np.full(2, sigma))
    least = max(sigma / (2**0.5 * CLEAR_SLOPE), 1.5e-6)
    clear = [k for k, t in enumerate(steps) if least < t < WIDE / 4]
    assert found == (clear[0] if clear else None)


def test_half_of_the_outputs_have_to_be_clear():
    """Of three outputs, one or two of whose slopes noise of 1e-6 hides at 1e-3; one that does
    not answer at all is none."""
    steps = (1e-3, WIDE)

    def of(*slopes):
        view = line(lambda z: np.array(slopes) * z, steps)
        return shortest_clear(view, np.full(len(slopes), 1e-6))

    assert of(1.0, 1.0, 0.1) == 0
    assert of(1.0, 0.1, 0.1) is None


# -- do the scales agree? ----------------------------------------------------------------------


def smooth(rng):
    """Three outputs that bend at 1 / 1.5 and later: exponentials, waves, polynomials."""
    a, w, p = rng.uniform(-1.5, 1.5, 3), rng.uniform(0.2, 1.5, 3), rng.uniform(0, 6, 3)
    c = rng.standard_normal((3, 4))
    kind = rng.integers(0, 3, 3)

    def fun(z):
        parts = np.exp(a * z), np.sin(w * z + p), c @ np.array([z, z**2, z**3, z**4])
        return np.choose(kind, parts)

    return fun


@pytest.mark.parametrize("sigma", [1e-15, 1e-9, 1e-7])
def test_smooth_functions_are_consistent(sigma):
    """The rate of false alarms. Three outputs and three questions beyond three standard deviations:
    2.4 % of all functions at most, since a discrepancy has to be a share of the change as well.
    More than 5 % of 400 functions would be one seed in 1e3."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        view = line(smooth(rng), sigma=sigma, rng=rng)
        alarms += not consistent(view, SMALL, np.full(3, sigma))
    assert alarms / 400 < 0.05


@pytest.mark.parametrize("waves", [60.0, 400.0, 3e3])
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_wiggles_are_inconsistent(waves, share):
    """Slopes that are off by such shares, at any phase: where the slope is not, f'' is, by
    ``waves`` times as much."""
    for phase in np.linspace(0, np.pi, 13):

        def fun(z, phase=phase):
            return np.exp(0.3 * z) + share / waves * np.sin(waves * z + phase)

        assert not consistent(line(fun), SMALL, np.full(1, 1e-16)), phase


def test_a_discrepancy_too_small_to_matter_is_none():
    """Slopes that differ by less than AT_STAKE, to the side where f'' says nothing."""

    def fun(z, share=0.3 * AT_STAKE, waves=200.0):
        return z + share / waves * np.sin(waves * z)

    assert consistent(line(fun), SMALL, np.full(1, 1e-16))
    assert not consistent(line(lambda z: fun(z, 30 * AT_STAKE)), SMALL, np.full(1, 1e-16))


def test_noise_hides_what_is_below_it():
    """A wiggle whose slope is 0.01 off, where noise of 1e-4 leaves the slope at 1e-4 0.7 off."""

    def fun(z):
        return np.exp(0.3 * z) + 1e-5 * np.sin(1e3 * z)

    assert not consistent(line(fun), SMALL, np.full(1, 1e-9))
    assert consistent(line(fun), SMALL, np.full(1, 1e-4))


def test_one_wide_pair_contradicts_nobody():
    view = line(lambda z: z + 1e-3 * np.sin(1e3 * z), (1e-4, WIDE))
    assert consistent(view, 0, np.full(1, 1e-16))


# -- how large is the wiggle? ------------------------------------------------------------------


@pytest.mark.parametrize("bent", [False, True])
def test_the_amplitude_of_a_wiggle_is_the_scatter_of_the_runs(bent):
    """4000 outputs whose runs scatter by 1 at random, and whose slope at small steps is off by
    100. Mean of two squares of unit variance, at least a quarter (0.1 of the step times 100,
    squared): E max(X, c) = c + exp(-c) = 1.029 for an exponential X; 1.2 and 2.04 are rounded by
    0.3 %, and 4000 outputs scatter by 1.6 %, 4.5 times that. A parabola and a cubic change
    nothing."""
    n, size = 4000, 1e4
    rng = np.random.default_rng(0)

    def fun(z):
        return size * (z + bent * (0.3 * z**2 + 0.2 * z**3)) + rng.standard_normal(n)

    view = line(fun, (SHORT, 2 * SHORT, 4 * SHORT))
    level = wiggle(view, SHORT, np.full(n, size + 100), np.full(n, 1e-9)).amplitude
    assert level is not None
    floor = (0.1 * SHORT * 100) ** 2
    expected = floor + np.exp(-floor)
    assert np.mean(level**2) == pytest.approx(expected, rel=0.003 + 4.5 / np.sqrt(n))


def test_a_wiggle_is_as_loud_as_its_slope_within_the_step_and_as_noise():
    """Wide pairs on a straight line: what repeats within SHORT and has that slope is 0.1 of their
    product at least."""
    view = line(lambda z: np.array([z, 3 * z]), (SHORT, 2 * SHORT, 4 * SHORT))
    g = np.array([1.5, 5.0])
    # slopes are rounded to eps / SHORT
    np.testing.assert_allclose(
        wiggle(view, SHORT, g, np.full(2, 1e-9)).amplitude,
        0.1 * SHORT * np.array([0.5, 2.0]),
        rtol=1e-12,
    )
    np.testing.assert_array_equal(wiggle(view, SHORT, g, np.full(2, 0.01)).amplitude, 0.01)


@pytest.mark.parametrize(
    "fun",
    [
        np.exp,
        np.sin,
        lambda z: 1 / (1 + np.exp(-z / 0.02)),  # a sigmoid: slopes fall from pair to pair
        lambda z: np.exp(z / 0.05),
        lambda z: z / (1 + (z / 0.1) ** 2),
        lambda z: np.tanh(z / 0.1),
    ],
)
def test_what_bends_is_no_wiggle(fun):
    """Wide pairs that do not agree on a trend either: the slope at small steps is right."""
    view = line(fun)
    assert not wiggle(view, SHORT, view.slope[0, SMALL], np.full(1, 1e-12)).shared


def test_noise_alone_is_no_wiggle():
    """The slope at 0 is known, wide pairs are noisy. Their trend, (4 D(2s) - D(4s)) / 3, has a
    deviation of 0.475 sigma / s, and has to be off by four times that: 6.3e-5, or 2 % of all seeds
    for one of 300."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        view = line(lambda z: z, STEPS, 1e-3, rng)
        assert not wiggle(view, SHORT, np.ones(1), np.full(1, 1e-3)).shared


def test_pairs_that_are_missing_show_no_wiggle():
    view = line(lambda z: z + 0.01 * np.sin(300 * z), (1e-7, 1e-4, WIDE / 2, WIDE))
    assert not wiggle(view, SHORT, np.array([4.0]), np.full(1, 1e-9)).shared


# -- whose is it? ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amplitude, off, minor",
    [
        (0.001, 0.2, True),
        (0.1, 0.2, False),  # f changes by 0.2 over the wide pairs: half of it
        (0.001, 3.0, False),  # most of the slope at small steps is the wiggle's
    ],
)
def test_a_minor_wiggle_is_the_programs(amplitude, off, minor):
    view = line(lambda z: np.array([z, 2 * z]))
    g = np.array([1.0, 2.0]) * (1 + off)
    assert is_minor(view, SHORT, g, np.array([1.0, 2.0]) * amplitude) is minor


def test_few_outputs_may_be_mostly_wiggle():
    """Each of ten is off by 0.4 of its slope, some of them by 0.6 of it."""

    def of(many):
        g = np.where(np.arange(10) < many, 2.5, 1 / 0.6)
        return is_minor(line(lambda z: np.full(10, z)), SHORT, g, np.full(10, 1e-3))

    assert of(0)
    assert of(1)
    assert not of(6)
