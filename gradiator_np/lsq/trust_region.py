"""The pure parts of the least-squares driver: local model, step, expected loss, intervals.

Everything is in units of the trust radius: u = (x - centre) / (radius * scale).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np.solvers.taylor_model import Linear, linear_part

Array = NDArray[np.float64]
Index = NDArray[np.intp]

EPS = float(np.finfo(np.float64).eps)
#: Noise-to-curvature ratio r = sigma^2 / kappa^2: four points a decade of sigma / kappa.
RATIOS = 10.0 ** (np.arange(-56, 17) / 2.0)
#: log-sd of the curvature about the size of the residuals: one and a half decades.
PRIOR_SD = 1.5 * np.log(10.0)
#: Outliers are looked for where one sample has this many times the mean of the others ...
SUSPECT = 4.0
#: ... and left out where the mean square of leave-one-out residuals falls by this factor.
WILD = 100.0
#: Standard errors of parameters are this much wider, for one curvature in place of many and
#: Gauss-Newton in place of the Hessian: 95 % intervals held 0.95 and 0.85 without, 0.98 and 0.92
#: with it (25 problems, noise 1e-4 and 1e-2); over 93 problems 0.95 and 0.92 (`lsq_intervals`).
WIDER = 1.2
#: Differences of nearest neighbours bound the noise: this quantile of them (the least one is low
#: by chance, and lower where the noise of the outputs is correlated). Without the bound a narrow
#: peak passes for noise: of 26 held-out problems 2 ended noise-free at a wrong point, with it none.
QUIET = 0.1
UNLIKELY = 0.02
#: Neighbours closer than this, in radii, share what is repeatable of their noise.
NEAR = 0.01
#: So many samples at most are left out of one model.
OUTLIERS = 3


def series(t: Array) -> Array:
    """psi(t) = t^2/2 + t^3/6: within a trust region two orders are enough."""
    return t * t * (0.5 + t / 6.0)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Value, Jacobian and their covariances at the centre, and the noise.

    Attributes
    ----------
    c : array, shape (n,)
    jac : array, shape (n, m)
    covs : array, shape (g, m + 1, m + 1)
        Of (c_i, J_i), the same for all outputs of the same noise.
    group : array of int, shape (n,)
        Which of ``covs`` an output has.
    sigma : array, shape (n,)
        Noise of one evaluation.
    kappa : float
        Curvature at the trust radius.
    """

    c: Array
    jac: Array
    covs: Array
    group: Index
    sigma: Array
    kappa: float
    samples: Array
    weights: Array

    @property
    def ratio(self) -> float:
        """sigma^2 / kappa^2."""
        return float(np.mean(self.sigma**2)) / self.kappa**2 if self.kappa > 0 else np.inf

    @property
    def noise(self) -> float:
        """Standard deviation of the sum of squares of one run at the centre."""
        return blur(self.c, self.sigma)

    def summed(self, weights: Array) -> Array:
        """Sum of w_i Cov(c_i, J_i) over outputs."""
        totals = np.bincount(self.group, weights, len(self.covs))
        return np.asarray(np.tensordot(totals, self.covs, 1))

    def predict(self, u: Array) -> Array:
        """Posterior mean at u (q, m), shape (q, n)."""
        return self.c + u @ self.jac.T + series(u @ self.samples.T) @ self.weights


def blur(c: Array, sigma: Array) -> float:
    """Standard deviation of |c|^2 by noise in c: what is linear in it and what is quadratic."""
    return float(2.0 * np.linalg.norm(sigma * c) + np.sqrt(2.0) * np.linalg.norm(sigma**2))


def fit(u: Array, y: Array, sigma: Array | None = None, rounding: float = 0.0) -> LocalModel:
    """Restricted likelihood of one curvature and one noise for all outputs.

    A few samples are left out where that lets the leave-one-out residuals of the others collapse.

    Parameters
    ----------
    u : array, shape (k, m)
    y : array, shape (k, n)
    sigma : array, shape (n,), or None
        Noise of one evaluation where it is known.
    rounding : float
        Error of one value by rounding: J is known no better, be it ever so repeatable.
    """
    found = trial = _Fit(u, y, sigma)
    for dropped in range(OUTLIERS):
        if trial.dof < 4:
            break
        share = trial.shares()
        wild = int(np.argmax(share))
        if not dropped and share[wild] * (trial.dof - 1) <= SUSPECT * (share.sum() - share[wild]):
            break
        trial = _Fit(np.delete(trial.u, wild, 0), np.delete(trial.y, wild, 0), sigma)
        if trial.misfit() < found.misfit() / WILD:
            found = trial
            break
    return found.model(rounding)


class _Fit:
    """Contrasts of some samples in their likeliest state."""

    def __init__(self, u: Array, y: Array, sigma: Array | None) -> None:
        self.u, self.y = u, y
        self.lin = linear_part(np.hstack([np.ones((len(u), 1)), u]))
        self.cov = series(u @ u.T)
        levels, self.group = None, np.zeros(y.shape[1], np.intp)
        if sigma is not None:
            levels, self.group = np.unique(sigma, return_inverse=True)
        most = _most_noise(u, y) if sigma is None else np.inf
        lam, self.t, self.ratio, self.kappa2 = _likeliest(
            self.lin, self.cov, y, levels, self.group, most
        )
        self.inverse = 1.0 / (lam + self.ratio[:, None])
        self.weights = self.t @ (self.inverse[self.group].T * (self.t.T @ y))
        precision = np.maximum(np.square(self.t) @ self.inverse.T, 1e-300)
        self.precision = precision[:, self.group]

    @property
    def dof(self) -> int:
        return int(self.t.shape[1])

    def shares(self) -> Array:
        """What each sample has of the quadratic form: its leave-one-out residual, whitened."""
        return np.asarray((np.square(self.weights) / self.precision).sum(1))

    def misfit(self) -> float:
        """Mean square of the leave-one-out residuals."""
        return float(np.mean(np.square(self.weights / self.precision)))

    def model(self, rounding: float) -> LocalModel:
        lin, ratio = self.lin, self.ratio[:, None]
        pinv = lin.back @ lin.q1.T
        gain = pinv @ (self.cov @ self.t)
        beta = pinv @ (self.y - self.cov @ self.weights)
        spread = pinv @ self.cov @ pinv.T + ratio[:, None] * (lin.back @ lin.back.T)
        spread -= (gain * self.inverse[:, None]) @ gain.T
        least = ratio * np.square(lin.back).sum(1)
        each = np.arange(len(beta))
        spread[:, each, each] = np.maximum(spread[:, each, each], least)  # rounding
        # What no sample tells is as uncertain as the curvature prior allows.
        spread += lin.null @ lin.null.T
        covs = self.kappa2 * spread + rounding**2 * (lin.back @ lin.back.T)
        return LocalModel(
            beta[0], beta[1:].T, covs, self.group,
            np.sqrt(self.ratio * self.kappa2)[self.group], float(np.sqrt(self.kappa2)),
            self.u, self.weights,
        )  # fmt: skip


def _most_noise(u: Array, y: Array) -> float:
    """Largest noise variance that the values of neighbours allow.

    What two runs differ by has a mean square of 2 sigma^2 and more. The smaller ones among the
    differences of nearest neighbours, over an unlikely quantile of their chi-squared, bound sigma.
    """
    from scipy.special import gammaincinv

    n = y.shape[1]
    lowest = 2.0 / n * gammaincinv(0.5 * n, UNLIKELY)
    gap = np.square(u).sum(1)
    gap = gap[:, None] + gap - 2.0 * (u @ u.T)
    gap[gap < NEAR**2] = np.inf
    pairs = np.flatnonzero(np.isfinite(gap.min(1)))
    if not len(pairs):
        return np.inf
    apart = np.square(y[pairs] - y[gap[pairs].argmin(1)]).mean(1)
    return float(np.quantile(apart, QUIET) / (2.0 * lowest))


def _likeliest(
    lin: Linear, cov: Array, y: Array, levels: Array | None, group: Index, most: float
) -> tuple[Array, Array, Array, float]:
    """Contrasts, and the likeliest noise-to-curvature ratios (g,) and curvature."""
    k, n = y.shape
    d = k - lin.rank
    lam, vec = np.linalg.eigh(lin.z.T @ cov @ lin.z)
    lam = np.maximum(lam, 0.0)
    t = lin.z @ vec
    size = max(float(np.mean(np.square(y))), 1e-300)
    floor = 8 * EPS * max(float(lam[-1]) if d else 1.0, 1e-300)
    if d == 0:
        known = np.zeros(1) if levels is None else levels
        return lam, t, np.maximum(known**2 / size, floor), size
    if levels is None:
        r = RATIOS[:, None] + floor
    else:
        kappa2 = size * 10.0 ** (np.arange(-48, 17) / 4.0)
        r = levels**2 / kappa2[:, None] + floor
    inverse = 1.0 / (lam + r[:, :, None])
    counts = np.bincount(group)
    squares = np.square(t.T @ y)
    power = np.stack([squares[:, group == g].sum(1) for g in range(len(counts))])
    quad = (inverse * power).sum((1, 2))
    logdet = -(np.log(inverse).sum(2) @ counts)
    if levels is None:
        # Without the prior kappa^2 would be quad / (n d); one Newton-like step shrinks it.
        raw = np.log(np.maximum(quad, 1e-300) / (n * d))
        weight = 0.5 * n * d * PRIOR_SD**2 * 4.0
        kappa2 = np.exp((weight * raw + np.log(size)) / (weight + 1.0))
        kappa2 = np.minimum(kappa2, max(most, r[0, 0] * kappa2[0], 1e-280) / r[:, 0])
    log_k2 = np.log(kappa2)
    value = -0.5 * (n * d * log_k2 + logdet + quad / kappa2)
    value -= 0.5 * np.square((log_k2 - np.log(size)) / (2.0 * PRIOR_SD))
    if levels is None:
        # Less noise is slightly likelier, so that nothing wins a tie.
        value -= 0.05 * np.log10(np.maximum(r[:, 0] * kappa2 / size, 1e-26))
    best = int(np.argmax(value))
    return lam, t, r[best], float(kappa2[best])


def step(c: Array, jac: Array, low: Array, high: Array) -> tuple[Array, NDArray[np.bool_]]:
    """min |c + J u| over |u| <= 1, low <= u <= high: u, and which inputs are held by a bound.

    Active set: inputs that hit a bound are held there and the others solved again; then one at a
    time is let go whose slope points inside, as long as that gains.
    """
    fixed = high <= low
    u, held = _held_step(c, jac, low, high, fixed)
    best = float(np.square(c + jac @ u).sum())
    for _ in range(jac.shape[1]):
        slope = jac.T @ (c + jac @ u)
        inward = np.where(u <= low, -slope, slope)
        inward[~held | fixed] = 0.0
        loose = int(np.argmax(inward))
        if inward[loose] <= 0.0:
            break
        kept = held.copy()
        kept[loose] = False
        v, now = _held_step(c, jac, low, high, kept, u)
        size = float(np.square(c + jac @ v).sum())
        if size >= best:
            break
        u, held, best = v, now, size
    return u, held


def _held_step(
    c: Array, jac: Array, low: Array, high: Array, held: NDArray[np.bool_], at: Array | None = None
) -> tuple[Array, NDArray[np.bool_]]:
    """The step with ``held`` inputs where ``at`` has them, holding more as they hit a bound."""
    u = np.clip(np.zeros(len(low)) if at is None else at, low, high)
    free = ~held
    for _ in range(len(u) + 1):
        room = 1.0 - u[~free] @ u[~free]
        if not free.any() or room <= 0:
            break
        u[free] = _secular(c + jac[:, ~free] @ u[~free], jac[:, free], float(np.sqrt(room)))
        out = free & ((u < low) | (u > high))
        if not out.any():
            break
        u = np.clip(u, low, high)
        free = free & ~out
    return np.clip(u, low, high), ~free


def _secular(c: Array, jac: Array, radius: float) -> Array:
    """min |c + J u|, |u| <= radius, from the singular values of J."""
    left, s, vt = np.linalg.svd(jac, full_matrices=False)
    b = -(left.T @ c)
    good = s > 1e-13 * s[0] if s.size and s[0] > 0 else np.zeros(s.size, bool)
    s, b, vt = s[good], b[good], vt[good]
    if not s.size:
        return np.zeros(jac.shape[1])
    w = b / s
    if np.sqrt(w @ w) <= radius:
        return np.asarray(w @ vt)
    low, high = 0.0, float(np.sqrt(np.square(s * b).sum())) / radius
    for _ in range(60):  # |u| falls as the damping grows
        lam = np.sqrt(low * high) if low > 0 else 1e-3 * high
        w = s * b / (s * s + lam)
        if np.sqrt(w @ w) > radius:
            low = lam
        else:
            high = lam
            if np.sqrt(w @ w) > 0.999 * radius or lam < 1e-30 * s[0] ** 2:
                break
    return np.asarray(w @ vt)


@dataclass(frozen=True, slots=True)
class Loss:
    """Expected loss of |c + J u|^2 by the errors of J and of c, and the direction of the worst."""

    jac: float
    value: float
    worst: Array  # (m, m) directions, the one that costs most first


def expected_loss(model: LocalModel, held: NDArray[np.bool_]) -> Loss:
    """tr[(J'J + lam I)^-1 P], P = Cov(J' c) by errors of J, lam^2 its largest eigenvalue; m P_cc.

    Over the inputs that no bound holds.
    """
    m, free = len(held), np.flatnonzero(~held)
    if not len(free):
        return Loss(0.0, 0.0, np.zeros((0, m)))
    p = model.summed(model.c**2)[1:, 1:][np.ix_(free, free)]
    jac = model.jac[:, free]
    lam = np.sqrt(max(float(np.linalg.eigvalsh(p)[-1]), 0.0))
    vals, vecs = np.linalg.eigh(jac.T @ jac + max(lam, 1e-300) * np.eye(len(p)))
    half = vecs / np.sqrt(np.maximum(vals, 1e-300))
    each, way = np.linalg.eigh(half.T @ p @ half)
    # Back to u: the direction of P that the damped Gauss-Newton matrix amplifies most.
    worst = np.zeros((len(p), m))
    worst[:, free] = (half @ way)[:, ::-1].T
    worst /= np.linalg.norm(worst, axis=1, keepdims=True)
    value = float(model.summed(np.ones(len(model.c)))[0, 0]) / len(model.c)
    return Loss(float(each.sum()), len(p) * value, worst)


def gauss_newton_decrease(model: LocalModel, held: NDArray[np.bool_]) -> float:
    """|c|^2 less the least |c + J u|^2 over inputs that no bound holds."""
    jac = model.jac[:, ~held]
    if not jac.size:
        return 0.0
    left, s, _ = np.linalg.svd(jac, full_matrices=False)
    good = s > 1e-10 * s[0]
    return float(np.square(left[:, good].T @ model.c).sum())


def parameter_covariance(
    model: LocalModel, held: NDArray[np.bool_], strict: float = 4.0
) -> tuple[Array, NDArray[np.bool_]]:
    """Covariance of the minimiser (in u) and which inputs the runs do not determine.

    Noise in J adds the sum of the outputs' P_JJ to J'J (errors in variables): weak directions
    look determined. It is subtracted; where J'J v < (1 + strict sqrt(2/n)) sum P_JJ v nothing is
    determined, and neither is any input with a part in such a v.
    """
    m, n = len(held), len(model.c)
    free = ~held
    cov = np.zeros((m, m))
    lost = np.zeros(m, bool)
    if not free.any():
        return cov, lost
    jac = model.jac[:, free]
    gram = jac.T @ jac
    noise = model.summed(np.ones(n))[1:, 1:][np.ix_(free, free)]
    vals, vecs = np.linalg.eigh(noise)
    vals = np.maximum(vals, max(1e-14 * vals[-1], 1e-300))
    back = vecs / np.sqrt(vals)
    mu, vec = np.linalg.eigh(back.T @ gram @ back)
    ways = back @ vec  # ways' noise ways = 1, ways' gram ways = mu
    sure = mu > 1.0 + strict * np.sqrt(2.0 / n)
    middle = model.summed(model.c**2)[1:, 1:][np.ix_(free, free)]
    middle = middle + (jac.T * model.covs[model.group, 0, 0]) @ jac
    w = ways[:, sure] / (mu[sure] - 1.0)
    half = w @ ways[:, sure].T
    cov[np.ix_(free, free)] = WIDER**2 * (half @ middle @ half)
    if not sure.all():
        # ways are orthonormal by `noise`, so their size in u tells nothing: compare with the
        # part that is determined.
        unsure = ways[:, ~sure] / np.linalg.norm(ways[:, ~sure], axis=0)
        lost[free] = (np.abs(unsure) > 0.05).any(1)
    return cov, lost
