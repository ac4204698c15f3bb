"""The closed form of up to three pairs, against dense covariances and rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gradiator_np.designs._adaptive.model.closed_form import LARGEST, ClosedFormGLS
from gradiator_np.designs._adaptive.model.differences import slope_basis
from gradiator_np.designs._adaptive.model.likelihood import fit, sharpness
from gradiator_np.designs._adaptive.model.prior import TERMS, States

EPS = np.finfo(float).eps


def some(pairs, missing, seed=0, sided=False):
    """Values, basis, sqrt(omega), prior variances and w of 5 lines, 4 outputs, 3 states; where
    ``sided``, half of the pairs are one-sided rules, whose slopes see terms of both parities."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((5, 4, pairs))
    if missing:
        y[rng.random(y.shape) < 0.3] = np.nan
    t = rng.uniform(0.1, 1, (5, pairs))
    root = t[:, None] * rng.uniform(0.5, 2, y.shape)
    one = np.zeros(t.shape, bool)
    one[::2] = sided
    basis = slope_basis(t, one, TERMS)
    return (
        y,
        basis,
        root,
        10.0 ** rng.uniform(-2, 1, (5, basis.shape[-1], 3)),
        10.0 ** rng.uniform(-1, 1, (5, 4, 3)),
    )


@pytest.mark.parametrize("sided", [False, True])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_slopes_are_generalised_least_squares(pairs, missing, sided):
    """Covariances of condition below 1e4 lose four digits of 16, and the twin squares that."""
    y, basis, root, terms, w = some(pairs, missing, sided=sided)
    few = ClosedFormGLS.of(y, basis, root)
    mean, variance = few.slope(terms, w)
    for line, output, state in np.ndindex(5, 4, 3):
        seen = np.isfinite(y[line, output])
        if not seen.any():
            continue
        p = basis[line, seen]
        noise = 1 / (w[line, output, state] * root[line, output, seen] ** 2)
        inverse = np.linalg.inv(np.diag(noise) + p * terms[line, :, state] @ p.T)
        share = inverse.sum(axis=0) / inverse.sum()
        assert variance[line, output, state] == pytest.approx(1 / inverse.sum(), rel=1e-8)
        assert mean[line, output, state] == pytest.approx(
            share @ y[line, output, seen], rel=1e-8, abs=1e-8
        )
        mine = few.shares(terms[:, :, state : state + 1], w[:, :, state : state + 1])
        np.testing.assert_allclose(mine[line, output, seen], share, rtol=1e-8, atol=1e-8)
        assert not mine[line, output, ~seen].any()


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_likelihoods_are_those_of_the_normal_distribution(pairs, missing):
    """Up to a constant: differences between states are compared."""
    y, basis, root, terms, w = some(pairs, missing, seed=1)
    terms = terms[0]
    shared = np.random.default_rng(2).uniform(0.5, 2, (5, 4))
    few = ClosedFormGLS.of(y, basis, root)
    slopes, bends = few.likelihood_of_slopes(terms, w), few.likelihood_of_bends(terms, w, shared)
    for line, output in np.ndindex(5, 4):
        seen = np.isfinite(y[line, output])
        z, one = y[line, output, seen], np.ones(seen.sum())
        p = basis[line, seen]
        expected = np.zeros((2, 3))
        for state in range(3):
            noise = np.diag(1 / (w[line, output, state] * root[line, output, seen] ** 2))
            c = noise + p * terms[:, state] @ p.T
            if seen.any():
                v = np.linalg.inv(c)
                v -= np.outer(v @ one, v @ one) / (one @ v @ one)
                logs = np.linalg.slogdet(c)[1] + np.log(one @ np.linalg.inv(c) @ one)
                expected[0, state] = -0.5 * (logs + z @ v @ z)
            c = noise + 4 * p * terms[:, state] @ p.T + shared[line, output] ** 2
            expected[1, state] = -0.5 * (np.linalg.slogdet(c)[1] + z @ np.linalg.inv(c) @ z)
        if pairs == 1:
            expected[0] = 0
        for mine, wanted in ((slopes, expected[0]), (bends, expected[1])):
            got = np.broadcast_to(mine, (5, 4, 3))[line, output]
            np.testing.assert_allclose(got - got[0], wanted - wanted[0], rtol=1e-7, atol=1e-7)


def exactly(t, noise, sd, y):
    """Mean and variance of the slope from pairs y at t, in rational arithmetic."""
    t, sd, y = ([Fraction(float(a)) for a in b] for b in (t, sd, y))
    n, power = len(t), range(1, TERMS + 1)
    rows = [
        [sum(s**2 * (a * b) ** (2 * q) for q, s in zip(power, sd)) for b in t] + [Fraction(1), y[i]]
        for i, a in enumerate(t)
    ]
    for i in range(n):
        rows[i][i] += Fraction(noise) ** 2 / (2 * t[i] ** 2)
    for i in range(n):
        rows[i] = [a / rows[i][i] for a in rows[i]]
        for j in set(range(n)) - {i}:
            rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i])]
    total = sum(row[n] for row in rows)
    return float(sum(row[n] * a for row, a in zip(rows, y)) / total), float(1 / total)


@pytest.mark.kernel
@pytest.mark.parametrize("steps", [[0.3, 1e-7], [0.5, 1e-4, 1e-8], [0.4, 0.2, 0.1],
                                   [6e-8, 3e-8, 1e-8]])  # fmt: skip
@pytest.mark.parametrize("noise", [1e-16, 1e-2])
def test_wide_and_tiny_steps_together_lose_nothing(steps, noise):
    """Variances are sums of positive terms: some 50 roundings. A mean has the cancellation of its
    values, which are 1e-8 of the noise at the other step. The kernel leaves terms below 1e-4 of
    the noise out, and weights of up to 3 square that; it needs no limit of the terms."""
    states = States.grid()
    states = states.take(np.arange(0, states.rho.size, 10))
    t = np.array(steps)
    basis = slope_basis(t[None], np.zeros((1, t.size), bool), TERMS)
    y = np.random.default_rng(3).standard_normal(t.size) * noise / t
    y -= y[-1]
    root = (t * np.sqrt(2))[None, None]
    sharp = sharpness(np.full((1, 1, 1), noise), np.ones((1, 1, 1)), states.kappa)
    few = ClosedFormGLS.of(y[None, None], basis, root)
    mean, variance = (a[0, 0] for a in few.slope(np.square(states.sd_odd).T[None], sharp**2))
    pick, one = np.broadcast_to(np.arange(states.rho.size), sharp.shape), np.ones((1, 1))
    slow = fit(basis, root, y[None, None], one, 1.0, 0.0, sharp, states, pick, one > 0)
    limited = np.minimum(states.sd_odd, LARGEST / basis[0].max(axis=0))
    for state in range(states.rho.size):
        level = 1 / sharp[0, 0, state]
        wanted, spread = exactly(t, level, limited[state], y)
        assert variance[state] == pytest.approx(spread, rel=50 * EPS)
        assert abs(mean[state] - wanted) < 1e-7 * np.sqrt(spread)
        wanted, spread = exactly(t, level, states.sd_odd[state], y)
        assert slow[1][0, state] == pytest.approx(spread, rel=1e-4)
        assert abs(slow[0][0, state] - wanted) < 1e-4 * np.sqrt(spread)
