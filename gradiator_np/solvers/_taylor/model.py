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
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from gradiator_np._typing import Array, Index, Mask
from gradiator_np.kernels.taylor import collapse, mixture_interval, state_likelihood
from gradiator_np.solvers._taylor.kernel import Kernel
from gradiator_np.solvers._taylor.spectrum import N_S, N_Z, PER, Z_MIN, LengthScaleGrid

#: A cell of 1/4 decade, as degrees of freedom: uniform in log sd over +-ln(10)/8 has the
#: standard deviation 0.166 = 1/sqrt(2 * 18).
NU = 18.0
#: Length scales of a random Taylor series, in median radii of the samples: 1, 3, 10, 32, 100.
RHO = 10.0 ** np.array([0.0, 0.5, 1.0, 1.5, 2.0])
#: Those of a stationary process: 0.32, 0.56, 1, 1.8.
RHO_STATIONARY = 10.0 ** np.array([-0.5, -0.25, 0.0, 0.25])
#: Standard deviations of curvature rest on one estimate of the anisotropy, of the slopes and on one
#: family of kernels: measured. Those of noise do not.
WIDER = 1.2


@dataclass(frozen=True, slots=True)
class PosteriorMoments:
    """Posterior of some outputs, in scaled units; p numbers, the value first if it was fitted."""

    beta: Array  # (n, p) value and gradient
    cov: Array  # (n, p, p)
    half: Array  # (n, p) half width of the 95 % interval
    noise: Array  # (n,)
    log_rho: Array  # (n,) mean of log rho

    def fill(self, out: Index, part: PosteriorMoments) -> None:
        """Set the outputs ``out`` to those of another one."""
        for field in fields(self):
            getattr(self, field.name)[out] = getattr(part, field.name)


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
        self._powers = grid.rows.slope_powers(self._slopes(contrasts, quad))
        #: The outputs and their slopes' powers: (k, 3 n) for each rho, then as contrasts.
        self.columns = [
            np.hstack([self.y, *self._scaled(self._powers.columns, k)]) for k in grid.kernels
        ]
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
        """Coefficients (p, n) in the likeliest state of each output, shared terms alone."""
        grid, lin = self.grid, self.grid.lin
        score = grid.logdet + grid.dof * np.log(np.maximum(quad, np.finfo(float).tiny))
        best = score.reshape(len(score), -1).argmin(1)
        rho_of, ratio_of = np.divmod(best, score.shape[2])
        beta = lin.back @ (lin.q1.T @ self.y)
        center = np.zeros(grid.rows.n_inputs)
        for a in np.unique(rho_of):
            mine = np.flatnonzero(rho_of == a)
            weighted = grid.inverse[a][ratio_of[mine]].T * contrasts[a][:, mine]
            beta[:, mine] -= grid.errors_at(a, center).gain @ weighted
        return np.asarray(beta)

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
        beta_s, var_s, wide, cov = self._in_states(states.keep, power, u)
        beta = np.einsum("ns,snp->np", mass, beta_s)
        shift = beta_s - beta
        var = var_s[:, None, :] + np.square(wide).sum(1)
        half = np.empty_like(beta)
        mixture_interval(mass, shift, np.sqrt(kappa2.T[:, :, None] * var), 0.95, half)
        # Outer products, weighted: of what the states differ in, and of the slopes' powers.
        parts = np.concatenate(
            [
                np.sqrt(mass.T)[:, :, None] * shift,
                *np.sqrt(power.T)[:, :, None] * wide.swapaxes(0, 1),
            ]
        ).swapaxes(0, 1)
        cov += np.matmul(parts.swapaxes(1, 2), parts)
        log_rho = mass @ np.repeat(np.log(self.grid.rho), states.keep.sum(1))
        return PosteriorMoments(beta, cov, half, states.noise, log_rho)

    def _in_states(self, keep: Mask, power: Array, u: Array) -> tuple[Array, Array, Array, Array]:
        """Value and gradient at u in each state, and its covariance without the slopes' powers.

        Returns
        -------
        beta : array, shape (S, n, p)
        var : array, shape (S, p)
            Diagonal of the covariance that all outputs share, at unit curvature.
        wide : array, shape (S, 2, n, p)
            Square roots of what the slopes' powers add to it.
        cov : array, shape (n, p, p)
            Sum of the shared covariances, weighted by ``power`` (n, S).
        """
        grid, lin = self.grid, self.grid.lin
        n, p = self.y.shape[1], len(lin.back)
        betas, variances, wides, cov = [], [], [], np.zeros((n, p, p))
        first = 0
        for a, kept in enumerate(keep):
            if not kept.any():
                continue
            errors = grid.errors_at(a, u)
            start = errors.trend @ (lin.back @ (lin.q1.T @ self.columns[a]))
            # The powers are known functions: what least squares misses of them counts.
            start[:, n:] -= np.hstack(self._scaled(self._powers.at(u), grid.kernels[a]))
            r, inverse = grid.ratio[a][kept], grid.inverse[a][kept]
            b = start - _weighted_products(errors.gain, inverse, self.contrasts[a])
            b = b.reshape(-1, p, 3, n).transpose(2, 0, 3, 1)
            factor = WoodburyFactor(*(part[kept] for part in self.factors[a]))
            w1, w2 = factor.whiten(b[1], b[2], (-1,))
            betas.append(b[0] - w1 * factor.a1[..., None] - w2 * factor.a2[..., None])
            wides.append(WIDER * np.stack([w1, w2], 1))
            back = errors.trend @ lin.back
            curvature = np.diagonal(errors.cov0) - inverse @ np.square(errors.gain).T
            # Rounding: no estimate beats least squares with the noise alone.
            lacking = np.maximum(-curvature, 0.0)
            noise = r[:, None] * np.square(back).sum(1)
            variances.append(WIDER**2 * (curvature + lacking) + noise)
            weight = power[:, first : first + len(r)]
            first += len(r)
            bent = weight.sum(1)[:, None, None] * errors.cov0
            bent -= _averaged_squares(errors.gain, inverse, weight)
            np.einsum("npp->np", bent)[...] += weight @ lacking
            cov += WIDER**2 * bent + (weight @ r)[:, None, None] * (back @ back.T)
        return np.concatenate(betas), np.concatenate(variances), np.concatenate(wides), cov

    def leave_one_out(self, states: StateAverage) -> Array:
        """Leave-one-out residuals (k, n) in their own standard deviations, in the likeliest state.

        alpha_a / (kappa sqrt(P_aa)), P the contrasts' precision.
        """
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


def _weighted_products(left: Array, weights: Array, right: Array) -> Array:
    """left diag(w) right for each row w of ``weights`` (S, d): (S, p, q) of (p, d) and (d, q)."""
    (p, d), q, s = left.shape, right.shape[1], len(weights)
    if p < q:
        weighted = (left * weights[:, None, :]).reshape(s * p, d)
        return np.asarray((weighted @ right).reshape(s, p, q))
    weighted = (weights.T[:, :, None] * right[:, None, :]).reshape(d, s * q)
    return np.asarray((left @ weighted).reshape(p, s, q).swapaxes(0, 1))


def _averaged_squares(left: Array, weights: Array, average: Array) -> Array:
    """Sums of left diag(w) left' over the rows w of ``weights`` (S, d), by each row of ``average``
    (n, S): shape (n, p, p), at min(n, S) products."""
    n, s = average.shape
    each = average @ weights if n < s else weights
    squares = np.stack([(left * w) @ left.T for w in each])
    return squares if n < s else np.tensordot(average, squares, 1)
