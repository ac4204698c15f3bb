r"""The Gaussian process with linear trend behind `Taylor`, in scaled units.

.. math:: y_i = c_i + J_i u + \kappa_i g_i(u) + \sigma_i e / \sqrt{w}

The trend, c and J, is free; e is standard normal, g a Gaussian process: a random Taylor series of
order two and up, or, at short length scales, a stationary process (`kernel`). A state of its
hyperparameters is a length scale rho, a curvature kappa and a noise sigma; decompositions depend on
rho alone, likelihoods on the noise-to-curvature ratio sigma^2 / kappa^2 as well. Beside the terms
that all outputs share, a series g_i holds the square and the cube of the output's own slope, J_i u:
f is often a function of one mix of inputs, as exponentials, products and powers are. Coefficients
are generalised least squares in each state, averaged over the states (Bayesian model averaging).
Value and gradient at another point than the centre are those of trend and process there, predicted
from the same decompositions.

Restricted likelihood: Patterson and Thompson, Biometrika 58 (1971) 545. It is that of the
*contrasts*, combinations of the samples that no trend reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from gradiator_np._checks import EPS
from gradiator_np._typing import Array, Index, Mask
from gradiator_np.kernels.taylor import collapse, mixture_interval, state_likelihood
from gradiator_np.solvers._taylor.kernel import Kernel

#: Grid points a decade of amplitudes.
PER = 4
#: A cell of 1/4 decade, as degrees of freedom: uniform in log sd over +-ln(10)/8 has the
#: standard deviation 0.166 = 1/sqrt(2 * 18).
NU = 18.0
#: Curvature amplitude from 1e-2 to 10 times the spread of the output (times radius / rho).
N_Z = 3 * PER + 1
Z_MIN = -2.0 * PER
#: Noise from 1e-12 to 10 times the spread of the output.
N_S = 13 * PER + 1
S_MIN = -12 * PER
#: Length scales of a random Taylor series, in median radii of the samples: 1, 3, 10, 32, 100.
RHO = 10.0 ** np.array([0.0, 0.5, 1.0, 1.5, 2.0])
#: Those of a stationary process: 0.32, 0.56, 1, 1.8.
RHO_STATIONARY = 10.0 ** np.array([-0.5, -0.25, 0.0, 0.25])
#: Variance of the part along the slope, in units of what all directions have by themselves,
#: m (m + 5) / 2: of 54 functions, the median has 0.4 of its curvature in the direction of its
#: slope, where a random one would have 0.07. With it the error is 0.65 to 0.8 of that without
#: (displacements of 3 %, 3 samples an input), and 0.8 to 0.9 (30 %); 0.1 to 1 do nearly as well.
ALIGNED = 2.0 / 3.0
#: Standard deviations of curvature rest on one estimate of the anisotropy, of the slopes and on one
#: family of kernels: measured. Those of noise do not.
WIDER = 1.2


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


@dataclass(frozen=True, slots=True)
class ContrastSpectrum:
    """Covariance of the Gaussian process at one length scale, diagonal among the contrasts."""

    lam: Array  # (d,) eigenvalues of K among the contrasts
    t: Array  # (k, d) contrasts
    gain: Array  # (p, d) covariance of the least-squares coefficients with each contrast
    reach: Array  # (p, k) covariance of the least-squares coefficients with the samples
    cov0: Array  # (p, p) covariance of the least-squares coefficients at unit curvature
    floor: float  # rounding of K, as a noise-to-curvature ratio

    @classmethod
    def of(cls, lin: TrendFactors, cov: Array) -> ContrastSpectrum:
        """Eigenvectors of P K P, P the projection on the contrasts, but for its null space.

        That is lifted above all others, apart from small eigenvalues: half the time of Z' K Z with
        a basis Z of the contrasts.
        """
        q1 = lin.q1
        kq = cov @ q1
        within = q1.T @ kq
        half = kq - 0.5 * q1 @ within
        between = cov - half @ q1.T - q1 @ half.T
        lam, vec = np.linalg.eigh(between + (2.0 * np.linalg.norm(between)) * (q1 @ q1.T))
        d = len(cov) - lin.rank
        lam, t = lam[:d], np.ascontiguousarray(vec[:, :d])
        cov0 = lin.back @ within @ lin.back.T
        top = max(float(lam[-1]), 0.0) if d else float(np.trace(cov0))
        floor = max(8 * EPS * top, np.finfo(float).tiny)
        reach = lin.back @ kq.T
        return cls(np.maximum(lam, 0.0), t, reach @ t, reach, cov0, floor)


class LocalErrors(NamedTuple):
    """What least squares misses of value and gradient at a point, before curvature is predicted."""

    trend: Array  # (p, p) value and gradient there of the coefficients
    gain: Array  # (p, d) covariance of the errors with each contrast
    cov0: Array  # (p, p) covariance of the errors at unit curvature


@dataclass(frozen=True, slots=True)
class PosteriorMoments:
    """Posterior of some outputs, in scaled units; p numbers, the value first if it was fitted."""

    beta: Array  # (n, p) value and gradient
    cov: Array  # (n, p, p)
    half: Array  # (n, p) half width of the 95 % interval
    noise: Array  # (n,)
    log_rho: Array  # (n,) mean of log rho
    loo: Array  # (k, n) leave-one-out residual in its own standard deviations


@dataclass(frozen=True, slots=True)
class StateAverage:
    """The posterior of the states of some outputs; S states are likely enough to count."""

    keep: Mask  # (R, C) which states those are
    mass: Array  # (n, S)
    power: Array  # (n, S) mass times curvature, in variance
    noise: Array  # (n,)

    @property
    def kappa2(self) -> Array:
        """Curvature in variance, shape (n, S)."""
        mass = self.mass
        return np.divide(self.power, mass, out=np.zeros_like(mass), where=mass > 0)


class LengthScaleGrid:
    """The samples' covariance at every length scale: one decomposition serves all their outputs.

    Parameters
    ----------
    rows : SharedSamples
    kernels : sequence of Kernel
        One for each length scale, which are in the units of u.
    unit : float
        Typical |u|: amplitudes are rho / unit times the spread of the output.
    """

    def __init__(self, rows: SharedSamples, kernels: Sequence[Kernel], unit: float) -> None:
        self.rows, self.kernels, self.unit = rows, tuple(kernels), unit
        self.lin = rows.linear(contrasts=False)
        self.dof = len(rows.u) - self.lin.rank
        # Column c = s + Z - 1 - z of the noise-to-curvature ratio.
        self.nominal = 10.0 ** (2.0 * (np.arange(N_S + N_Z - 1) + S_MIN - N_Z + 1 - Z_MIN) / PER)
        root, self._v = rows.root, rows.u * rows.anisotropy
        self.spectra = [
            ContrastSpectrum.of(
                self.lin,
                (k.rho / unit) ** 2 * (root * k.matrix(self._v, rows.additive) * root.T),
            )
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
        """Errors of least squares in value and gradient at u, for length scale ``a``.

        Parameters
        ----------
        a : int
        u : array, shape (m,)
            A displacement in scaled units, 0 for the centre. The value is left out where the fit
            has no intercept.
        """
        rows, kernel, spectrum, lin = self.rows, self.kernels[a], self.spectra[a], self.lin
        trend = np.eye(len(lin.back))
        if rows.intercept:
            trend[0, 1:] = u
        local = kernel.local(u * rows.anisotropy, self._v, rows.additive)
        power = (kernel.rho / self.unit) ** 2
        by_u = np.concatenate([[1.0], rows.anisotropy])[:, None]
        used = slice(int(not rows.intercept), None)
        cross = (power * by_u * local.cross * rows.root.T)[used]
        own = (power * by_u * local.own * by_u.T)[used, used]
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


class WoodburyFactor(NamedTuple):
    """Two more columns F in the covariance, the square and the cube along the slope.

    The Cholesky factor of I + F' P F, as in Woodbury's identity; P is the inverse without them.
    """

    l11: Array
    l21: Array
    l22: Array
    a1: Array  # L^-1 F' P y
    a2: Array

    @classmethod
    def of(cls, products: Array) -> WoodburyFactor:
        """From y'Pf1, y'Pf2, f1'Pf1, f1'Pf2, f2'Pf2 on the last axis."""
        y1, y2, s11, s21, s22 = np.moveaxis(products, -1, 0)
        l11 = np.sqrt(1.0 + s11)
        l21 = s21 / l11
        l22 = np.sqrt(np.maximum(1.0 + s22 - l21 * l21, 1.0))  # at least 1 but for rounding
        a1 = y1 / l11
        return cls(l11, l21, l22, a1, (y2 - l21 * a1) / l22)

    def whiten(self, f1: Array, f2: Array, axes: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """L^-1 (f1, f2), with the factor's entries spread over further ``axes``."""
        l11, l21, l22 = (np.expand_dims(a, axes) for a in self[:3])
        w1 = f1 / l11
        return w1, (f2 - l21 * w1) / l22


class OutputPosteriors:
    """Restricted likelihood and posterior of some outputs, each in every state.

    Parameters
    ----------
    grid : LengthScaleGrid
    y : array, shape (k, n)
        Scaled outputs.
    first, last : array of int, shape (n,)
        Noise indices allowed, ``last`` excluded.
    nu : array, shape (n,)
        Degrees of freedom of the amplitude within a cell of the grid.
    """

    def __init__(
        self, grid: LengthScaleGrid, y: Array, first: Index, last: Index, nu: Array
    ) -> None:
        self.grid, self.first, self.last, self.nu = grid, first, last, nu
        n = y.shape[1]
        self.y = grid.rows.root * y
        contrasts = [c.t.T @ self.y for c in grid.spectra]
        quad = np.stack([np.square(t).T @ i.T for t, i in zip(contrasts, grid.inverse)], 1)
        powers = self._powers(self._slopes(contrasts, quad))
        #: The outputs and their slopes' powers: (k, 3 n) for each rho, then as contrasts.
        self.columns = [np.hstack([self.y, *self._scaled(powers, k)]) for k in grid.kernels]
        self.contrasts = [
            np.hstack([t, c.t.T @ columns[:, n:]])
            for t, c, columns in zip(contrasts, grid.spectra, self.columns)
        ]
        self.factors, logdet = [], np.empty_like(quad)
        for a, t in enumerate(self.contrasts):
            y0, f1, f2 = np.split(t, 3, axis=1)
            pairs = np.hstack([y0 * f1, y0 * f2, f1 * f1, f1 * f2, f2 * f2])
            products = (grid.inverse[a] @ pairs).reshape(-1, 5, n)
            factor = WoodburyFactor.of(np.moveaxis(products, 1, 2))
            explained = (np.square(factor.a1) + np.square(factor.a2)).T
            quad[:, a] = np.maximum(quad[:, a] - explained, 1e-12 * quad[:, a])
            logdet[:, a] = grid.logdet[a] + 2.0 * np.log(factor.l11 * factor.l22).T
            self.factors.append(factor)
        self.quad, self.logdet = quad, logdet

    def _slopes(self, contrasts: list[Array], quad: Array) -> Array:
        """Slopes (m, n) in the likeliest state of each output, shared terms alone."""
        grid, lin = self.grid, self.grid.lin
        score = grid.logdet + grid.dof * np.log(np.maximum(quad, np.finfo(float).tiny))
        best = score.reshape(len(score), -1).argmin(1)
        rho_of, ratio_of = np.divmod(best, score.shape[2])
        beta = lin.back @ (lin.q1.T @ self.y)
        center = np.zeros(grid.rows.u.shape[1])
        for a in np.unique(rho_of):
            mine = np.flatnonzero(rho_of == a)
            weighted = grid.inverse[a][ratio_of[mine]].T * contrasts[a][:, mine]
            beta[:, mine] -= grid.errors_at(a, center).gain @ weighted
        return np.asarray(beta[int(grid.rows.intercept) :])

    def _powers(self, slopes: Array) -> tuple[Array, Array]:
        """Square and cube of the displacement along each slope, (k, n) each, in units of v."""
        rows = self.grid.rows
        size = np.linalg.norm(slopes / rows.anisotropy[:, None], axis=0)
        self._directions = slopes / np.where(size > 0, size, np.inf)
        along = rows.u @ self._directions
        square, cube = (root * along**p for p, root in self._weights.items())
        return rows.root * square, rows.root * cube

    @property
    def _weights(self) -> dict[int, float]:
        """Standard deviations of the powers along the slope."""
        m = self.grid.rows.u.shape[1]
        weight = ALIGNED * m * (m + 5) / 2
        return {p: float(np.sqrt(weight / factorial(p))) for p in (2, 3)}

    def _powers_at(self, u: Array, kernel: Kernel) -> Array:
        """Value, if it is fitted, and gradient of both powers at u, shape (p, 2 n)."""
        along = u @ self._directions
        both = tuple(
            root * np.vstack([along**p, p * along ** (p - 1) * self._directions])
            for p, root in self._weights.items()
        )
        return np.hstack(self._scaled(both, kernel))[int(not self.grid.rows.intercept) :]

    def _scaled(self, powers: Sequence[Array], kernel: Kernel) -> tuple[Array, Array]:
        """The powers beside a kernel, zero beside one that is no series: they grow without bound.

        With them the shortest stationary process passed for noise, and bars were ten times wider.
        """
        square, cube = powers
        rho = kernel.rho if kernel.is_series else np.inf
        return square / (rho * self.grid.unit), cube / (rho**2 * self.grid.unit)

    def likelihood(self) -> Array:
        """Restricted likelihood of each output in every state, shape (n, R, Z, S)."""
        n, n_rho = self.quad.shape[:2]
        out = np.empty((n, n_rho, N_Z, N_S))
        state_likelihood(
            self.quad, self.logdet, float(self.grid.dof), Z_MIN, float(PER),
            self.nu, self.first, self.last, out,
        )  # fmt: skip
        return out

    def averaged(self, prior: Array, like: Array) -> StateAverage:
        """The states that are likely, and how likely."""
        grid, quad = self.grid, self.quad
        mass, power, noise2 = np.empty_like(quad), np.empty_like(quad), np.empty(len(quad))
        # Ratios below a tenth of rounding are one state.
        floors = np.array([c.floor for c in grid.spectra])
        start = np.searchsorted(grid.nominal, 0.1 * floors)
        collapse(
            like, prior, quad, float(grid.dof), Z_MIN, float(PER), self.nu, start,
            grid.nominal, mass, power, noise2,
        )  # fmt: skip
        keep = mass.max(0) > 1e-3
        total = np.where(keep, mass, 0.0).sum((1, 2))[:, None]
        return StateAverage(keep, mass[:, keep] / total, power[:, keep] / total, np.sqrt(noise2))

    def moments(self, states: StateAverage, u: Array) -> PosteriorMoments:
        """Posterior moments of value and gradient at u (m,), averaged over the states."""
        mass, power, kappa2 = states.mass, states.power, states.kappa2
        beta_s, cov_s, wide = self._in_states(states.keep, u)
        beta = np.einsum("ns,snp->np", mass, beta_s)
        shift = beta_s - beta
        var = np.einsum("spp->sp", cov_s)[:, None, :] + np.square(wide).sum(1)
        half = np.empty_like(beta)
        mixture_interval(mass, shift, np.sqrt(kappa2.T[:, :, None] * var), 0.95, half)
        n, p = beta.shape
        cov = (power @ cov_s.reshape(len(cov_s), -1)).reshape(n, p, p)
        # Outer products, weighted: of what the states differ in, and of the slopes' powers.
        parts = np.concatenate(
            [
                np.sqrt(mass.T)[:, :, None] * shift,
                *np.sqrt(power.T)[:, :, None] * wide.swapaxes(0, 1),
            ]
        ).swapaxes(0, 1)
        cov += np.matmul(parts.swapaxes(1, 2), parts)
        log_rho = mass @ np.repeat(np.log(self.grid.rho), states.keep.sum(1))
        return PosteriorMoments(beta, cov, half, states.noise, log_rho, self._leave_one_out(states))

    def _in_states(self, keep: Mask, u: Array) -> tuple[Array, Array, Array]:
        """Value and gradient at u (S, n, p), their shared covariance (S, p, p) at unit curvature,
        and square roots (S, 2, n, p) of what the slopes' powers add to it."""
        grid, lin = self.grid, self.grid.lin
        n, p = self.y.shape[1], len(lin.back)
        betas, covs, wides = [], [], []
        for a, kept in enumerate(keep):
            if not kept.any():
                continue
            errors = grid.errors_at(a, u)
            start = errors.trend @ (lin.back @ (lin.q1.T @ self.columns[a]))
            # The powers are known functions: what least squares misses of them counts.
            start[:, n:] -= self._powers_at(u, grid.kernels[a])
            r = grid.ratio[a][kept]
            scaled = errors.gain * grid.inverse[a][kept][:, None, :]
            shift = scaled.reshape(len(r) * p, grid.dof) @ self.contrasts[a]
            b = (start - shift.reshape(-1, p, 3 * n)).reshape(-1, p, 3, n).transpose(2, 0, 3, 1)
            factor = WoodburyFactor(*(part[kept] for part in self.factors[a]))
            w1, w2 = factor.whiten(b[1], b[2], (-1,))
            betas.append(b[0] - w1 * factor.a1[..., None] - w2 * factor.a2[..., None])
            wides.append(WIDER * np.stack([w1, w2], 1))
            curvature = errors.cov0 - scaled @ errors.gain.T
            # Rounding: no estimate beats least squares with the noise alone.
            var = np.einsum("spp->sp", curvature)
            np.maximum(var, 0.0, out=var)
            back = errors.trend @ lin.back
            covs.append(WIDER**2 * curvature + r[:, None, None] * (back @ back.T))
        return np.concatenate(betas), np.concatenate(covs), np.concatenate(wides)

    def _leave_one_out(self, states: StateAverage) -> Array:
        """alpha_a / (kappa sqrt(P_aa)), P the contrasts' precision, in the likeliest state."""
        grid, keep, mass, kappa2 = self.grid, states.keep, states.mass, states.kappa2
        out = np.zeros_like(self.y)
        rho_of, ratio_of = np.nonzero(keep)
        best = mass.argmax(1)
        for s in np.unique(best):
            mine, a, c = np.flatnonzero(best == s), rho_of[s], ratio_of[s]
            spectrum, inverse = grid.spectra[a], grid.inverse[a][c]
            n = len(mass)
            mine3 = np.concatenate([mine, mine + n, mine + 2 * n])
            pulled = spectrum.t @ (inverse[:, None] * self.contrasts[a][:, mine3])
            alpha, f1, f2 = np.split(pulled, 3, axis=1)
            factor = WoodburyFactor(*(part[c, mine] for part in self.factors[a]))
            w1, w2 = factor.whiten(f1, f2)
            alpha = alpha - w1 * factor.a1 - w2 * factor.a2
            precision = (np.square(spectrum.t) @ inverse)[:, None] - np.square(w1) - np.square(w2)
            out[:, mine] = alpha / np.sqrt(np.maximum(precision * kappa2[mine, s], 1e-300))
        return out
