r"""The local model: a linear trend with a Gaussian process on top (universal kriging).

.. math:: r_i(u) = r_i + J_i u + \kappa g_i(u) + \sigma_i e,
    \qquad \mathrm{Cov}(g(u), g(v)) = \psi(u \cdot v)

for the residuals i, in units of the trust region: u = (x - center) / (radius * scale). Residuals
and Jacobian at the centre are free, e is standard normal. Curvature kappa and noise sigma by
restricted maximum likelihood: Patterson and Thompson, Biometrika 58 (1971) 545.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.objective import Objective, Prior
from gradiator_np._calibration.selection import samples_about
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._checks import EPS
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._taylor.spectrum import TrendFactors, factor_trend

#: Noise-to-curvature ratio sigma^2 / kappa^2: four points a decade of sigma / kappa.
RATIOS = 10.0 ** (np.arange(-56, 17) / 2.0)
#: log-sd of the curvature about the size of the residuals: one and a half decades.
PRIOR_SD = 1.5 * np.log(10.0)
#: Outliers are looked for where one sample has this many times the mean of the others ...
SUSPECT_RATIO = 4.0
#: ... and left out where the mean square of leave-one-out residuals falls by this factor.
OUTLIER_DROP = 100.0
#: So many samples at most are left out of one model.
MAX_OUTLIERS = 3
#: Differences of nearest neighbours bound the noise: this quantile of them (the least one is low
#: by chance, and lower where the noise of the outputs is correlated). Without the bound a narrow
#: peak passes for noise: of 26 held-out problems 2 ended noise-free at a wrong point, with it none.
NEIGHBOUR_QUANTILE = 0.1
#: The chi-squared quantile that such a difference is set against.
CHI2_TAIL = 0.02
#: Neighbours closer than this, in radii, share what is repeatable of their noise.
DUPLICATE_DISTANCE = 0.01


def psi(t: Array) -> Array:
    """psi(t) = t^2/2 + t^3/6: within a trust region two orders are enough."""
    return t * t * (0.5 + t / 6.0)


@dataclass(frozen=True, slots=True)
class RobustLoss:
    """What makes signed roots of losses of residuals.

    Attributes
    ----------
    residuals, slope : array, shape (n,)
        The residuals themselves at the centre, and the derivative of the roots there.
    objective : Objective
    n_data : int
        Residuals that have a loss; the others are a prior's.
    unit : float
    """

    residuals: Array
    slope: Array
    objective: Objective
    n_data: int
    unit: float

    def roots(self, residuals: Array) -> Array:
        """By residuals (q, n)."""
        every = (self.objective.roots(row, self.n_data, self.unit) for row in residuals)
        return np.array(list(every))


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Residuals and Jacobian at the centre with their covariances, and the noise.

    Attributes
    ----------
    residuals : array, shape (n,)
    jac : array, shape (n, m)
    covariances : array, shape (g, m + 1, m + 1)
        Of (r_i, J_i), the same for all residuals of the same noise.
    group : array of int, shape (n,)
        Which of ``covariances`` a residual has.
    noise : array, shape (n,)
        Standard deviation of one evaluation.
    curvature : float
        Standard deviation of the second-order term at |u| = 1, kappa.
    samples : array, shape (k, m)
        Where the samples lie, as u.
    weights : array, shape (k, n)
        Of their kernels in the posterior mean.
    n_prior : int
        Residuals, the last ones, that are rows of a prior.
    loss : RobustLoss or None
        What made signed roots of losses of the residuals; ``covariances``, ``curvature`` and
        ``weights`` are those of the residuals themselves.
    """

    residuals: Array
    jac: Array
    covariances: Array
    group: Index
    noise: Array
    curvature: float
    samples: Array
    weights: Array
    n_prior: int = 0
    loss: RobustLoss | None = None

    @property
    def slope(self) -> Array | float:
        """Of what is squared by the residuals, shape (n,) or 1."""
        return 1.0 if self.loss is None else self.loss.slope

    @property
    def value_variances(self) -> Array:
        """Of ``residuals``, shape (n,)."""
        return np.asarray(self.covariances[self.group, 0, 0] * np.square(self.slope))

    @property
    def difference_step(self) -> float:
        """|u| of a difference to which noise and curvature contribute alike.

        8^(1/4) (sigma / kappa)^(1/2): Moré and Wild, ACM Trans. Math. Softw. 38 (2012) 19.
        """
        if self.curvature <= 0:
            return np.inf
        noise = self.noise / self.slope
        return float((8.0 * (float(np.mean(noise**2)) / self.curvature**2)) ** 0.25)

    @property
    def noise_dominates(self) -> bool:
        """Whether noise exceeds curvature all over the region."""
        return self.difference_step > 1.0

    @property
    def sum_of_squares(self) -> float:
        return float(self.residuals @ self.residuals)

    @property
    def sum_of_squares_sd(self) -> float:
        """Standard deviation of the sum of squares of one run at the centre, by noise."""
        return sum_of_squares_sd(self.residuals, self.noise)

    @property
    def gradient(self) -> Array:
        """Of half the sum of squares, by u."""
        return np.asarray(self.jac.T @ self.residuals)

    def summed_covariance(self, weights: Array) -> Array:
        """Sum of w_i Cov(r_i, J_i) over residuals."""
        totals = np.bincount(self.group, weights * np.square(self.slope), len(self.covariances))
        return np.asarray(np.tensordot(totals, self.covariances, 1))

    def predict(self, u: Array) -> Array:
        """Posterior mean at u (q, m), shape (q, n)."""
        bends = psi(u @ self.samples.T) @ self.weights
        if self.loss is None:
            return self.residuals + u @ self.jac.T + bends
        return self.loss.roots(self.loss.residuals + u @ (self.jac.T / self.slope) + bends)


def sum_of_squares_sd(residuals: Array, noise: Array) -> float:
    """Standard deviation of |r|^2 by noise in r: what is linear in it and what is quadratic."""
    linear = 2.0 * np.linalg.norm(noise * residuals)
    return float(linear + np.sqrt(2.0) * np.linalg.norm(noise**2))


def default_samples(m: int) -> int:
    """Samples of a model of m inputs."""
    return max(20, 4 * (m + 1))


def model_about(
    x: Array,
    log: FitLog,
    region: TrustRegion,
    most: int,
    rounding: float,
    among: Index | None = None,
    noise_is_known: bool = True,
) -> LocalModel:
    """The model about x, from the samples around it, in units of the log.

    Parameters
    ----------
    x : array, shape (m,)
    log, region
    most : int
        Samples used, beside those that make the model determined.
    rounding : float
        Error of one residual by rounding.
    noise_is_known : bool
        Whether the noise that the log was given, if any, is believed.
    """
    rows = samples_about(x, log, region, most) if among is None else among
    u = (np.array([log.points[i] for i in rows]) - x) / region.unit
    y = np.array([log.residuals[i] for i in rows])
    noise = log.noise if noise_is_known else None
    model = fit(u, y[:, : log.n_data], noise, rounding, region.shrinkage**2, log.second_difference)
    prior = log.objective.prior
    if prior is not None:
        model = _with_prior(model, prior, x, region.unit, log.unit)
    return _with_loss(model, log)


def _with_loss(model: LocalModel, log: FitLog) -> LocalModel:
    """Signed roots of losses in place of residuals, whose squares are summed."""
    residuals, n, unit = model.residuals, log.n_data, log.unit
    slope = log.objective.slopes(residuals, n, unit)
    if slope is None:
        return model
    return replace(
        model,
        residuals=log.objective.roots(residuals, n, unit),
        jac=model.jac * slope[:, None],
        noise=model.noise * slope,
        loss=RobustLoss(residuals, slope, log.objective, n, unit),
    )


def _with_prior(
    model: LocalModel, prior: Prior, x: Array, x_unit: Array, y_unit: float
) -> LocalModel:
    """The model with the rows of a prior, which are linear in x and known."""
    rows = prior.residuals(x) / y_unit
    return replace(
        model,
        residuals=np.append(model.residuals, rows),
        jac=np.vstack([model.jac, prior.whitening * x_unit / y_unit]),
        covariances=np.concatenate([model.covariances, np.zeros_like(model.covariances[:1])]),
        group=np.append(model.group, np.full(len(rows), len(model.covariances))),
        noise=np.append(model.noise, np.zeros(len(rows))),
        weights=np.hstack([model.weights, np.zeros((len(model.weights), len(rows)))]),
        n_prior=len(rows),
    )


def fit(
    u: Array,
    y: Array,
    noise: Array | None = None,
    rounding: float = 0.0,
    prior_curvature: float = 1.0,
    second_difference: Array | None = None,
) -> LocalModel:
    """Restricted likelihood of one curvature and one noise for all residuals.

    A few samples are left out where that lets the leave-one-out residuals of the others collapse.

    Parameters
    ----------
    u : array, shape (k, m)
    y : array, shape (k, n)
    noise : array, shape (n,), or None
        Standard deviation of one evaluation where it is known.
    rounding : float
        Error of one value by rounding: J is known no better, be it ever so repeatable.
    prior_curvature : float
        What curvature is expected, in root mean squares of the values.
    second_difference : array, shape (n,), or None
        r(x - d) - 2 r(x) + r(x + d), which bounds the noise.
    """
    found = trial = _Kriging(u, y, noise, prior_curvature, second_difference)
    for dropped in range(MAX_OUTLIERS):
        if trial.dof < 4:
            break
        share = trial.shares()
        suspect = int(np.argmax(share))
        others = share.sum() - share[suspect]
        if not dropped and share[suspect] * (trial.dof - 1) <= SUSPECT_RATIO * others:
            break
        rest = np.delete(trial.u, suspect, 0), np.delete(trial.y, suspect, 0)
        trial = _Kriging(*rest, noise, prior_curvature, second_difference)
        if trial.leave_one_out() < found.leave_one_out() / OUTLIER_DROP:
            found = trial
            break
    return found.model(rounding)


class _Kriging:
    """Contrasts of some samples at their likeliest curvature and noise."""

    def __init__(
        self,
        u: Array,
        y: Array,
        noise: Array | None,
        prior_curvature: float,
        second_difference: Array | None,
    ) -> None:
        self.u, self.y = u, y
        self.trend = factor_trend(np.hstack([np.ones((len(u), 1)), u]))
        self.kernel = psi(u @ u.T)
        levels, self.group = None, np.zeros(y.shape[1], np.intp)
        if noise is not None:
            levels, self.group = np.unique(noise, return_inverse=True)
        most = _most_noise(u, y, second_difference) if noise is None else np.inf
        eigenvalues, self.contrasts, self.ratio, self.floor, self.kappa2 = _likeliest(
            self.trend, self.kernel, y, levels, self.group, most, prior_curvature
        )
        self.inverse = 1.0 / (eigenvalues + self.ratio[:, None])
        self.scaled = self._each(self.inverse.T) * (self.contrasts.T @ y)
        self.weights = self.contrasts @ self.scaled
        self.precision = np.maximum(np.square(self.contrasts) @ self.inverse.T, 1e-300)

    def _each(self, of_groups: Array) -> Array:
        """Columns (.., g) of the groups for each output, or for all where they are of one."""
        return of_groups if of_groups.shape[1] == 1 else of_groups[:, self.group]

    @property
    def dof(self) -> int:
        return int(self.contrasts.shape[1])

    def shares(self) -> Array:
        """What each sample has of the quadratic form: its leave-one-out residual, whitened."""
        if self.precision.shape[1] == 1:
            return _row_squares(self.weights) / self.precision[:, 0]
        return np.asarray((np.square(self.weights) / self._each(self.precision)).sum(1))

    def leave_one_out(self) -> float:
        """Mean square of the leave-one-out residuals: Dubrule, Math. Geol. 15 (1983) 687."""
        return float(np.mean(np.square(self.weights / self._each(self.precision))))

    def model(self, rounding: float) -> LocalModel:
        trend, ratio = self.trend, self.ratio[:, None]
        pinv = trend.back @ trend.q1.T
        gain = pinv @ (self.kernel @ self.contrasts)
        beta = pinv @ self.y - gain @ self.scaled
        spread = pinv @ self.kernel @ pinv.T + ratio[:, None] * (trend.back @ trend.back.T)
        spread -= (gain * self.inverse[:, None]) @ gain.T
        least = ratio * np.square(trend.back).sum(1)
        each = np.arange(len(beta))
        spread[:, each, each] = np.maximum(spread[:, each, each], least)  # rounding
        # What no sample tells is as uncertain as the curvature prior allows.
        spread += trend.null @ trend.null.T
        covariances = self.kappa2 * spread + rounding**2 * (trend.back @ trend.back.T)
        return LocalModel(
            beta[0], beta[1:].T, covariances, self.group,
            np.sqrt((self.ratio - self.floor) * self.kappa2)[self.group],
            float(np.sqrt(self.kappa2)),
            self.u, self.weights,
        )  # fmt: skip


def _row_squares(rows: Array) -> Array:
    """Sum of squares of each row, without an array of them."""
    return np.asarray(np.einsum("kn,kn->k", rows, rows))


def _most_noise(u: Array, y: Array, second_difference: Array | None) -> float:
    """Largest noise variance that the values of neighbours allow.

    What two runs differ by has a mean square of 2 sigma^2 and more. The smaller ones among the
    differences of nearest neighbours, over an unlikely quantile of their chi-squared, bound sigma.
    A second difference of three runs on a line has one of 6 sigma^2 and more, and hardly a slope:
    where curvature of many inputs passes for noise it bounds it a hundred times lower.
    """
    from scipy.special import gammaincinv

    n = y.shape[1]
    lowest = 2.0 / n * gammaincinv(0.5 * n, CHI2_TAIL)
    apart = np.square(u).sum(1)
    apart = apart[:, None] + apart - 2.0 * (u @ u.T)
    apart[apart < DUPLICATE_DISTANCE**2] = np.inf
    pairs = np.flatnonzero(np.isfinite(apart.min(1)))
    if not len(pairs):
        return np.inf
    # One at a time: all at once take as much memory as the runs do.
    nearest = apart[pairs].argmin(1)
    gaps = (y[i] - y[j] for i, j in zip(pairs, nearest))
    differences = np.array([gap @ gap for gap in gaps]) / n
    least = np.quantile(differences, NEIGHBOUR_QUANTILE)
    most = float(least / (2.0 * lowest))
    if second_difference is not None:
        most = min(most, float(np.mean(np.square(second_difference))) / (6.0 * lowest))
    return most


def _likeliest(
    trend: TrendFactors,
    kernel: Array,
    y: Array,
    levels: Array | None,
    group: Index,
    most: float,
    prior_curvature: float,
) -> tuple[Array, Array, Array, float, float]:
    """Contrasts in which the kernel is diagonal, its eigenvalues, and the likeliest parameters.

    Returns
    -------
    eigenvalues : array, shape (d,)
    contrasts : array, shape (k, d)
    ratio : array, shape (g,)
        sigma^2 / kappa^2, for each level of noise, and ...
    floor : float
        ... what rounding of the kernel adds to each, which is no noise of the runs.
    kappa2 : float
    """
    k, n = y.shape
    d = k - trend.rank
    lam, vec = np.linalg.eigh(trend.z.T @ kernel @ trend.z)
    lam = np.maximum(lam, 0.0)
    t = trend.z @ vec
    size = max(float(np.mean(_row_squares(y))) / n * prior_curvature**2, 1e-300)
    floor = 8 * EPS * max(float(lam[-1]) if d else 1.0, 1e-300)
    if d == 0:
        known = np.zeros(1) if levels is None else levels
        return lam, t, known**2 / size + floor, floor, size
    if levels is None:
        r = RATIOS[:, None] + floor
    else:
        kappa2 = size * 10.0 ** (np.arange(-48, 17) / 4.0)
        r = levels**2 / kappa2[:, None] + floor
    inverse = 1.0 / (lam + r[:, :, None])
    counts = np.bincount(group)
    along = t.T @ y
    one = len(counts) == 1
    power = np.stack(
        [_row_squares(along if one else along[:, group == g]) for g in range(len(counts))]
    )
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
    return lam, t, r[best], floor, float(kappa2[best])
