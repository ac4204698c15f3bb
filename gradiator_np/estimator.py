"""The ask/tell state machine: it says where to look and takes what was seen; it runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np import checks
from gradiator_np.checks import EPS32, EPS64
from gradiator_np.designs.auto import Auto
from gradiator_np.designs.base import Plan, Problem, Rows
from gradiator_np.designs.complex_step import ComplexStep
from gradiator_np.designs.directional import Pairs
from gradiator_np.designs.moves import AxisMoves, FreeMoves
from gradiator_np.designs.stencil import Stencil
from gradiator_np.evaluate import output
from gradiator_np.fit import solve_samples
from gradiator_np.given import Given
from gradiator_np.results import JacobianEstimate
from gradiator_np.samples import Samples, last_line
from gradiator_np.settings import UNBOUNDED, auto_of, bounds_of, design_of, scale_of, unbounded
from gradiator_np.solvers.registry import find_solver
from gradiator_np.solvers.solution import Solution, Solver
from gradiator_np.structure import Layout

Array = NDArray[np.float64]

NO_ROWS = np.empty(0, dtype=bool)
NO_MOVES = AxisMoves(np.empty(0, np.intp), np.empty((0, 1)))
NOTHING = np.empty(0, np.intp)


class JacobianEstimator:
    """Estimate a Jacobian from points that somebody else runs.

    ``ask`` says which points to run, ``tell`` takes their outputs in any order and in parts,
    ``estimate`` gives the Jacobian at any time. ``jacobian`` is a loop around it.

    Parameters
    ----------
    x : array_like or dict
        The point at which the Jacobian is wanted.
    y : array_like or dict, optional
        The value there, if it is known; otherwise x is among the points asked for.
    method, rel_step, abs_step, x_scale, bounds, batch_dims, noise, rng
        As in ``jacobian``.
    max_evals, tol, rtol, min_step, max_step
        Likewise.
    solver, jac0
        Likewise.
    on_error : {"adapt", "drop", "raise"}
        Whether failed points are replaced ("adapt") or not.
    common_seeds : bool
        Whether the runs get the seeds of ``streams(ids)``, so that both ends of a difference
        share one.
    learned : optional
        What an earlier estimator of this function ``learned`` of its noise and steps.

    Examples
    --------
    >>> est = JacobianEstimator([1.0, 2.0], method="3-point")
    >>> ids, points = est.ask()
    >>> est.tell([[x[0] * x[1]] for x in points], ids=ids)
    >>> len(est.ask()[0])  # nothing more is wanted
    0
    >>> est.estimate().jac.round(6)
    array([[2., 1.]])
    """

    def __init__(
        self,
        x: Any,
        *,
        y: Any = None,
        method: Any = "auto",
        rel_step: Any = None,
        abs_step: Any = None,
        x_scale: Any = None,
        bounds: Any = UNBOUNDED,
        batch_dims: int = 0,
        noise: Any = None,
        max_evals: int | None = None,
        tol: Any = None,
        rtol: float | None = None,
        min_step: Any = None,
        max_step: Any = None,
        solver: Any = None,
        jac0: Any = None,
        on_error: str = "adapt",
        rng: Any = None,
        learned: Any = None,
        common_seeds: bool = False,
    ) -> None:
        flat, layout = checks.point(x, batch_dims)
        self.x_layout = layout
        self.y_layout: Layout | None = None
        self._x = flat.reshape(-1, layout.size)  # (B, m), in the precision of the caller
        self._x64 = self._x.astype(np.float64, copy=False)
        self._bounds = bounds_of(bounds, flat, layout)
        self._scale = scale_of(self._x64, x_scale, layout)
        if isinstance(noise, str):
            checks.choice(noise, ("auto",), "noise")
        self._noise = noise
        self._replace = checks.choice(on_error, ("adapt", "drop", "raise"), "on_error") == "adapt"
        self._rng = rng
        self._learned = learned
        self._common_seeds = common_seeds
        self._streams: NDArray[np.intp] | None = None
        self._solver = None if solver is None else find_solver(solver)
        if jac0 is not None and solver is None:
            raise ValueError("jac0 is the prior of a solver: give solver='pinv' or another with it")
        self._jac0 = jac0
        self._design = design_of(method, self._x64, self._scale[0], rel_step, abs_step, layout)
        limits = (max_evals, tol, rtol, min_step, max_step)
        if self._design is None and common_seeds and limits == (None,) * 5:
            # Pairs whose ends share a seed tell what noise is left; whole runs' noise does not.
            self._design = Pairs()
        elif self._design is None:
            self._design = auto_of(*limits, layout)
        elif limits != (None,) * 5:
            raise ValueError(
                "max_evals, tol, rtol, min_step and max_step steer method='auto' without given "
                f"steps; with method={method!r:.40} the steps and evaluations are settled"
            )
        self._plan: Plan | None = None
        self._y: NDArray[Any] | None = None  # (B, n)
        self._precision = EPS64  # of the values
        self._kind: Kind | None = None  # of values that were told
        self._value_asked = False
        # Ids: 0 is x itself, r + 1 row r of the plan, in the order asked for.
        self._moves: AxisMoves | FreeMoves = (
            NO_MOVES if len(self._x) == 1 else AxisMoves(NOTHING, np.empty((0, len(self._x))))
        )
        self._values: NDArray[Any] | None = None  # (k, B, n)
        self._done: NDArray[np.bool_] = NO_ROWS
        self._open = 0  # rows not told yet
        self._clean = True  # every value told so far is finite
        self._errors: dict[int, str] = {}
        self.nfev = 0
        self.n_failed = 0
        if y is not None:
            self._kind = kind = Kind.of(y, batch_dims)
            self.set_value(kind.flat.copy(), kind.layout, kind.precision)

    # -- ask ---------------------------------------------------------------------------------

    def ask(self) -> tuple[NDArray[np.intp], Any]:
        """Points to run.

        Returns
        -------
        ids : array of int, shape (k,)
            Their names, for ``tell``; empty where nothing more is wanted.
        points : array, shape (k, *x.shape), or dict of such arrays
            Asking again before telling gives the same points.
        """
        ids, flat = self.request()
        shaped = flat.reshape(len(flat), *self.x_layout.batch, self.x_layout.size)
        return ids, self.x_layout.unflatten(shaped)

    def request(self, most: int | None = None) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """``ask`` with flat points (k, B, m), new memory; at ``most`` so many of them."""
        ids = self._pending()
        if len(ids) == 0 and self._advance():
            ids = self._pending()
        if most is not None and len(ids) > most:
            ids = ids[:most]
        rows = ids - 1
        if len(ids) and ids[0] == 0:
            points = self._moves.points(self._x, rows[1:])
            return ids, np.concatenate([self._x[None].astype(points.dtype), points])
        return ids, self._moves.points(self._x, rows)

    def _pending(self) -> NDArray[np.intp]:
        if self._open == 0:
            rows = NOTHING
        elif self._open == len(self._done):
            rows = np.arange(1, self._open + 1)
        else:
            rows = np.flatnonzero(~self._done) + 1
        if self._value_asked and self._y is None:
            return np.concatenate([[0], rows])
        return rows

    def _advance(self) -> bool:
        """Ask the plan for more, and whether there is; x first where its value is not known."""
        if self._y is None:
            self._value_asked = True
            if self._design.needs_value:
                return True
        if self._plan is None:
            self._plan = self._begin()
        wanted = self._plan.ask(self._rows())
        if wanted is None or len(wanted) == 0:
            return self._y is None
        moves = FreeMoves(wanted) if isinstance(wanted, np.ndarray) else wanted
        self._check_moved(moves.realise(self._x, self._bounds), moves)
        if len(self._moves):
            self._moves.extend(moves)  # type: ignore[arg-type]
        else:
            self._moves = moves
        fresh = np.zeros(len(moves), dtype=bool)
        self._done = np.concatenate([self._done, fresh]) if len(self._done) else fresh
        self._open += len(moves)
        if self._values is not None:
            lost = np.full((len(moves), *self._values.shape[1:]), np.nan, self._values.dtype)
            self._values = np.concatenate([self._values, lost])
        return True

    def _check_moved(self, wanted: NDArray[Any], moves: AxisMoves | FreeMoves) -> None:
        """A step that rounds to nothing would divide by 0, or show an input as dead."""
        if moves.t.all():
            return
        lost = (wanted != 0) & (moves.t == 0)
        if lost.any():
            row, point, *rest = np.argwhere(lost)[0]
            j = rest[0] if rest else moves.columns[row]  # type: ignore[union-attr]
            x = self._x[point, j]
            raise ValueError(
                f"the step {wanted[(row, point, *rest)]:.3g} of x{self.x_layout.names[j]} = "
                f"{x:.6g} rounds to nothing in {self._x.dtype} or meets a bound at once: give a "
                f"step of at least {np.spacing(np.abs(x)):.3g}, better 1e4 times that"
            )

    def _begin(self) -> Plan:
        if isinstance(self._design, Auto):
            return self._design.start(self._problem(), self._learned)
        plan: Plan = self._design.start(self._problem())
        return plan

    def streams(self, ids: NDArray[np.intp]) -> NDArray[np.intp]:
        """Random stream of each point, for common random numbers; 0 is that of x."""
        if not self._common_seeds:
            return NOTHING
        if self._streams is None:
            seeds = getattr(self._plan, "seeds", None)
            self._streams = NOTHING if seeds is None else np.concatenate([[0], seeds()])
        return self._streams[ids] if len(self._streams) else np.zeros(len(ids), np.intp)

    @property
    def learned(self) -> Any:
        """What the default design found out of noise and steps; None with other designs."""
        return getattr(self._plan, "learned", None)

    def _problem(self) -> Problem:
        bounded = self._bounds is not None
        lower, upper = self._bounds or unbounded(self._x.shape)
        scale, known = self._scale
        y = np.empty((len(self._x), 0)) if self._y is None else self._y
        random = not isinstance(self._design, (Stencil, ComplexStep))
        return Problem(
            self._x64,
            y,
            lower,
            upper,
            scale,
            known,
            max(self._precision, EPS32 if self._x.dtype == np.float32 else EPS64),
            # Drawing a generator takes longer than a small Jacobian, and stencils need none. The
            # seed is fixed: the same call gives the same answer.
            np.random.default_rng(0 if self._rng is None else self._rng) if random else None,  # type: ignore[arg-type]
            self._replace,
            self._known_noise(),
            bounded,
        )

    def _known_noise(self) -> Array | None:
        if self._noise is None or isinstance(self._noise, str):
            return None
        noise = self._noise
        if self.y_layout is not None and not np.isscalar(noise):
            noise = checks.like_x(noise, self.y_layout, "noise").reshape(-1, self.y_layout.size)[0]
        noise = np.asarray(checks.numeric(noise, "noise"), dtype=np.float64)
        if not (np.isfinite(noise).all() and (noise >= 0).all()):
            raise ValueError(f"noise must be finite and not negative, got {self._noise!r:.80}")
        return noise

    # -- tell --------------------------------------------------------------------------------

    def tell(
        self,
        outputs: Any,
        ids: Sequence[int] | NDArray[np.intp] | None = None,
        points: Any = None,
        errors: Mapping[int, str] | None = None,
    ) -> None:
        """Take outputs back.

        Parameters
        ----------
        outputs : array_like, shape (k, *y.shape), or a sequence of k values
            None or nan marks a failed run, or failed outputs of a run. For x and y as dicts also
            a dict of arrays.
        ids : sequence of int, optional
            Which points these are; by default all that are pending, in the order of ``ask``.
        points : array_like, shape (k, *x.shape), optional
            The points that were really reached, where they differ from those asked for.
        errors : dict of int to str, optional
            Why runs failed, by id; their outputs are ignored.

        Raises
        ------
        ValueError
            For unknown ids, ids told before, or outputs of another shape; nothing is taken then.
        """
        wanted = self._pending()
        if ids is None and not len(wanted):
            raise ValueError("no points are pending: call ask() first, and run what it returns")
        ids = wanted if ids is None else checks.whole(ids, "ids").reshape(-1)
        self._check_ids(ids, wanted)
        strange = sorted(set(errors or ()) - set(ids.tolist()))
        if strange:
            raise ValueError(f"errors names ids {strange[:5]} that are not among those told")
        rows = self._outputs(outputs, ids)
        rows = [None if errors and i in errors else row for i, row in zip(ids.tolist(), rows)]
        reached = None
        if points is not None:
            flat, lead = checks.direction(points, self.x_layout, "points")
            if lead != 1 or len(flat) != len(ids):
                raise ValueError(
                    f"points must have {len(ids)} rows, one for each id, got {np.shape(points)}"
                )
            if not np.isfinite(flat).all():
                raise ValueError("points that were reached must be finite; mark failed runs by "
                                 "None in outputs")  # fmt: skip
            reached = flat.reshape(len(ids), *self._x.shape)
            if flat.dtype.kind == "c":
                raise TypeError("points that were reached must be real, got complex numbers")
            if (reached[ids == 0] != self._x).any():
                raise ValueError("x itself was missed: estimate around the point that was reached")
        kind = self._kind or self._learn(rows)
        values = self._flat(rows, ids, kind)
        self._kind, self.y_layout, self._precision = kind, kind.layout, kind.precision
        order = np.argsort(ids)
        self._take(
            ids[order], values[order], dict(errors or {}),
            None if reached is None else reached[order],
        )  # fmt: skip

    def _check_ids(self, ids: NDArray[np.intp], wanted: NDArray[np.intp]) -> None:
        strange = np.setdiff1d(ids, wanted)
        if len(strange):
            known = strange[(strange >= 0) & (strange <= len(self._done))]
            why = "were told before" if len(known) else "were never asked for"
            raise ValueError(
                f"ids {strange[:5].tolist()} {why}; pending are {wanted[:10].tolist()}"
            )
        if len(np.unique(ids)) != len(ids):
            raise ValueError("an id is named twice in one tell")

    def _outputs(self, outputs: Any, ids: NDArray[np.intp]) -> list[Any]:
        """One value, or None, for each id."""
        if isinstance(outputs, Mapping):
            seen = {len(v) if np.ndim(v) else 0 for v in outputs.values()} or {0}
        else:
            seen = {len(outputs) if isinstance(outputs, Sequence) or np.ndim(outputs) else 0}
        if seen != {len(ids)}:
            raise ValueError(
                f"{' or '.join(map(str, sorted(seen)))} outputs for {len(ids)} ids; give one for "
                "each, None for a failed run"
            )
        if isinstance(outputs, Mapping):
            return [{k: v[i] for k, v in outputs.items()} for i in range(len(ids))]
        return list(outputs)

    def _learn(self, rows: list[Any]) -> Kind:
        """What values are like, from the first that is one."""
        value = next((row for row in rows if row is not None), None)
        if value is None:
            raise ValueError("every run of the first tell failed: the shape of y is not known yet; "
                             "tell at least one that succeeded with them")  # fmt: skip
        return Kind.of(value, len(self.x_layout.batch))

    def _flat(self, rows: list[Any], ids: NDArray[np.intp], kind: Kind) -> NDArray[Any]:
        layout = kind.layout
        may_be_complex = kind.is_complex or isinstance(self._design, ComplexStep)
        shape = (len(self._x), layout.size)
        flats: list[NDArray[Any]] = []
        for i, row in zip(ids, rows):
            if row is None:
                flats.append(np.full(shape, np.nan))
                continue
            same = layout.same(row)
            _, flat = output(layout.arrange(row) if same else row, len(self.x_layout.batch))
            if not same:
                raise ValueError(
                    f"the output of id {i} has shape {np.shape(row)}, earlier ones had "
                    f"{layout.batch + (layout.shape or ())}; nothing of this tell was taken"
                )
            if flat.dtype.kind == "c" and not may_be_complex:
                raise TypeError(f"the output of id {i} is complex, earlier ones were real")
            flats.append(flat.reshape(shape))
        return np.stack(flats)

    def record(self, ids: NDArray[np.intp], values: NDArray[Any], errors: dict[int, str]) -> None:
        """``tell`` with flat values (k, B, n) and errors by position; for this package's loops."""
        self._take(ids, values, {int(ids[i]): text for i, text in errors.items()}, None)

    def _take(
        self, ids: NDArray[np.intp], values: NDArray[Any], errors: dict[int, str],
        reached: Array | None,
    ) -> None:  # fmt: skip
        if errors:
            self._errors.update(errors)
        self.nfev += len(ids)
        if self._y is None and ids[:1] == 0:  # they are in order
            self.set_value(values[0], self.y_layout)
            ids, values = ids[1:], values[1:]
            reached = None if reached is None else reached[1:]
        if not checks.isfinite(values):
            self._clean = False
            self.n_failed += int((~np.isfinite(values)).any((1, 2)).sum())
        if self._values is None:
            dtype = np.complex128 if values.dtype.kind == "c" else np.float64
            if len(ids) == len(self._moves) and self._y is not None and reached is None:
                # The usual case: the whole first round at once, kept as it came.
                self._values, self._open = values.astype(dtype, copy=False), 0
                self._done[:] = True
                return
            self._values = np.full((len(self._moves), *values.shape[1:]), np.nan, dtype)
        elif values.dtype.kind == "c" and self._values.dtype.kind != "c":
            self._values = self._values.astype(np.complex128)
        rows = ids - 1
        self._values[rows] = values
        self._done[rows] = True
        self._open -= len(rows)
        if reached is not None:
            for row, point in zip(rows.tolist(), reached):
                self._moves.reach(row, point - self._x64)

    def set_value(
        self, value: NDArray[Any], layout: Layout | None, precision: float = EPS64
    ) -> None:
        """Take the flat value at x, (..., n), and the machine epsilon of what fun returns."""
        self._precision = max(self._precision, precision)
        self._y = value.reshape(len(self._x), -1)
        if not checks.isfinite(value):
            self._clean = False
            self.n_failed += 1
        self.y_layout = layout

    @property
    def scale(self) -> Array:
        """The unit of steps, (B, m)."""
        return self._scale[0]

    @property
    def limits(self) -> tuple[Array, Array] | None:
        """Bounds, each (B, m); None where there are none."""
        return self._bounds

    @property
    def small_steps(self) -> bool:
        """Whether the steps are those for smooth functions, whatever fun is like."""
        return isinstance(self._design, Stencil) and self._design.step is None

    @property
    def point_size(self) -> int:
        """Numbers in one point, batch axes included."""
        return self._x.size

    @property
    def points_at_once(self) -> int:
        """Points of a batch."""
        return len(self._x)

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
        if offset.dtype.kind == "c":
            return np.asarray(self._x64 - offset)
        there = (self._x64 - offset).astype(self._x.dtype)
        if self._bounds is None or ((there >= self._bounds[0]) & (there <= self._bounds[1])).all():
            return there
        return (self._x64 + 0.125 * offset).astype(self._x.dtype)

    # -- estimate ----------------------------------------------------------------------------

    def _rows(self) -> Rows:
        b = len(self._x)
        n = self.y_layout.size if self.y_layout is not None else 0
        y = np.full((b, n), np.nan) if self._y is None else self._y
        values = self._values
        if values is None:
            values = np.full((len(self._moves), b, n), np.nan)
        return Rows(self._moves, values, self._done, y, self._clean and self._open == 0)

    @property
    def samples(self) -> Samples:
        """Every run so far, x first where its value is known."""
        return self._samples(np.flatnonzero(self._done), self._y is not None)

    def _samples(self, rows: NDArray[np.intp], with_x: bool) -> Samples:
        batch = self.x_layout.batch
        points, values = self._moves.points(self._x, rows), self._rows().values[rows]
        ids = rows + 1
        if with_x and self._y is not None:
            points = np.concatenate([self._x[None].astype(points.dtype), points])
            values = np.concatenate([self._y[None], values])
            ids = np.concatenate([[0], ids])
        return Samples(
            points.reshape(len(points), *batch, self.x_layout.size),
            values.reshape(len(values), *batch, values.shape[-1]),
            {i: self._errors[int(r)] for i, r in enumerate(ids) if int(r) in self._errors},
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
        if self._plan is None:
            self._plan = self._begin()
        batch = self.x_layout.batch
        if self._solver is None:
            solution = self._plan.solve(self._rows()).with_batch(batch)
        else:
            solution = self._fitted(self._solver)
        y = self._y
        return JacobianEstimate(
            solution,
            self.x_layout,
            self.y_layout,
            self._x.reshape(*batch, -1),
            None if y is None else y.reshape(*batch, -1),
            self._plan.step.reshape(*batch, -1),
            self._plan.name,
            Record(self),
            self.nfev,
            self.n_failed,
            int(self._done.sum()) + (y is not None),
        )

    def _fitted(self, solver: Solver) -> Solution:
        """All rows as samples of a solver, with the value at x."""
        samples = self.samples
        dx = samples.points - self._x64.reshape(samples.points.shape[1:])
        if dx.dtype.kind == "c":
            raise ValueError("the complex step leaves nothing to solve; leave solver out")
        assert self.y_layout is not None
        prior = self._jac0
        if prior is not None:
            prior = checks.numeric(prior, "jac0").reshape(
                *self.x_layout.batch, self.y_layout.size, self.x_layout.size
            )
        given = Given(
            np.moveaxis(dx, 0, -2), np.moveaxis(samples.outputs, 0, -2), None,
            self.x_layout, self.y_layout,
        )  # fmt: skip
        return solve_samples(given, solver, "points", self._known_noise(), prior, None)


class Record:
    """The runs that an estimator had been told of at one moment; copied only when asked for."""

    def __init__(self, estimator: JacobianEstimator) -> None:
        self._estimator = estimator
        self._rows = np.flatnonzero(estimator._done)
        self._with_x = estimator._y is not None

    @property
    def samples(self) -> Samples:
        return self._estimator._samples(self._rows, self._with_x)


class Kind(NamedTuple):
    """What values of fun are like, learned from the first."""

    layout: Layout
    flat: NDArray[Any]
    precision: float

    @classmethod
    def of(cls, value: Any, batch_dims: int) -> Kind:
        """The kind of one value."""
        return cls(*output(value, batch_dims), checks.precision(value))

    @property
    def is_complex(self) -> bool:
        """Whether values may be complex."""
        return self.flat.dtype.kind == "c"
