"""From samples on coordinate lines to J: finite-difference weights of the offsets really made.

The derivative at 0 of the polynomial through all good points of an input's line (Fornberg, Math.
Comp. 51 (1988) 699, for any spacing). One formula serves central and one-sided stencils, points
that replace failed ones, and points that a rig missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

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
    t: Array, values: NDArray[Any], y: NDArray[Any], embedded: bool
) -> tuple[NDArray[Any], Array, NDArray[Any] | None]:
    """J from complete lines, B points at once.

    Parameters
    ----------
    t : array, shape (p, m, B)
        Offsets along each input, in x's units, nearest first.
    values : array, shape (p, m, B, n)
    y : array, shape (B, n)
    embedded : bool
        Whether to compare with the rule of two orders less (p >= 4).

    Returns
    -------
    coef : array, shape (B, n, m)
    weights : array, shape (p, m, B)
    embedded : array, shape (B, n, m), or None
        The difference to that rule.
    """
    w = derivative_weights(t)
    coef = _combine(w, values, y)
    p = len(t)
    low = None if not embedded else coef - _combine(derivative_weights(t[: p - 2]), values, y)
    return coef, w, low


def _combine(w: Array, values: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """sum_q w_q (f_q - y) as (B, n, m)."""
    first = values[0]
    m = len(first)
    if first.size > PART and m > 1:
        # Large stencils go through the cache in parts: one pass over memory in place of three.
        total = np.empty_like(first)
        part = max(1, PART * m // first.size)
        for start in range(0, m, part):
            lines = slice(start, start + part)
            total[lines] = _combine(w[:, lines], values[:, lines], y).transpose(2, 0, 1)
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
    embedded : bool
        Whether to compare with the rule that leaves out the two farthest points of a line.

    Attributes
    ----------
    coef, low : array, shape (n, m)
        J, and its difference to that lower rule (nan where a line has no lower rule).
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
        embedded: bool,
    ) -> None:
        n = y.shape[0]
        self.columns, self.t, self.drift = columns, t, drift
        self.coef = np.zeros((n, m), dtype=values.dtype)
        self.low = np.zeros((n, m), dtype=values.dtype)
        self.diag = np.zeros((n, m))
        self.base = np.zeros((n, m))
        self.lost = np.zeros((n, m), dtype=bool)
        good = np.isfinite(np.concatenate([y[None], values])).T  # (n, 1 + k)
        patterns, of = np.unique(good, axis=0, return_inverse=True)
        for g, pattern in enumerate(patterns):
            outputs = np.flatnonzero(of.ravel() == g)
            base = np.where(pattern[0], y[outputs], 0.0)
            change = np.where(pattern[1:, None], values[:, outputs], 0.0) - base
            self._group(outputs, pattern, change, embedded)

    def _group(
        self, outputs: NDArray[np.intp], good: NDArray[np.bool_], change: NDArray[Any],
        embedded: bool,
    ) -> None:  # fmt: skip
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
            rule = derivative_weights if has_base else baseless_weights
            weights[j, line] = rule(self.t[line])
            base[j] = -weights[j, line].sum() if has_base else 0.0
            near = line[:-2] if len(line) > 3 else line[:-1]
            if embedded and len(near) > 1:
                lower[j, near] = rule(self.t[near])
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
        if embedded:
            rough = (lower @ change).T
            self.low[outputs] = np.where(lower.any(1), self.coef[outputs] - rough, np.nan)
