"""Samples that were given in a wrong way: told, or harmless; right ones are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.strangers_cases import Draw, smooth
from gradiator_np import GradiatorWarning, fit_jacobian, fit_points

JAC = np.array([[1.0, 2.0, 3.0]])


def samples(seed=0, k=20, noise=0.1):
    rng = np.random.default_rng(seed)
    dx = rng.standard_normal((k, 3))
    return dx, dx @ JAC.T + noise * rng.standard_normal((k, 1))


def random_samples(k, spread):
    """Points around x, in one of three ways, and values of a random smooth function."""
    draw = Draw(np.random.default_rng([5, k]))
    f, x = smooth(draw)
    m, rng = len(x), np.random.default_rng(k)
    d = (rng.standard_normal((2 * m + 4, m)), rng.uniform(0, 1, (2 * m + 4, m)),
         rng.choice([-1.0, 1.0], (3 * m + 4, m)))[k % 3] * spread * np.abs(x)  # fmt: skip
    return x, d, f.value(x), np.array([f.value(x + one) for one in d])


@pytest.mark.parametrize("spread", [1e-3, 1e-1])
def test_right_samples_are_not_accused(spread):
    """Measured: 2 of 1600; more than 5 of 120 at 1 % have a probability of 1e-3."""
    accused = 0
    for k in range(120):
        _, d, f0, values = random_samples(k, spread)
        estimate = fit_jacobian(d, values - f0, base="exact")
        accused += estimate.status == "lack_of_fit"
    assert accused <= binom.isf(1e-3, 120, 0.01)


@pytest.mark.filterwarnings("ignore::gradiator_np.GradiatorWarning")
@pytest.mark.parametrize("what", ["points and values", "values"])
def test_values_in_place_of_differences_are_told(what):
    """Measured: 0.99 and 0.94; fewer than 48 of 60 at 0.9 have a probability of 6e-3."""
    told = 0
    for k in range(60):
        x, d, _, values = random_samples(k, 1e-2)
        told += fit_jacobian(d + x if what != "values" else d, values).status == "lack_of_fit"
    assert told >= 48


def test_what_the_message_names_helps():
    dx, df = samples()
    with pytest.warns(GradiatorWarning, match="hold a constant.*fit_points.*base='shared'") as seen:
        wrong = fit_jacobian(dx + 5, df + 7)
    assert seen[0].message.estimate is wrong
    for estimate in (fit_points(dx + 5, df + 7), fit_jacobian(dx, df + 7, base="shared")):
        assert estimate.status == "ok"
        # t with some 17 degrees of freedom: 1e-6 for three entries
        assert (np.abs(estimate.jac - JAC) < 7 * estimate.stderr).all()


@pytest.mark.parametrize("times", [2, 10])
@pytest.mark.parametrize("options", [{}, {"base": "exact"}, {"noise": 0.1}, {"solver": "rank-one"}])
def test_copies_of_rows_tell_nothing_new(times, options):
    dx, df = samples()
    once = fit_jacobian(dx, df, **options)
    often = fit_jacobian(np.repeat(dx, times, 0), np.repeat(df, times, 0), **options)
    np.testing.assert_allclose(often.jac, once.jac, rtol=1e-9)
    np.testing.assert_allclose(often.stderr, once.stderr, rtol=1e-9)
    np.testing.assert_allclose(often.noise, once.noise, rtol=1e-9)
    assert often.dof == pytest.approx(once.dof)
    assert "copies" in often.message
    assert often.status == "ok"


def test_some_copies_widen_the_bars_about_as_far_as_dropping_them():
    """Ten of forty rows twice or three times: 95 % intervals hold 0.95 of the entries (sd 0.13 a
    fit, 0.013 of 100), bars are those of the forty times 1.12, by the mean over the rows of what
    copies do, sqrt(40 sum w^2) / sum w (sd 0.09 an entry)."""
    rows, wider, held = np.concatenate([np.arange(40), np.arange(10), np.arange(5)]), [], []
    for seed in range(100):
        dx, df = samples(seed, k=40)
        once, often = fit_jacobian(dx, df), fit_jacobian(dx[rows], df[rows])
        assert often.dof == pytest.approx(once.dof)
        wider.append(often.stderr / once.stderr)
        low, high = often.confidence_interval(0.95)
        held.append(((low <= JAC) & (high >= JAC)).mean())
    assert np.median(wider) == pytest.approx(1.12, rel=0.05)
    assert np.mean(held) > 0.95 - 4 * 0.013


def test_replicates_with_noise_of_their_own_count():
    dx, df = samples(k=40)
    again = df + 0.01 * np.random.default_rng(1).standard_normal(df.shape)
    estimate = fit_jacobian(np.vstack([dx, dx]), np.vstack([df, again]))
    assert estimate.dof == 77
    assert estimate.message == ""


def test_a_transposed_prior_is_told_where_it_fills_gaps():
    rng = np.random.default_rng(0)
    jac, dx = rng.standard_normal((3, 3)), rng.standard_normal((2, 3))
    with pytest.warns(GradiatorWarning, match="jac0 looks transposed"):
        fit_jacobian(dx, dx @ jac.T, jac0=jac.T)
    right = fit_jacobian(dx, dx @ jac.T, jac0=jac)
    assert right.status == "undetermined"
    np.testing.assert_allclose(right.jac, jac, atol=1e-12)
    # with enough samples any prior does
    dx = rng.standard_normal((6, 3))
    np.testing.assert_allclose(fit_jacobian(dx, dx @ jac.T, jac0=jac.T).jac, jac, atol=1e-12)


def test_exchanged_displacements_are_told_where_one_input_moves_at_a_time():
    jac = np.random.default_rng(0).standard_normal((3, 3))
    dx = np.vstack([np.eye(3), -np.eye(3)])
    assert fit_jacobian(dx, dx @ jac.T).status == "ok"
    with pytest.warns(GradiatorWarning, match="exchanged"):
        fit_jacobian(dx @ jac.T, dx)
