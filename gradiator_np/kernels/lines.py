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
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(r: Array, z: Array, row: Array, y: float, size: int) -> float:
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


@njit(cache=True, nogil=True, error_model="numpy")
def _odd_row(row: Array, t: float, weight: float, b: float, sd: Array, terms: int) -> None:
    """The equation of D at t: columns a_(2Q+1) .. a_3 over their prior, then g.

    Terms below 1e-4 of the noise change nothing that rounding does not, and their rotations are
    saved.
    """
    t2 = t * t
    scale = weight * b
    for q in range(terms):
        scale *= t2
        a = scale * sd[q]
        row[terms - 1 - q] = a if a > 1e-4 else 0.0
    row[terms] = weight


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_odd(
    t: Array, factor: Array, size: Array, odd: Array, i: int, base: float, var: float, b: float,
    sd: Array, r: Array, z: Array, row: Array,
) -> float:  # fmt: skip
    """Solve for g and the odd terms of output i; returns the log-likelihood without log |r|."""
    terms = sd.size
    r[:, :] = 0.0
    z[:] = 0.0
    for q in range(terms):
        r[q, q] = 1.0
    squares = 0.0
    weights = 1.0
    for p in range(t.size):
        if t[p] == t[p] and odd[p, i] == odd[p, i]:
            weight = t[p] * np.sqrt(2.0 / (var * factor[p] * size[p, i]))
            _odd_row(row, t[p], weight, b, sd, terms)
            left = _insert(r, z, row, weight * (odd[p, i] - base), terms + 1)
            squares += left * left
            weights *= weight
    return float(np.log(weights) - 0.5 * squares)


@njit(cache=True, nogil=True, error_model="numpy")
def _log_det(r: Array) -> float:
    """Sum of the logarithms of the diagonal."""
    out = 0.0
    for q in range(r.shape[0]):
        if r[q, q] != 1.0:
            out += np.log(r[q, q])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def log_likelihood(
    t: Array, factor: Array, size: Array, odd: Array, even: Array, noise: Array, slope: Array,
    sd_odd: Array, sd_even: Array, kappa: Array, picked: Index, out_odd: Array, out_even: Array,
) -> None:  # fmt: skip
    """Log-likelihood of every state from the pairs of each input.

    Parameters
    ----------
    t : array, shape (m, P)
        Steps; nan ends the list of an input.
    factor : array, shape (m, P)
        Noise factor of a rule relative to a pair (1), 26 for the one-sided rule.
    size : array, shape (m, P, n)
        Variance of the noise where the pair was run, relative to that at x.
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
    columns = terms + 1
    r = np.zeros((columns, columns))
    z = np.zeros(columns)
    row = np.zeros(columns)
    for j in range(m):
        for c in range(picked.shape[1]):
            i = picked[j, c]
            base = 0.0
            seen = 0
            for p in range(width):
                if t[j, p] == t[j, p] and odd[j, p, i] == odd[j, p, i]:
                    base = odd[j, p, i]
                    seen += 1
            b = slope[j, i]
            for s in range(states):
                var = noise[i] * noise[i] + b * b * kappa[s] * kappa[s]
                if seen > 1:
                    value = _fit_odd(
                        t[j], factor[j], size[j], odd[j], i, base, var, b, sd_odd[s], r, z, row
                    )
                    out_odd[j, c, s] = value - _log_det(r)
                else:
                    out_odd[j, c, s] = 0.0
                # even part: the last column is the error of f0
                r[:, :] = 0.0
                z[:] = 0.0
                for q in range(columns):
                    r[q, q] = 1.0
                squares = 0.0
                weights = 1.0
                for p in range(width):
                    if t[j, p] == t[j, p] and even[j, p, i] == even[j, p, i]:
                        weight = 1.0 / np.sqrt(2.0 * var * size[j, p, i])
                        weights *= weight
                        scale = 2.0 * weight * b
                        for q in range(terms):
                            scale *= t[j, p] * t[j, p]
                            a = scale * sd_even[s, q]
                            row[terms - 1 - q] = a if a > 1e-4 else 0.0
                        row[terms] = -2.0 * noise[i] * weight
                        left = _insert(r, z, row, weight * even[j, p, i], columns)
                        squares += left * left
                out_even[j, c, s] = np.log(weights) - 0.5 * squares - _log_det(r)


@njit(cache=True, nogil=True, error_model="numpy")
def design(
    t: Array, factor: Array, new_factor: Array, ratio: Array, prior: Array, sd_odd: Array,
    kappa: Array, grid: Array, low: Array, cap: Array, shapes: Array, power: float, apart: float,
    out: Array,
) -> None:  # fmt: skip
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
        Exponents of the candidates' largest steps, cap (low / cap)^grid: 0 is cap, 1 is low.
    low, cap : array, shape (m,)
    shapes : array, shape (H, k)
        Steps of a candidate relative to its largest.
    apart : float
        Ratio of the largest to the smallest step of an input that has several, at least.
    out : array, shape (m, 3)
        Overwritten: step, index of the shape, mean of log V_s.
    """
    m, width = t.shape
    states, terms = sd_odd.shape
    columns = terms + 1
    held = np.zeros((columns, columns))
    r = np.zeros((columns, columns))
    z = np.zeros(columns)
    row = np.zeros(columns)
    score = np.zeros((grid.size, shapes.shape[0]))
    variance = np.zeros((grid.size, shapes.shape[0]))
    logs = np.zeros((grid.size, shapes.shape[0]))
    alike = np.zeros((grid.size, shapes.shape[0]), np.bool_)
    for j in range(m):
        score[:, :] = 0.0
        logs[:, :] = 0.0
        top = prior[j].max()
        inner = np.inf
        outer = 0.0
        several = shapes.shape[1] > 1
        for p in range(width):
            if t[j, p] == t[j, p]:
                inner = min(inner, t[j, p])
                outer = max(outer, t[j, p])
                several = True
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
                    _insert(held, z, row, 0.0, columns)
            least = np.inf
            for a in range(grid.size):
                for h in range(shapes.shape[0]):
                    r[:, :] = held
                    nearest = inner
                    furthest = outer
                    for k in range(shapes.shape[1]):
                        step = cap[j] * (low[j] / cap[j]) ** grid[a]
                        step = max(step * shapes[h, k], low[j])
                        nearest = min(nearest, step)
                        furthest = max(furthest, step)
                        weight = step * np.sqrt(2.0 / (var * new_factor[j]))
                        _odd_row(row, step, weight, 1.0, sd_odd[s], terms)
                        _insert(r, z, row, 0.0, columns)
                    # nothing is worse than an answer of the size of the slope, or of what noise
                    # leaves at the widest step
                    left = 1.0 / (r[terms, terms] * r[terms, terms])
                    variance[a, h] = left / (1.0 + left / worst)
                    least = min(least, variance[a, h])
                    alike[a, h] = several and furthest < apart * nearest
            for a in range(grid.size):
                for h in range(shapes.shape[0]):
                    score[a, h] += prior[j, s] * (variance[a, h] / least) ** power
                    logs[a, h] += prior[j, s] * np.log(variance[a, h])
        best = np.inf
        for a in range(grid.size):
            for h in range(shapes.shape[0]):
                cost = score[a, h] * (1e6 if alike[a, h] else 1.0)
                if cost < best:
                    best = cost
                    out[j, 0] = cap[j] * (low[j] / cap[j]) ** grid[a]
                    out[j, 1] = h
                    out[j, 2] = logs[a, h]


@njit(cache=True, nogil=True, error_model="numpy")
def _weight(
    t: Array, factor: Array, size: Array, odd: Array, i: int, d: int, var: float, b: float,
    sd: Array, r: Array, z: Array, row: Array,
) -> float:  # fmt: skip
    """Weight of pair d in the estimate of g of output i."""
    terms = sd.size
    r[:, :] = 0.0
    z[:] = 0.0
    for q in range(terms):
        r[q, q] = 1.0
    for p in range(t.size):
        if t[p] == t[p] and odd[p, i] == odd[p, i]:
            weight = t[p] * np.sqrt(2.0 / (var * factor[p] * size[p, i]))
            _odd_row(row, t[p], weight, b, sd, terms)
            _insert(r, z, row, weight if p == d else 0.0, terms + 1)
    return float(z[terms] / r[terms, terms])


@njit(cache=True, nogil=True, error_model="numpy")
def _half_width(p: Array, g: Array, v: Array, count: int, low: float, high: float) -> float:
    """Half-width that holds 95 % of a mixture of normals about 0.

    Bisected in logarithms: the widest state may be ten decades wider than the likeliest.
    """
    for _ in range(16):
        middle = np.sqrt(low * high)
        outside = 0.0
        for k in range(count):
            sd = np.sqrt(2.0 * v[k])
            outside += (
                0.5 * p[k] * (math.erfc((middle - g[k]) / sd) + math.erfc((middle + g[k]) / sd))
            )
        if outside > 0.05:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


@njit(cache=True, nogil=True, error_model="numpy")
def estimate(
    t: Array, factor: Array, size: Array, odd: Array, noise: Array, slope: Array, prior: Array,
    sd_odd: Array, kappa: Array, mean: Array, unit: Array, spread: Array, half: Array,
) -> None:  # fmt: skip
    """Slope of every output along every input: the mixture over states.

    Parameters
    ----------
    prior : array, shape (m, S)
        Weights of the states, common to the outputs.
    mean, unit, spread, half : array, shape (n, m)
        Overwritten: the slope; its variance from noise, at unit noise, under the likeliest state;
        its variance in all; the half-width that holds 95 % of the mixture. inf where nothing was
        measured.
    """
    m, width = t.shape
    states, terms = sd_odd.shape
    n = noise.size
    columns = terms + 1
    r = np.zeros((columns, columns))
    z = np.zeros(columns)
    row = np.zeros(columns)
    picked = np.zeros(states, np.intp)
    share = np.zeros(states)
    g = np.zeros(states)
    v = np.zeros(states)
    memo = np.zeros((64, 3))
    for j in range(m):
        # what weighs less than 1e-3 of the likeliest state is not seen in a 95 % interval
        top = prior[j].argmax()
        memo[:, 0] = -1.0
        count = 0
        total = 0.0
        for s in range(states):
            if prior[j, s] > 1e-3 * prior[j, top]:
                picked[count] = s
                share[count] = prior[j, s]
                total += prior[j, s]
                count += 1
        for k in range(count):
            share[k] /= total
        for i in range(n):
            seen = 0
            last = 0
            for p in range(width):
                if t[j, p] == t[j, p] and odd[j, p, i] == odd[j, p, i]:
                    last = p
                    seen += 1
            if seen == 0:
                mean[i, j] = 0.0
                unit[i, j] = np.inf
                spread[i, j] = np.inf
                half[i, j] = np.inf
                continue
            base = odd[j, last, i]
            b = slope[j, i]
            average = 0.0
            ratio = noise[i] * np.sqrt(factor[j, last] * size[j, last, i]) / (b * t[j, last])
            least = np.inf
            for k in range(count):
                s = picked[k]
                var = noise[i] * noise[i] + b * b * kappa[s] * kappa[s]
                if seen == 1:
                    t2 = t[j, last] * t[j, last]
                    g[k] = 0.0
                    v[k] = var * factor[j, last] * size[j, last, i] / (2.0 * t2)
                    power = 1.0
                    for q in range(terms):
                        power *= t2
                        v[k] += (b * sd_odd[s, q] * power) ** 2
                else:
                    _fit_odd(
                        t[j], factor[j], size[j], odd[j], i, base, var, b, sd_odd[s], r, z, row
                    )
                    g[k] = z[terms] / r[terms, terms]
                    v[k] = 1.0 / (r[terms, terms] * r[terms, terms])
                average += share[k] * g[k]
                least = min(least, v[k])
            second = 0.0
            fourth = 0.0
            for k in range(count):
                g[k] -= average
                d2 = g[k] * g[k]
                second += share[k] * (v[k] + d2)
                fourth += share[k] * (3.0 * v[k] * v[k] + 6.0 * v[k] * d2 + d2 * d2)
            mean[i, j] = base + average
            spread[i, j] = second
            half[i, j] = 1.959963984540054 * np.sqrt(second)
            if fourth > 3.05 * second * second:
                # with one pair the width over b is a function of the noise over b alone
                at = int(8.0 * np.log2(ratio)) % memo.shape[0]
                if seen == 1 and memo[at, 0] == last and abs(memo[at, 1] / ratio - 1.0) < 0.1:
                    half[i, j] = memo[at, 2] * np.sqrt(second)
                else:
                    high = 4.0 * half[i, j]
                    half[i, j] = _half_width(share, g, v, count, np.sqrt(least), high)
                    if seen == 1:
                        memo[at, 0] = last
                        memo[at, 1] = ratio
                        memo[at, 2] = half[i, j] / np.sqrt(second)
            # weights of the pairs under the likeliest state, one right-hand side at a time
            amount = 0.0
            var = noise[i] * noise[i] + (b * kappa[top]) ** 2
            for d in range(width):
                if t[j, d] == t[j, d] and odd[j, d, i] == odd[j, d, i]:
                    share_d = 1.0
                    if seen > 1:
                        share_d = _weight(
                            t[j], factor[j], size[j], odd[j], i, d, var, b, sd_odd[top], r, z, row
                        )
                    amount += (
                        factor[j, d] * size[j, d, i] * share_d * share_d / (2.0 * t[j, d] * t[j, d])
                    )
            unit[i, j] = amount
