"""The decimal grid that rounded outputs lie on."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from math import gcd

import numpy as np
import pytest

from gradiator_np.designs._adaptive.model.quantization import (
    MOST_DIGITS,
    NO_CHANCE,
    decade,
    decimal_spacing,
    digit_growth,
    divisor,
    has_few_digits,
    printed_spacing,
)


def values(seed=0, k=9, n=40):
    r = np.random.default_rng(seed)
    centre = r.choice([-1, 1], n) * 10.0 ** r.uniform(-0.5, 2, n)
    return centre * (1 + 0.3 * r.standard_normal((k, n)))


def test_doubles_are_not_rounded():
    """A double passes for ten digits with probability 2e-5: 0.7 % for 360 of them, 9 together
    never; simple ones (0.5, 3) are few among nine values of a function."""
    v = values()
    assert not decimal_spacing(v, v[0]).any()
    assert not decimal_spacing(v.astype(np.float32).astype(float), v[0]).any()


@pytest.mark.parametrize("digits", [1, 3, 6, 9])
def test_printed_digits(digits):
    """All nine end in 0, for one output, once in 1e9; that they share a factor by chance is held
    below 1e-3, so that at most one of 40 outputs (chance of two: 0.08 %) may show a multiple of
    the true spacing."""
    v = np.array([[float(f"{a:.{digits}e}") for a in row] for row in values()])
    at = v[0]
    true = 10.0 ** (np.floor(np.log10(np.abs(at))) - digits)
    # where values cross a power of ten, the coarser spacing near ``at`` is still told
    found = decimal_spacing(v, at) / true
    assert (np.abs(found - 1) < 1e-9).sum() >= 39
    assert (found > 0.99).all()


@pytest.mark.parametrize("spacing", [0.01, 0.05, 0.25, 1e-4, 0.037])
def test_rounded_to_multiples(spacing):
    """d different multiples of a factor g are taken for chance where g^(d - 1) < 1000: five
    for g = 5 (0.05), three for 25 (0.25) and 37 (0.037). Outputs that move by 30 times the spacing
    take more; that all of 9 multiples are even has chance 2^-8, for 3 of 40 outputs 6e-4."""
    v = values()
    v = np.rint(v[:, np.ptp(v, axis=0) > 30 * spacing] / spacing) * spacing
    found = decimal_spacing(v, v[0]) / spacing
    assert (np.abs(found - 1) < 1e-9).sum() >= found.size - 2


def test_what_is_missing_is_left_out():
    v = np.round(values(), 3)
    v[2] = np.nan
    v[:, 0] = 0.0
    v[:, 1] = np.inf
    found = decimal_spacing(v, np.nan_to_num(v[0], posinf=np.nan))
    assert found[0] == 0
    assert found[1] == 0
    np.testing.assert_allclose(found[2:], 1e-3, rtol=1e-9)


def test_wide_ranges_of_printed_values_keep_their_digits():
    """From 1e-20 to 1e20 on one output: the grid of significant digits at each place."""
    v = np.array([[1.23e-20], [4.56e20], [7.89]])
    for at, spacing in ((1.23e-20, 1e-22), (4.56e20, 1e18), (7.89, 1e-2)):
        np.testing.assert_allclose(decimal_spacing(v, np.array([at])), spacing, rtol=1e-12)


# -- is it chance? -----------------------------------------------------------------------------


def digits_of(value, ulps):
    """The fewest significant digits of a decimal that is so near to a double, one by one."""
    exact, ulp = Decimal(float(value)), Decimal(float(np.spacing(value)))
    for digits in range(1, MOST_DIGITS + 1):
        near = Context(prec=digits, rounding=ROUND_HALF_EVEN).plus(exact)
        if float(near) == value or abs(near - exact) <= ulps * ulp:
            return digits
    return MOST_DIGITS + 1


def chance_of(values):
    """The least probability of so few digits, or decimals, among doubles, of values that differ."""
    best = 1.0
    exponents = [Decimal(float(v)).adjusted() for v in values]
    for ulps in (0, 2):
        digits = [digits_of(v, ulps) for v in values]
        if max(digits) > MOST_DIGITS:
            continue
        decimals = max(d - e for d, e in zip(digits, exponents))
        for spacing in (
            [10.0 ** (e + 1 - max(digits)) for e in exponents],
            [10.0 ** (1 - decimals)] * len(values),
        ):
            chance = [(1 + 2 * ulps) * np.spacing(v) / s for v, s in zip(values, spacing)]
            best = min(best, MOST_DIGITS * np.minimum(chance, 1.0).prod())
    return best


@pytest.mark.parametrize("digits", range(4, 16))
def test_few_digits_are_told_by_their_probability(digits):
    """Against the probability reckoned in decimals, of one value and of two: one of eight digits is
    told by itself, two of twelve are. Where the probability is within a part in 1e9 of the limit
    either answer would do; none of these is."""
    rng = np.random.default_rng(digits)
    # read from decimals, and by arithmetic that is off by an ulp now and then
    products = rng.integers(10 ** (digits - 1), 10**digits, (1, 40)) * 0.001
    np.testing.assert_array_equal(
        has_few_digits(products, np.full(40, np.pi)),
        [chance_of(column) < NO_CHANCE for column in products.T],
    )
    for k, always in ((1, 8), (2, 12)):
        raw = 10.0 ** rng.uniform(-3, 3, (k, 40))
        v = np.array([[float(f"{a:.{digits - 1}e}") for a in row] for row in raw])
        expected = [chance_of(column) < NO_CHANCE for column in v.T]
        found = has_few_digits(v, np.full(40, np.pi))
        np.testing.assert_array_equal(found, expected)
        assert found.all() or digits > always


def test_doubles_at_random_have_many_digits():
    """Each output by chance below NO_CHANCE: 0.03 of 30000, of one value, three and nine."""
    rng = np.random.default_rng(0)
    for k in (1, 3, 9):
        v = rng.standard_normal((k, 10_000)) * 10.0 ** rng.uniform(-9, 9, 10_000)
        assert not has_few_digits(v, np.zeros(10_000)).any()


def test_arithmetic_that_is_off_by_an_ulp_is_told_from_many_digits():
    """Multiples of 0.001 by multiplication, which are not the doubles nearest to the decimals."""
    whole = np.arange(1001.0, 9999.0)
    v = (whole * 0.001)[whole * 0.001 != whole / 1000]
    assert v.size > 100
    assert has_few_digits(v[None], np.full(v.size, np.pi)).all()
    assert not has_few_digits(v[None] * np.pi, np.full(v.size, np.pi)).any()


def test_values_seen_before_tell_nothing():
    """As at x, or as each other but for the sign; one that is missing or 0 neither."""
    at = np.array([0.125, 0.125, 0.3, 0.3])
    assert not has_few_digits(np.array([at, -at, at * (1 + 2e-16), at]), at).any()
    one = np.array([[0.75, np.nan, 0.0, -0.7], [0.75, 0.75, np.inf, 0.7]])
    assert has_few_digits(one, at).tolist() == [True, True, False, True]


# -- which spacing? ----------------------------------------------------------------------------


def integers(rng, factor, k=6, n=30):
    """Rows of multiples of an integer, and the factor that they really share."""
    v = factor * rng.integers(-1000, 1000, (k, n))
    shared = [gcd(*(int(a) for a in column - column[0])) for column in v.T]
    return v, np.array(shared, float)


@pytest.mark.parametrize("unit", [1.0, 0.037, 1e-7])
@pytest.mark.parametrize("factor", [1, 6, 25])
def test_the_divisor_is_that_of_euclid(unit, factor):
    """On a grid with an offset of its own: the quotients have the rounding of the values, 1e3
    units and 1e-16 of them, over a spacing."""
    v, shared = integers(np.random.default_rng(factor), factor)
    np.testing.assert_allclose(divisor(np.pi * unit + v * unit), shared * unit, rtol=1e-9)


@pytest.mark.parametrize("spacing", [1e-1, 1e-3, 1e-5, 1e-7])
def test_the_divisor_of_small_steps_holds_for_wide_ones(spacing):
    """Differences from one spacing to 1e7 of them, as steps from 1e-10 to 0.2 of x leave: pairs
    whose differences share a factor by chance (6 different ones: at most 1 / zeta(6) - 1 = 2 %,
    fewer 5 to 17 %) show a multiple, none shows less; beyond rounding it may be missed."""
    rng = np.random.default_rng(1)
    t = np.array([1e-10, 1e-8, 1.37e-7, 2.93e-7, 0.1, 0.2])
    t = np.concatenate([[0.0], t, -t])[:, None]
    slope, bend = 10.0 ** rng.uniform(-3, 1, 1000), rng.standard_normal(1000)
    y = 1 + slope * np.sin(t * bend + 1)
    own = spacing * rng.uniform(1, 2, 1000)
    found = divisor(np.rint(y / own) * own) / own
    found = found[np.ptp(y, axis=0) > 5 * own]
    assert found.size > 50
    assert ((found == 0) | (found > 1 - 1e-6)).all()
    assert np.mean(np.abs(found - 1) < 1e-6) > 0.8
    assert np.mean(found == 0) < 0.1
    assert not divisor(y).any()


def test_doubles_at_random_have_no_divisor():
    """Each by chance below NO_CHANCE: 0.05 of 5e4 outputs of three to nine values."""
    rng = np.random.default_rng(0)
    for k in (3, 4, 5, 7, 9):
        assert not divisor(rng.standard_normal((k, 10_000))).any()
    # one difference alone divides itself
    assert not divisor(np.array([[0.0], [0.25], [0.25], [np.nan]])).any()


def test_decades():
    rng = np.random.default_rng(0)
    v = rng.choice([-1, 1], 200) * 10.0 ** rng.uniform(-12, 12, 200)
    expected = [10.0 ** int(f"{a:.16e}".split("e")[1]) for a in v]
    np.testing.assert_allclose(decade(v), expected, rtol=1e-15)
    np.testing.assert_array_equal(decade(np.array([0.0, np.nan, 1.0, 1000.0])), [1, 1, 1, 1000])


def printed(v, digits):
    return np.array([[float(f"{a:.{digits - 1}e}") for a in row] for row in np.atleast_2d(v)])


def moving(n, seed=0):
    """Values (9, n) at x and at steps of full length, of sizes from 0.03 to 300."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-1.5, 2.5, n) * rng.choice([-1, 1], n)
    return size * (1 + 0.05 * rng.standard_normal((9, n)))


def test_programs_that_print_show_their_spacing():
    """Of 30 outputs, each to its own power of ten; that chance adds a factor is held below 1e-3."""
    v = printed(moving(30), 5)
    still = np.zeros(30, bool)
    found = printed_spacing(v[1:], v[0], still)
    true = decade(v[0]) * 1e-4
    assert (np.abs(found / true - 1) < 1e-9).sum() >= 29
    assert (found > 0.99 * true).all()
    assert not printed_spacing(moving(30)[1:], moving(30)[0], still).any()


@pytest.mark.parametrize("how", ["digits", "decimals"])
def test_what_stands_still_is_rounded_as_the_others_are(how):
    """An output that stays at 7 is printed with as many digits, or decimals, as the others are,
    whichever they share; one that is 0 all along has decimals only."""
    v = np.column_stack([moving(20), np.full(9, 7.0), np.zeros(9)])
    v = printed(v, 4) if how == "digits" else np.round(v, 3)
    still = np.arange(22) >= 20
    found = printed_spacing(v[1:], v[0], still)
    assert found[20] == pytest.approx(1e-3, rel=1e-9)
    assert found[21] == (0.0 if how == "digits" else pytest.approx(1e-3, rel=1e-9))
    # in 20 outputs all of which move and only some of which are printed, the rest is not
    mixed = np.where(np.arange(22) < 5, v, np.column_stack([moving(20), v[:, 20:]]))
    assert not printed_spacing(mixed[1:], mixed[0], still)[5:].any()


def test_outputs_that_tell_alike_of_decimals_and_of_digits_have_the_larger_spacing():
    """Two outputs of one power of ten share both. The spacing of those that stand still followed
    from which of two roundings was the larger: a tenth of the true one, or none."""
    for spacing in (6.0713, 0.0371, 3.0e-5):
        jumps = np.arange(9)[:, None] ** np.array([3, 2]) % 11
        moved = spacing * (jumps + np.array([510, 730]))
        v = np.column_stack([moved, np.full((9, 2), [3 * spacing, 0.0])])
        found = printed_spacing(v[1:], v[0], np.ones(4, bool))
        np.testing.assert_allclose(found, spacing, rtol=1e-9)


def test_multiples_of_any_spacing_show_where_outputs_stand_still():
    """A converter's counts times a voltage. Each of 30 outputs shares a factor with chance
    1 / zeta(8) - 1 = 0.4 %, which the others undo where the spacing is one for all."""
    spacing = np.full(30, 0.00371)
    v = np.rint(moving(30) / spacing) * spacing
    still = np.ones(30, bool)
    np.testing.assert_allclose(printed_spacing(v[1:], v[0], still), spacing, rtol=1e-6)
    # one that hardly moves, or never
    v[:, 0], v[:, 1] = 7 * spacing[0], 5 * spacing[0]
    v[3, 1] += spacing[0]
    np.testing.assert_allclose(printed_spacing(v[1:], v[0], still), spacing, rtol=1e-6)


def test_linear_functions_at_steps_that_are_multiples_are_not_rounded():
    """The values lie on a grid, but have moved at the smallest step."""
    t = np.array([1e-5, -1e-5, 0.1, -0.1, 0.2, -0.2])[:, None]
    at = np.pi + np.arange(3.0)
    v = at + t * np.e
    assert divisor(np.concatenate([at[None], v])).all()
    assert not printed_spacing(v, at, np.zeros(3, bool)).any()


def sums_of_squares(rng):
    """About their minimum, at powers of the root of 2 to both sides."""
    y = rng.normal(10 * rng.normal(), np.exp(rng.normal()), rng.integers(10, 500))
    steps = y.std() * 2.0 ** -(np.arange(4) + 0.5)
    at = y.mean() + np.concatenate([[0.0], steps, -steps])
    return 0.5 * np.square(y - at[:, None]).sum(1)[:, None]


def converter(rng):
    """Three channels of one, added."""
    return (rng.integers(-30, 30, (11, 3)) * rng.uniform(1e-3, 1e-2)).sum(1)[:, None]


@pytest.mark.parametrize("draw, low, high", [(sums_of_squares, 0, 0.15), (converter, 0.7, 1)])
def test_parabolas_are_no_grid_and_sums_of_rounded_numbers_are(draw, low, high):
    """0.083 of 2000 parabolas pass (0.84 without their last bits), 0.804 of 500 sums; standard
    deviations of 300 are 0.016 and 0.023."""
    rng = np.random.default_rng(0)
    found = np.mean([divisor(draw(rng))[0] > 0 for _ in range(300)])
    assert low <= found < high


@pytest.mark.parametrize("digits", [3, 6])
def test_the_spacing_of_printed_digits_grows_with_the_value(digits):
    """Ten times as large: of as many digits where they are printed, of finer ones where decimals
    are; where no value is, digits are taken for granted."""
    v = moving(40)
    far = np.concatenate([v, 13.7 * v])
    at = printed(v[0], digits)[0]
    spacing = decade(at) * 10.0 ** (1 - digits)
    for values in (printed(far, digits), printed(v, digits)):
        np.testing.assert_array_equal(digit_growth(values, at, spacing), decade(at))
    fixed = np.rint(far / spacing) * spacing
    assert (digit_growth(fixed, at, spacing) == 0).mean() > 0.9
    np.testing.assert_array_equal(digit_growth(printed(v, digits), at, 0 * spacing), 0)
    assert not digit_growth(fixed, 0 * at, spacing).any()
