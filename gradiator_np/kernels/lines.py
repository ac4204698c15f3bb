"""The line model: what pairs of runs at x +- t say about the slope and about the next step.

Along one input, in units t of its scale, f = f0 + g t + sum_p a_p t^p with
a_p ~ N(0, (b sd_p)^2) for p >= 2. A pair at t gives

    D = (f+ - f-) / (2 t) = g + a_3 t^2 + a_5 t^4 + ...    noise variance w v / (2 t^2)
    E = f+ + f- - 2 f0    = 2 (a_2 t^2 + a_4 t^4 + ...)    noise variance 2 v, 4 s^2 shared

with v = s^2 + b^2 k^2: noise, and the jitter k of an input that is rounded or meshed,

and every question is a small least-squares problem whose prior is a set of rows of its own. It is
solved by Givens rotations of the square-root form: pairs from 1e-8 to 0.5 meet in one fit, which
covariances do not survive.

Shapes: m inputs, P pairs (nan in ``t`` where there is none), n outputs, S states of the model,
Q terms of each parity. All arrays float64 and C-contiguous.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def _insert(r, z, row, y, size):
    """Rotate one equation ``row . theta = y`` into the triangle ``r theta = z``.

    Returns what is left of y: its square belongs to the residual sum of squares.
    """
    for c in range(size):
        if row[c] != 0.0:
            h = np.sqrt(r[c, c] * r[c, c] + row[c] * row[c])
            cs = r[c, c] / h
            sn = row[c] / h
            r[c, c] = h
            for d in range(c + 1, size):
                a = r[c, d]
                r[c, d] = cs * a + sn * row[d]
                row[d] = cs * row[d] - sn * a
            a = z[c]
            z[c] = cs * a + sn * y
            y = cs * y - sn * a
    return y


@njit(**_OPTIONS)
def _odd_row(row, t, weight, b, sd, terms):
    """The equation of D at t: columns a_(2Q+1) .. a_3 over their prior, then g."""
    t2 = t * t
    power = 1.0
    for q in range(terms):
        power *= t2
        row[terms - 1 - q] = weight * b * sd[q] * power
    row[terms] = weight


@njit(**_OPTIONS)
def log_likelihood(
    t, factor, odd, even, noise, slope, sd_odd, sd_even, kappa, picked, out_odd, out_even
):
    """Log-likelihood of every state from the pairs of each input.

    Parameters
    ----------
    t : array, shape (m, P)
        Steps; nan ends the list of an input.
    factor : array, shape (m, P)
        Noise factor of a rule relative to a pair (1), 26 for the one-sided rule.
    odd, even : array, shape (m, P, n)
        D and E; nan where a run failed.
    noise : array, shape (n,)
    slope : array, shape (m, n)
        b.
    sd_odd, sd_even : array, shape (S, Q)
        Prior standard deviations of a_3, a_5, .. and a_2, a_4, .. at b = 1.
    kappa : array, shape (S,)
    picked : array of int, shape (m, c)
        The outputs that are heard for each input.
    out_odd, out_even : array, shape (m, c, S)
        Overwritten.
    """
    m, width = t.shape
    states, terms = sd_odd.shape
    size = terms + 1
    r = np.zeros((size, size))
    z = np.zeros(size)
    row = np.zeros(size)
    for j in range(m):
        for c in range(picked.shape[1]):
            i = picked[j, c]
            base = 0.0
            for p in range(width):
                if t[j, p] == t[j, p] and odd[j, p, i] == odd[j, p, i]:
                    base = odd[j, p, i]
            b = slope[j, i]
            for s in range(states):
                var = noise[i] * noise[i] + b * b * kappa[s] * kappa[s]
                # odd part: g is flat, the other terms carry a unit prior
                r[:, :] = 0.0
                z[:] = 0.0
                for q in range(terms):
                    r[q, q] = 1.0
                value = 0.0
                seen = 0
                for p in range(width):
                    if t[j, p] == t[j, p] and odd[j, p, i] == odd[j, p, i]:
                        weight = t[j, p] * np.sqrt(2.0 / (var * factor[j, p]))
                        _odd_row(row, t[j, p], weight, b, sd_odd[s], terms)
                        left = _insert(r, z, row, weight * (odd[j, p, i] - base), size)
                        value += np.log(weight) - 0.5 * left * left
                        seen += 1
                if seen > 1:
                    for q in range(size):
                        value -= np.log(r[q, q])
                    out_odd[j, c, s] = value
                else:
                    out_odd[j, c, s] = 0.0
                # even part: the last column is the error of f0
                r[:, :] = 0.0
                z[:] = 0.0
                for q in range(size):
                    r[q, q] = 1.0
                value = 0.0
                for p in range(width):
                    if t[j, p] == t[j, p] and even[j, p, i] == even[j, p, i]:
                        weight = 1.0 / np.sqrt(2.0 * var)
                        power = 2.0 * weight * b
                        for q in range(terms):
                            power *= t[j, p] * t[j, p]
                            row[terms - 1 - q] = power * sd_even[s, q]
                        row[terms] = -2.0 * noise[i] * weight
                        left = _insert(r, z, row, weight * even[j, p, i], size)
                        value += np.log(weight) - 0.5 * left * left
                for q in range(size):
                    value -= np.log(r[q, q])
                out_even[j, c, s] = value
    return 0


@njit(**_OPTIONS)
def design(t, factor, new_factor, ratio, prior, sd_odd, kappa, grid, cap, shapes, power, out):
    """The step and the shape of the next pairs of each input.

    Minimises sum_s prior_s (V_s / V_s*)^power over V_s, the variance of g that the pairs in hand
    and the new ones leave under state s, and V_s*, the least that any candidate would leave. Both
    are at b = 1.

    Parameters
    ----------
    t, factor : array, shape (m, P)
        Pairs in hand.
    new_factor : array, shape (m,)
        Noise factor of the new ones.
    ratio : array, shape (m,)
        Noise over slope.
    prior : array, shape (m, S)
    grid : array, shape (G,)
        Largest step of a candidate; those above ``cap`` (m,) are left out.
    shapes : array, shape (H, k)
        Steps of a candidate relative to its largest.
    out : array, shape (m, 2)
        Overwritten: step, index of the shape.
    """
    m, width = t.shape
    states, terms = sd_odd.shape
    size = terms + 1
    held = np.zeros((size, size))
    r = np.zeros((size, size))
    z = np.zeros(size)
    row = np.zeros(size)
    score = np.zeros((grid.size, shapes.shape[0]))
    variance = np.zeros((grid.size, shapes.shape[0]))
    for j in range(m):
        score[:, :] = 0.0
        top = prior[j].max()
        worst = 1.0 + ratio[j] * ratio[j] / (cap[j] * cap[j])
        for s in range(states):
            # what weighs less than 1e-3 of the likeliest state moves no decision
            if prior[j, s] < 1e-3 * top:
                continue
            var = ratio[j] * ratio[j] + kappa[s] * kappa[s]
            held[:, :] = 0.0
            for q in range(terms):
                held[q, q] = 1.0
            for p in range(width):
                if t[j, p] == t[j, p]:
                    weight = t[j, p] * np.sqrt(2.0 / (var * factor[j, p]))
                    _odd_row(row, t[j, p], weight, 1.0, sd_odd[s], terms)
                    _insert(held, z, row, 0.0, size)
            least = np.inf
            for a in range(grid.size):
                if grid[a] > cap[j]:
                    continue
                for h in range(shapes.shape[0]):
                    r[:, :] = held
                    for k in range(shapes.shape[1]):
                        step = grid[a] * shapes[h, k]
                        weight = step * np.sqrt(2.0 / (var * new_factor[j]))
                        _odd_row(row, step, weight, 1.0, sd_odd[s], terms)
                        _insert(r, z, row, 0.0, size)
                    # nothing is worse than an answer of the size of the slope, or of what noise
                    # leaves at the widest step
                    left = 1.0 / (r[terms, terms] * r[terms, terms])
                    variance[a, h] = left / (1.0 + left / worst)
                    least = min(least, variance[a, h])
            for a in range(grid.size):
                if grid[a] > cap[j]:
                    continue
                for h in range(shapes.shape[0]):
                    score[a, h] += prior[j, s] * (variance[a, h] / least) ** power
        best = np.inf
        out[j, 0] = np.nan
        for a in range(grid.size):
            if grid[a] > cap[j]:
                continue
            for h in range(shapes.shape[0]):
                if score[a, h] < best:
                    best = score[a, h]
                    out[j, 0] = grid[a]
                    out[j, 1] = h
    return 0


@njit(**_OPTIONS)
def estimate(t, factor, odd, noise, slope, prior, sd_odd, kappa, own, mean, unit, spread, quantile):
    """Slope of every output along every input: the mixture over states.

    Parameters
    ----------
    prior : array, shape (m, S)
        Weights of the states, common to the outputs.
    own : float
        How much of an output's own likelihood is added to the common weights.
    mean, unit, spread, quantile : array, shape (n, m)
        Overwritten: the slope; its variance from noise, at unit noise; its variance in all;
        the half-width that holds 95 % of the mixture. inf where nothing was measured.
    """
    m, width = t.shape
    states, terms = sd_odd.shape
    n = noise.size
    size = terms + 1
    r = np.zeros((size, size))
    z = np.zeros((size, width))
    row = np.zeros(size)
    rhs = np.zeros(width)
    weights = np.zeros((states, width))
    g = np.zeros(states)
    v = np.zeros(states)
    p_own = np.zeros(states)
    blend = np.zeros(width)
    for j in range(m):
        top = prior[j].max()
        for i in range(n):
            base = np.nan
            for p in range(width):
                if t[j, p] == t[j, p] and odd[j, p, i] == odd[j, p, i]:
                    base = odd[j, p, i]
            if base != base:
                mean[i, j] = 0.0
                unit[i, j] = np.inf
                spread[i, j] = np.inf
                quantile[i, j] = np.inf
                continue
            b = slope[j, i]
            largest = -np.inf
            for s in range(states):
                p_own[s] = -np.inf
                if prior[j, s] < 1e-4 * top:
                    continue
                var = noise[i] * noise[i] + b * b * kappa[s] * kappa[s]
                r[:, :] = 0.0
                z[:, :] = 0.0
                for q in range(terms):
                    r[q, q] = 1.0
                value = 0.0
                for p in range(width):
                    if t[j, p] == t[j, p] and odd[j, p, i] == odd[j, p, i]:
                        weight = t[j, p] * np.sqrt(2.0 / (var * factor[j, p]))
                        _odd_row(row, t[j, p], weight, b, sd_odd[s], terms)
                        # the rotation of every datum's own share, so that weights come out
                        rhs[:] = 0.0
                        rhs[p] = weight
                        for c in range(size):
                            if row[c] != 0.0:
                                h = np.sqrt(r[c, c] * r[c, c] + row[c] * row[c])
                                cs = r[c, c] / h
                                sn = row[c] / h
                                r[c, c] = h
                                for d in range(c + 1, size):
                                    a = r[c, d]
                                    r[c, d] = cs * a + sn * row[d]
                                    row[d] = cs * row[d] - sn * a
                                for d in range(width):
                                    a = z[c, d]
                                    z[c, d] = cs * a + sn * rhs[d]
                                    rhs[d] = cs * rhs[d] - sn * a
                        left = 0.0
                        for d in range(p + 1):
                            if rhs[d] != 0.0:
                                left += rhs[d] * (odd[j, d, i] - base)
                        value += np.log(weight) - 0.5 * left * left
                for q in range(size):
                    value -= np.log(r[q, q])
                p_own[s] = np.log(prior[j, s]) + own * value
                largest = max(largest, p_own[s])
                shift = 0.0
                for d in range(width):
                    weights[s, d] = z[terms, d] / r[terms, terms]
                    if weights[s, d] != 0.0:
                        shift += weights[s, d] * (odd[j, d, i] - base)
                g[s] = shift
                v[s] = 1.0 / (r[terms, terms] * r[terms, terms])
            total = 0.0
            average = 0.0
            blend[:] = 0.0
            for s in range(states):
                if p_own[s] == -np.inf:
                    p_own[s] = 0.0
                    continue
                p_own[s] = np.exp(p_own[s] - largest)
                total += p_own[s]
                average += p_own[s] * g[s]
                for d in range(width):
                    blend[d] += p_own[s] * weights[s, d]
            average /= total
            second = 0.0
            fourth = 0.0
            for s in range(states):
                if p_own[s] > 0.0:
                    p_own[s] /= total
                    d2 = (g[s] - average) ** 2
                    second += p_own[s] * (v[s] + d2)
                    fourth += p_own[s] * (3.0 * v[s] * v[s] + 6.0 * v[s] * d2 + d2 * d2)
            mean[i, j] = base + average
            spread[i, j] = second
            amount = 0.0
            for d in range(width):
                if blend[d] != 0.0:
                    amount += factor[j, d] * (blend[d] / total) ** 2 / (2.0 * t[j, d] * t[j, d])
            unit[i, j] = amount
            width95 = 1.959963984540054 * np.sqrt(second)
            if fourth > 3.05 * second * second:
                # bisect the mixture's distribution of |error|, in logarithms: the widest state
                # may be ten decades wider than the likeliest
                low = np.inf
                for s in range(states):
                    if p_own[s] > 1e-4:
                        low = min(low, np.sqrt(v[s]))
                high = 4.0 * width95
                for _ in range(16):
                    middle = np.sqrt(low * high)
                    outside = 0.0
                    for s in range(states):
                        if p_own[s] > 1e-4:
                            sd = np.sqrt(2.0 * v[s])
                            d1 = g[s] - average
                            outside += (
                                0.5
                                * p_own[s]
                                * (math.erfc((middle - d1) / sd) + math.erfc((middle + d1) / sd))
                            )
                    if outside > 0.05:
                        low = middle
                    else:
                        high = middle
                width95 = np.sqrt(low * high)
            quantile[i, j] = width95
    return 0
