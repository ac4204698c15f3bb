"""Decompositions of what samples share: the linear trend, and the process among its contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import solve_triangular

from gradiator_np._checks import EPS
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._taylor.kernel import Kernel, LocalCovariance
from gradiator_np.solvers._taylor.slope_powers import NoPowers, SlopePowers

#: Grid points a decade of amplitudes.
PER = 4
#: Curvature amplitude from 1e-2 to 10 times the spread of the output (times radius / rho).
N_Z = 3 * PER + 1
Z_MIN = -2.0 * PER
#: Noise from 1e-12 to 10 times the spread of the output.
N_S = 13 * PER + 1
S_MIN = -12 * PER
#: From this many samples on, where the trend takes this share of them, a basis of the contrasts is
#: worth its time.
LARGE, WIDE = 300, 0.2


@dataclass(frozen=True, slots=True)
class TrendFactors:
    """Factors of the trend's design matrix X (k, p): its range, contrasts, pseudo-inverse."""

    q1: Array  # (k, rank)
    z: Array  # (k, k - rank)
    back: Array  # (p, rank), X^+ = back q1^T
    null: Array  # (p, p - rank)
    rank: int
    cond: float


def factor_trend(x: Array, tol: float = 1e-11, contrasts: bool = True) -> TrendFactors:
    """Factor a design matrix; directions below ``tol`` of the largest singular value are null.

    ``z`` costs k^2 numbers and has no columns where ``contrasts`` are not asked for.
    """
    # The triangle's singular values are those of x, at a tenth of the time where x is tall; their
    # vectors are needed where it is rank-deficient.
    p = x.shape[1]
    if len(x) < p:
        q, top = np.eye(len(x)), x
    else:
        q, top = np.linalg.qr(x, "complete") if contrasts else np.linalg.qr(x)
    s = np.linalg.svd(top[:p], compute_uv=False)
    rank = int((s > tol * s[0]).sum()) if s.size else 0
    cond = float(s[0] / s[rank - 1]) if rank else np.inf
    if rank == p == len(top[:p]):
        back, null = solve_triangular(top[:p], np.eye(p)), np.zeros((p, 0))
    else:
        left, s, vt = np.linalg.svd(top[:p])
        q = np.hstack([q[:, : len(left)] @ left, q[:, len(left) :]])
        back, null = vt[:rank].T / s[:rank], vt[rank:].T
    z = q[:, rank:] if contrasts else q[:, :0]
    return TrendFactors(q[:, :rank], z, back, null, rank, cond)


class Rows(Protocol):
    """What samples are to the model: a linear trend, and the process that they saw."""

    @property
    def root(self) -> Array:
        """Roots of the weights, shape (k, 1)."""

    @property
    def n_inputs(self) -> int:
        """m."""

    def linear(self, contrasts: bool) -> TrendFactors:
        """Factors of the weighted design matrix; see `factor_trend`."""

    def covariance(self, kernel: Kernel) -> Array:
        """Of the process between the samples, weighted as these, shape (k, k)."""

    def trend_at(self, u: Array) -> Array:
        """What is predicted at u of the coefficients, shape (p, p)."""

    def local(self, kernel: Kernel, u: Array) -> LocalCovariance:
        """Of what is predicted of the process at u, with the samples."""

    def slope_powers(self, coefficients: Array) -> SlopePowers | NoPowers:
        """Curvature along the slopes among the coefficients (p, n)."""


@dataclass(frozen=True, slots=True)
class SharedSamples:
    """Samples that some outputs share, with what the kernel takes them for.

    Attributes
    ----------
    u : array, shape (k, m)
        Scaled displacements.
    anisotropy : array, shape (m,)
        Inverse length scale of each input, relative to the others.
    additive : float
        Weight of functions of one input each.
    w : array, shape (k,)
        Weights.
    intercept : bool
    """

    u: Array
    anisotropy: Array
    additive: float
    w: Array
    intercept: bool

    @property
    def root(self) -> Array:
        """Roots of the weights, shape (k, 1)."""
        return np.asarray(np.sqrt(self.w)[:, None])

    def linear(self, contrasts: bool) -> TrendFactors:
        """Factors of the weighted design matrix; see `factor_trend`."""
        x = np.hstack([np.ones((len(self.u), 1)), self.u]) if self.intercept else self.u
        return factor_trend(self.root * x, contrasts=contrasts)

    @property
    def n_inputs(self) -> int:
        """m."""
        return int(self.u.shape[1])

    def covariance(self, kernel: Kernel) -> Array:
        """Of the process between the samples, weighted as these, shape (k, k)."""
        return np.asarray(
            self.root * kernel.matrix(self.u * self.anisotropy, self.additive) * self.root.T
        )

    def trend_at(self, u: Array) -> Array:
        """Value and gradient at u of the coefficients, shape (p, p)."""
        trend = np.eye(self.n_inputs + self.intercept)
        if self.intercept:
            trend[0, 1:] = u
        return trend

    def local(self, kernel: Kernel, u: Array) -> LocalCovariance:
        """Of value, if it is fitted, and gradient of the process at u, with the samples."""
        local = kernel.local(u * self.anisotropy, self.u * self.anisotropy, self.additive)
        by_u = np.concatenate([[1.0], self.anisotropy])[:, None]
        used = slice(int(not self.intercept), None)
        return LocalCovariance(
            (by_u * local.cross * self.root.T)[used], (by_u * local.own * by_u.T)[used, used]
        )

    def slope_powers(self, coefficients: Array) -> SlopePowers:
        """Curvature along the slopes among the coefficients (p, n)."""
        slopes = coefficients[int(self.intercept) :]
        return SlopePowers.of(self.u, self.root, self.anisotropy, slopes, self.intercept)


@dataclass(frozen=True, slots=True)
class ContrastSpectrum:
    """Covariance of the Gaussian process at one length scale, diagonal among the contrasts."""

    lam: Array  # (d,) eigenvalues of K among the contrasts
    t: Array  # (k, d) contrasts
    gain: Array  # (p, d) covariance of the least-squares coefficients with each contrast
    cov0: Array  # (p, p) covariance of the least-squares coefficients at unit curvature
    floor: float  # rounding of K, as a noise-to-curvature ratio

    @classmethod
    def of(cls, lin: TrendFactors, cov: Array) -> ContrastSpectrum:
        """Eigenvectors of P K P, P the projection on the contrasts, but for its null space: of
        Z' K Z where a basis Z of the contrasts is at hand."""
        kq = cov @ lin.q1
        within = lin.q1.T @ kq
        if lin.z.shape[1]:
            lam, vec = np.linalg.eigh(lin.z.T @ (cov @ lin.z))
            t = lin.z @ vec
        else:
            lam, t = _lifted(lin.q1, cov, kq, within)
        cov0 = lin.back @ within @ lin.back.T
        top = max(float(lam[-1]), 0.0) if lam.size else float(np.trace(cov0))
        floor = max(8 * EPS * top, np.finfo(float).tiny)
        return cls(np.maximum(lam, 0.0), t, lin.back @ (kq.T @ t), cov0, floor)


def _lifted(q1: Array, cov: Array, kq: Array, within: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of P K P without a basis of the contrasts.

    Its null space is lifted above all others, apart from small eigenvalues: half the time of
    Z' K Z where the trend takes few of the samples.
    """
    half = kq - 0.5 * q1 @ within
    between = cov - half @ q1.T - q1 @ half.T
    lam, vec = np.linalg.eigh(between + (2.0 * np.linalg.norm(between)) * (q1 @ q1.T))
    d = len(cov) - q1.shape[1]
    return lam[:d], np.ascontiguousarray(vec[:, :d])


class LocalErrors(NamedTuple):
    """What least squares misses of value and gradient at a point, before curvature is predicted."""

    trend: Array  # (p, p) value and gradient there of the coefficients
    gain: Array  # (p, d) covariance of the errors with each contrast
    cov0: Array  # (p, p) covariance of the errors at unit curvature


class LengthScaleGrid:
    """The samples' covariance at every length scale: one decomposition serves all their outputs.

    Parameters
    ----------
    rows : Rows
    kernels : sequence of Kernel
        One for each length scale, which are in the units of u.
    unit : float
        Typical |u|: amplitudes are rho / unit times the spread of the output.
    """

    def __init__(self, rows: Rows, kernels: Sequence[Kernel], unit: float) -> None:
        self.rows, self.kernels, self.unit = rows, tuple(kernels), unit
        k = len(rows.root)
        self.lin = rows.linear(contrasts=k > LARGE and (rows.n_inputs + 1) / k > WIDE)
        self.dof = len(rows.root) - self.lin.rank
        # Column c = s + Z - 1 - z of the noise-to-curvature ratio.
        self.nominal = 10.0 ** (2.0 * (np.arange(N_S + N_Z - 1) + S_MIN - N_Z + 1 - Z_MIN) / PER)
        self.spectra = [
            ContrastSpectrum.of(self.lin, (k.rho / unit) ** 2 * rows.covariance(k))
            for k in self.kernels
        ]
        self.ratio = np.array([self.nominal + c.floor for c in self.spectra])
        self.inverse = [1.0 / (c.lam + r[:, None]) for c, r in zip(self.spectra, self.ratio)]
        self.logdet = np.array([-np.log(i).sum(1) for i in self.inverse])

    @property
    def rho(self) -> Array:
        """Length scales, shape (R,)."""
        return np.array([k.rho for k in self.kernels])

    def errors_at(self, a: int, u: Array) -> LocalErrors:
        """Errors of least squares in what is predicted at u, for length scale ``a``.

        Parameters
        ----------
        a : int
        u : array, shape (m,)
            A displacement in scaled units, 0 for the centre. The value is left out where the fit
            has no intercept.
        """
        spectrum, lin = self.spectra[a], self.lin
        local = self.rows.local(self.kernels[a], u)
        power = (self.kernels[a].rho / self.unit) ** 2
        cross, own = power * local.cross, power * local.own
        trend = self.rows.trend_at(u)
        mixed = trend @ lin.back @ (lin.q1.T @ cross.T)
        return LocalErrors(
            trend,
            trend @ spectrum.gain - cross @ spectrum.t,
            trend @ spectrum.cov0 @ trend.T - mixed - mixed.T + own,
        )

    def keep_only(self, keep: Mask) -> None:
        """Forget the other length scales."""
        self.kernels = tuple(k for k, kept in zip(self.kernels, keep) if kept)
        self.ratio, self.logdet = self.ratio[keep], self.logdet[keep]
        self.spectra = [c for c, kept in zip(self.spectra, keep) if kept]
        self.inverse = [i for i, kept in zip(self.inverse, keep) if kept]
