"""Coordinate stencils of order 1 to 8: where to look; ``weights`` make J of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask
from gradiator_np.designs._displacements import AxisDisplacements
from gradiator_np.designs._finite_difference.evidence import (
    Evidence,
    evidence,
    hidden,
    largest,
    too_long,
    too_short,
    truncation,
)
from gradiator_np.designs._finite_difference.weights import Lines, solve_lines
from gradiator_np.designs._protocol import Problem, Rows, constant, per_input
from gradiator_np.solvers._solution import Solution


class Rule(NamedTuple):
    """A finite-difference rule along one input.

    Attributes
    ----------
    order : int
        The power of the step with which its truncation falls.
    points : tuple of int
        Where it looks beside x, as multiples of the step, nearest first.
    """

    order: int
    points: tuple[int, ...]

    def relative_step(self, eps: float) -> float:
        """Where rounding, eps / h, and truncation, h^order, balance for a function that bends on
        the scale of x, in units of that scale."""
        return float(eps ** (1 / (self.order + 1)))


#: The rules by the name of their method. A new one is a row; weights follow from the points.
RULES = {
    "2-point": Rule(1, (1,)),
    "3-point": Rule(2, (1, -1)),
    "5-point": Rule(4, (1, -1, 2, -2)),
    "7-point": Rule(6, (1, -1, 2, -2, 3, -3)),
    "9-point": Rule(8, (1, -1, 2, -2, 3, -3, 4, -4)),
}

# A failed point is replaced by the next one on the other side of its line, then drawn in twice.
SHRINK = 0.125
MAX_ROUNDS = 3
# |f'' x^2 / f| up to this is curvature, also at a minimum: below it f bends at 0.5 % of x.
BENT = 3e4

STANDS_STILL = (
    "no output changes at all, whatever is moved: the steps are too short for what fun prints or "
    "rounds, fun does not read x, or is constant; compare with method='auto', which looks further"
)


@dataclass(frozen=True, slots=True)
class Stencil:
    """Differences along each input.

    Parameters
    ----------
    method : {"2-point", "3-point", "5-point", "7-point", "9-point"}
        Points for each input, that at x included where there is one for all.
    step : scalar, like x, or array, shape (B, m) for B points of a batch, optional
        Signed steps in units of x. A rule of p points goes p/2 of them both ways; p of them, and
        never further, one way beside a bound and to replace what failed. By default
        eps^(1/(q + 1)) of the scale of x for a rule of order q, away from zero.

    Examples
    --------
    >>> from gradiator_np import designs, jacobian
    >>> design = designs.Stencil("3-point", step=[0.1, 0.2])
    >>> jacobian(lambda x: x[0] * x[1], [1.0, 2.0], method=design).jac.round(6)
    array([2., 1.])
    """

    method: str
    step: ArrayLike | None = None
    needs_value: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.choice(self.method, tuple(RULES), "method")

    def start(self, problem: Problem, learned: Any = None) -> StencilPlan:
        """A plan for one problem."""
        return StencilPlan(self, problem)


def default_step(x: Array, scale: Array, relative: float) -> Array:
    """Steps of ``relative`` times the scale of x, away from zero.

    They are powers of two, so that x + h is exact for nearly every x.
    """
    # frexp gives 2^(e-1) <= v < 2^e: with sqrt(2) more that is the power of two nearest to v.
    _, exponent = np.frexp(relative * math.sqrt(2) * scale)
    return np.asarray(np.copysign(np.ldexp(0.5, exponent), x))


def place(problem: Problem, step: Array, rule: Rule) -> tuple[Array, Array]:
    """Fit a stencil between the bounds.

    Returns
    -------
    multiples : array, shape (p,) or (p, B, m)
        Points in units of the step, nearest first: the rule's own, or where they would leave the
        bounds as many neighbours in a row.
    step : array, shape (B, m)
        Drawn in only where no such stencil fits; 0 where the input is fixed.
    """
    own, p = np.array(rule.points), len(rule.points)
    if not problem.bounded:
        return own, step
    up, down = problem.upper - problem.x, problem.x - problem.lower
    reach = np.abs(step) * max(rule.points)
    if ((reach <= up) & (reach <= down)).all():
        return own, step
    ahead, behind = np.where(step > 0, up, down), np.where(step > 0, down, up)
    best = np.full(step.shape, -1.0)
    multiples = np.zeros((p, *step.shape))
    size = np.zeros(step.shape)
    centre = -(p // 2)
    for first in sorted(range(-p, 1), key=lambda start: abs(start - centre)):
        points = np.delete(np.arange(first, first + p + 1), -first)
        points = points[np.argsort(np.abs(points) - 0.1 * (points > 0), kind="stable")]
        h = np.abs(step)
        for room, farthest in ((ahead, points.max()), (behind, -points.min())):
            h = np.minimum(h, room / farthest) if farthest > 0 else h
        shift = abs(first - centre)
        score = h * 2.0**-shift
        better = score > best
        best = np.where(better, score, best)
        size = np.where(better, h, size)
        multiples = np.where(better, points[:, None, None], multiples)
    return multiples, np.copysign(size, step)


class StencilPlan:
    """A stencil at work on one problem; see ``Plan``."""

    learned = None

    def __init__(self, design: Stencil, problem: Problem) -> None:
        self.design, self.name = design, design.method
        self.rule = RULES[design.method]
        self.problem = problem
        if design.step is None:
            relative = self.rule.relative_step(problem.eps)
            step = default_step(problem.x, problem.scale, relative)
        else:
            step = per_input(design.step, problem.x.shape, "step")
            if not (np.isfinite(step) & (step != 0)).all():
                raise ValueError(f"step must be finite and not 0, got {design.step!r:.60}")
        self.multiples, self._step = place(problem, step, self.rule)
        m = problem.x.shape[1]
        moved = self._step.any(0) if problem.bounded else True
        self.active = np.arange(m) if moved is True else np.flatnonzero(moved)
        self.rounds = 0

    @property
    def step(self) -> Array:
        """Step of each input, nan where fixed, shape (B, m)."""
        step: Array = np.abs(self._step)
        return np.where(step == 0, np.nan, step) if self.problem.bounded else step

    def ask(self, rows: Rows) -> AxisDisplacements | None:
        """The whole stencil at once, then replacements for what failed."""
        self.rounds += 1
        if self.rounds == 1:
            return self._stencil() if len(self.active) else None
        if rows.clean or not self.problem.replace or self.rounds > 1 + MAX_ROUNDS:
            return None
        return self._replacements(rows)

    def _stencil(self) -> AxisDisplacements:
        """The nearest points of all inputs first."""
        step = self._step if len(self.active) == self._step.shape[1] else self._step[:, self.active]
        if self.multiples.ndim == 1:
            t = self.multiples[:, None, None] * step.T
        else:
            t = (self.multiples[:, :, self.active] * step).transpose(0, 2, 1)
        columns = np.tile(self.active, len(self.rule.points))
        return AxisDisplacements(columns, t.reshape(columns.size, -1))

    def _replacements(self, rows: Rows) -> AxisDisplacements | None:
        """New points on the lines that have fewer good ones than the order wants."""
        moves = _axis(rows)
        good = np.isfinite(rows.values).all(-1)  # (k, B)
        new: list[tuple[int, Array]] = []
        for j in self.active.tolist():
            line = np.flatnonzero(moves.columns == j)
            lost = len(self.rule.points) - int(good[line].sum(0).min())
            failed = line[~good[line].all(1)]
            taken = moves.t[line]
            for row in failed[len(failed) - lost :] if lost > 0 else ():
                t = self._replacement(moves.t[row], taken, j)
                taken = np.concatenate([taken, t[None]])
                new.append((j, t))
        if not new:
            return None
        return AxisDisplacements(np.array([j for j, _ in new]), np.stack([t for _, t in new]))

    def _replacement(self, failed: Array, taken: Array, j: int) -> Array:
        """Another offset on the line of input j, shape (B,), none of ``taken``."""
        p, h = self.problem, np.abs(self._step[:, j])
        t = failed * SHRINK
        if self.rounds == 2:
            side = -np.sign(failed)
            farthest = np.max(np.where(taken * side > 0, np.abs(taken), 0.0), axis=0)
            room = np.where(side > 0, p.upper[:, j] - p.x[:, j], p.x[:, j] - p.lower[:, j])
            if (farthest + h <= room).all():
                t = side * (farthest + h)
        # 0 stays: there the input is fixed, at this point of the batch.
        while (np.isclose(t, taken, rtol=1e-3, atol=0) & (t != 0)).any():
            t = t * 0.75
        return np.asarray(t)

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from whatever has been told."""
        (b, m), p = self.problem.x.shape, len(self.rule.points)
        moves = _axis(rows)
        if not rows.clean or len(moves) != p * m or moves.missed or not moves.t.all():
            return self._solve_partial(rows)
        t = moves.t.reshape(p, m, b)
        if self.problem.bounded and (np.diff(np.sort(t, axis=0), axis=0) == 0).any():
            return self._solve_partial(rows)  # in a room of a few ulps points fall together
        n = rows.y.shape[-1]
        values = rows.values.reshape(p, m, b, n)
        coef, w, low, rest = solve_lines(t, values, rows.y)
        diag, base = np.square(w).sum(0), _rounding_to_zero(w)
        change = np.abs(values - rows.y).max(0).transpose(1, 2, 0)
        found = self._evidence(rows, rest, change)
        cov = Covariance(found.noise, diag.T, base.T[..., None], _square(low))
        return self._judged(self._solution(coef, cov, found.dof), found, change, rest)

    def _solve_partial(self, rows: Rows) -> Solution:
        """Point by point, output by output: something failed, is fixed, missed or still out."""
        moves = _axis(rows)
        lines = [
            Lines(
                moves.columns,
                moves.t[:, b],
                {row: rest[b] for row, rest in moves.drift.items()},
                rows.values[:, b],
                rows.y[b],
                self._step.shape[1],
            )
            for b in range(len(rows.y))
        ]
        coef = np.stack([line.coef for line in lines])
        status, message = Status.OK, ""
        if not rows.done.all():
            status, message = Status.INCOMPLETE, "not every point asked for has been told"
        elif not (np.isfinite(rows.values).all() and np.isfinite(rows.y).all()):
            status, message = Status.FAILED_RUNS, "failed runs were worked around"
        lost = np.stack([line.lost for line in lines])
        low = rest = None
        if len(self.rule.points) > 1:
            low = np.stack([line.low for line in lines])
            rest = np.stack([line.rest for line in lines])
        change = np.stack([line.change for line in lines])
        found = self._evidence(rows, rest, change)
        cov = Covariance(
            found.noise,
            np.stack([line.diag for line in lines]),
            np.stack([line.base for line in lines])[..., None],
            _square(low),
            per_output=True,
            lost=lost if lost.any() else None,
        )
        if lost.any() and status == Status.OK:
            status = Status.UNDETERMINED
            message = "fixed inputs (lower == upper) were not moved: stderr is inf there"
        elif lost.any():
            message += "; some entries are left undetermined (stderr inf)"
        solution = self._solution(coef, cov, found.dof, status, message, lost)
        if status is Status.INCOMPLETE:
            return solution
        return self._judged(solution, found, change, rest)

    def _evidence(self, rows: Rows, rest: NDArray[Any] | None, change: Array) -> Evidence:
        """What tells noise: the caller, or else the values."""
        if self.problem.noise is not None:
            shape = rows.y.shape
            noise, none = np.broadcast_to(self.problem.noise, shape), constant(0.0, shape)
            return Evidence(noise, constant(np.inf, shape), none, largest(rows.values, rows.y))
        moves = _axis(rows)
        there = self.problem.x.T[moves.columns] + moves.t
        return evidence(rest, change, there, rows.values, rows.y, self.problem.eps)

    def _judged(
        self, solution: Solution, found: Evidence, change: Array, rest: NDArray[Any] | None
    ) -> Solution:
        """The solution with what its own values say against it.

        Parameters
        ----------
        change : array, shape (B, n, m)
            The largest change of each output along each line.
        rest : array, shape (B, n, m), or None
            Highest difference of each line.
        """
        cov, three = solution.cov, len(self.rule.points) == 2
        noise = replace(cov, extra=None).variance()
        level = np.hypot(found.noise, self.problem.eps * found.size)
        if self.problem.noise is None and rest is not None:
            # Noise is shared, a bend is not: each line's own bars hold its own difference too.
            alone = replace(cov, scale=np.ones(cov.scale.shape), extra=None).variance()
            with np.errstate(over="ignore", invalid="ignore"):
                own = np.where(np.isfinite(rest), np.square(np.abs(rest)) * alone, 0.0)
            solution = replace(solution, cov=replace(cov, extra=cov.extra + own))
            noise = noise if three else noise + own
        elif three:  # the comparison would hold a noise that is given once more
            assert cov.extra is not None
            assert rest is not None
            missed = truncation(np.sqrt(cov.extra), rest, solution.coef, self._step, level)
            solution = replace(solution, cov=replace(cov, extra=missed))
        doubts: list[tuple[Status, str]] = []
        short = too_short(found, solution.coef, change, self._step, self.problem.eps)
        if not (change > 0).any() and np.isfinite(change).any() and found.size.any():
            doubts.append((Status.NO_SIGNAL, STANDS_STILL))
        elif short.any():
            lost = np.broadcast_to(short[:, None, :], solution.coef.shape)
            before = solution.cov.lost
            cov = replace(solution.cov, lost=lost if before is None else lost | before)
            solution = replace(solution, cov=cov)
            doubts.append((Status.UNRESOLVED, self._short_steps(short)))
        bend = np.zeros(len(self._step))
        if three:
            bend = BENT * np.square(self._step / self.problem.scale).max(1)
        dark = hidden(found, solution.coef, noise, self._step, bend, self.problem.eps)
        if self.problem.noise is None and dark.any():
            doubts.append((Status.NO_SIGNAL, _hidden_outputs(dark, found)))
        if self.problem.noise is not None and self.design.step is not None:
            told = constant(False, change.shape) if cov.extra is None else np.isfinite(cov.extra)
            step, scale = self._step, self.problem.scale
            long = too_long(solution.coef, step, scale, level, told)
            if long.any():
                doubts.append((Status.TRUNCATION, _long_steps(long, step, scale)))
        said = [text for _, text in doubts] + ([solution.message] if solution.message else [])
        return replace(
            solution,
            status=doubts[0][0] if doubts else solution.status,
            message="; ".join(said) or self._message(found),
        )

    def _short_steps(self, short: Mask) -> str:
        b, j = np.argwhere(short)[0]
        others = self.problem.scale[b][~short[b]]  # some: outputs answer to them
        return (
            f"input {j} (x = {self.problem.x[b, j]:.3g}, {short.any(0).sum()} of {short.shape[1]} "
            f"alike) is moved by {abs(self._step[b, j]):.3g}, over which no output changes beyond "
            "its rounding, and stderr is inf there: give x_scale, the distance over which each "
            f"input changes something, such as {np.median(others):.3g} for it"
        )

    def _message(self, found: Evidence) -> str:
        if self.problem.noise is not None and len(self.rule.points) == 1:
            return "stderr covers the noise given, not truncation"
        if self.problem.noise is not None and len(self.rule.points) == 2:
            return (
                "stderr covers the noise given, and the truncation that second differences tell of "
                "where they rise above it"
            )
        if found.spacing.any():
            return (
                f"{int((found.spacing > 0).any(0).sum())} outputs are printed or rounded (spacing "
                f"up to {found.spacing.max():.2g}): stderr holds that"
            ) + ("" if len(self.rule.points) > 1 else ", and no truncation")
        if len(self.rule.points) > 1:
            return (
                "stderr compares two orders of one stencil, and holds the noise that its highest "
                "difference shows; for a smooth function it is far too wide"
            )
        return (
            f"nothing tells the error of a {self.name} rule (stderr nan): give noise=, or take "
            "method='auto'"
        )

    def _solution(
        self, coef: NDArray[Any], cov: Covariance, dof: Array,
        status: Status = Status.OK, message: str = "", lost: Mask | None = None,
    ) -> Solution:  # fmt: skip
        b, n, m = coef.shape
        rank = constant(m, (b,)) if lost is None else m - lost.any(1).sum(-1)
        misfit = constant(np.nan, (b, n))  # as many samples as unknowns
        return Solution(
            coef, cov, dof, rank, constant(1.0, (b,)), misfit, status=status, message=message
        )


def _hidden_outputs(lost: Mask, found: Evidence) -> str:
    """Words for outputs (B, n) whose response is lost in noise."""
    share = (found.noise[lost] / np.maximum(found.size[lost], np.finfo(float).tiny)).max()
    printed = bool((found.spacing[lost] > 0).any())
    return (
        f"{int(lost.any(0).sum())} of {lost.shape[1]} outputs are "
        + ("printed or rounded" if printed else "noisy, or bend within the steps")
        + f" (by up to {share:.2g} of their values), and steps so short do not rise above that: "
        "take method='auto', which finds steps that do"
    )


def _long_steps(long: Mask, step: Array, scale: Array) -> str:
    """Words for entries (B, n, m) whose bars may be below truncation."""
    b, i, j = np.argwhere(long)[0]
    return (
        f"stderr covers the noise given, not truncation, and nothing tells of that: input {j} is "
        f"moved by {abs(step[b, j]):.3g} to one side, and where output {i} bends over "
        f"{scale[b, j]:.3g}, as x does, the error of J is above stderr ({long.sum()} of "
        f"{long.size} entries alike): take '3-point', whose own values tell of bends, or shorter "
        "steps; ignore this where fun is linear"
    )


def _square(a: NDArray[Any] | None) -> Array | None:
    if a is None:
        return None
    with np.errstate(over="ignore"):
        return np.asarray(np.square(np.abs(a)))


def _axis(rows: Rows) -> AxisDisplacements:
    assert isinstance(rows.moves, AxisDisplacements)
    return rows.moves


def _rounding_to_zero(w: Array) -> Array:
    """Weight of the base, exactly 0 where it is what rounding leaves of a central stencil."""
    total = w.sum(0)
    return np.where(np.abs(total) > 1e-10 * np.abs(w).sum(0), total, 0.0)
