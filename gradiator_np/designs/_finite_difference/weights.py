"""From samples on coordinate lines to J: finite-difference weights of the offsets really made.

The derivative at 0 of the polynomial through all good points of an input's line (Fornberg, Math.
Comp. 51 (1988) 699, for any spacing). One formula serves central and one-sided stencils, points
that replace failed ones, and points that a rig missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Mask

# Numbers that stay in a core's cache.
PART = 2**14


def derivative_weights(t: Array) -> Array:
    """Weights w with f'(0) ~ sum_q w_q (f(t_q) - f(0)).

    Parameters
    ----------
    t : array, shape (p, ...)
        Distinct nonzero offsets of p points; trailing axes are independent lines.

    Returns
    -------
    array, shape (p, ...)
        Exact for polynomials up to degree p. The weight of f(0) is minus their sum.
    """
    w = 1.0 / t
    for q in range(len(t)):
        for other in range(len(t)):
            if other != q:
                w[q] *= t[other] / (t[other] - t[q])
    return w


def baseless_weights(t: Array) -> Array:
    """Weights w with f'(0) ~ sum_q w_q f(t_q), where f(0) is not known; t of shape (p,), p >= 2."""
    p = len(t)
    gap = t[:, None] - t[None, :]
    np.fill_diagonal(gap, 1.0)
    w = np.zeros(p)
    for q in range(p):
        for left_out in range(p):
            if left_out != q:
                rest = [r for r in range(p) if r not in (q, left_out)]
                w[q] += np.prod(-t[rest]) / np.prod(gap[q, rest]) / gap[q, left_out]
    return w


def solve_lines(
    t: Array, values: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[Any], Array, NDArray[Any] | None, NDArray[Any] | None]:
    """J from complete lines, B points at once.

    Parameters
    ----------
    t : array, shape (p, m, B)
        Offsets along each input, in x's units, nearest first.
    values : array, shape (p, m, B, n)
    y : array, shape (B, n)

    Returns
    -------
    coef : array, shape (B, n, m)
    weights : array, shape (p, m, B)
    low : array, shape (B, n, m), or None
        The difference to the rule that ``embedded`` leaves; None where there is but one point.
    rest : array, shape (B, n, m), or None
        The highest difference of each line, in units of one evaluation's noise.
    """
    w = derivative_weights(t)
    coef = combine(w, values, y)
    p = len(t)
    if p == 1:
        return coef, w, None, None
    low = coef - combine(derivative_weights(t[: embedded(p)]), values, y)
    return coef, w, low, combine(highest_difference(t), values, y)


def embedded(p: int) -> int:
    """How many of the p points of a line, nearest first, make the rule to compare with."""
    return p - 2 if p > 3 else p - 1


def highest_difference(t: Array) -> Array:
    """Weights c of f(t_q) - f(0), shape (p, ...), in their highest divided difference; p >= 2.

    Scaled so that independent noise of f at all points, 0 included, leaves its own size.
    """
    c = 1.0 / t
    for q in range(len(t)):
        for other in range(len(t)):
            if other != q:
                c[q] /= t[q] - t[other]
    c /= np.abs(c).max(axis=0)  # first: squares of 1 / h^p could overflow
    return np.asarray(c / np.sqrt(np.square(c).sum(axis=0) + np.square(c.sum(axis=0))))


def combine(w: Array, values: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """sum_q w_q (f_q - y) as (B, n, m)."""
    first = values[0]
    m = len(first)
    if first.size > PART and m > 1:
        # Large stencils go through the cache in parts: one pass over memory in place of three.
        total = np.empty_like(first)
        part = max(1, PART * m // first.size)
        for start in range(0, m, part):
            lines = slice(start, start + part)
            total[lines] = combine(w[:, lines], values[:, lines], y).transpose(2, 0, 1)
        return np.asarray(total.transpose(1, 2, 0))
    # f_q - y first: both are close, so the difference is exact and the weights act on it alone.
    total = first - y
    total *= w[0][..., None]
    for q in range(1, len(w)):
        term = values[q] - y
        term *= w[q][..., None]
        total += term
    return np.asarray(total.transpose(1, 2, 0))


class Lines:
    """J from incomplete lines at one point: failed outputs, replaced and missed points.

    Parameters
    ----------
    columns : array of int, shape (k,)
        The input that each sample moves.
    t : array, shape (k,)
        How far along it.
    drift : dict of int to array, shape (m,)
        What samples were moved besides, by row.
    values : array, shape (k, n)
        Outputs; nan where failed.
    y : array, shape (n,)
    m : int
        Number of inputs.

    Attributes
    ----------
    coef, low : array, shape (n, m)
        J, and its difference to the rule that ``embedded`` leaves of a line (nan where none).
    rest : array, shape (n, m)
        Highest difference of each line, in units of one evaluation's noise; nan where it has but
        one point beside x, or one that was reached beside it.
    change : array, shape (n, m)
        The largest change along each line; nan where nothing is known of it.
    diag, base : array, shape (n, m)
        Variance of an entry at unit noise of its own samples, and the weight of the base.
    lost : array of bool, shape (n, m)
        Entries that no sample determines.
    """

    def __init__(
        self,
        columns: NDArray[np.intp],
        t: Array,
        drift: dict[int, Array],
        values: NDArray[Any],
        y: NDArray[Any],
        m: int,
    ) -> None:
        n = y.shape[0]
        self.columns, self.t, self.drift = columns, t, drift
        self.coef = np.zeros((n, m), dtype=values.dtype)
        self.low = np.zeros((n, m), dtype=values.dtype)
        self.rest = np.full((n, m), np.nan, dtype=values.dtype)
        self.change = np.full((n, m), np.nan)
        self.diag = np.zeros((n, m))
        self.base = np.zeros((n, m))
        self.lost = np.zeros((n, m), dtype=bool)
        good = np.isfinite(np.concatenate([y[None], values])).T  # (n, 1 + k)
        patterns, of = np.unique(good, axis=0, return_inverse=True)
        for g, pattern in enumerate(patterns):
            outputs = np.flatnonzero(of.ravel() == g)
            base = np.where(pattern[0], y[outputs], 0.0)
            change = np.where(pattern[1:, None], values[:, outputs], 0.0) - base
            self._group(outputs, pattern, change)

    def _group(self, outputs: NDArray[np.intp], good: Mask, change: NDArray[Any]) -> None:
        """Solve for outputs that share what failed."""
        k, m = len(self.t), self.coef.shape[1]
        weights: Array = np.zeros((m, k))
        lower: Array = np.zeros((m, k))
        base: Array = np.zeros(m)
        has_base = bool(good[0])
        for j in range(m):
            line = np.flatnonzero((self.columns == j) & good[1:] & (self.t != 0))
            # Of points that a rig brought to one place, one: two have no slope between them.
            line = line[np.unique(self.t[line], return_index=True)[1]]
            line = line[np.argsort(np.abs(self.t[line]), kind="stable")]
            if len(line) < (1 if has_base else 2):
                self.lost[outputs, j] = True
                continue
            if has_base:
                self.change[outputs, j] = np.abs(change[line]).max(0)
            rule = derivative_weights if has_base else baseless_weights
            weights[j, line] = rule(self.t[line])
            base[j] = -weights[j, line].sum() if has_base else 0.0
            near = line[: embedded(len(line))]
            if len(near) > 1 - has_base:
                lower[j, near] = rule(self.t[near])
            if has_base and len(line) > 1 and not any(row in self.drift for row in line.tolist()):
                self.rest[outputs, j] = highest_difference(self.t[line]) @ change[line]
        if self.drift:
            # A point off its line carries J drift as well: J0 = J (I + M), M = drift^T weights^T.
            rows = list(self.drift)
            mix = (np.eye(m) + np.stack([self.drift[r] for r in rows]).T @ weights[:, rows].T).T
            weights = np.asarray(np.linalg.solve(mix, weights))
            lower = np.asarray(np.linalg.solve(mix, lower))
            base = np.asarray(np.linalg.solve(mix, base))
        # Entries' variances are exact; that inputs come to share samples through their drift
        # is left out of products, an effect of second order in drift / step.
        self.diag[outputs] = np.square(weights).sum(1)
        self.base[outputs] = base
        self.coef[outputs] = (weights @ change).T
        rough = (lower @ change).T
        self.low[outputs] = np.where(lower.any(1), self.coef[outputs] - rough, np.nan)
