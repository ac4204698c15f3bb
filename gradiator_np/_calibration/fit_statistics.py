"""How well a fit describes the data: chi-squared and what is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc

from gradiator_np import _checks as checks
from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._calibration.objective import LOSSES
from gradiator_np._structure import Layout
from gradiator_np._text import leaves
from gradiator_np._typing import Array


@dataclass(frozen=True, slots=True)
class FitStatistics:
    """Goodness of a fit. N counts residuals and rows of a prior, m fitted parameters.

    Attributes
    ----------
    n_data, n_prior, n_fitted : int
    absolute : bool
        Whether sigma is the error of the data; else it is found from the residuals.
    chi_squared : float
        Sum of squares of the residuals over sigma, and of the prior.
    chi_squared_prior : float
        The part of the prior.
    chi_squared_by_runs : float
        What the noise of the runs adds to it on average.
    degrees_of_freedom : int
        N - m.
    reduced_chi_squared, residual_sd : float
        Chi-squared by degree of freedom, and its root; nan without any.
    probability : float
        Of a larger chi-squared where data and prior are normal with the given errors; nan where
        sigma is found from the residuals.
    aic, bic : float
        Chi-squared + 2 m and + m ln N with absolute sigma, else N ln(chi-squared / N) in place of
        chi-squared, as in lmfit.
    r_squared : float
        1 - (sum of squares) / (that about the mean of the data), both over sigma squared; nan
        without data.
    down_weighted : int
        Residuals that a robust loss counts less than half. What is made from chi-squared is nan
        then: it belongs to least squares.
    """

    n_data: int
    n_prior: int
    n_fitted: int
    absolute: bool
    chi_squared: float
    chi_squared_prior: float
    chi_squared_by_runs: float
    degrees_of_freedom: int
    reduced_chi_squared: float
    residual_sd: float
    probability: float
    aic: float
    bic: float
    r_squared: float
    down_weighted: int


def fit_statistics(residuals: Any, record: FitRecord, observed: Any) -> FitStatistics:
    """From what fun returned, the record of the fit and, where they are given, the data."""
    with np.errstate(all="ignore"):  # squares that are no floats are inf or 0
        return _statistics(residuals, record, observed)


def _statistics(residuals: Any, record: FitRecord, observed: Any) -> FitStatistics:
    data, objective = record.data, record.objective
    scaled = objective.weighted(leaves(residuals))
    prior = objective.prior
    by_prior = (
        0.0
        if prior is None
        else float(np.square(prior.residuals(record.x[record.coordinates.independent])).sum())
    )
    total = float(scaled @ scaled)
    chi2, n, m = total + by_prior, len(scaled) + data.p, int(data.free.sum())
    absolute, likely = data.variance is not None, not data.robust
    weight = LOSSES[objective.loss].weight(scaled / objective.f_scale)
    reduced = chi2 / data.dof if likely and data.dof > 0 else np.nan
    by_runs = record.facts.chi_squared_by_runs * record.y_unit * record.y_unit
    fit = chi2 if absolute else n * float(np.log(chi2 / n))
    return FitStatistics(
        len(scaled), data.p, m, absolute, chi2, by_prior, by_runs,
        data.dof, reduced, float(np.sqrt(reduced)),
        float(chdtrc(data.dof, chi2)) if absolute and likely and data.dof > 0 else np.nan,
        fit + 2 * m if likely else np.nan,
        fit + m * float(np.log(n)) if likely else np.nan,
        np.nan if observed is None else 1.0 - total / _about_mean(observed, residuals, record),
        int((weight < 0.5).sum()),
    )  # fmt: skip


def residual_sd(residuals: Any, record: FitRecord) -> float:
    """Standard deviation of one observation; nan where data have several, or it is not found."""
    s, sigma = fit_statistics(residuals, record, None), record.objective.sigma
    if s.absolute or (sigma is not None and sigma.size > 1):
        return np.nan
    return s.residual_sd * (1.0 if sigma is None else float(sigma.ravel()[0]))


def _about_mean(observed: Any, residuals: Any, record: FitRecord) -> float:
    """Sum of squares of the data about their mean, over sigma squared.

    Raises
    ------
    ValueError
        For data of another shape than the residuals, that are not finite, or all the same.
    """
    layout = Layout.of(residuals)
    y: Array = checks.like_x(observed, layout, "data", "residuals")
    if not np.isfinite(y).all():
        raise ValueError("data must be finite: the observed values, one for each residual")
    weight = np.square(record.objective.weighted(np.ones(layout.size)))
    spread = float(weight @ np.square(y - weight @ y / weight.sum()))
    if not spread > 0:
        raise ValueError(
            "data are all the same, so no share of their variance can be explained; give the "
            "observed values, one for each residual"
        )
    return spread
