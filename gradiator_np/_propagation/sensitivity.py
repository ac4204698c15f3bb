"""Derivatives in comparable units, ranked as far as their error bars allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradiator_np import _checks as checks
from gradiator_np._propagation.input_errors import deviations
from gradiator_np._propagation.ranking import rank_intervals, ranks
from gradiator_np._propagation.source import interval_factors, jacobian_of
from gradiator_np._propagation.tables import data_frame
from gradiator_np._results import JacobianEstimate
from gradiator_np._status import Status
from gradiator_np._structure import blocks
from gradiator_np._text import MOST_ROWS, aligned, error, extent, number, verdict
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._solution import Solution, student_quantile

#: A ratio has a bounded 95 % interval where its denominator is so many standard errors from 0.
BOUNDED = 1.96


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivities:
    """Scaled derivatives with error bars and ranks; `sensitivities` says how they come about.

    Attributes
    ----------
    kind : str
        What they are: "dy/dx * x/y", "dy/dx * std_x" or "dy/dx * std_x/std_y".
    estimate : JacobianEstimate
        The Jacobian that was used.
    confidence_level : float
        Of the rank intervals.
    message : str
        Entries that are not defined, ranks that are not settled, and what the estimate had to say.

    Examples
    --------
    >>> from gradiator_np import jacobian, sensitivities
    >>> power = jacobian(lambda x: x["U"] ** 2 / x["R"], {"U": 10.0, "R": 50.0})
    >>> found = sensitivities(power)
    >>> {k: float(round(v, 6)) for k, v in found.value.items()}, found.rank
    ({'U': 2.0, 'R': -1.0}, {'U': np.int64(1), 'R': np.int64(2)})
    """

    kind: str
    estimate: JacobianEstimate
    confidence_level: float
    message: str
    _value: Array
    _stderr: Array
    _ranks: tuple[Index, Index, Index]

    def _like_jac(self, matrix: Any) -> Any:
        return blocks(matrix, self.estimate.frame.y_layout, self.estimate.frame.x_layout)

    @property
    def value(self) -> Any:
        """The sensitivities, like jac; nan where they are not defined."""
        return self._like_jac(self._value)

    @property
    def stderr(self) -> Any:
        """One standard error of each, like jac: inf where no sample determines the entry or y may
        be 0, nan where nothing tells its error, 0 for a Jacobian given as an array."""
        return self._like_jac(self._stderr)

    @property
    def rank(self) -> Any:
        """Rank of each input by \\|value\\| among those of its output, like jac: 1 for the largest,
        values that are not defined last."""
        return self._like_jac(self._ranks[0])

    @property
    def rank_interval(self) -> tuple[Any, Any]:
        """Least and largest rank that the error bars leave open, each like jac.

        Where both are the same the rank is settled. All intervals of one output hold together with
        probability ``confidence_level``.
        """
        return self._like_jac(self._ranks[1]), self._like_jac(self._ranks[2])

    @property
    def status(self) -> Status:
        """How far the Jacobian can be trusted."""
        return self.estimate.status

    @property
    def success(self) -> bool:
        """Whether the Jacobian is what was asked for: ``status.success``."""
        return self.estimate.success

    def to_dataframe(self) -> Any:
        """A row for each output and input: their names, value, its error, rank and its interval.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            Where pandas is not installed.
        """
        y, x = self.estimate.frame.y_layout, self.estimate.frame.x_layout
        rank, low, high = (r.ravel() for r in self._ranks)
        return data_frame({
            "output": np.repeat([f"y{name}" for name in y.names], x.size),
            "input": [f"x{name}" for name in x.names] * y.size,
            "sensitivity": self._value.ravel(),
            "stderr": self._stderr.ravel(),
            "rank": rank,
            "rank_low": low,
            "rank_high": high,
        })  # fmt: skip

    def __repr__(self) -> str:
        y, x = self.estimate.frame.y_layout.names, self.estimate.frame.x_layout.names
        rank, low, high = self._ranks
        each = max(MOST_ROWS // len(y), 1)
        rows = [("output", "rank", "input", self.kind, "stderr")]
        for i in range(min(len(y), MOST_ROWS)):
            for j in np.argsort(rank[i])[:each]:
                place = dict.fromkeys([str(low[i, j]), str(high[i, j])])
                value, err = self._value[i, j], self._stderr[i, j]
                rows.append((f"y{y[i]}", " to ".join(place), f"x{x[j]}", number(value, err),
                             error(err)))  # fmt: skip
        left = self._value.size - len(rows) + 1
        more = [f"... {left} more: .value, .stderr, .rank"] if left else []
        head = f"Sensitivities: {extent(self._value.shape)}"
        return "\n".join([head, *aligned(rows), *more, verdict(self)])


def sensitivities(
    estimate: Any, *, std_x: Any = None, std_y: Any = None, confidence_level: float = 0.95
) -> Sensitivities:
    r"""Put derivatives into units in which inputs can be compared, and rank the inputs.

    Parameters
    ----------
    estimate : JacobianEstimate, ProductEstimate or array_like, shape (n, m)
        What `jacobian`, `gradient`, `vjp` or `fit_jacobian` return; an array, which is taken as
        exact, asks for ``std_x``.
    std_x : float or like x, optional
        What counts as a like change of each input, such as standard deviations or tolerances, in
        units of x. By default the values at x: elasticities.
    std_y : float or like y, optional
        With ``std_x``: unit of each output.
    confidence_level : float
        Of the rank intervals of one output, all together.

    Returns
    -------
    Sensitivities
        ``value``, ``stderr``, ``rank`` and ``rank_interval``; ``print`` it for a table of inputs,
        the largest first.

    Raises
    ------
    ValueError
        For units that are negative, 0 (of y) or not finite, ``std_y`` without ``std_x``, batches,
        and elasticities of an estimate without x or y.
    TypeError
        For a complex Jacobian, for J u, and what is no Jacobian at all.

    Notes
    -----
    An elasticity dy/dx x/y is the relative change of y by relative change of x. It is nan where y
    is 0; where x is 0 too, since a share of 0 is no change. Its error holds that of y (one run, or
    the fitted value's), taken as independent of that of J, and is inf where y is less than 1.96
    standard errors from 0: a ratio then has no bounded 95 % interval (Fieller, J. R. Statist. Soc.
    B 16, 1954, 175).

    The order of two inputs is settled where both the difference and the sum of their values, with
    the covariance of the errors of J, are beyond Student's t from 0, at a level shared among all
    pairs of an output (Bonferroni): an output of which any order is settled wrongly has the
    probability 1 - ``confidence_level`` at most.

    Examples
    --------
    >>> from gradiator_np import jacobian, sensitivities
    >>> estimate = jacobian(lambda x: x[0] ** 2 * x[1] ** 2 * x[2] ** -3, [1.0, 2.0, 3.0])
    >>> found = sensitivities(estimate)
    >>> found.value.round(6), found.rank_interval
    (array([ 2.,  2., -3.]), (array([2, 2, 1]), array([3, 3, 1])))
    """
    estimate = jacobian_of(estimate, "sensitivities")
    level = checks.level(confidence_level)
    solution = estimate.solution
    if std_x is None and std_y is not None:
        raise ValueError("std_y goes with std_x; give both, or none of them for elasticities")
    units = _values(estimate) if std_x is None else _given(estimate, std_x, std_y)
    stderr = np.broadcast_to(solution.cov.stderr(), solution.coef.shape)
    still = np.broadcast_to(units.x == 0, stderr.shape)  # 0 times an unknown derivative is 0
    with np.errstate(invalid="ignore"):
        unknown = (np.isinf(stderr) & ~still) | np.isnan(units.y)[:, None]
        value = np.where(unknown, np.nan, solution.coef * units.x)
        own = np.where(still, 0.0, stderr * units.x)
        size = np.abs(units.y)[:, None]
        # The variance of a product of two that err: J and 1 / y.
        both = np.hypot(value, own)
        by_y = np.where(both == 0, 0.0, both * units.y_error[:, None])
        found = _ranked(solution, value, own, units.x, level)
        total = np.hypot(own, by_y) / size
    value = value / units.y[:, None] + 0.0  # no -0
    kind = "dy/dx * x/y" if std_x is None else "dy/dx * std_x" + "/std_y" * (std_y is not None)
    message = _message(estimate, units, total, found, level)
    return Sensitivities(kind, estimate, level, message, value, total, found)


class Units(NamedTuple):
    """What derivatives are multiplied by and divided by, and the relative error of the latter.

    nan for an x or y of 0; ``y_error`` is inf where y may be 0.
    """

    x: Array
    y: Array
    y_error: Array


def _given(estimate: JacobianEstimate, std_x: Any, std_y: Any) -> Units:
    """Units of the caller's."""
    frame, one = estimate.frame, np.ones(estimate.frame.y_layout.size)
    y = one if std_y is None else deviations(std_y, frame.y_layout, "std_y", positive=True)
    return Units(deviations(std_x, frame.x_layout, "std_x"), y, 0 * one)


def _values(estimate: JacobianEstimate) -> Units:
    """The values at x."""
    frame, solution = estimate.frame, estimate.solution
    if frame.x is None or frame.y is None:
        missing = "x" if frame.x is None else "y"
        raise ValueError(
            f"elasticities need x and the value there, and this Jacobian comes without {missing}; "
            "give std_x="
        )
    stderr = solution.cov.scale if solution.value_stderr is None else solution.value_stderr
    y = np.where(frame.y == 0, np.nan, frame.y)
    relative = stderr / np.abs(y)
    y_error = np.where(relative * BOUNDED > 1, np.inf, relative)
    return Units(np.where(frame.x == 0, np.nan, frame.x), y, y_error)


def _ranked(
    solution: Solution, value: Array, stderr: Array, unit: Array, level: float
) -> tuple[Index, Index, Index]:
    """Ranks (n, m) and the intervals that error bars leave open."""
    m = value.shape[1]
    dof = np.where(solution.dof > 0, solution.dof, np.nan)
    t = student_quantile(1 - (1 - level) / max(m * (m - 1), 2), dof)
    known = np.isfinite(value) & np.isfinite(stderr)
    by = unit * interval_factors(solution)
    return ranks(value), *rank_intervals(value, solution.cov.rows(), by, known, t)


def _message(
    estimate: JacobianEstimate,
    units: Units,
    stderr: Array,
    found: tuple[Index, Index, Index],
    level: float,
) -> str:
    """What is not defined, not determined or not settled."""
    y, x = estimate.frame.y_layout, estimate.frame.x_layout
    lost = np.isinf(estimate.solution.cov.stderr()) & (units.x != 0)
    defined = ~np.isnan(units.x) & ~np.isnan(units.y)[:, None]
    parts = []
    for which, name, text in (
        (np.isnan(units.y), y.listed("y", np.flatnonzero(np.isnan(units.y))),
         "{0} is 0: its elasticities are not defined; give std_x="),
        (np.isinf(units.y_error), y.listed("y", np.flatnonzero(np.isinf(units.y_error))),
         "{0} may be 0 within its error: the error bars of its elasticities have no end; give "
         "std_x="),
        (np.isnan(units.x), x.listed("x", np.flatnonzero(np.isnan(units.x))),
         "{0} is 0: a relative change of it is none, so its elasticities are nan; give std_x="),
        (lost, x.listed("x", np.flatnonzero(np.broadcast_to(lost, stderr.shape).any(0))),
         "no sample determines derivatives by {0}: sample along these inputs"),
        (np.isnan(stderr) & defined,
         y.listed("y", np.flatnonzero((np.isnan(stderr) & defined).any(1))),
         "nothing tells the errors of J for {0}, and no order is settled: give noise= to the "
         "estimate, or let method='auto' find it"),
        (found[1] < found[2], y.listed("y", np.flatnonzero((found[1] < found[2]).any(1))),
         f"error bars do not settle every rank ({level:.3g}) for {{0}}"),
    ):  # fmt: skip
        if which.any():
            parts.append(text.format(name))
    if estimate.message:
        parts.append(f"The Jacobian: {estimate.message}")
    return ". ".join(parts)
