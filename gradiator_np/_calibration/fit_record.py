"""What a fit keeps beside the fields of its result: what more is computed from when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from gradiator_np import _checks as checks
from gradiator_np._calibration.constraints import Coordinates, Rows, farthest, nearest
from gradiator_np._calibration.held import Held
from gradiator_np._calibration.objective import Objective
from gradiator_np._calibration.parameter_covariance import HETEROSCEDASTIC, KINDS, DataErrors
from gradiator_np._structure import Layout
from gradiator_np._typing import Array, Mask

#: Starts of conditional fits keep this far within constraints, in the unit of the search.
INSIDE = 1e-6


class ModelFacts(NamedTuple):
    """What a report says of the search and of its last model.

    Attributes
    ----------
    start, scale : array, shape (m,)
        x0, and the unit of the parameters that the search began with.
    constraints : Rows
        Of all parameters.
    runs : int
        Runs that the model at the minimum is made from.
    chi_squared_by_runs : float
        What the noise of the runs adds to the sum of squares on average, in ``y_unit`` squared.
    """

    start: Array
    scale: Array
    constraints: Rows
    runs: int
    chi_squared_by_runs: float


@dataclass(frozen=True, slots=True)
class FitRecord:
    """What a result keeps beside its fields: what more of it is computed from when asked.

    Attributes
    ----------
    x, low, high : array, shape (m,)
        The parameters and their bounds.
    free, undetermined : array of bool, shape (m,)
        Those that are fitted, and those that nothing determines.
    x_layout : Layout
    coordinates : Coordinates
        From the k parameters that were searched to all.
    unit : array, shape (k,)
        The unit of the covariances below.
    y_unit : float
        The unit of ``data``.
    data : DataErrors
    runs : array, shape (k, k)
        Covariance by the noise of the runs.
    held : Held
        Bounds and constraints that hold x.
    objective : Objective
    facts : ModelFacts
    """

    x: Array
    low: Array
    high: Array
    free: Mask
    undetermined: Mask
    x_layout: Layout
    coordinates: Coordinates
    unit: Array
    y_unit: float
    data: DataErrors
    runs: Array
    held: Held
    objective: Objective
    facts: ModelFacts

    def index(self, parameter: int | str) -> int:
        """Of a parameter that is fitted, in flat x.

        Raises
        ------
        ValueError
            For another one.
        """
        names = self.x_layout.names
        if isinstance(parameter, str):
            by_name = {name.lstrip("."): j for j, name in enumerate(names)}
            j = by_name.get(parameter.lstrip("."), -1)
        else:
            j = checks.integer(parameter, "parameter", 0)
        if not 0 <= j < len(names):
            known = self.x_layout.listed("x", range(len(names)))
            raise ValueError(
                f"there is no parameter {parameter!r}; they are {known}, or 0 to {len(names) - 1}"
            )
        if not self.free[j] or self.undetermined[j]:
            what = "undetermined" if self.free[j] else "fixed"
            raise ValueError(f"x{names[j]} is {what}: it has no interval")
        return j

    def searched_covariance(self, kind: str) -> Array:
        """A covariance (k, k) of what was searched, in ``unit``, noise of the runs included."""
        checks.choice(kind, (*KINDS, "runs"), "kind")
        if kind == "runs":
            return self.runs
        return self.held.narrowed(self.data.covariance(kind)) + self.runs

    def covariance(self, kind: str) -> Array:
        """Of one kind, of all parameters, in units of x."""
        return self.of_all(self.searched_covariance(kind))

    def of_all(self, covariance: Array) -> Array:
        """A covariance (k, k) of the parameters that were searched, in ``unit``, as one of all."""
        covariance = covariance * np.outer(self.unit, self.unit)
        basis = self.coordinates.basis
        return covariance if self.coordinates.trivial else basis @ covariance @ basis.T

    @property
    def steps(self) -> Array:
        """Changes of all parameters (m, k) by one unit of each that was searched and is free."""
        return np.asarray((self.coordinates.basis * self.unit)[:, self.data.free])

    @property
    def lost(self) -> Array:
        """Directions (k, q) of what was searched, in ``unit``, along which nothing tells it."""
        lost, undetermined = self.data.lost, self.data.undetermined
        # by the runs, where the model of robust losses finds the data to determine it
        alone = undetermined & ~(np.abs(lost) > 0.05).any(1)
        return np.hstack([lost, np.eye(len(lost))[:, alone]])

    def stderr(self, kind: str) -> Array:
        """0 for fixed parameters, inf for undetermined ones, nan where nothing tells it."""
        with np.errstate(invalid="ignore"):
            if self.coordinates.trivial:  # squares may under- and overflow
                error = np.sqrt(np.diagonal(self.searched_covariance(kind))) * self.unit
            else:
                error = np.sqrt(np.diagonal(self.covariance(kind)))
        error = np.where(self.free, error, 0.0)
        return np.where(self.undetermined, np.inf, error)

    def errors_from_residuals(self, kind: str) -> bool:
        """Whether a covariance rests on the size of the residuals."""
        return self.data.variance is None or self.data.robust or kind in HETEROSCEDASTIC

    def quantile_dof(self, kind: str) -> float:
        """Degrees of freedom of Student's t for intervals; inf where the normal law holds."""
        if kind in HETEROSCEDASTIC:
            return float(max(len(self.data.jac) - int(self.data.free.sum()), 0))
        return np.inf if kind == "runs" else self.data.quantile_dof

    def quantile(self, level: float, kind: str) -> float:
        """Half the width of an interval in standard errors."""
        dof = self.quantile_dof(kind)
        if not dof:
            return np.nan
        return float(stdtrit(min(dof, 1e9), 0.5 + level / 2))

    def interval(self, level: float, kind: str) -> tuple[Array, Array]:
        """Ends of intervals of the parameters, within their bounds."""
        half = self.quantile(level, kind) * self.stderr(kind)
        half = np.where(self.free, half, 0.0)
        return np.maximum(self.x - half, self.low), np.minimum(self.x + half, self.high)

    def within(self, x: Array) -> Mask:
        """Which of several x (q, m) keep to bounds and inequalities."""
        rows = self.facts.constraints
        value = x @ rows.matrix.T
        holds = rows.equal | ((value >= rows.low) & (value <= rows.high))
        return np.asarray(((x >= self.low) & (x <= self.high)).all(1) & holds.all(1))

    def extent(self, j: int) -> tuple[float, float]:
        """How far a parameter may go within bounds and constraints.

        A millionth of the way is left to where constraints leave one point only.
        """
        if not self.facts.constraints.matrix[:, j].any():
            return float(self.low[j]), float(self.high[j])
        here, ends = float(self.x[j]), []
        for sign in (-1.0, 1.0):
            end = self._farthest(j, sign)
            way = sign * np.inf if end is None else float(end[j]) - here
            ends.append(here + (1.0 - INSIDE) * way)
        return ends[0], ends[1]

    def _farthest(self, j: int, sign: float) -> Array | None:
        facts = self.facts
        return farthest(facts.constraints, j, sign, self.x, facts.scale, self.low, self.high)

    def allowed(self, x: Array, j: int) -> Array:
        """The nearest parameters that are allowed with x[j], which is within its extent."""
        held = np.arange(len(x)) == j
        low, high = np.where(held, x, self.low), np.where(held, x, self.high)
        x, facts = np.clip(x, low, high), self.facts
        if not len(facts.constraints.matrix):
            return x
        near = nearest(facts.constraints, x, facts.scale, low, high, INSIDE)
        if near is not None:
            return near
        # next to its end, on the way there
        way = float(x[j] - self.x[j])
        end = self._farthest(j, 1.0 if way > 0 else -1.0)
        if end is None or end[j] == self.x[j]:
            return self.x
        return np.asarray(self.x + way / float(end[j] - self.x[j]) * (end - self.x))
