"""The machine behind ask and tell, over flat arrays: where to look next, what came of it.

``JacobianEstimator`` is this machine for people, with shapes, names and checks; the loop of
``jacobian`` and the fast path feed it as it is. It runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._checks import EPS, EPS32
from gradiator_np._results import Frame, JacobianEstimate
from gradiator_np._sample_set import SampleSet
from gradiator_np._samples import Samples, last_line
from gradiator_np._settings import Settings
from gradiator_np._solve import solve_design
from gradiator_np._status import Status
from gradiator_np._structure import Layout, matrix_of
from gradiator_np._typing import Array, Index
from gradiator_np.designs._displacements import AxisDisplacements, Displacements, read_only
from gradiator_np.designs._protocol import Plan, Problem, Rows, constant
from gradiator_np.solvers._solution import Solution, Solver, unit_of

#: The ids of x itself alone.
X_ITSELF = read_only(np.zeros(1, np.intp))


class Engine:
    """One estimate on its way.

    Points have ids: 0 is x itself, r + 1 row r of the plan, in the order asked for.

    Parameters
    ----------
    point : Point
        Where the Jacobian is wanted.
    settings : Settings
    learned : optional
        What an earlier engine of this function ``learned`` of its noise and steps.

    Attributes
    ----------
    x : array, shape (B, m)
        The point, in the precision of the caller.
    x_layout, y_layout : Layout
        ``y_layout`` is None until a value is known.
    nfev, n_failed : int
        Runs so far, and values told that failed in some output.
    """

    def __init__(self, point: checks.Point, settings: Settings, learned: Any = None) -> None:
        flat, self.x_layout = point
        self.x = flat.reshape(-1, self.x_layout.size)
        self.y_layout: Layout | None = None
        self.settings = settings
        self.nfev = self.n_failed = 0
        self._x64 = self.x.astype(np.float64, copy=False)
        self._learned = learned
        self._plan: Plan | None = None
        self._eps = EPS32 if self.x.dtype == np.float32 else EPS  # of the coarser of x and y
        self._y: NDArray[Any] | None = None  # (B, n)
        self._unit = 1.0  # of the values that the plan sees, a power of two
        self._value_asked = False
        self._moves: AxisDisplacements | Displacements = AxisDisplacements(
            np.empty(0, np.intp), np.empty((0, len(self.x)))
        )
        self._values: NDArray[Any] | None = None  # (k, B, n)
        self._done = np.empty(0, bool)
        self._open = 0  # rows not told yet
        self._first = 0  # all before it are told
        self._clean = True  # every value told so far is finite
        self._errors: dict[int, str] = {}

    # -- ask ---------------------------------------------------------------------------------

    def ask(self, most: int | None = None) -> tuple[NDArray[Any], Index]:
        """Points to run (k, *batch, m), new memory, and their ids; at ``most`` so many of them."""
        ids = self.pending(most)
        if len(ids) == 0 and self.advance():
            ids = self.pending(most)
        rows = ids - 1
        if len(ids) and ids[0] == 0:
            points = self._moves.points(self.x, rows[1:])
            points = np.concatenate([self.x[None].astype(points.dtype), points])
        else:
            points = self._moves.points(self.x, rows)
        return points.reshape(len(ids), *self.x_layout.batch, self.x_layout.size), ids

    def pending(self, most: int | None = None) -> Index:
        """Ids of the points asked for and not told yet, in their order; those among the first
        ``most`` from the first of them on, where so many do."""
        first = self._first
        rows = np.flatnonzero(~self._done[first : None if most is None else first + most])
        ids = first + 1 + rows
        if self._value_asked and self._y is None:
            return np.concatenate([X_ITSELF, ids])[:most]
        return ids

    def advance(self) -> bool:
        """Ask the plan for more, and whether there is; x first where its value is not known."""
        if self._y is None:
            self._value_asked = True
            if self.settings.needs_value:
                return True
        with checks.underflow_is_zero():
            if self._plan is None:
                self._plan = self._begin()
            wanted = self._plan.ask(self.rows)
        if wanted is None or len(wanted) == 0:
            return self._y is None
        if isinstance(wanted, np.ndarray):
            wanted = Displacements(wanted)
        elif isinstance(wanted, Displacements) and not self.settings.common_seeds:
            wanted = Displacements(wanted.offsets)
        moves = wanted.realised(self.x, self.settings.bounds)
        _check_moved(wanted, moves, self.x, self.x_layout)
        self._moves = self._moves.joined(moves) if len(self._moves) else moves  # type: ignore[arg-type]
        k = len(moves)
        self._open += k
        self._done = np.concatenate([self._done, np.zeros(k, bool)])
        if self._values is not None:
            lost = np.full((k, *self._values.shape[1:]), np.nan, self._values.dtype)
            self._values = np.concatenate([self._values, lost])
        return True

    def streams(self, ids: Index) -> Index:
        """Random stream of each point, for common random numbers; 0 is that of x."""
        streams = self._moves.streams
        return np.where(ids == 0, 0, 0 if streams is None else streams[ids - 1])

    @property
    def learned(self) -> Any:
        """What the default design found out of noise and steps; None with other designs."""
        return None if self._plan is None or self._unit != 1 else self._plan.learned

    def _begin(self) -> Plan:
        s = self.settings
        shape = self.x.shape
        if self._y is not None:
            self._unit = unit_of(self._y)
        noise = s.known_noise(self.y_layout)
        lower, upper = s.bounds or (constant(-np.inf, shape), constant(np.inf, shape))
        problem = Problem(
            self._x64,
            np.empty((len(self.x), 0)) if self._y is None else self._in_unit(self._y),
            lower,
            upper,
            s.scale,
            self._eps,
            # Making a generator takes longer than a small Jacobian, and stencils need none.
            checks.generator(s.rng) if s.design.draws else None,  # type: ignore[arg-type]
            s.replace,
            None if noise is None else noise / self._unit,
            s.bounds is not None,
        )
        # What was learned is in units of y.
        learned = self._learned if self._unit == 1 else None
        return s.design_for(self.y_layout, self.x_layout, self._unit).start(problem, learned)

    def _in_unit(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values as the plan sees them: of ordinary size, whatever the caller's units."""
        return read_only(values if self._unit == 1 else values / self._unit)

    # -- tell --------------------------------------------------------------------------------

    def expect(self, y_layout: Layout, precision: float) -> None:
        """Take what values are like, and the machine epsilon of what fun returns, before the
        first of them."""
        self.y_layout, self._eps = y_layout, max(self._eps, precision)

    def tell(
        self,
        values: NDArray[Any],
        ids: Index,
        errors: Mapping[int, str] | None = None,
        reached: Array | None = None,
        *,
        run: bool = True,
    ) -> None:
        """Take values (k, ..., n), nan where a run failed, of points with rising ids.

        ``errors`` say by id why runs failed; ``reached`` (k, B, m) are the points that were
        really run, where they differ from those asked for; ``run`` is False where the caller
        knew the values.
        """
        if not len(ids):
            return
        values = values.reshape(len(ids), len(self.x), -1)
        self._errors.update(errors or {})
        self.nfev += len(ids) if run else 0
        if not checks.isfinite(values):
            self._clean = False
            self.n_failed += int((~np.isfinite(values)).any((1, 2)).sum())
        if ids[0] == 0:
            self._y, values, ids = values[0], values[1:], ids[1:]
            reached = None if reached is None else reached[1:]
        if len(ids):
            self._keep(values, ids - 1)
        if reached is not None and len(ids):
            self._moves = self._moves.reached(ids - 1, reached - self._x64)

    def _keep(self, values: NDArray[Any], rows: Index) -> None:
        dtype = np.complex128 if values.dtype.kind == "c" else np.float64
        if self._values is None and len(rows) == len(self._done):
            # The usual case: the whole first round at once, kept as it came.
            self._values = values.astype(dtype, copy=False)
        else:
            if self._values is None:
                self._values = np.full((len(self._done), *values.shape[1:]), np.nan, dtype)
            elif values.dtype.kind == "c":
                self._values = self._values.astype(dtype, copy=False)
            self._values[rows] = values
        self._done[rows] = True
        self._open -= len(rows)
        rest = self._done[self._first :]
        self._first = len(self._done) if self._open == 0 else self._first + int(rest.argmin())

    def count(self, runs: int) -> None:
        """Count runs of points that are no rows of the plan."""
        self.nfev += runs

    @property
    def told(self) -> int:
        """Rows told so far, x itself not counted."""
        return len(self._done) - self._open

    @property
    def only_error(self) -> str | None:
        """What every run beside x died of, where all did, and of the same."""
        words = {last_line(text) for text in self._errors.values()}
        return words.pop() if len(words) == 1 and len(self._errors) == self.told else None

    @property
    def fruitless(self) -> bool:
        """Whether every run beside x failed in every output."""
        values = self._values
        return not (self._clean or values is None or np.isfinite(values[self._done]).any())

    def opposite(self) -> NDArray[Any]:
        """The first row's point on the other side of x (drawn in, where that is out of bounds)."""
        offset = self._moves.points(self._x64, slice(0, 1)) - self._x64
        there = self._x64 - offset
        if offset.dtype.kind != "c":
            there = there.astype(self.x.dtype)
            bounds = self.settings.bounds
            if bounds is not None and ((there < bounds[0]) | (there > bounds[1])).any():
                there = (self._x64 + 0.125 * offset).astype(self.x.dtype)
        return there.reshape(1, *self.x_layout.batch, self.x_layout.size)

    # -- estimate ----------------------------------------------------------------------------

    def solution_of(self, outputs: slice) -> Solution:
        """What the plan makes of some outputs alone, of values that are all told."""
        assert self._plan is not None
        rows = self.rows
        some = replace(rows, values=rows.values[..., outputs], y=rows.y[..., outputs])
        with checks.underflow_is_zero(), np.errstate(over="ignore"):
            return self._plan.solve(some)

    @property
    def rows(self) -> Rows:
        """What the plan sees, in units of its own."""
        shape = len(self.x), 0 if self.y_layout is None else self.y_layout.size
        y, values = self._y, self._values
        return Rows(
            self._moves,
            constant(np.nan, (len(self._done), *shape))
            if values is None
            else self._in_unit(values),
            read_only(self._done),
            constant(np.nan, shape) if y is None else self._in_unit(y),
            self._clean and self._open == 0,
        )

    @property
    def samples(self) -> Samples:
        """Every run so far, x first where its value is known."""
        return self._samples(np.flatnonzero(self._done), self._y is not None)

    def _samples(self, rows: Index, with_x: bool) -> Samples:
        lost = constant(np.nan, (len(self._done), *(() if self._y is None else self._y.shape)))
        points = self._moves.points(self.x, rows)
        values = (lost if self._values is None else self._values)[rows]
        ids = rows + 1
        if with_x and self._y is not None:
            points = np.concatenate([self.x[None].astype(points.dtype), points])
            values = np.concatenate([self._y[None], values])
            ids = np.concatenate([X_ITSELF, ids])
        batch, errors = self.x_layout.batch, self._errors
        return Samples(
            points.reshape(len(points), *batch, self.x_layout.size),
            values.reshape(len(values), *batch, values.shape[-1]),
            {i: errors[r] for i, r in enumerate(ids.tolist()) if r in errors},
        )

    def estimate(self) -> JacobianEstimate:
        """The Jacobian from what has been told so far.

        Raises
        ------
        ValueError
            Before the first output was told: not even the shape of y is known.
        """
        if self.y_layout is None:
            raise ValueError("nothing has been told yet: run the points of ask() first")
        batch = self.x_layout.batch
        # Overflow ends as inf, in an error bar or an entry that is then given up.
        with checks.underflow_is_zero(), np.errstate(over="ignore"):
            if self._plan is None:
                self._plan = self._begin()
            solution = self._plan.solve(self.rows).with_batch(batch)
            if self._unit != 1:
                solution = solution.times(self._unit)
            if not checks.isfinite(solution.coef):
                solution = _without_infinite(solution)
            if self.settings.solver is not None:
                solution = self._fitted(self.settings.solver, solution)
        y = self._y
        frame = Frame(
            self.x_layout,
            self.y_layout,
            self.x.reshape(*batch, -1),
            None if y is None else y.reshape(*batch, -1),
            self._plan.step.reshape(*batch, -1),
        )
        return JacobianEstimate(
            solution, frame, self._plan.name, self.nfev, self.n_failed,
            int(self._done.sum()) + (y is not None), Record(self),
        )  # fmt: skip

    def _fitted(self, solver: Solver, own: Solution) -> Solution:
        """All rows as samples of a solver, with the value at x, beside the plan's own answer."""
        samples = self.samples
        dx = samples.points - self._x64.reshape(samples.points.shape[1:])
        if dx.dtype.kind == "c":
            raise ValueError("the complex step leaves nothing to solve; leave solver out")
        assert self.y_layout is not None
        assert self._plan is not None
        rows = SampleSet(
            np.moveaxis(dx, 0, -2), np.moveaxis(samples.outputs, 0, -2), None,
            self.x_layout, self.y_layout,
        )  # fmt: skip
        prior = self.settings.jac0
        if prior is not None:
            prior = matrix_of(prior, rows.y, rows.x, "jac0", one_for_all=True)
        noise = self.settings.known_noise(self.y_layout)
        step = self._plan.step.reshape(*self.x_layout.batch, -1)
        return solve_design(rows, solver, noise, prior, own, step)


def _check_moved(
    wanted: AxisDisplacements | Displacements,
    moves: AxisDisplacements | Displacements,
    x: NDArray[Any],
    layout: Layout,
) -> None:
    """A step that rounds to nothing would divide by 0, or show an input as dead."""
    if isinstance(wanted, AxisDisplacements) and isinstance(moves, AxisDisplacements):
        for row, rest in wanted.drift.items():
            one = Displacements(rest[None]), Displacements(moves.drift[row][None])
            _check_moved(*one, x, layout)
    if moves.t.all():
        return
    lost = (wanted.t != 0) & (moves.t == 0)
    if lost.any():
        row, point, *rest = np.argwhere(lost)[0]
        j = moves.columns[row] if isinstance(moves, AxisDisplacements) else rest[0]
        at = x[point, j]
        raise ValueError(
            f"the step {wanted.t[(row, point, *rest)]:.3g} of x{layout.names[j]} = {at:.6g} rounds "
            f"to nothing in {x.dtype} or meets a bound at once: give a step of at least "
            f"{np.spacing(np.abs(at)):.3g}, better 1e4 times that"
        )


def _without_infinite(solution: Solution) -> Solution:
    """Entries beyond the range of floats are undetermined."""
    lost, cov = ~np.isfinite(solution.coef), solution.cov
    return replace(
        solution,
        coef=np.where(lost, 0.0, solution.coef),
        cov=replace(cov, lost=lost if cov.lost is None else lost | cov.lost),
        status=Status.UNDETERMINED,
        message=f"{int(lost.sum())} entries of J exceed the largest float in these units, and are "
        "given as 0 with stderr inf: use other units of x or y",
    )


class Record:
    """The runs that an engine had been told of at one moment; copied only when asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows = np.flatnonzero(engine._done)
        self._with_x = engine._y is not None

    @property
    def samples(self) -> Samples:
        return self._engine._samples(self._rows, self._with_x)
