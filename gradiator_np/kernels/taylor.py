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


@njit(cache=True, nogil=True, error_model="numpy")
def state_likelihood(quad, logdet, dof, base, per, nu, first, last, out):
    """Likelihood of each output in every state, relative to its largest.

    Parameters
    ----------
    quad : array, shape (n, R, C)
        y' S^-1 y of the contrasts, S = K + r I.
    logdet : array, shape (R, C)
        log det S.
    dof : float
        Number of contrasts.
    base : array, shape (R,)
        Exponent of the amplitude at z = 0, in grid points.
    nu, first, last : array, shape (n,)
        Stiffness of a cell; noise indices allowed, ``last`` excluded.
    out : array, shape (n, R, Z, S)
        Filled in; 0 where a state is not allowed or 1e-13 times less likely than the best.
    """
    n, n_rho, n_z, n_s = out.shape
    unit = 2.0 * math.log(10.0) / per
    for i in range(n):
        best = -np.inf
        peak = 0.5 * (dof + nu[i]) * math.log1p(dof / nu[i])
        for a in range(n_rho):
            for c in range(quad.shape[2]):
                q = quad[i, a, c]
                # The best amplitude for this ratio: columns that cannot matter are skipped.
                top = -0.5 * logdet[a, c] - peak
                if q > 0.0 and dof > 0.0:
                    top -= 0.5 * dof * math.log(q / dof)
                hopeless = top < best - 30.0
                for z in range(n_z):
                    s = c - (n_z - 1 - z)
                    if s < 0 or s >= n_s:
                        continue
                    if hopeless or s < first[i] or s >= last[i]:
                        out[i, a, z, s] = -np.inf
                        continue
                    log_k2 = unit * (z + base[a])
                    value = -0.5 * (logdet[a, c] + dof * log_k2)
                    value -= 0.5 * (dof + nu[i]) * math.log1p(q / nu[i] * math.exp(-log_k2))
                    out[i, a, z, s] = value
                    best = max(best, value)
        for a in range(n_rho):
            for z in range(n_z):
                for s in range(n_s):
                    value = out[i, a, z, s] - best
                    out[i, a, z, s] = math.exp(value) if value > -30.0 else 0.0
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def collapse(like, prior, quad, dof, base, per, nu, mass, power):
    """Posterior mass and curvature power of each (rho, ratio), summed over amplitudes.

    Parameters
    ----------
    like : array, shape (n, R, Z, S)
    prior : array, shape (R, Z, S)
    quad, dof, base, per, nu
        As in `state_likelihood`.
    mass, power : array, shape (n, R, C)
        Filled in: sum of p, and sum of p E[kappa^2].
    """
    n, n_rho, n_z, n_s = like.shape
    unit = 2.0 * math.log(10.0) / per
    for i in range(n):
        total = 0.0
        mass[i] = 0.0
        power[i] = 0.0
        for a in range(n_rho):
            for z in range(n_z):
                k2 = math.exp(unit * (z + base[a]))
                for s in range(n_s):
                    p = like[i, a, z, s] * prior[a, z, s]
                    if p > 0.0:
                        c = s + n_z - 1 - z
                        total += p
                        mass[i, a, c] += p
                        shrunk = (nu[i] * k2 + quad[i, a, c]) / (nu[i] + dof - 2.0)
                        power[i, a, c] += p * shrunk
        if total > 0.0:
            for a in range(n_rho):
                for c in range(mass.shape[2]):
                    mass[i, a, c] /= total
                    power[i, a, c] /= total
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def mixture_interval(mass, shift, sd, level, half):
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
        Filled in, to 0.5 %.
    """
    n_states, n, m = shift.shape
    root = math.sqrt(0.5)
    for i in range(n):
        for j in range(m):
            # Between the smallest half width of any component and the largest.
            low, high = np.inf, 0.0
            for k in range(n_states):
                if mass[i, k] > 0.0:
                    low = min(low, sd[k, i, j])
                    high = max(high, abs(shift[k, i, j]) + 3.0 * sd[k, i, j])
            if not high > 0.0:
                half[i, j] = 0.0
                continue
            low = max(low, 1e-12 * high)
            while high > 1.01 * low:
                h = math.sqrt(low * high)
                inside = 0.0
                for k in range(n_states):
                    p = mass[i, k]
                    if p > 0.0:
                        d = abs(shift[k, i, j])
                        s = sd[k, i, j]
                        if s > 0.0:
                            inside += 0.5 * p * (
                                math.erf((h - d) * root / s) + math.erf((h + d) * root / s)
                            )
                        elif d < h:
                            inside += p
                if inside < level:
                    low = h
                else:
                    high = h
            half[i, j] = math.sqrt(low * high)
    return 0
