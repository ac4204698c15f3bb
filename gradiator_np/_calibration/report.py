"""The report of a fit: everything that a paper asks for, in text, HTML and as a DataFrame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._calibration import report_sections as sections
from gradiator_np._calibration.fit_record import FitRecord
from gradiator_np._calibration.fit_statistics import FitStatistics, fit_statistics
from gradiator_np._calibration.held import Limit
from gradiator_np._calibration.identifiability import (
    Combination,
    combinations,
    prior_shares,
    run_shares,
)
from gradiator_np._calibration.labels import parameter_names, parameter_units
from gradiator_np._calibration.tables import Section, as_html, as_text
from gradiator_np._propagation.tables import data_frame
from gradiator_np._samples import Samples
from gradiator_np._status import Status
from gradiator_np._structure import Layout
from gradiator_np._typing import Array


class Fit(Protocol):
    """What a report reads of a result."""

    fun: Any
    nfev: int
    rounds: int
    message: str
    reason: Status
    samples: Samples
    _record: FitRecord


class Correlation(NamedTuple):
    """Between the errors of two parameters."""

    first: str
    second: str
    value: float


@dataclass(frozen=True, eq=False, repr=False)
class FitReport:
    """What a fit found, to print: `LeastSquaresResult.report` makes it.

    Attributes
    ----------
    names, units : tuple of str
        Of the parameters, in the order of flat x.
    value, stderr, low, high, start, lower, upper : array, shape (m,)
        Parameters, standard errors, ends of 95 % intervals, x0, and bounds.
    state : tuple of str
        "fixed", "undetermined", "at lower bound", "at upper bound" or "".
    held : tuple of Limit
        Bounds and constraints that hold with equality, with their multipliers.
    run_share, prior_share : array, shape (m,)
        Shares of the noise of the runs in each variance, and of the prior in what is known.
    statistics : FitStatistics
        Chi-squared, AIC and their like.
    correlations : tuple of Correlation
        Those above ``min_correlation``, the largest first.
    combinations : tuple of Combination
        Of the parameters, the one that the data determine best first.

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import least_squares
    >>> t, y = np.arange(6.0), np.array([2.1, 3.8, 6.2, 7.9, 10.1, 11.8])
    >>> report = least_squares(lambda x: x[0] + x[1] * t - y, [1.0, 1.0]).report(data=y)
    >>> report.statistics.degrees_of_freedom, round(report.statistics.r_squared, 3)
    (4, 0.998)
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    value: Array
    stderr: Array
    low: Array
    high: Array
    start: Array
    lower: Array
    upper: Array
    state: tuple[str, ...]
    held: tuple[Limit, ...]
    run_share: Array
    prior_share: Array
    statistics: FitStatistics
    correlations: tuple[Correlation, ...]
    combinations: tuple[Combination, ...]
    _sections: tuple[Section, ...]

    def __repr__(self) -> str:
        return as_text(self._sections)

    def _repr_html_(self) -> str:
        return as_html(self._sections)

    def to_dataframe(self) -> Any:
        """One row for each parameter: its names, numbers and state.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        columns = ("value", "stderr", "low", "high", "start", "lower", "upper", "run_share",
                   "prior_share")  # fmt: skip
        return data_frame({
            "name": self.names, "unit": self.units, "state": self.state,
            **{name: getattr(self, name) for name in columns},
        })  # fmt: skip


def report_of(
    fit: Fit, *, names: Any, units: Any, data: Any, kind: str, min_correlation: float, x_scale: Any
) -> FitReport:
    """As `LeastSquaresResult.report` says."""
    record = fit._record
    layout = record.x_layout
    scale = _scale(x_scale, record, layout)
    labels, words = parameter_names(names, layout), parameter_units(units, layout)
    least = checks.real(min_correlation, "min_correlation")
    if not 0 <= least <= 1:
        raise ValueError(f"min_correlation must be from 0 to 1, got {least}")
    stderr = record.stderr(kind)
    low, high = record.interval(0.95, kind)
    state = _states(record)
    shares, by_prior = run_shares(record, kind), prior_shares(record)
    statistics = fit_statistics(fit.fun, record, data)
    correlations = _correlations(record.covariance(kind), labels, state, least)
    found = combinations(record, kind, scale)
    scale_name = "|x|" if x_scale is None else "x_scale"
    given = record.objective.prior is not None
    parts = (
        sections.ending(fit, statistics),
        sections.parameters(record, kind, labels, words, stderr, state, shares,
                            by_prior if given else None),
        sections.limits_that_hold(record, labels),
        sections.worth_of_runs(record, labels, stderr, shares, fit.reason),
        sections.goodness(statistics, record.objective),
        sections.correlated(correlations, least),
        sections.identifiable(found, labels, scale_name, given),
        sections.prior_knowledge(record, labels, by_prior) if given else None,
    )  # fmt: skip
    return FitReport(
        tuple(labels), tuple(words), record.x, stderr, low, high, record.facts.start, record.low,
        record.high, tuple(state), record.held.limits, shares, by_prior, statistics,
        tuple(correlations), tuple(found), tuple(part for part in parts if part is not None),
    )  # fmt: skip


def _scale(x_scale: Any, record: FitRecord, layout: Layout) -> Array:
    """What combinations are counted in: |x|, and where that is 0 the unit of the search."""
    if x_scale is None:
        return np.where(record.x == 0, record.facts.scale, np.abs(record.x))
    return checks.positive(x_scale, layout, "x_scale")


def _states(record: FitRecord) -> list[str]:
    """What is to be said of each parameter beside its numbers."""
    free, x = record.free, record.x
    state = np.full(len(x), "", object)
    state[free & (x <= record.low)] = "at lower bound"
    state[free & (x >= record.high)] = "at upper bound"
    state[record.undetermined] = "undetermined"
    state[~free] = "fixed"
    return list(state)


def _correlations(
    cov: Array, labels: list[str], state: list[str], least: float
) -> list[Correlation]:
    """Those of at least that size between parameters that are determined."""
    known = [j for j, word in enumerate(state) if word not in ("fixed", "undetermined")]
    known = [j for j in known if cov[j, j] > 0]
    pairs = [
        Correlation(labels[i], labels[j], float(cov[i, j] / np.sqrt(cov[i, i] * cov[j, j])))
        for at, i in enumerate(known)
        for j in known[at + 1 :]
    ]
    return sorted((p for p in pairs if abs(p.value) >= least), key=lambda p: -abs(p.value))
