"""Bounds and constraints that hold the minimum, and what they take from the errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import null_space
from scipy.optimize import nnls
from scipy.special import erfcx

from gradiator_np._calibration.constraints import Rows
from gradiator_np._calibration.local_model import LocalModel
from gradiator_np._calibration.problem import FitProblem
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._calibration.uncertainty import (
    LEAST_PART,
    determined_inverse,
    minimiser_covariance,
)
from gradiator_np._typing import Array, Mask

#: A constraint holds x where what is left to its limit is this share of its terms.
TOUCHING = 1e-8
#: Multipliers below this share of the gradient are rounding of NNLS.
LEAST_MULTIPLIER = 1e-10
#: Standard errors, by noise of the runs, from which on a multiplier is sure not to be 0.
SURE = 2.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound or a linear constraint that holds with equality at the minimum.

    Attributes
    ----------
    kind : str
        "bound" or "constraint".
    index : int
        Of the parameter, or of the row among all rows of ``constraints``.
    side : str
        "lower" or "upper".
    value : float
        The limit.
    normal : array, shape (m,)
        Coefficients of the parameters.
    multiplier : float
        What the cost falls by for one unit of the limit: positive for an upper one, negative for a
        lower one, as `scipy.optimize.minimize` has them; 0 where it holds with equality by chance.
    """

    kind: str
    index: int
    side: str
    value: float
    normal: Array
    multiplier: float

    @property
    def outward(self) -> Array:
        """Its normal, pointing to where x may not go."""
        return self.normal if self.side == "upper" else -self.normal


@dataclass(frozen=True, slots=True)
class Held:
    """What holds the minimum, and how hard.

    Attributes
    ----------
    limits : tuple of Limit
    rows : array, shape (q, k)
        Outward normals with a multiplier, by what was searched, in radii.
    beyond : array, shape (q,)
        How far beyond each the minimum of the linearised problem without any of them lies.
    free : array, shape (k, f)
        Orthonormal directions, in radii, that neither fixed parameters nor limits whose multiplier
        is sure to be one hold.
    """

    limits: tuple[Limit, ...]
    rows: Array
    beyond: Array
    free: Array

    def narrowed(self, covariance: Array) -> Array:
        """Mean squares about x of the normal law with that covariance where x may go.

        The slack s >= 0 of a limit that the minimum without it is z standard errors beyond has the
        density exp(-(s + z)^2 / 2), so <s^2> = 1 + z^2 - z phi(z) / Q(z): 1 where the limit holds
        by chance, 2 / z^2 where data contradict it, and then only what runs along it is open.
        Of several limits each is taken as if the others held exactly (0.945 to 1.00 held of 1500
        data sets each, twelve random cases of two and three limits).

        Of two parameters and one limit, truth 0, 0.5, 1 and 2 standard errors inside, correlations
        of 0 to 0.95, 95 % intervals held 0.949 to 0.975 (`benchmarks.lsq_coverage`); with the
        covariance along the limit (that of an equality) 0.67 to 0.975, without the limit 0.949 to
        0.975, up to six times too wide where data contradict it.
        """
        if not len(self.rows) or not np.isfinite(covariance).all():
            return covariance
        along, slack, z = self._standardised(covariance)
        inverse = np.linalg.pinv(slack, hermitian=True)
        left = np.sqrt(slack_square(z))
        regression = along @ inverse
        taken = regression @ (slack - slack * np.outer(left, left)) @ regression.T
        return np.asarray(covariance - 0.5 * (taken + taken.T))

    def standard_errors_beyond(self, covariance: Array) -> Array:
        """How far beyond each of ``limits`` the minimum without it lies; nan where not known."""
        out = np.zeros(len(self.limits))
        holds = np.array([limit.multiplier != 0 for limit in self.limits], bool)
        known = np.isfinite(covariance).all()
        out[holds] = self._standardised(covariance)[-1] if known else np.nan
        return out

    def _standardised(self, covariance: Array) -> tuple[Array, Array, Array]:
        """Of the rows, by their standard errors: covariances with what was searched (k, q) and
        with each other (q, q), and z (q,). Rows that are known exactly are 0."""
        size = np.sqrt(np.maximum(np.einsum("qi,ij,qj->q", self.rows, covariance, self.rows), 0.0))
        unit = np.where(size > 0, size, np.inf)
        along = covariance @ (self.rows / unit[:, None]).T
        slack = self.rows / unit[:, None] @ along
        inverse = np.linalg.pinv(slack, hermitian=True)
        each = np.sqrt(np.maximum(np.diagonal(inverse), 1e-300))
        return along, slack, np.maximum(inverse @ (self.beyond / unit) / each, 0.0)


def slack_square(z: Array) -> Array:
    """<s^2> of the density exp(-(s + z)^2 / 2) of s >= 0."""
    large = np.maximum(z, 30.0)  # where the terms below cancel; the next one is 1e-6 of it
    series = (2.0 - (10.0 - 74.0 / large**2) / large**2) / large**2
    small = np.minimum(z, 30.0)
    mills = np.sqrt(2.0 / np.pi) / erfcx(small / np.sqrt(2.0))
    return np.asarray(np.where(z > 30.0, series, 1.0 + small * small - small * mills))


def touching(
    x: Array, free: Mask, bounds: tuple[Array, Array], rows: Rows, scale: Array
) -> list[Limit]:
    """Bounds of parameters that are fitted, and inequalities, that hold x with equality."""
    found = []
    for side, limit, at in (
        ("lower", bounds[0], x <= bounds[0]),
        ("upper", bounds[1], x >= bounds[1]),
    ):
        for j in np.flatnonzero(at & free).tolist():
            found.append(Limit("bound", j, side, float(limit[j]), np.eye(len(x))[j], 0.0))
    terms = np.abs(rows.matrix) @ np.maximum(np.abs(x), scale)
    value = rows.matrix @ x
    for side, limit, room in (
        ("lower", rows.low, value - rows.low),
        ("upper", rows.high, rows.high - value),
    ):
        for i in np.flatnonzero(~rows.equal & (room <= TOUCHING * terms)).tolist():
            found.append(Limit("constraint", i, side, float(limit[i]), rows.matrix[i], 0.0))
    return found


def held_at(
    problem: FitProblem, z: Array, model: LocalModel, unit: Array, y_unit: float, inverse: Array
) -> Held:
    """What holds a point, with its multipliers by the model there.

    Parameters
    ----------
    z : array, shape (k,)
        Of what is searched.
    model : LocalModel
        In units of ``unit`` (k,) and of ``y_unit``.
    inverse : array, shape (k, k)
        Of the Gauss-Newton matrix, over what is determined.
    """
    coordinates, movable = problem.coordinates, problem.high > problem.low
    basis, gradient = coordinates.basis * unit, model.gradient
    limits = touching(
        coordinates.expand(z), problem.movable, problem.bounds, problem.constraints, problem.x_scale
    )
    every = np.array([limit.outward for limit in limits]).reshape(-1, len(basis))
    rows = np.where(movable, every @ basis, 0.0)
    size = np.linalg.norm(rows, axis=1)
    rows = rows / np.where(size > 0, size, 1.0)[:, None]  # of fixed parameters only: all 0
    downhill = np.where(movable, -gradient, 0.0)
    steep = float(np.abs(downhill).max(initial=0.0))
    push = np.zeros(len(rows))
    if len(rows) and steep > 0:
        push = nnls(rows.T, downhill / steep)[0] * steep
    holds = push > LEAST_MULTIPLIER * steep
    kept = rows[holds]
    noise = np.sqrt(np.einsum("qi,ij,qj->q", kept, _gradient_covariance(model), kept))
    sure = push[holds] > SURE * noise
    each = np.eye(len(movable))[:, movable]
    free = each @ null_space(kept[sure] @ each) if sure.any() else each
    told = [
        replace(
            limit,
            multiplier=float(p / s * y_unit * y_unit * (1 if limit.side == "upper" else -1))
            if h
            else 0.0,
        )
        for limit, p, s, h in zip(limits, push, size, holds)
    ]
    return Held(tuple(told), kept, kept @ inverse @ kept.T @ push[holds], free)


def _gradient_covariance(model: LocalModel) -> Array:
    """Of half the sum of squares, by u, by the noise of the runs."""
    by_jac = model.summed_covariance(model.residuals**2)[1:, 1:]
    return np.asarray(by_jac + (model.jac.T * model.value_variances) @ model.jac)


def run_errors(
    problem: FitProblem,
    x: Array,
    model: LocalModel,
    region: TrustRegion,
    y_unit: float,
    inverse: Array | None = None,
) -> tuple[Held, Array, Mask]:
    """What holds x, and what noise of the runs leaves open there.

    Parameters
    ----------
    inverse : array, shape (k, k), optional
        As in `held_at`; by default that of the model.

    Returns
    -------
    held : Held
    covariance : array, shape (k, k)
        Of the minimiser, in radii.
    lost : array of bool, shape (k,)
        Parameters that the runs do not determine.
    """
    if inverse is None:
        inverse = determined_inverse(model, ~region.movable).inverse
    held = held_at(problem, x, model, region.unit, y_unit, inverse)
    return held, *_run_covariance(model, held.free)


def _run_covariance(model: LocalModel, free: Array) -> tuple[Array, Mask]:
    """Covariance of the minimiser by the noise of the runs, and parameters that it leaves open.

    Along the directions (m, f) that neither bounds nor half-spaces hold. What a Gauss-Newton step
    would still move along them counts as an error.
    """
    m, f = free.shape
    turn = np.zeros((m + 1, f + 1))
    turn[0, 0], turn[1:, 1:] = 1.0, free
    along = replace(model, jac=model.jac @ free, covariances=turn.T @ model.covariances @ turn)
    nothing = np.zeros(f, bool)
    told = determined_inverse(along, nothing)
    cov, _ = minimiser_covariance(along, nothing)
    left = free @ (told.inverse @ along.gradient)
    lost = np.asarray((np.abs(free @ told.lost) > LEAST_PART).any(1))
    return np.asarray(free @ cov @ free.T + np.diag(np.square(left))), lost
