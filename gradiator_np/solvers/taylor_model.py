r"""The random-Taylor model of one cloud of samples, in scaled units.

.. math:: y_i = c_i + J_i u + \kappa_i g_i(u) + \sigma_i e / \sqrt{w}

c and J are free, e is standard normal, g a random Taylor series of order two and up with
Cov g(u) g(u') = rho^2 [psi(t) + 2 sum_j psi_6(u_j u_j'/rho^2) + R(t, |u|^2 |u'|^2)/2], where
t = u.u'/rho^2, psi(t) = exp(t) - 1 - t, psi_6 are its terms of order 2 to 6, and R is what
functions of one random direction add (Isserlis). Restricted likelihood: Patterson and Thompson,
Biometrika 58 (1971) 545.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

from gradiator_np.kernels.taylor import collapse, mixture_interval, state_likelihood

Array = NDArray[np.float64]
Index = NDArray[np.intp]

EPS = float(np.finfo(np.float64).eps)
#: Grid points a decade of amplitudes.
PER = 4
#: A cell of 1/4 decade, as degrees of freedom: uniform in log sd over +-ln(10)/8 has the
#: standard deviation 0.166 = 1/sqrt(2 * 18).
NU = 18.0
#: Curvature amplitude from 1e-3 to 1e3 times the spread of the output.
N_Z = 6 * PER + 1
Z_MIN = -3.0 * PER
#: Noise from 1e-12 to 10 times the spread of the output.
N_S = 13 * PER + 1
S_MIN = -12 * PER
#: rho in median radii of the cloud: 1, 3, 10, 32.
RHO = 10.0 ** np.array([0.0, 0.5, 1.0, 1.5])
#: Orders of the additive part, and its weight: inputs bend by themselves more than in pairs.
#: Without it the error was up to twice as large (12 samples an input) and the intervals held
#: 0.88 instead of 0.91 (displacements of 30 %).
ORDERS = (2, 3, 4, 5, 6)
ADDITIVE = 2.0
#: Weight of the terms in |u|^2 that a sum of functions of one direction each, w.u, has beside
#: (u.u')^p: its cubic leans on J more than a random one does. Held 0.93 -> 0.95, and 0.79 -> 0.83
#: on sums of tanh(w.u) at displacements of 30 %.
RIDGE = 0.5
#: log-sd of the relative bend of the inputs.
TAU = 0.35
#: Intervals rest on one estimate of the inputs' bends and on one family of kernels: measured.
WIDER = 1.15


@dataclass(frozen=True, slots=True)
class Linear:
    """Least-squares skeleton of X (k, p): range ``q1``, contrasts ``z``, pseudo-inverse."""

    q1: Array  # (k, rank)
    z: Array  # (k, k - rank)
    back: Array  # (p, rank), X^+ = back q1^T
    null: Array  # (p, p - rank)
    rank: int
    cond: float


def linear_part(x: Array, tol: float = 1e-11) -> Linear:
    """Factor X; directions below ``tol`` of the largest singular value are null."""
    q, s, vt = np.linalg.svd(x, full_matrices=True)
    rank = int((s > tol * s[0]).sum()) if s.size else 0
    cond = float(s[0] / s[rank - 1]) if rank else np.inf
    return Linear(q[:, :rank], q[:, rank:], vt[:rank].T / s[:rank], vt[rank:].T, rank, cond)


def kernel(v: Array) -> Array:
    """Covariance of g between the rows of v = u / rho, at unit amplitude."""
    t = v @ v.T
    small = np.abs(t) < 1e-2
    series = t * t * (1 / 2 + t * (1 / 6 + t * (1 / 24 + t * (1 / 120 + t / 720))))
    out = np.where(small, series, np.expm1(t) - t)
    power = v
    for p in ORDERS:
        power = power * v
        out += (ADDITIVE / factorial(p)) * (power @ power.T)
    size = np.diagonal(t)
    q = np.outer(size, size)
    out += RIDGE * q * (1 / 4 + t * (1 / 4 + t * (1 / 8 + t / 24)) + q * (1 + t) / 64)
    return np.asarray(out)


@dataclass(frozen=True, slots=True)
class Curved:
    """Curvature of one rho in the basis where contrasts are independent."""

    lam: Array  # (d,) eigenvalues of Z' K Z
    t: Array  # (k, d) contrasts
    gain: Array  # (p, d) what a contrast tells about the coefficients
    cov0: Array  # (p, p) covariance of the least-squares coefficients at unit curvature
    floor: float  # rounding of K, as a noise-to-curvature ratio

    @classmethod
    def of(cls, lin: Linear, cov: Array) -> Curved:
        kz = cov @ lin.z
        lam, vec = np.linalg.eigh(lin.z.T @ kz)
        pinv = lin.back @ lin.q1.T
        cov0 = pinv @ cov @ pinv.T
        top = max(float(lam[-1]), 0.0) if lam.size else float(np.trace(cov0))
        floor = max(8 * EPS * top, np.finfo(float).tiny)
        return cls(np.maximum(lam, 0.0), lin.z @ vec, pinv @ (kz @ vec), cov0, floor)


@dataclass(frozen=True, slots=True)
class Moments:
    """Posterior of some outputs, in scaled units; p coefficients, the intercept first if any."""

    beta: Array  # (n, p)
    cov: Array  # (n, p, p)
    half: Array  # (n, p) half width of the 95 % interval
    noise: Array  # (n,)
    log_rho: Array  # (n,) mean of log rho
    loo: Array  # (k, n) leave-one-out residual in its own standard deviations


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples that some outputs share.

    Attributes
    ----------
    u : array, shape (k, m)
        Scaled displacements.
    v : array, shape (k, m)
        The same, each input in proportion to how much it bends f.
    w : array, shape (k,)
        Weights.
    intercept : bool
    """

    u: Array
    v: Array
    w: Array
    intercept: bool

    @property
    def linear(self) -> Linear:
        x = np.hstack([np.ones((len(self.u), 1)), self.u]) if self.intercept else self.u
        return linear_part(np.sqrt(self.w)[:, None] * x)


class Group:
    """Outputs that share their rows: one decomposition for each rho serves them all.

    Parameters
    ----------
    rows : Rows
    y : array, shape (k, n)
        Scaled outputs.
    rho : array, shape (R,)
        In the units of u.
    unit : float
        Typical |u|: amplitudes are rho / unit times the spread of the output.
    first, last : array of int, shape (n,)
        Noise indices allowed, ``last`` excluded.
    nu : array, shape (n,)
        Stiffness of a cell.
    """

    def __init__(
        self, rows: Rows, y: Array, rho: Array, unit: float, first: Index, last: Index, nu: Array
    ) -> None:
        root = np.sqrt(rows.w)[:, None]
        self.lin = rows.linear
        self.y = root * y
        self.dof = len(y) - self.lin.rank
        self.rho, self.first, self.last, self.nu = rho, first, last, nu
        # Column c = s + Z - 1 - z of the noise-to-curvature ratio.
        self.nominal = 10.0 ** (2.0 * (np.arange(N_S + N_Z - 1) + S_MIN - N_Z + 1 - Z_MIN) / PER)
        self.curved = [
            Curved.of(self.lin, (r / unit) ** 2 * (root * kernel(rows.v / r) * root.T)) for r in rho
        ]
        self.ratio = np.array([self.nominal + c.floor for c in self.curved])
        inverse = [1.0 / (c.lam + r[:, None]) for c, r in zip(self.curved, self.ratio)]
        self.logdet = np.array([-np.log(i).sum(1) for i in inverse])
        squares = [np.square(c.t.T @ self.y) for c in self.curved]
        self.quad = np.stack([s.T @ i.T for s, i in zip(squares, inverse)], 1)

    def likelihood(self, i: slice | Index) -> Array:
        """Likelihood of the outputs ``i`` in every state, shape (n_i, R, Z, S)."""
        quad = np.ascontiguousarray(self.quad[i])
        out = np.empty((len(quad), len(self.rho), N_Z, N_S))
        first, last, nu = self.first[i], self.last[i], self.nu[i]
        state_likelihood(
            quad, self.logdet, float(self.dof), Z_MIN, float(PER), nu, first, last, out
        )
        return out

    def moments(self, i: slice, prior: Array, like: Array | None = None) -> Moments:
        """Average the outputs ``i`` over their states (their likelihood, where it is at hand)."""
        like = self.likelihood(i) if like is None else like
        quad = np.ascontiguousarray(self.quad[i])
        mass, power, noise2 = np.empty_like(quad), np.empty_like(quad), np.empty(len(quad))
        # Ratios below a tenth of rounding are one state.
        floors = np.array([c.floor for c in self.curved])
        start = np.searchsorted(self.nominal, 0.1 * floors)
        collapse(
            like, prior, quad, float(self.dof), Z_MIN, float(PER), self.nu[i], start,
            self.nominal, mass, power, noise2,
        )  # fmt: skip
        keep = mass.max(0) > 1e-3
        total = np.where(keep, mass, 0.0).sum((1, 2))[:, None]
        mass, power = mass[:, keep] / total, power[:, keep] / total
        beta_s, cov_s = self._states(keep, self.y[:, i])
        beta = np.einsum("ns,snp->np", mass, beta_s)
        shift = beta_s - beta
        kappa2 = np.divide(power, mass, out=np.zeros_like(power), where=mass > 0)
        sd = np.sqrt(kappa2.T[:, :, None] * np.einsum("spp->sp", cov_s)[:, None, :])
        half = np.empty_like(beta)
        mixture_interval(mass, shift, sd, 0.95, half)
        n, p = beta.shape
        cov = (power @ cov_s.reshape(len(cov_s), -1)).reshape(n, p, p)
        cov += np.matmul((mass.T[:, :, None] * shift).transpose(1, 2, 0), shift.swapaxes(0, 1))
        rho = np.repeat(np.log(self.rho), keep.sum(1))
        loo = self._leave_one_out(keep, mass, kappa2, self.y[:, i])
        return Moments(beta, cov, WIDER * half, np.sqrt(noise2), mass @ rho, loo)

    def _states(self, keep: NDArray[np.bool_], y: Array) -> tuple[Array, Array]:
        """Coefficients (S, n, p) and their covariance at unit curvature (S, p, p)."""
        back = self.lin.back
        start = back @ (self.lin.q1.T @ y)
        betas, covs = [], []
        for cur, ratio, kept in zip(self.curved, self.ratio, keep):
            r = ratio[kept][:, None]
            inverse = 1.0 / (cur.lam + r)
            betas.append(start - np.matmul(cur.gain, inverse[:, :, None] * (cur.t.T @ y)))
            cov = cur.cov0 + r[:, :, None] * (back @ back.T)
            cov -= np.matmul(cur.gain * inverse[:, None, :], cur.gain.T)
            # Rounding: no estimate beats least squares with the noise alone.
            var = np.einsum("spp->sp", cov)
            np.maximum(var, r * np.square(back).sum(1), out=var)
            covs.append(cov)
        return np.concatenate(betas).swapaxes(1, 2), np.concatenate(covs)

    def _leave_one_out(
        self, keep: NDArray[np.bool_], mass: Array, kappa2: Array, y: Array
    ) -> Array:
        """alpha_a / (kappa sqrt(P_aa)), P the contrasts' precision, in the likeliest state."""
        out = np.zeros_like(y)
        best = mass.argmax(1)
        a_of = np.repeat(np.arange(len(keep)), keep.sum(1))
        ratio = self.ratio[keep]
        for s in np.unique(best):
            mine = np.flatnonzero(best == s)
            cur = self.curved[a_of[s]]
            inverse = 1.0 / (cur.lam + ratio[s])
            alpha = cur.t @ (inverse[:, None] * (cur.t.T @ y[:, mine]))
            precision = np.square(cur.t) @ inverse
            scale = np.sqrt(np.maximum(precision[:, None] * kappa2[mine, s], 1e-300))
            out[:, mine] = alpha / scale
        return out


def shared_prior(like: Array, share: float = 8.0, rounds: int = 8) -> Array:
    """Prior of the states as the outputs tell it to each other (empirical Bayes, EM).

    Outputs are functions of the same inputs and share their truncation, so together they count
    as at most ``share`` observations of the prior.
    """
    n = len(like)
    base = base_prior(like.shape[1])
    if n == 1:
        return base
    flat = like.reshape(n, -1)
    weight = min(float(n), share)
    out = base
    for _ in range(rounds):
        p = out.ravel()
        found = (p * ((1.0 / (flat @ p)) @ flat) / n).reshape(base.shape)
        out = (base + weight * _blur(_blur(found, 1), 2)) / (1.0 + weight)
    return out


def _blur(p: Array, axis: int) -> Array:
    """[1, 2, 1] / 4 along an axis; what would leave the grid stays at its end."""
    q = np.moveaxis(p, axis, 0)
    padded = np.concatenate([q[:1], q, q[-1:]])
    return np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, axis)


def base_prior(n_rho: int) -> Array:
    """Curvature about the output's spread, within 3/4 decade; less noise is slightly likelier."""
    z = (np.arange(N_Z) + Z_MIN) / PER
    s = (np.arange(N_S) + S_MIN) / PER
    out = np.ones((n_rho, 1, 1)) * np.exp(-0.5 * (z / 0.75) ** 2)[:, None] * np.exp(-0.1 * s)
    return np.asarray(out / out.sum())


def bends(rows: Rows, y: Array, rho: float) -> Array:
    """Relative bend of each input: the scales of u that maximise the pooled likelihood.

    Parameters
    ----------
    rows : Rows
        With v = u.
    y : array, shape (k, n)
        Scaled outputs.
    rho : float
        Where the search starts, in the units of u.

    Returns
    -------
    array, shape (m,)
        Normalised to keep the largest |v|.
    """
    from scipy.optimize import minimize

    lin = rows.linear
    d, n = len(y) - lin.rank, y.shape[1]
    size = float(np.linalg.norm(rows.u, axis=1).max(initial=0.0))
    if d < 2 or size == 0:
        return np.ones(rows.u.shape[1])
    root = np.sqrt(rows.w)[:, None]
    weight = root * root.T
    rho = max(rho, size / 3.0)  # exp(|v|^2) stays below 1e16 within the bounds
    zy = lin.z.T @ (root * y)
    share = min(n, 4.0) / n
    start = np.log(np.trace(lin.z.T @ (weight * kernel(rows.u / rho)) @ lin.z) / d + 1e-300)

    def negative(par: Array) -> tuple[float, Array]:
        eta, r = par[:-1], np.exp(par[-1])
        v = rows.u * (np.exp(eta) / rho)
        s = lin.z.T @ (weight * kernel(v)) @ lin.z
        lam, vec = np.linalg.eigh(s)
        lam = np.maximum(lam, 0.0) + r
        zv = lin.z @ vec
        part = vec.T @ zy
        quad = np.maximum((part * part / lam[:, None]).sum(0), 1e-300)
        value = 0.5 * (d * np.log(quad).sum() + n * np.log(lam).sum())
        # d value / d K, restricted to the contrasts, times dK / d eta.
        alpha = zv @ (part / lam[:, None])
        push = weight * (d * (alpha / quad) @ alpha.T - n * (zv / lam) @ zv.T)
        t = v @ v.T
        size = np.diagonal(t)
        q = np.outer(size, size)
        by_t = np.expm1(t) + RIDGE * q * (1 / 4 + t * (1 / 4 + t / 8) + q / 64)
        by_size = (1 / 4 + t * (1 / 4 + t * (1 / 8 + t / 24)) + q * (1 + t) / 32) * size
        grad = np.einsum("aj,aj->j", v, (push * by_t) @ v)
        grad += 2 * RIDGE * (push * by_size).sum(1) @ np.square(v)
        power = v
        for p in ORDERS:
            power = power * v
            grad += ADDITIVE / factorial(p - 1) * np.einsum("aj,aj->j", power, push @ power)
        past = np.square(part / lam[:, None]).sum(0)
        grad_r = 0.5 * r * (d * (past / quad).sum() - n * (1.0 / lam).sum())
        value = share * value + 0.5 * (eta @ eta) / TAU**2
        return value, np.append(-share * grad + eta / TAU**2, -share * grad_r)

    found = minimize(
        negative, np.append(np.zeros(rows.u.shape[1]), start - 4.0), jac=True, method="L-BFGS-B",
        bounds=[(-1.5, 0.7)] * rows.u.shape[1] + [(start - 30.0, start + 10.0)],
        options={"maxiter": 10, "maxfun": 14},
    )  # fmt: skip
    scale = np.exp(found.x[:-1])
    return np.asarray(scale * (size / np.linalg.norm(rows.u * scale, axis=1).max()))
