"""Coordinate stencils of order 1 to 8: where to look; ``solvers.stencil`` makes J of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.designs.base import Problem, Rows
from gradiator_np.designs.moves import AxisMoves
from gradiator_np.solvers.solution import Solution
from gradiator_np.solvers.stencil import Lines, solve_lines
from gradiator_np.status import Status

Array = NDArray[np.float64]

#: Order of accuracy of each method; a stencil of order p has p points beside x.
ORDERS = {"2-point": 1, "3-point": 2, "5-point": 4, "7-point": 6, "9-point": 8}

#: Multiples of the step, nearest first, so that the first p - 2 are the stencil of order p - 2.
CENTRAL = {
    p: np.array([1] if p == 1 else [s * q for q in range(1, p // 2 + 1) for s in (1, -1)])
    for p in ORDERS.values()
}

# A failed point is replaced by the next one on the other side of its line, then drawn in twice.
SHRINK = 0.125
MAX_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Stencil:
    """Differences along each input.

    Parameters
    ----------
    method : str
        A key of ``ORDERS``.
    step : array, shape (B, m), or None
        Signed steps in units of x; by default see ``default_step``.
    """

    method: str
    step: Array | None = None
    needs_value = False

    def start(self, problem: Problem) -> StencilPlan:
        """A plan for one problem."""
        return StencilPlan(self, problem)


def default_step(x: Array, scale: Array, eps: float, order: int) -> Array:
    """Steps eps^(1/(order + 1)) times the scale of x, away from zero.

    There rounding, eps / h, and truncation, h^order, balance for a function that bends on the
    scale of x. They are powers of two, so that x + h is exact for nearly every x.
    """
    # frexp gives 2^(e-1) <= v < 2^e: with sqrt(2) more that is the power of two nearest to v.
    _, exponent = np.frexp(eps ** (1 / (order + 1)) * math.sqrt(2) * scale)
    return np.asarray(np.copysign(np.ldexp(0.5, exponent), x))


def place(problem: Problem, step: Array, order: int) -> tuple[Array, Array]:
    """Fit a stencil between the bounds.

    Returns
    -------
    multiples : array, shape (order,) or (order, B, m)
        Points in units of the step, nearest first.
    step : array, shape (B, m)
        Drawn in only where no stencil of this order fits; 0 where the input is fixed.
    """
    central = CENTRAL[order]
    if not problem.bounded:
        return central, step
    up, down = problem.upper - problem.x, problem.x - problem.lower
    reach = np.abs(step) * max(central)
    if ((reach <= up) & (reach <= down)).all():
        return central, step
    ahead, behind = np.where(step > 0, up, down), np.where(step > 0, down, up)
    best = np.full(step.shape, -1.0)
    multiples = np.zeros((order, *step.shape))
    size = np.zeros(step.shape)
    centre = -(order // 2)
    for first in sorted(range(-order, 1), key=lambda start: abs(start - centre)):
        points = np.delete(np.arange(first, first + order + 1), -first)
        points = points[np.argsort(np.abs(points) - 0.1 * (points > 0), kind="stable")]
        h = np.abs(step)
        for room, reach in ((ahead, points.max()), (behind, -points.min())):
            h = np.minimum(h, room / reach) if reach > 0 else h
        shift = abs(first - centre)
        score = h * 2.0**-shift
        better = score > best
        best = np.where(better, score, best)
        size = np.where(better, h, size)
        multiples = np.where(better, points[:, None, None], multiples)
    return multiples, np.copysign(size, step)


class StencilPlan:
    """A stencil at work on one problem; see ``Plan``."""

    def __init__(self, design: Stencil, problem: Problem) -> None:
        self.name = design.method
        self.order = ORDERS[design.method]
        self.problem = problem
        step = design.step
        if step is None:
            step = default_step(problem.x, problem.scale, problem.eps, self.order)
        self.multiples, self._step = place(problem, step, self.order)
        m = problem.x.shape[1]
        moved = self._step.any(0) if problem.bounded else True
        self.active = np.arange(m) if moved is True else np.flatnonzero(moved)
        self.rounds = 0

    @property
    def step(self) -> Array:
        """Step of each input, nan where fixed, shape (B, m)."""
        step: Array = np.abs(self._step)
        return np.where(step == 0, np.nan, step) if self.problem.bounded else step

    def ask(self, rows: Rows) -> AxisMoves | None:
        """The whole stencil at once, then replacements for what failed."""
        self.rounds += 1
        if self.rounds == 1:
            return self._stencil() if len(self.active) else None
        if rows.clean or not self.problem.replace or self.rounds > 1 + MAX_ROUNDS:
            return None
        return self._replacements(rows)

    def _stencil(self) -> AxisMoves:
        """The nearest points of all inputs first."""
        step = self._step if len(self.active) == self._step.shape[1] else self._step[:, self.active]
        if self.multiples.ndim == 1:
            t = self.multiples[:, None, None] * step.T
        else:
            t = (self.multiples[:, :, self.active] * step).transpose(0, 2, 1)
        columns = np.tile(self.active, self.order) if self.order > 1 else self.active
        return AxisMoves(columns, t.reshape(columns.size, -1))

    def _replacements(self, rows: Rows) -> AxisMoves | None:
        """New points on the lines that have fewer good ones than the order wants."""
        moves = _axis(rows)
        good = np.isfinite(rows.values).all(-1)  # (k, B)
        new: list[tuple[int, Array]] = []
        for j in self.active.tolist():
            line = np.flatnonzero(moves.columns == j)
            lost = self.order - int(good[line].sum(0).min())
            failed = line[~good[line].all(1)]
            taken = moves.t[line]
            for row in failed[len(failed) - lost :] if lost > 0 else ():
                t = self._replacement(moves.t[row], taken, j)
                taken = np.concatenate([taken, t[None]])
                new.append((j, t))
        if not new:
            return None
        return AxisMoves(np.array([j for j, _ in new]), np.stack([t for _, t in new]))

    def _replacement(self, failed: Array, taken: Array, j: int) -> Array:
        """Another offset on the line of input j, shape (B,), none of ``taken``."""
        p, h = self.problem, np.abs(self._step[:, j])
        if self.rounds == 2:
            side = -np.sign(failed)
            farthest = np.max(np.where(taken * side > 0, np.abs(taken), 0.0), axis=0)
            room = np.where(side > 0, p.upper[:, j] - p.x[:, j], p.x[:, j] - p.lower[:, j])
            if (farthest + h <= room).all():
                return np.asarray(side * (farthest + h))
        t = failed * SHRINK
        # 0 stays: there the input is fixed, at this point of the batch.
        while (np.isclose(t, taken, rtol=1e-3, atol=0) & (t != 0)).any():
            t = t * 0.75
        return np.asarray(t)

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from whatever has been told."""
        b, m = self.problem.x.shape
        moves = _axis(rows)
        if not rows.clean or len(moves) != self.order * m or moves.missed or not moves.t.all():
            return self._solve_partial(rows)
        t = moves.t.reshape(self.order, m, b)
        if self.problem.bounded and (np.diff(np.sort(t, axis=0), axis=0) == 0).any():
            return self._solve_partial(rows)  # in a room of a few ulps points fall together
        n = rows.y.shape[-1]
        values = rows.values.reshape(self.order, m, b, n)
        coef, w, low = solve_lines(t, values, rows.y, self.order >= 4)
        if self.order == 1:
            diag, base = np.square(w[0]), w[0]
        else:
            diag, base = np.square(w).sum(0), _rounding_to_zero(w)
        scale, dof = self._noise(rows)
        cov = Covariance(
            scale,
            diag.T,
            base.T[..., None],
            None if low is None else np.square(np.abs(low)),
        )
        return self._solution(coef, cov, dof, Status.OK, self._message())

    def _solve_partial(self, rows: Rows) -> Solution:
        """Point by point, output by output: something failed, is fixed, missed or still out."""
        embedded = self.order >= 4
        scale, dof = self._noise(rows)
        moves = _axis(rows)
        lines = [
            Lines(
                moves.columns,
                moves.t[:, b],
                {row: rest[b] for row, rest in moves.drift.items()},
                rows.values[:, b],
                rows.y[b],
                self._step.shape[1],
                embedded,
            )
            for b in range(len(rows.y))
        ]
        coef = np.stack([line.coef for line in lines])
        status, message = Status.OK, self._message()
        if not rows.done.all():
            status, message = Status.INCOMPLETE, "not every point asked for has been told"
        elif not (np.isfinite(rows.values).all() and np.isfinite(rows.y).all()):
            status, message = Status.FAILED_RUNS, "failed runs were worked around"
        lost = np.stack([line.lost for line in lines])
        cov = Covariance(
            scale,
            np.stack([line.diag for line in lines]),
            np.stack([line.base for line in lines])[..., None],
            np.square(np.abs(np.stack([line.low for line in lines]))) if embedded else None,
            per_output=True,
            lost=lost if lost.any() else None,
        )
        if lost.any() and status == Status.OK:
            status = Status.UNDETERMINED
            message = "fixed inputs (lower == upper) were not moved: stderr is inf there"
        elif lost.any():
            message += "; some entries are left undetermined (stderr inf)"
        return self._solution(coef, cov, dof, status, message, lost)

    def _noise(self, rows: Rows) -> tuple[Array, Array]:
        """Noise of one evaluation and its degrees of freedom, each (B, n)."""
        shape = rows.y.shape
        if self.problem.noise is not None:
            return np.broadcast_to(self.problem.noise, shape), np.full(shape, np.inf)
        if self.order < 4:
            return _unknown(shape)
        # The rule assumes a deterministic function: what is left is rounding of its values.
        every = np.abs(np.concatenate([rows.values, rows.y[None]]))
        size = np.max(np.where(np.isfinite(every), every, 0.0), axis=0)
        return self.problem.eps * size, np.full(shape, np.inf)

    def _message(self) -> str:
        if self.order >= 4:
            return (
                "stderr compares two orders of one stencil; "
                "it assumes a function without noise beyond rounding"
            )
        if self.problem.noise is not None:
            return "stderr covers the noise given, not truncation"
        return (
            f"nothing tells the error of a {self.name} rule (stderr nan): give noise=, or take "
            "method='auto' or '5-point'"
        )

    def _solution(
        self, coef: NDArray[Any], cov: Covariance, dof: Array, status: Status, message: str,
        lost: NDArray[np.bool_] | None = None,
    ) -> Solution:  # fmt: skip
        b, _, m = coef.shape
        rank, cond = _full_rank(b, m)
        if lost is not None:
            rank = m - lost.any(1).sum(-1)
        misfit = _unknown(coef.shape[:2])[0]  # as many samples as unknowns
        return Solution(coef, cov, dof, rank, cond, misfit, status=str(status), message=message)


@lru_cache(maxsize=8)
def _unknown(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A noise that nothing tells, and its degrees of freedom; shared, hence read-only."""
    noise, dof = np.full(shape, np.nan), np.zeros(shape)
    noise.flags.writeable = dof.flags.writeable = False
    return noise, dof


@lru_cache(maxsize=8)
def _full_rank(b: int, m: int) -> tuple[NDArray[np.intp], Array]:
    """Rank and condition number of complete stencils; shared, hence read-only."""
    rank, cond = np.full(b, m), np.ones(b)
    rank.flags.writeable = cond.flags.writeable = False
    return rank, cond


def _axis(rows: Rows) -> AxisMoves:
    assert isinstance(rows.moves, AxisMoves)
    return rows.moves


def _rounding_to_zero(w: Array) -> Array:
    """Weight of the base, exactly 0 where it is what rounding leaves of a central stencil."""
    total = w.sum(0)
    return np.where(np.abs(total) > 1e-10 * np.abs(w).sum(0), total, 0.0)
