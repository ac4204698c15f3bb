"""The variance of one output, g^T C g with an estimated g: bias and standard errors.

Inputs are in units of their standard deviations, so that C is the correlation matrix R. The
estimated g has covariance S about the true one. For independent inputs nothing is of size (m, m)
but for an interval: gradients by 1e5 inputs are common.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gradiator_np._covariance import Row
from gradiator_np._propagation.input_errors import InputErrors
from gradiator_np._typing import Array

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
        return 4 * self._along + self.at_zero

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

    @cached_property
    def _along(self) -> float:
        return float(self.moments.rg @ self.moments.w)

    @cached_property
    def at_zero(self) -> float:
        """The variance of the quadratic form at g = 0."""
        return 2 * float(self.moments.srsr.sum())

    @cached_property
    def spectrum(self) -> tuple[Array, Array]:
        """g in the basis of the eigenvectors of S R, of which g^T R g is the sum of squares, and
        the eigenvalues."""
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
