"""The random-Taylor model of one cloud of samples, in scaled inputs.

.. math:: y_i = c_i + J_i u + \\kappa_i g_i(u) + \\sigma_i e / \\sqrt{w}

with c and J free, e standard normal and g a random Taylor series of order two and up,
Cov g(u) g(u') = (rho/R)^2 psi(u.u'/rho^2), psi(t) = exp(t) - 1 - t: every order of an entire function, in
proportion to t^p / p!. Restricted likelihood: Patterson and Thompson, Biometrika 58 (1971) 545.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np.kernels.taylor import collapse, mixture_interval, state_likelihood

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
#: Grid points a decade of amplitudes.
PER = 4
#: A cell of 1/4 decade, as degrees of freedom: uniform in log sd over +-ln(10)/8 has the
#: standard deviation 0.166 = 1/sqrt(2 * 18).
NU = 18.0
#: Curvature amplitude from 1e-3 to 1e3 times the spread of the output.
N_Z = 6 * PER + 1
#: Noise from 1e-12 to 10 times the spread of the output.
N_S = 13 * PER + 1
S_MIN = -12 * PER
#: rho from 10^(-1/4) to 10^(6/4) times the median radius of the cloud.
RHO = np.arange(-1, 7)


@dataclass(frozen=True, slots=True)
class Linear:
    """Least-squares skeleton of X (k, p): X = q1 s v^T on its range, ``z`` the complement."""

    q1: Array
    z: Array
    back: Array  # v / s, (p, rank)
    null: Array  # (p, p - rank)
    rank: int
    cond: float


def linear_part(x: Array, tol: float = 1e-11) -> Linear:
    """Factor X; directions below ``tol`` of the largest are null."""
    q, s, vt = np.linalg.svd(x, full_matrices=True)
    rank = int((s > tol * s[0]).sum()) if s.size and s[0] > 0 else 0
    cond = float(s[0] / s[rank - 1]) if rank else np.inf
    return Linear(q[:, :rank], q[:, rank:], vt[:rank].T / s[:rank], vt[rank:].T, rank, cond)


def psi(t: Array) -> Array:
    """exp(t) - 1 - t without cancellation."""
    small = np.abs(t) < 1e-2
    series = t * t * (1 / 2 + t * (1 / 6 + t * (1 / 24 + t * (1 / 120 + t / 720))))
    return np.asarray(np.where(small, series, np.expm1(t) - t))


@dataclass(frozen=True, slots=True)
class Curved:
    """Curvature of one rho in the basis where contrasts are independent."""

    lam: Array  # (d,) eigenvalues of Z' K Z
    t: Array  # (k, d) contrasts
    gain: Array  # (p, d) what a contrast tells about the coefficients
    cov0: Array  # (p, p) covariance of the least-squares coefficients at unit curvature
    floor: float  # rounding of K, as a noise-to-curvature ratio

    @classmethod
    def of(cls, lin: Linear, kernel: Array) -> Curved:
        kz = kernel @ lin.z
        lam, vec = np.linalg.eigh(lin.z.T @ kz)
        kq = lin.back @ lin.q1.T
        cov0 = kq @ kernel @ kq.T
        top = max(float(lam[-1]), 0.0) if lam.size else float(np.trace(cov0))
        return cls(np.maximum(lam, 0.0), lin.z @ vec, kq @ (kz @ vec), cov0, 8 * EPS * top)


@dataclass(frozen=True, slots=True)
class Moments:
    """Posterior of some outputs, in scaled units; p coefficients, the intercept first if any."""

    beta: Array  # (n, p)
    cov: Array  # (n, p, p)
    half: Array  # (n, p) half width of the 95 % interval
    noise: Array  # (n,)
    log_rho: Array  # (n,) mean of log10(rho / R)
    loo: Array  # (k, n) leave-one-out residual in its own standard deviations


class Group:
    """Samples that share their rows and weights: every output of the group sees the same design.

    Parameters
    ----------
    u : array, shape (k, m)
        Scaled displacements.
    y : array, shape (k, n)
        Scaled outputs.
    w : array, shape (k,)
        Weights.
    intercept : bool
    radius : float
        Unit of the rho grid.
    rho : array of int
        Exponents of rho / radius, in grid points.
    first, last : array of int, shape (n,)
        Allowed noise indices, ``last`` excluded.
    nu : array, shape (n,)
        Stiffness of a cell.
    """

    def __init__(
        self,
        u: Array,
        y: Array,
        w: Array,
        intercept: bool,
        radius: float,
        rho: NDArray[np.intp],
        first: NDArray[np.intp],
        last: NDArray[np.intp],
        nu: Array,
    ) -> None:
        root = np.sqrt(w)[:, None]
        x = np.hstack([np.ones((len(u), 1)), u]) if intercept else u
        self.lin = linear_part(root * x)
        self.y = root * y
        self.dof = len(u) - self.lin.rank
        self.first, self.last, self.nu = first, last, nu
        self.rho = rho
        gram = u @ u.T
        self.curved, exps, quads, dets = [], [], [], []
        for a in rho:
            width = radius * 10.0 ** (a / PER)
            kernel = (width / radius) ** 2 * psi(gram / width**2)
            cur = Curved.of(self.lin, root * kernel * root.T)
            # c = s + Z - 1 - z; the amplitude at z is 10^((z - mid)/PER).
            e = 2.0 * (np.arange(N_S + N_Z - 1) + S_MIN - (N_Z - 1) // 2) / PER
            ratio = 10.0**e + cur.floor
            inverse = 1.0 / (cur.lam + ratio[:, None])
            quads.append(np.square(cur.t.T @ self.y).T @ inverse.T)
            dets.append(-np.log(inverse).sum(1))
            self.curved.append(cur)
            exps.append(ratio)
        self.quad = np.stack(quads, 1)
        self.logdet = np.array(dets)
        self.ratio = np.array(exps)
        self.base = np.full(len(rho), -(N_Z - 1) / 2.0)

    def likelihood(self, i: slice | NDArray[np.intp]) -> Array:
        """Likelihood of the outputs ``i`` in every state, shape (n_i, R, Z, S)."""
        quad = np.ascontiguousarray(self.quad[i])
        out = np.empty((len(quad), len(self.rho), N_Z, N_S))
        state_likelihood(
            quad, self.logdet, float(self.dof), self.base, float(PER),
            self.nu[i], self.first[i], self.last[i], out,
        )  # fmt: skip
        return out

    def moments(self, i: slice, prior: Array) -> Moments:
        """Average the outputs ``i`` over their states."""
        like = self.likelihood(i)
        quad = np.ascontiguousarray(self.quad[i])
        mass = np.empty_like(quad)
        power = np.empty_like(quad)
        collapse(
            like, prior, quad, float(self.dof), self.base, float(PER), self.nu[i], mass, power
        )
        keep = mass.max(0) > 1e-4
        mass, power = mass[:, keep], power[:, keep]
        total = mass.sum(1, keepdims=True)
        mass, power = mass / total, power / total
        betas, covs, loos = [], [], []
        y = self.y[:, i]
        back = self.lin.back
        for a, cur in enumerate(self.curved):
            ty = cur.t.T @ y
            start = back @ (self.lin.q1.T @ y)
            for r in self.ratio[a, keep[a]]:
                inverse = 1.0 / (cur.lam + r)
                part = inverse[:, None] * ty
                betas.append(start - cur.gain @ part)
                cov = cur.cov0 + r * (back @ back.T) - (cur.gain * inverse) @ cur.gain.T
                covs.append(cov)
                loos.append((cur.t @ part, np.square(cur.t) @ inverse))
        beta_s = np.array(betas).swapaxes(1, 2)  # (S, n, p)
        cov_s = np.array(covs)
        n, p = beta_s.shape[1:]
        beta = np.einsum("ns,snp->np", mass, beta_s)
        shift = beta_s - beta
        # Rounding: no estimate beats least squares with the noise alone.
        least = self.ratio[keep][:, None] * np.square(back).sum(1)
        unit = np.maximum(np.einsum("spp->sp", cov_s), least)
        np.einsum("spp->sp", cov_s)[...] = unit
        kappa2 = np.divide(power, mass, out=np.zeros_like(power), where=mass > 0)
        sd = np.sqrt(kappa2.T[:, :, None] * unit[:, None, :])
        half = np.empty((n, p))
        mixture_interval(mass, shift, sd, 0.95, half)
        cov = (power @ cov_s.reshape(len(cov_s), -1)).reshape(n, p, p)
        weighted = mass.T[:, :, None] * shift
        cov += np.matmul(weighted.transpose(1, 2, 0), shift.transpose(1, 0, 2))
        noise = np.sqrt((power * self.ratio[keep]).sum(1))
        rho_s = np.repeat(self.rho, keep.sum(1))
        # Leave-one-out residual alpha_a / P_aa with standard deviation kappa / sqrt(P_aa).
        k2 = np.maximum(kappa2, 1e-300)
        loo = sum(
            mass[:, s] * alpha / np.sqrt(np.maximum(prec, 1e-300)[:, None] * k2[:, s])
            for s, (alpha, prec) in enumerate(loos)
        )
        return Moments(beta, cov, half, noise, mass @ rho_s / PER, np.asarray(loo))


def shared_prior(like: Array, prior: Array, share: float = 4.0, rounds: int = 8) -> Array:
    """Prior of the states as the outputs tell it to each other (empirical Bayes, EM).

    Outputs are functions of the same inputs and share their truncation, so together they count
    as at most ``share`` observations of the prior.
    """
    n = len(like)
    flat = like.reshape(n, -1)
    weight = min(float(n), share) if n > 1 else 0.0
    out = prior
    for _ in range(rounds if n > 1 else 0):
        p = out.ravel()
        found = (p * ((1.0 / (flat @ p)) @ flat) / n).reshape(prior.shape)
        for axis in (1, 2):
            found = _blur(found, axis)
        out = (prior + weight * found) / (1.0 + weight)
    return out


def _blur(p: Array, axis: int) -> Array:
    """[1, 2, 1] / 4 along an axis; what would leave the grid stays at its end."""
    q = np.moveaxis(p, axis, 0)
    padded = np.concatenate([q[:1], q, q[-1:]])
    return np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, axis)


def base_prior(n_rho: int) -> Array:
    """Amplitudes: normal about the output's spread, one decade wide; noise: slightly less is likelier."""
    z = (np.arange(N_Z) - (N_Z - 1) / 2) / PER
    s = (np.arange(N_S) + S_MIN) / PER
    out = np.ones((n_rho, N_Z, N_S)) * np.exp(-0.5 * z**2)[:, None] * np.exp(-0.05 * s)
    return np.asarray(out / out.sum())
