"""Laws of differences at small steps, on functions that follow them exactly, and on noise."""

from __future__ import annotations

import numpy as np
import pytest

from gradiator_np.designs._adaptive.model.local_behaviour import (
    departure,
    follows_squares,
    grows_as_squares,
    is_one_sided,
    law_of_seconds,
)

MANY = 100_000


def differences(fun, t):
    """Central and second difference at 0."""
    ahead, behind, here = fun(t), fun(-t), fun(0.0)
    return (ahead - behind) / (2 * t), ahead + behind - 2 * here


def within(rate, probability, trials):
    """Whether a rate of so many trials is that of a probability: 4.5 standard deviations of a
    binomial are a false alarm in 7e-6."""
    return abs(rate - probability) < 4.5 * np.sqrt(probability * (1 - probability) / trials)


def cauchy(low, high):
    """Probability that the quotient of two independent standard normals is in between."""
    return (np.arctan(high) - np.arctan(low)) / np.pi


# -- second differences ------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.05, 0.01])
def test_smooth_kinked_and_jumping_functions_follow_their_laws(ratio):
    """In one array: a parabola, a cubic (E = 0), a kink, a kink on a slight bend, a jump."""
    kinds = [
        lambda z: z**2,
        lambda z: z + z**3,
        lambda z: 2 * z + abs(z),
        lambda z: abs(z) + z**2,
        lambda z: z + (z > 0),
    ]
    t = 1e-3
    wide = np.array([differences(f, t)[1] for f in kinds])
    near = np.array([differences(f, ratio * t)[1] for f in kinds])
    law = law_of_seconds(wide, near, ratio, np.full(5, 1e-15))
    assert law.falls.tolist() == [True, True, False, False, False]
    assert law.kinked.tolist() == [False, False, True, True, False]
    assert law.jumped.tolist() == [False, False, False, False, True]
    # signs are nobody's business
    other = law_of_seconds(-wide, near, ratio, np.full(5, 1e-15))
    np.testing.assert_array_equal(other.kinked, law.kinked)


def test_what_is_rounding_falls_and_what_failed_follows_nothing():
    wide, near = np.array([1e-12, 1.0, 1.0]), np.array([9e-13, 5e-13, np.nan])
    law = law_of_seconds(wide, near, 0.01, np.full(3, 1e-12))
    assert law.falls.tolist() == [True, True, False]
    assert not law.kinked.any()
    assert not law.jumped.any()


@pytest.mark.parametrize("ratio", [0.1, 0.01])
def test_noise_follows_a_law_as_often_as_chance_has_it(ratio):
    """|E near| / |E wide| of independent normals is the quotient of two normals, without its sign:
    it is within a tenth of a law's with the probabilities below."""
    rng = np.random.default_rng(0)
    law = law_of_seconds(*rng.standard_normal((2, MANY)), ratio, np.zeros(MANY))
    assert within(law.falls.mean(), 2 * cauchy(0, 0.1 * ratio), MANY)
    assert within(law.kinked.mean(), 2 * cauchy(0.9 * ratio, 1.1 * ratio), MANY)
    assert within(law.jumped.mean(), 2 * cauchy(0.9, 1.1), MANY)


# -- slopes --------------------------------------------------------------------------------------


def test_a_departure_is_the_relative_change_beyond_noise():
    """(0.5 - 5 x 0.02) / (1.5 + 5 x 0.02); one whose slope vanishes is seen beside a hundredth of
    a typical one."""
    slope, other = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.5, 1.0, 1e-2, np.nan])
    sd, typical = np.array([0.02, 0.02, 0.0, 0.0]), np.array([0.0, 0.0, 3.0, 1.0])
    off = departure(slope, other, sd, typical)
    # a few roundings
    np.testing.assert_allclose(off, [0.25, 0.0, 0.25, 0.0], rtol=1e-14)


def test_noise_is_no_departure():
    """Five standard deviations are exceeded in 5.7e-7: by one of 1e4 in 0.6 % of all seeds."""
    rng = np.random.default_rng(1)
    slope = rng.standard_normal(10_000)
    sd = 10.0 ** rng.uniform(-6, 0, slope.size)
    assert not departure(slope, slope + sd * rng.standard_normal(slope.size), sd, 0 * sd).any()
    # nor does it hide one: half the slope, and 10 standard deviations of noise
    off = departure(np.ones(100), np.full(100, 1.5), np.full(100, 0.01), np.ones(100))
    assert (off > 0.25).all()


@pytest.mark.parametrize("ratio", [1 / 0.3, 10.0, 100.0])
@pytest.mark.parametrize(
    "power, follows", [(1, False), (2, True), (3, True), (4, True), (0, False)]
)
def test_slopes_depart_with_the_square_or_faster(ratio, power, follows):
    """Departures of t^power, of a function whose terms are of order power + 1: a jump's and a
    kink's are none of a bend's. At a ratio below 2.5 nothing tells 1 from 2."""
    far = np.array([1e-3, -2e-3, 5e-4])
    near = far / ratio**power
    assert follows_squares(near, far, ratio, np.full(3, 1e-9)) is follows


def test_departures_below_noise_say_nothing_against_squares():
    far, near = np.array([1e-3, 1e-3]), np.array([5e-4, -7e-4])
    assert follows_squares(near, far, 10.0, np.full(2, 1.01e-4))
    assert not follows_squares(near, far, 10.0, np.full(2, 0.9e-4))


def test_the_majority_of_outputs_decides_on_squares():
    far = np.ones(5)
    bent, rough = far / 100, far / 3
    assert follows_squares(np.where([1, 1, 1, 0, 0], bent, rough), far, 10.0, np.zeros(5))
    assert not follows_squares(np.where([1, 1, 0, 0, 0], bent, rough), far, 10.0, np.zeros(5))


def test_departures_of_noise_follow_squares_as_often_as_chance_has_it():
    """near / far of one output in (-0.5, 2.5) / ratio^2, each being far beyond ``sd``."""
    rng, ratio, trials = np.random.default_rng(2), 1 / 0.3, 20_000
    near, far = rng.standard_normal((2, trials, 1))
    rate = np.mean([follows_squares(a, b, ratio, np.zeros(1)) for a, b in zip(near, far)])
    assert within(rate, cauchy(-0.5 / ratio**2, 2.5 / ratio**2), trials)


@pytest.mark.parametrize("ratio", [3.0, 10.0])
@pytest.mark.parametrize("power, grows", [(0, False), (1, False), (2, True), (4, False)])
def test_second_differences_grow_with_the_square(ratio, power, grows):
    """Of orders 0 and 1, a jump's and a kink's, and of 4, whose bend has not begun at the nearer
    step: the quotient has to be within 0.4 and 2.5 of the square's."""
    near = np.array([1e-6, -3e-6, 2e-6])
    far, zero = near * ratio**power, np.zeros(3)
    assert grows_as_squares(near, far, ratio, zero, zero) is grows
    # nothing stands out of rounding, or is large enough to bend a slope
    assert not grows_as_squares(near, far, ratio, np.full(3, 1.0), zero)
    assert not grows_as_squares(near, far, ratio, zero, np.full(3, 1.0))


def test_second_differences_of_noise_grow_as_squares_as_often_as_chance_has_it():
    rng, ratio, trials = np.random.default_rng(3), 10.0, 20_000
    near, far = rng.standard_normal((2, trials, 1))
    zero = np.zeros(1)
    rate = np.mean([grows_as_squares(a, b, ratio, zero, zero) for a, b in zip(near, far)])
    assert within(rate, cauchy(0.4 * ratio**2, 2.5 * ratio**2), trials)


# -- one side ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("event", ["kink", "jump"])
def test_an_event_on_one_side_changes_both_differences_alike(event, side):
    """Beyond 0.3 of the step; the slope at 0 is 2 and -1."""

    def fun(z):
        beyond = np.maximum(side * z - 0.3, 0.0)
        change = beyond if event == "kink" else np.sign(beyond)
        return np.array([2 * z + 0.1 * change, -z - 3 * change])

    slope, second = differences(fun, 1.0)
    assert is_one_sided(1.0, slope - np.array([2.0, -1.0]), second, np.ones(2))


@pytest.mark.parametrize(
    "fun",
    [
        np.exp,
        lambda z: np.sin(z + 0.5),
        lambda z: z + np.abs(z),  # a kink at 0 itself has no distance
        lambda z: z + np.maximum(np.abs(z) - 0.3, 0.0),  # the same on both sides
        lambda z: z + np.maximum(z - 0.3, 0.0) + np.maximum(-z - 0.5, 0.0),
        lambda z: 2 * z,  # no change at all
    ],
)
def test_what_happens_on_both_sides_is_no_event(fun):
    slope, second = differences(lambda z: np.atleast_1d(fun(z)), 1.0)
    small = differences(lambda z: np.atleast_1d(fun(z)), 1e-4)[0]
    assert not is_one_sided(1.0, slope - small, second, np.ones(1))


def test_heavy_outputs_decide_on_sides():
    """One output bends on both sides, by its weight or not; one that failed is left out."""
    change, second = np.array([0.5, 0.1, np.nan]), np.array([-1.0, 0.5, 1.0])
    assert is_one_sided(1.0, change, second, np.array([1.0, 1e-3, 1.0]))
    assert not is_one_sided(1.0, change, second, np.array([1e-3, 1.0, 1.0]))
