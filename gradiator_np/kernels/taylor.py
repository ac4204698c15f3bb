"""State grids of the random-Taylor model: likelihoods, posterior moments, mixture intervals.

A state of one output is (rho, curvature amplitude z, noise s). Amplitudes live on grids with
``per`` points a decade; a cell holds a continuous amplitude, scaled inverse chi-squared with
``nu`` degrees of freedom about its centre, so that the grid does not show in the estimates.
Column c of ``quad`` belongs to the noise-to-curvature ratio of all cells with c = s + Z - 1 - z.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@njit(cache=True, nogil=True, error_model="numpy")
def _top(q: float, logdet: float, dof: float, peak: float) -> float:
    """Largest log-likelihood over amplitudes."""
    if q > 0.0 and dof > 0.0:
        return -0.5 * (logdet + dof * math.log(q / dof)) - peak
    return -0.5 * logdet + 700.0 * dof


@njit(cache=True, nogil=True, error_model="numpy")
def state_likelihood(
    quad: Array, logdet: Array, dof: float, base: float, per: float,
    nu: Array, first: Integers, last: Integers, out: Array,
) -> None:  # fmt: skip
    """Likelihood of each output in every state, relative to its largest.

    Parameters
    ----------
    quad : array, shape (n, R, C)
        y' S^-1 y of the contrasts, S = K + r I.
    logdet : array, shape (n, R, C)
        log det S.
    dof : float
        Number of contrasts.
    base : float
        Exponent of the amplitude at z = 0, in grid points.
    nu, first, last : array, shape (n,)
        Stiffness of a cell; noise indices allowed, ``last`` excluded.
    out : array, shape (n, R, Z, S)
        Filled in; 0 where a state is not allowed or exp(-30) of the best.
    """
    n, n_rho, n_z, n_s = out.shape
    unit = 2.0 * math.log(10.0) / per
    inverse = np.exp(-unit * (np.arange(n_z) + base))
    for i in range(n):
        out[i] = -np.inf
        peak = 0.5 * (dof + nu[i]) * math.log1p(dof / nu[i])
        # The best amplitude of each ratio bounds its column. The column of the highest bound
        # goes first; what cannot come near its likeliest state is skipped.
        low, high = first[i], last[i] + n_z - 1
        bound, a0, c0 = -np.inf, 0, low
        for a in range(n_rho):
            for c in range(low, high):
                value = _top(quad[i, a, c], logdet[i, a, c], dof, peak)
                if value > bound:
                    bound, a0, c0 = value, a, c
        best = -np.inf
        for step in range(1 + n_rho * (high - low)):
            a, c = a0, c0
            if step > 0:
                a, c = (step - 1) // (high - low), low + (step - 1) % (high - low)
            q = quad[i, a, c]
            if _top(q, logdet[i, a, c], dof, peak) < best - 30.0:
                continue
            for s in range(max(first[i], c - n_z + 1), min(last[i], c + 1)):
                z = s + n_z - 1 - c
                value = -0.5 * (logdet[i, a, c] + dof * unit * (z + base))
                value -= 0.5 * (dof + nu[i]) * math.log1p(q / nu[i] * inverse[z])
                out[i, a, z, s] = value
                best = max(best, value)
        for a in range(n_rho):
            for z in range(n_z):
                for s in range(n_s):
                    value = out[i, a, z, s] - best
                    out[i, a, z, s] = math.exp(value) if value > -30.0 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def collapse(
    like: Array, prior: Array, quad: Array, dof: float, base: float, per: float, nu: Array,
    start: Integers, ratio: Array, mass: Array, power: Array, noise: Array,
) -> None:  # fmt: skip
    """Posterior mass and curvature power of each (rho, ratio), summed over amplitudes.

    Parameters
    ----------
    like : array, shape (n, R, Z, S)
    prior : array, shape (R, Z, S)
    quad, dof, base, per, nu
        As in `state_likelihood`.
    start : array of int, shape (R,)
        Columns below are one state: their noise is below the rounding of the kernel.
    ratio : array, shape (C,)
        Noise-to-curvature ratio of each column, in variance.
    mass, power : array, shape (n, R, C)
        Filled in: sum of p, and sum of p E[kappa^2].
    noise : array, shape (n,)
        Filled in: E[sigma^2].
    """
    n, n_rho, n_z, n_s = like.shape
    unit = 2.0 * math.log(10.0) / per
    for i in range(n):
        total = 0.0
        mass[i] = 0.0
        power[i] = 0.0
        noise[i] = 0.0
        for z in range(n_z):
            k2 = math.exp(unit * (z + base))
            for a in range(n_rho):
                for s in range(n_s):
                    p = like[i, a, z, s] * prior[a, z, s]
                    if p > 0.0:
                        c = s + n_z - 1 - z
                        # Mean of the cell's scaled inverse chi-squared after dof contrasts.
                        mean = p * (nu[i] * k2 + quad[i, a, c]) / (nu[i] + dof - 2.0)
                        noise[i] += mean * ratio[c]
                        c = max(c, start[a])
                        total += p
                        mass[i, a, c] += p
                        power[i, a, c] += mean
        mass[i] /= total
        power[i] /= total
        noise[i] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def mixture_interval(mass: Array, shift: Array, sd: Array, level: float, half: Array) -> None:
    """Half width h with P(|t| < h) = level under a mixture of normals, per entry.

    Parameters
    ----------
    mass : array, shape (n, S)
        Weights of the components; they sum to 1.
    shift : array, shape (S, n, m)
        Component means less the mixture's.
    sd : array, shape (S, n, m)
        Component standard deviations.
    half : array, shape (n, m)
        Filled in, to 1 %.
    """
    n_states, n, m = shift.shape
    weight, middle, rate = np.empty(n_states), np.empty(n_states), np.empty(n_states)
    for i in range(n):
        for j in range(m):
            count = 0
            second = 0.0
            for k in range(n_states):
                if mass[i, k] > 1e-5:
                    s = sd[k, i, j]
                    weight[count] = 0.5 * mass[i, k]
                    middle[count] = abs(shift[k, i, j])
                    rate[count] = math.sqrt(0.5) / max(s, 1e-300)
                    second += mass[i, k] * (middle[count] ** 2 + s * s)
                    count += 1
            # Chebyshev: no more than second / h^2 lies outside of h.
            high = math.sqrt(second / (1.0 - level))
            low = 0.0
            h = 0.45 * high
            while high > 1.01 * low and high > 0.0:
                inside = 0.0
                for q in range(count):
                    above = math.erf((h - middle[q]) * rate[q])
                    inside += weight[q] * (above + math.erf((h + middle[q]) * rate[q]))
                if inside < level:
                    low = h
                else:
                    high = h
                    if h < 1e-9 * math.sqrt(second):
                        break
                h = 0.1 * high if low == 0.0 else math.sqrt(low * high)
            half[i, j] = high
