"""The variance of one output, g^T C g with an estimated g: bias, standard errors, interval.

Inputs are in units of their standard deviations, so that C is the correlation matrix R. The
estimated g has covariance S about the true one. For independent inputs nothing is of size (m, m):
gradients by 1e5 inputs are common.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, ndtr, ndtri

from gradiator_np._covariance import Row
from gradiator_np._propagation.input_errors import InputErrors
from gradiator_np._typing import Array

#: Degrees of freedom from which a chi-squared is normal to rounding of its quantiles.
NORMAL = 1e8
#: Bisections of an end of an interval: a relative 2^-50.
HALVINGS = 50


class Moments(NamedTuple):
    """What the distribution of g^T R g and of its parts is made of, all (m,) but the last.

    ``g``; ``rg`` = R g; ``w`` = S R g; ``rw`` = R S R g; diagonals ``s`` of S, ``sr`` of S R,
    ``rsr`` of R S R and ``srsr`` of S R S R; ``cube`` the trace of (S R)^3.
    """

    g: Array
    rg: Array
    w: Array
    rw: Array
    s: Array
    sr: Array
    rsr: Array
    srsr: Array
    cube: float

    @classmethod
    def of(cls, g: Array, row: Row, inputs: InputErrors) -> Moments:
        """Of derivatives g per standard deviation, with the errors of ``row`` in that unit too."""
        d = np.broadcast_to(row.diag, g.shape)
        f = np.broadcast_to(row.factor, (len(g), row.factor.shape[1]))
        if inputs.correlations is None:
            return cls._independent(g, d * row.unit**2, f * np.ravel(row.unit)[:, None])
        f = f * np.ravel(row.unit)[:, None]
        return cls._correlated(g, np.diag(d * row.unit**2) + f @ f.T, inputs.correlations)

    @classmethod
    def _independent(cls, g: Array, d: Array, f: Array) -> Moments:
        shared, inner = np.square(f).sum(1), f.T @ f
        s = d + shared
        w = d * g + f @ (f.T @ g)
        squares = d**2 + 2 * d * shared + np.sum((f @ inner) * f, 1)
        cube = (d**3).sum() + 3 * (d**2 * shared).sum()
        cube += 3 * np.sum((f.T @ (d[:, None] * f)) * inner) + np.trace(inner @ inner @ inner)
        return cls(g, g, w, w, s, s, s, squares, float(cube))

    @classmethod
    def _correlated(cls, g: Array, s: Array, r: Array) -> Moments:
        p, rg = s @ r, r @ g
        w = s @ rg
        return cls(
            g, rg, w, r @ w, np.diagonal(s), np.diagonal(p), np.sum(r * p.T, 1),
            np.sum(p * p.T, 1), float(np.sum((p @ p) * p.T)),
        )  # fmt: skip

    @property
    def plug_in(self) -> float:
        """g^T R g with the estimated g."""
        return float(self.g @ self.rg)

    @property
    def bias(self) -> float:
        """By how much errors of g raise it on average: tr(R S)."""
        return float(self.sr.sum())

    @property
    def variance(self) -> float:
        """Variance of g^T R g by the errors of g: without bias, but no less than at g = 0.

        For normal errors it is 4 g^T R S R g + 2 tr(R S R S) at the true g, which the estimated one
        exceeds by 4 tr(R S R S) on average.
        """
        at_zero = 2 * float(self.srsr.sum())
        return max(4 * float(self.rg @ self.w) - at_zero, at_zero)

    def shares(self) -> tuple[Array, Array]:
        """Share of each input in the variance less its bias, and their standard errors.

        Share j is (g_j (R g)_j - (S R)_jj) / (g^T R g - tr(S R)). Its error is that of the
        quadratic form g^T A g with A the numerator's matrix less the share times R.
        """
        whole = self.plug_in - self.bias
        share = (self.g * self.rg - self.sr) / whole
        slope = 0.25 * (self.rg**2 * self.s + self.g**2 * self.rsr + 2 * self.g * self.rg * self.sr)
        slope = slope - share * (self.rg * self.w + self.g * self.rw)
        slope = slope + share**2 * float(self.rg @ self.w)
        at_zero = 0.5 * (self.sr**2 + self.s * self.rsr) - 2 * share * self.srsr
        at_zero = np.maximum(2 * (at_zero + share**2 * float(self.srsr.sum())), 0.0)
        return share, np.sqrt(np.maximum(4 * slope - at_zero, at_zero)) / abs(whole)

    def hidden(self, tail: float) -> bool:
        """Whether errors of g alone reach what was seen with probability ``tail`` or more."""
        return self._quantile(0.0, 1 - tail) >= self.plug_in

    def interval(self, tail: float) -> tuple[float, float]:
        """Ends between which the true g^T R g lies, each missed with probability ``tail``.

        A test inverted: where the true g is a multiple of the estimated one, g^T R g is a sum of
        noncentral chi-squared variables, which Pearson's three-moment approximation describes
        (Imhof, Biometrika 48, 1961, 419, section 4). What is seen below its mean at g = 0 counts
        as that mean: a short interval at 0 would be luck.
        """
        v = self.plug_in
        if v == 0 and self.bias == 0:
            return 0.0, 0.0
        seen = max(v, self.bias)
        return self._root(v, 1 - tail), self._root(seen, tail)

    def _root(self, seen: float, p: float) -> float:
        """The true value at which ``seen`` is the quantile p of what is estimated."""
        if self._quantile(0.0, p) >= seen:
            return 0.0  # `hidden`, where p is the upper tail
        low, high = 0.0, max(self.plug_in, seen)
        while self._quantile(high, p) < seen:
            low, high = high, 2 * high
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            if self._quantile(middle, p) < seen:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)

    def _quantile(self, true: float, p: float) -> float:
        """Quantile of the estimate of g^T R g where that is ``true``."""
        along = true / self.plug_in if self.plug_in > 0 else 0.0
        mean = true + self.bias
        sd = np.sqrt(4 * along * float(self.rg @ self.w) + 2 * float(self.srsr.sum()))
        third = 8 * self.cube + 24 * along * float(self.w @ self.rw)
        if sd == 0:
            return mean
        skew = third / sd**3
        dof = 8 / skew**2 if skew > 0 else np.inf
        if dof > NORMAL:
            return float(mean + sd * ndtri(p))
        return float(mean + sd * (chdtri(dof, 1 - p) - dof) / np.sqrt(2 * dof))


def tail_of(t: float) -> float:
    """The tail of a normal variable beyond a quantile of Student's t."""
    return float(ndtr(-t))
