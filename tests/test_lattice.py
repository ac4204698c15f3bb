"""The decimal grid that rounded outputs lie on."""

import numpy as np
import pytest

from gradiator_np.designs.lattice import quantum


def values(seed=0, k=9, n=40):
    r = np.random.default_rng(seed)
    centre = r.choice([-1, 1], n) * 10.0 ** r.uniform(-0.5, 2, n)
    return centre * (1 + 0.3 * r.standard_normal((k, n)))


def test_doubles_are_not_rounded():
    """A double passes for ten digits with probability 2e-5: 0.7 % for 360 of them, 9 together
    never; simple ones (0.5, 3) are few among nine values of a function."""
    v = values()
    assert not quantum(v, v[0]).any()
    assert not quantum(v.astype(np.float32).astype(float), v[0]).any()


@pytest.mark.parametrize("digits", [1, 3, 6, 9])
def test_printed_digits(digits):
    """All nine end in 0, for one output, once in 1e9; that they share a factor by chance is held
    below 1e-3, so that at most one of 40 outputs (chance of two: 0.08 %) may show a multiple of
    the true spacing."""
    v = np.array([[float(f"{a:.{digits}e}") for a in row] for row in values()])
    at = v[0]
    true = 10.0 ** (np.floor(np.log10(np.abs(at))) - digits)
    # where values cross a power of ten, the coarser spacing near ``at`` is still told
    found = quantum(v, at) / true
    assert (np.abs(found - 1) < 1e-9).sum() >= 39
    assert (found > 0.99).all()


@pytest.mark.parametrize("spacing", [0.01, 0.05, 0.25, 1e-4, 0.037])
def test_rounded_to_multiples(spacing):
    """d different multiples of a factor g are taken for chance where g^(d - 1) < 1000: five
    for g = 5 (0.05), three for 25 (0.25) and 37 (0.037). Outputs that move by 30 times the spacing
    take more; chance as above."""
    v = values()
    v = np.rint(v[:, np.ptp(v, axis=0) > 30 * spacing] / spacing) * spacing
    found = quantum(v, v[0]) / spacing
    assert (np.abs(found - 1) < 1e-9).sum() >= found.size - 1


def test_what_is_missing_is_left_out():
    v = np.round(values(), 3)
    v[2] = np.nan
    v[:, 0] = 0.0
    v[:, 1] = np.inf
    found = quantum(v, np.nan_to_num(v[0], posinf=np.nan))
    assert found[0] == 0
    assert found[1] == 0
    np.testing.assert_allclose(found[2:], 1e-3, rtol=1e-9)


def test_wide_ranges_of_printed_values_keep_their_digits():
    """From 1e-20 to 1e20 on one output: the grid of significant digits at each place."""
    v = np.array([[1.23e-20], [4.56e20], [7.89]])
    for at, spacing in ((1.23e-20, 1e-22), (4.56e20, 1e18), (7.89, 1e-2)):
        np.testing.assert_allclose(quantum(v, np.array([at])), spacing, rtol=1e-12)
