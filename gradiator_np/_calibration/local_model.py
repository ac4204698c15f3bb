r"""The local model: a linear trend with a Gaussian process on top (universal kriging).

.. math:: r_i(u) = r_i + J_i u + \kappa g_i(u) + \sigma_i e,
    \qquad \mathrm{Cov}(g(u), g(v)) = \psi(u \cdot v)

for the residuals i, in units of the trust region: u = (x - center) / (radius * scale). Residuals
and Jacobian at the centre are free, e is standard normal. Curvature kappa and noise sigma by
restricted maximum likelihood: Patterson and Thompson, Biometrika 58 (1971) 545.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from gradiator_np._calibration.entry_outliers import without_outliers
from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.kriging import Kriging, psi
from gradiator_np._calibration.objective import Objective, Prior
from gradiator_np._calibration.output_basis import OutputBasis, Rows
from gradiator_np._calibration.selection import samples_about
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._typing import Array, Index

#: Change of slopes over the scale of x, by their size, that errors of J allow for where runs do not
#: tell. (Of 300 fits without noise that end at residuals of 0, 0.3 % of the entries of J are more
#: than 5 of its errors off, 0.5 % at 1; 43 % by the curvature of the last few runs alone.)
BEND = 2.0
#: The same where there are runs enough, but noise hides what they tell. (95 % intervals of J hold
#: 0.98 at noises of 1e-3 and 1e-2 where residuals end at 0, 150 fits; 0.97 and 0.90 in 101 of
#: `benchmarks.lsq_problems` and `lsq_held_out`. At half of it bars are 0.6 times as wide and hold
#: 0.96 and 0.97, 0.94 and 0.88; at twice 1.8 times, 0.99, 0.98 and 0.93; by the likeliest curvature
#: alone 0.84 and 0.83, 0.81 and 0.76.)
BEND_IN_NOISE = 0.5
#: Outliers are looked for where one sample has this many times the mean of the others ...
SUSPECT_RATIO = 4.0
#: ... and left out where the mean square of leave-one-out residuals falls by this factor.
OUTLIER_DROP = 100.0
#: So many samples at most are left out of one model.
MAX_OUTLIERS = 3


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


class ResidualRows(NamedTuple):
    """What a model says of each residual, those of a prior last.

    Attributes
    ----------
    residuals : array, shape (n,)
    jac : array, shape (n, m)
    group : array of int, shape (n,)
    noise : array, shape (n,)
    """

    residuals: Array
    jac: Array
    group: Index
    noise: Array


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Residuals and Jacobian at the centre with their covariances, and the noise.

    Where residuals are many, its n rows are coordinates in a basis of what runs returned, in which
    sums of squares and products are the same; `of_residuals` has the residuals themselves.

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
    multiplicity : array, shape (n,)
        How many residuals a row stands for: 1, but for one of the coordinates, which is 0, and
        stands for all that runs have not seen.
    kriging : Kriging
        Whose coefficients they are, without losses and a prior.
    basis : OutputBasis or None
        Whose coordinates the rows are.
    n_prior : int
        Residuals, the last ones, that are rows of a prior.
    loss : RobustLoss or None
        What made signed roots of losses of the residuals; ``covariances``, ``curvature`` and
        ``weights`` are those of the residuals themselves.
    replaced : mapping of int to array, shape (n,)
        By sample (its id in the log, where the model is of one): residuals of the data, with those
        that the other runs contradict replaced by what these predict.
    """

    residuals: Array
    jac: Array
    covariances: Array
    group: Index
    noise: Array
    curvature: float
    samples: Array
    weights: Array
    multiplicity: Array
    kriging: Kriging
    basis: OutputBasis | None = None
    n_prior: int = 0
    loss: RobustLoss | None = None
    replaced: Mapping[int, Array] = field(default_factory=dict)

    @property
    def count(self) -> float:
        """Residuals, those of a prior included."""
        return float(self.multiplicity.sum())

    @property
    def mean_square_noise(self) -> float:
        """Of all residuals."""
        return float(self.multiplicity @ np.square(self.noise)) / self.count

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
        square = float(self.multiplicity @ np.square(self.noise / self.slope)) / self.count
        return float((8.0 * (square / self.curvature**2)) ** 0.25)

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
        return self.sum_of_squares_sd_of(self.residuals)

    def sum_of_squares_sd_of(self, rows: Array) -> float:
        """That of |r|^2 by noise in any r: what is linear in it and what is quadratic."""
        linear = 2.0 * np.linalg.norm(self.noise * rows)
        square = np.square(self.noise)
        return float(linear + np.sqrt(2.0 * float(self.multiplicity @ np.square(square))))

    @property
    def gradient(self) -> Array:
        """Of half the sum of squares, by u."""
        return np.asarray(self.jac.T @ self.residuals)

    def summed_covariance(self, weights: Array) -> Array:
        """Sum of w_i Cov(r_i, J_i) over residuals."""
        totals = np.bincount(self.group, weights * np.square(self.slope), len(self.covariances))
        return np.asarray(np.tensordot(totals, self.covariances, 1))

    @property
    def total_covariance(self) -> Array:
        """Sum of Cov(r_i, J_i) over all residuals."""
        return self.summed_covariance(self.multiplicity)

    def slope_covariances(self, rounding: float, radius: float) -> Array:
        """Of J_i (g, m, m), as ``covariances``, for users: these know only of the curvature along
        what has been moved, and steps are made by that alone.

        Parameters
        ----------
        rounding : float
            Error of one residual by rounding.
        radius : float
            Of the trust region, in units of the scale.
        """
        found = self.kriging
        kappa2 = found.kappa2_of_few(BEND * radius, BEND_IN_NOISE * radius)
        each = found.covariances(rounding, kappa2)[:, 1:, 1:]
        known = np.zeros((len(self.covariances) - len(each), *each.shape[1:]))
        return np.concatenate([each, known])

    def weighted(self, of_data: Array) -> Array:
        """``weights`` times one number for each residual of the data: (k,)."""
        if self.basis is not None:
            of_data = self.basis.project(of_data)
        return np.asarray(self.weights[:, : len(of_data)] @ of_data)

    def of_residuals(self) -> ResidualRows:
        """What there is of each residual."""
        basis = self.basis
        if basis is None:
            return ResidualRows(self.residuals, self.jac, self.group, self.noise)
        of_data = len(self.residuals) - self.n_prior
        rows = np.column_stack([self.residuals, self.jac])
        lifted = basis.lift(np.ascontiguousarray(rows[: of_data - 1].T))
        rows = np.concatenate([lifted.T, rows[of_data:]]) if self.n_prior else lifted.T
        # group and noise are the same for all data
        which = np.r_[np.zeros(basis.n, np.intp), of_data : len(self.residuals)]
        return ResidualRows(rows[:, 0], rows[:, 1:], self.group[which], self.noise[which])

    def predict(self, u: Array) -> Array:
        """Posterior mean at u (q, m), shape (q, n)."""
        bends = psi(u @ self.samples.T) @ self.weights
        if self.loss is None:
            return self.residuals + u @ self.jac.T + bends
        return self.loss.roots(self.loss.residuals + u @ (self.jac.T / self.slope) + bends)


def default_samples(m: int, quiet: bool = False) -> int:
    """Samples of a model of m inputs, and of runs without noise, which many do not average.

    (Of 49 fits without noise, m = 21 to 100, m + 44 took 0.97 of the runs and 0.97 of the time that
    2 (m + 22) take, one of m = 200 0.82 and 0.7; at a noise of 1e-3 fits of m = 50 took three times
    the runs with 2 (m + 22) alone.)
    """
    most = max(20, 4 * (m + 1))
    return min(most, m + 44) if quiet else most


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
    noise = log.noise if noise_is_known else None
    model = fit_rows(
        u, log.rows(rows), noise, rounding, region.shrinkage**2, log.second_difference,
        robust=log.objective.loss != "linear",
    )  # fmt: skip
    if model.replaced:
        model = replace(model, replaced={int(rows[i]): y for i, y in model.replaced.items()})
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
        multiplicity=np.append(model.multiplicity, np.ones(len(rows))),
        n_prior=len(rows),
    )


def fit(u: Array, y: Array, noise: Array | None = None, *, robust: bool = False) -> LocalModel:
    """The model of residuals y (k, n) at u (k, m), where noise (n,) is known or not."""
    return fit_rows(u, Rows.of(list(y)), noise, robust=robust)


def _without_outliers(found: Kriging, kriging: Callable[[Array, Array], Kriging]) -> Kriging:
    """Fewer samples, where that lets the leave-one-out residuals of the others collapse."""
    trial = found
    for dropped in range(MAX_OUTLIERS):
        if trial.dof < 4:
            break
        share = trial.shares()
        suspect = int(np.argmax(share))
        others = share.sum() - share[suspect]
        if not dropped and share[suspect] * (trial.dof - 1) <= SUSPECT_RATIO * others:
            break
        trial = kriging(np.delete(trial.u, suspect, 0), np.delete(trial.y, suspect, 0))
        if trial.leave_one_out() < found.leave_one_out() / OUTLIER_DROP:
            return trial
    return found


def fit_rows(
    u: Array,
    rows: Rows,
    noise: Array | None = None,
    rounding: float = 0.0,
    prior_curvature: float = 1.0,
    second_difference: float | None = None,
    robust: bool = False,
) -> LocalModel:
    """Restricted likelihood of one curvature and one noise for all residuals.

    With ``robust``, single residuals that the other runs contradict are replaced (`entry_outliers`;
    not where rows are coordinates): without, curvature at the poles of a rational function was
    taken for them, and the search stopped there. A few samples are left out as a whole.

    Parameters
    ----------
    u : array, shape (k, m)
    rows : Rows
    noise : array, shape (n,), or None
        Standard deviation of one evaluation where it is known, of each residual.
    rounding : float
        Error of one value by rounding.
    prior_curvature, second_difference
        As in `Kriging`.
    """
    each = rows.multiplicity
    if noise is not None and rows.basis is not None:  # the same for all
        noise = np.broadcast_to(noise[0], len(each))

    def kriging(u: Array, y: Array, slopes_are_alike: bool = False) -> Kriging:
        return Kriging(
            u, y, each[: y.shape[1]], noise, prior_curvature, second_difference, slopes_are_alike
        )

    mask = None
    if robust and rows.basis is None:
        found, mask = without_outliers(
            lambda y, alike: kriging(u, y, alike), rows.values, noise is None
        )
    else:
        found = kriging(u, rows.values)
    filled, found = found.y, _without_outliers(found, kriging)
    beta = found.coefficients()
    replaced = {} if mask is None else {int(i): filled[i] for i in np.flatnonzero(mask.any(1))}
    return LocalModel(
        beta[0], beta[1:].T, found.covariances(rounding), found.group, found.noise,
        float(np.sqrt(found.kappa2)), found.u, found.weights, each, found, rows.basis,
        replaced=replaced,
    )  # fmt: skip
