"""The variance of one output, g^T C g with an estimated g: bias, standard errors, interval.

Inputs are in units of their standard deviations, so that C is the correlation matrix R. The
estimated g has covariance S about the true one. For independent inputs nothing is of size (m, m)
but for an interval: gradients by 1e5 inputs are common.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, ndtri

from gradiator_np._checks import EPS
from gradiator_np._covariance import Row
from gradiator_np._propagation.input_errors import InputErrors
from gradiator_np._typing import Array

#: Degrees of freedom from which a chi-squared is normal to rounding of its quantiles.
NORMAL = 1e8
#: How far g is moved for an end of an interval, as a logarithm; down to this share of that way.
LOG_RANGE = 40.0
ENOUGH = 1e-10
#: What is taken as seen along the noisiest direction at least, in its errors.
UNSEEN = 1e-9
#: Inputs up to which a covariance that they share is diagonalised for an interval (2 s at 1500);
#: beyond, the true g is taken along the estimated one.
LARGEST = 1500


class Moments(NamedTuple):
    """What the distribution of g^T R g and of its parts is made of, all (m,) but the last.

    ``rg`` = R g; ``w`` = S R g; ``rw`` = R S R g; diagonals ``s`` of S, ``sr`` of S R, ``rsr`` of
    R S R and ``srsr`` of S R S R; ``cube`` the trace of (S R)^3.
    """

    rg: Array
    w: Array
    rw: Array
    s: Array
    sr: Array
    rsr: Array
    srsr: Array
    cube: float

    @classmethod
    def independent(cls, g: Array, d: Array, f: Array) -> Moments:
        """For R = 1 and S = diag(d) + f f^T."""
        shared, inner = np.square(f).sum(1), f.T @ f
        s = d + shared
        w = d * g + f @ (f.T @ g)
        squares = d**2 + 2 * d * shared + np.sum((f @ inner) * f, 1)
        cube = (d**3).sum() + 3 * (d**2 * shared).sum() + np.trace(inner @ inner @ inner)
        cube += 3 * np.sum((f.T @ (d[:, None] * f)) * inner)
        return cls(g, w, w, s, s, s, squares, float(cube))

    @classmethod
    def correlated(cls, g: Array, s: Array, r: Array) -> Moments:
        """For matrices S and R."""
        p, rg = s @ r, r @ g
        w = s @ rg
        return cls(
            rg, w, r @ w, np.diagonal(s), np.diagonal(p), np.sum(r * p.T, 1),
            np.sum(p * p.T, 1), float(np.sum((p @ p) * p.T)),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """g^T R g of derivatives g (m,) per standard deviation, with errors S in that unit too.

    S = diag(d) + f f^T, (m,) and (m, r).
    """

    g: Array
    d: Array
    f: Array
    correlations: Array | None

    @classmethod
    def of(cls, g: Array, row: Row, inputs: InputErrors) -> QuadraticForm:
        m = len(g)
        unit = np.broadcast_to(row.unit, m)
        f = np.broadcast_to(row.factor, (m, row.factor.shape[1])) * unit[:, None]
        return cls(g, row.diag * unit**2, f, inputs.correlations)

    @cached_property
    def moments(self) -> Moments:
        if self.correlations is None:
            return Moments.independent(self.g, self.d, self.f)
        return Moments.correlated(self.g, np.diag(self.d) + self.f @ self.f.T, self.correlations)

    @cached_property
    def plug_in(self) -> float:
        """g^T R g with the estimated g."""
        return float(self.g @ self.moments.rg)

    @cached_property
    def bias(self) -> float:
        """By how much errors of g raise it on average: tr(S R)."""
        return float(self.moments.sr.sum())

    @property
    def variance(self) -> float:
        """Variance of g^T R g by the errors of g: 4 g^T R S R g + 2 tr(S R S R).

        That of normal errors at the true g (Rencher and Schaalje, Linear Models in Statistics,
        2008, theorem 5.2c); the estimated g puts in 4 tr(S R S R) more on average. Without that
        the error bars of shares that are two standard errors of g large held 0.76 of the true
        ones in place of 0.95: both are small where g is small by chance.
        """
        return 4 * self._along + self._at_zero

    def shares(self) -> tuple[Array, Array]:
        """Share of each input in the variance less its bias, and their standard errors.

        Share j is (g_j (R g)_j - (S R)_jj) / (g^T R g - tr(S R)). Its error is that of the
        quadratic form g^T A g with A the numerator's matrix less the share times R.
        """
        g, (rg, w, rw, s, sr, rsr, srsr, _) = self.g, self.moments
        whole = self.plug_in - self.bias
        share = (g * rg - sr) / whole
        slope = 0.25 * (rg**2 * s + g**2 * rsr + 2 * g * rg * sr)
        slope += share**2 * self._along - share * (rg * w + g * rw)
        at_zero = 0.5 * (sr**2 + s * rsr) + share**2 * float(srsr.sum()) - 2 * share * srsr
        # Both are squares, which rounding may leave below 0.
        return share, np.sqrt(np.maximum(4 * slope + 2 * at_zero, 0)) / abs(whole)

    def hidden(self, tail: float) -> bool:
        """Whether errors of g alone reach what was seen with probability ``tail`` or more."""
        return self._quantile(np.zeros(1), np.zeros(1), 1 - tail) >= self.plug_in

    def interval(self, tail: float) -> tuple[float, float]:
        """Ends between which the true g^T R g lies, each missed with probability ``tail``.

        A test inverted. Of the true g that give one value that is tried which is nearest to what
        was estimated, in its errors: g(z) = (1 - z S R)^-1 g, as in hybrid resampling (Chuang and
        Lai, Statist. Sinica 10, 2000, 1). There g^T R g is a sum of noncentral chi-squared
        variables, which Pearson's three-moment approximation describes (Imhof, Biometrika 48, 1961,
        419, section 4). What is seen below its mean at g = 0 counts as that mean: a short interval
        at 0 would be luck.
        """
        if self.bias == 0:
            return self.plug_in, self.plug_in
        h, s = self._spectrum()
        low = 0.0 if self.hidden(tail) else self._end(h, s, 1 - tail)
        return low, self._end(h, s, tail)

    @cached_property
    def _along(self) -> float:
        return float(self.moments.rg @ self.moments.w)

    @cached_property
    def _at_zero(self) -> float:
        return 2 * float(self.moments.srsr.sum())

    def _spectrum(self) -> tuple[Array, Array]:
        """Eigenvalues of S R, and g in their basis: g^T R g is the sum of squares of that."""
        if self.correlations is None and not self.f.any():
            return self.g, self.d
        if len(self.g) > LARGEST:
            size = np.sqrt(self.plug_in)
            return np.array([size]), np.array([self._along / self.plug_in if size else self.bias])
        s, h = np.diag(self.d) + self.f @ self.f.T, self.g
        if self.correlations is not None:
            values, vectors = np.linalg.eigh(self.correlations)
            root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
            s, h = root @ s @ root, root @ h
        values, vectors = np.linalg.eigh(s)
        return h @ vectors, np.maximum(values, 0.0)

    def _end(self, h: Array, s: Array, p: float) -> float:
        """The true value at which what was seen is the quantile p of what is estimated."""
        top = float(s.max())
        # Along the noisiest direction any value can be reached, unless nothing was seen there.
        least = np.where(s == top, UNSEEN * np.sqrt(top), 0.0)
        h, share = np.copysign(np.maximum(np.abs(h), least), h), s / top

        def moved(log: float) -> Array:
            # (1 - z s)^-1 h, with 1 - z top = e^log: z runs from 1 / top to -inf.
            return np.asarray(h / (1 - share + share * np.exp(log)))

        def excess(log: float) -> float:
            return self._quantile(moved(log), s, p) - seen

        rest = float(np.square(moved(LOG_RANGE)).sum())
        seen = self.plug_in if p > 0.5 else max(self.plug_in, rest + self.bias)
        side = 1.0 if excess(0.0) > 0 else -1.0
        first = np.sqrt(self.variance) / (2 * seen)
        inner, outer = 0.0, side * float(np.clip(first, EPS, 1.0))
        while side * excess(outer) > 0:
            if abs(outer) >= LOG_RANGE:
                return rest if side > 0 else np.inf
            inner, outer = outer, side * min(2 * abs(outer), LOG_RANGE)
        end = brentq(excess, inner, outer, xtol=ENOUGH * abs(outer), rtol=4 * EPS)
        return float(np.square(moved(end)).sum())

    def _quantile(self, h: Array, s: Array, p: float) -> float:
        """Quantile of the estimate of g^T R g where g is ``h`` in the basis of eigenvalues s."""
        squares = np.square(h)
        mean = float(squares.sum()) + self.bias
        sd = np.sqrt(4 * float(squares @ s) + self._at_zero)
        if sd == 0:
            return mean
        skew = (8 * self.moments.cube + 24 * float(squares @ np.square(s))) / sd**3
        dof = 8 / skew**2 if skew > 0 else np.inf
        if dof > NORMAL:
            return float(mean + sd * ndtri(p))
        return float(mean + sd * (chdtri(dof, 1 - p) - dof) / np.sqrt(2 * dof))
