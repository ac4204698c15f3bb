"""What rules see of a power series, and how noise grows with the values."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gradiator_np.designs._adaptive.model.differences import (
    SEEN,
    SIDED_NOISE,
    SIDED_REACH,
    CentralDifferences,
    NoiseGrowth,
    slope_basis,
)


def one_sided(values, s):
    """(4 f(s) - f(2 s) - 3 f(0)) / (2 s)."""
    return (4 * values(s) - values(2 * s) - 3 * values(0 * s)) / (2 * s)


@pytest.mark.parametrize("t", [0.3, 1e-3])
def test_the_basis_of_central_pairs_is_that_of_odd_powers(t):
    """(t^p - (-t)^p) / 2t of p = 3, 5, 7, 9."""
    found = slope_basis(np.array([[t]]), np.zeros((1, 1), bool), 4)
    exact = [(Fraction(t) ** p - Fraction(-t) ** p) / (2 * Fraction(t)) for p in (3, 5, 7, 9)]
    # a power is off by a rounding or two
    np.testing.assert_allclose(found[0, 0], np.array(exact, float), rtol=1e-15)


@pytest.mark.parametrize("s", [0.2, 1e-3])
def test_the_basis_of_one_sided_rules_is_that_of_all_powers(s):
    """Where some are one-sided, terms of order 4 and 6 follow those of 3, 5, 7, 9. A central pair
    beside them does not see these. One of order 2 neither does."""
    t, sided = np.array([[SIDED_REACH * s, s]]), np.array([[True, False]])
    found = slope_basis(t, sided, 4)
    assert found.shape == (1, 2, 6)
    step = Fraction(s)
    powers = (3, 5, 7, 9, 4, 6)
    exact = [one_sided(lambda z, p=p: z**p, step) for p in powers]
    # t, its quotient by SIDED_REACH and the power: some ten roundings to the eighth power
    np.testing.assert_allclose(found[0, 0], np.array(exact, float), rtol=1e-13)
    np.testing.assert_allclose(found[0, 1], [s**2, s**4, s**6, s**8, 0, 0], rtol=1e-13)
    assert one_sided(lambda z: z**2, step) == 0


def test_the_noise_of_a_one_sided_rule_is_that_of_26_pairs_at_its_reach():
    """16 + 1 + 9 squares over (2 s)^2, and a central pair's 2 over (2 t)^2, at t = sqrt(2) s."""
    assert pytest.approx(26 / 4, rel=1e-15) == SIDED_NOISE * 2 / (2 * SIDED_REACH) ** 2


# -- noise that grows ----------------------------------------------------------------------------


def test_absolute_noise_does_not_grow():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(NoiseGrowth().ratio(*rng.standard_normal((2, 3, 5))), 1.0)


def test_relative_noise_grows_with_the_squares_of_both_values():
    """As simulated: the variance of the difference of two runs whose noise is a share of them, over
    that of two runs at x; 4e5 products are good to sqrt(2 / 4e5) each, and to 4.5 times 0.32 %."""
    at, a, b = np.array([2.0, -1.0, 10.0]), np.array([3.0, 0.5, 10.0]), np.array([-1.0, -4.0, 0.0])
    growth = NoiseGrowth(reference=np.abs(at))
    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((2, 400_000, 3))
    simulated = np.var(a * one - b * two, axis=0) / np.var(at * one - at * two, axis=0)
    found = growth.ratio(a, b)
    np.testing.assert_allclose(found, simulated, rtol=4.5 * 0.0032)
    np.testing.assert_allclose(found, [10 / 8, 16.25 / 2, 100 / 200], rtol=1e-15)


def test_relative_noise_never_ends():
    """Next to a zero of f something of the noise is left, and failed runs leave it as it is."""
    growth = NoiseGrowth(reference=np.ones(2))
    found = growth.ratio(np.array([1e-9, np.nan]), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(found, [1e-6, 1.0])


def test_rounding_bounds_relative_noise():
    """An output that is 0 at x and everywhere had a thousandth of the noise of its spacing."""
    growth = NoiseGrowth(reference=np.array([1e-100, 1.0]), least=np.array([1.0, 0.25]))
    found = growth.ratio(np.zeros(2), np.zeros(2))
    np.testing.assert_array_equal(found, [1.0, 0.25])


@pytest.mark.parametrize("sided", [False, True])
def test_the_curvature_of_pairs_is_that_of_a_parabola(sided):
    """f = 3 t^2 - 2 t: E of a pair is 6 t^2, of the one-sided rule f0 - 2 f(s) + f(2 s) = 6 s^2,
    and t = SIDED_REACH s acts in the model. Noise hides up to SEEN of its deviations."""
    s = np.array([[0.1, 0.02]])
    t = SIDED_REACH * s if sided else s
    second, one = 6 * np.square(s)[..., None], np.ones((1, 2, 1))
    view = CentralDifferences(t, one[..., 0], one, one, second, np.full((1, 2), sided))
    assert view.curvature(np.zeros(1)) == pytest.approx(3.0, rel=1e-12)
    level = 1e-3
    hidden = SEEN * np.sqrt(6) * level / (2 * 0.1**2)
    assert view.curvature(np.array([level])) == pytest.approx(3 - hidden, rel=1e-12)
    assert view.curvature(np.ones(1)) == 0


def spacing(value, digits):
    """Of numbers near a value that are printed with so many digits."""
    return 10.0 ** (int(f"{abs(value):.16e}".split("e")[1]) - digits + 1)


def test_printed_digits_grow_with_the_power_of_ten():
    """The mean of two squared spacings over that at x; where values are smaller than at x they
    count as there, and outputs without digits of their own do not grow."""
    rng = np.random.default_rng(2)
    at = 10.0 ** rng.uniform(-3, 3, 50)
    a, b = at * 10.0 ** rng.uniform(0, 3, (2, 50))
    growth = NoiseGrowth(digits=np.array([spacing(v, 1) for v in at]))
    expected = [
        (spacing(u, 6) ** 2 + spacing(v, 6) ** 2) / (2 * spacing(w, 6) ** 2)
        for u, v, w in zip(a, b, at)
    ]
    # powers of ten, their quotients and squares
    np.testing.assert_allclose(growth.ratio(a, -b), expected, rtol=1e-13)
    np.testing.assert_array_equal(growth.ratio(at / 100, at / 1e4), 1.0)
    np.testing.assert_array_equal(NoiseGrowth(digits=np.zeros(50)).ratio(a, b), 1.0)
