"""Designs that move many inputs at once: Hadamard, simplex, rotated pairs, the caller's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from gradiator_np import _checks as checks
from gradiator_np._signatures import with_shared
from gradiator_np._typing import Array, Index
from gradiator_np.designs._displacements import Displacements
from gradiator_np.designs._factorial import orthogonal_arrays as directions
from gradiator_np.designs._factorial.contrasts import OneSided, average
from gradiator_np.designs._factorial.regression import DesignRegression, Setup
from gradiator_np.designs._protocol import Problem, Rows, per_input
from gradiator_np.solvers._least_squares.pinv import Pinv
from gradiator_np.solvers._solution import Solution, Solver


@dataclass(frozen=True, kw_only=True)
class Directional(ABC):
    """Options that every design of directions has.

    Parameters
    ----------
    step : array_like or None
        How far each input may move from x, in units of x: a scalar or one per input. Drawn in
        where the bounds are nearer. By default eps^(1/3) of the input's scale (eps^(1/2) where
        no antithetic runs cancel curvature), eps being the noise relative to y.
    replicates : int
        Runs of each point; their scatter tells the noise, free of curvature.
    richardson : bool or "auto"
        Run every pair at half the step too and extrapolate to step 0: always, or ("auto") for
        the outputs where both steps disagree beyond their noise. Doubles the runs.
    solver : Solver or None
        ``Pinv()`` by default; ``Pinv(errors="hc3")`` where the noise varies from run to run,
        ``Huber()`` where some runs are far off.
    """

    step: ArrayLike | None = None
    replicates: int = 1
    richardson: bool | Literal["auto"] = False
    solver: Solver | None = None
    needs_value: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        shared = cleandoc(Directional.__doc__ or "").partition("----------\n")[2]
        cls.__doc__ = with_shared(cls.__doc__, "**options : Directional", shared)

    def __post_init__(self) -> None:
        checks.integer(self.replicates, "replicates")
        if not hasattr(self.solver, "solve") and self.solver is not None:
            raise TypeError(f"solver must be an object such as Huber(), got {self.solver!r:.60}")
        if self.richardson and not self._paired():
            raise ValueError(
                "richardson extrapolates antithetic pairs, and this design has none; "
                "use fold_over=True or Pairs()"
            )

    @abstractmethod
    def _paired(self) -> bool:
        """Whether every direction is run both ways."""

    @abstractmethod
    def _directions(self, m: int, rng: np.random.Generator) -> Array:
        """Rows in units of the step, shape (k, m); the mirror images are not among them."""

    _label: ClassVar[str] = ""

    def start(self, problem: Problem, learned: Any = None) -> DirectionalPlan:
        """A plan for one problem."""
        return DirectionalPlan(self, problem)


@dataclass(frozen=True, kw_only=True)
class Hadamard(Directional):
    """Every run moves every input by its full step, up or down: least variance in a box.

    Columns of a Hadamard matrix (Plackett and Burman, 1946): with k runs each entry has variance
    sigma^2 / (k h^2), the bound; one input at a time needs up to 2k times as many runs for it.

    Parameters
    ----------
    fold_over : bool
        Run the mirror image of every row as well. Otherwise curvature biases J, and interactions
        of two inputs pass for the slope of a third.
    spare : int
        Least number of directions beyond one per input: the degrees of freedom of the residual.
        0 gives the smallest design, which tells nothing of its own error. Runs are not wasted:
        the variance falls as 1/k.
    **options : Directional

    Examples
    --------
    >>> import numpy as np
    >>> from gradiator_np import designs, jacobian
    >>> design = designs.Hadamard(step=0.1)
    >>> estimate = jacobian(lambda x: x @ np.arange(1.0, 6.0), np.ones(5), method=design)
    >>> estimate.jac.round(6), estimate.nfev  # two runs for each of 8 directions, one at x
    (array([1., 2., 3., 4., 5.]), 17)
    """

    fold_over: bool = True
    spare: int = 3
    _label: ClassVar[str] = "hadamard"

    def _paired(self) -> bool:
        return self.fold_over

    def _directions(self, m: int, rng: np.random.Generator) -> Array:
        return directions.two_level(m, m + self.spare)


@dataclass(frozen=True, kw_only=True)
class Simplex(Directional):
    """Vertices of a regular simplex about x, m + 1 runs: fewest runs for a gradient in a ball.

    Variance m sigma^2 / (k r^2), the bound in a ball of radius r = ``step``; curvature is not
    cancelled.

    Parameters
    ----------
    rotate : bool
        Turn it at random.
    **options : Directional

    Examples
    --------
    >>> from gradiator_np import designs, jacobian
    >>> design = designs.Simplex(step=0.1)
    >>> estimate = jacobian(lambda x: 3 * x[0] - x[1], [1.0, 2.0], method=design)
    >>> estimate.jac.round(6), estimate.nfev
    (array([ 3., -1.]), 4)
    """

    rotate: bool = True
    _label: ClassVar[str] = "simplex"

    def _paired(self) -> bool:
        return False

    def _directions(self, m: int, rng: np.random.Generator) -> Array:
        d = directions.simplex(m)
        return d @ directions.rotation(m, rng) if self.rotate else d


@dataclass(frozen=True, kw_only=True)
class Pairs(Directional):
    """Antithetic pairs along a rotated tight frame: least variance in a ball.

    Variance m sigma^2 / (k r^2), the bound in a ball of radius r = ``step``; every even order of
    curvature cancels. With ``spare=0, rotate=False`` these are central differences.

    Parameters
    ----------
    rotate : bool
        Turn the frame at random.
    spare : int
        Directions beyond one per input: the degrees of freedom of the residual.
    **options : Directional

    Examples
    --------
    >>> from gradiator_np import designs, jacobian
    >>> design = designs.Pairs(step=0.1, spare=2)
    >>> estimate = jacobian(lambda x: 3 * x[0] - x[1], [1.0, 2.0], method=design)
    >>> estimate.jac.round(6), estimate.nfev
    (array([ 3., -1.]), 9)
    """

    rotate: bool = True
    spare: int = 3
    _label: ClassVar[str] = "pairs"

    def _paired(self) -> bool:
        return True

    def _directions(self, m: int, rng: np.random.Generator) -> Array:
        d = directions.tight_frame(m, m + self.spare)
        return d @ directions.rotation(m, rng) if self.rotate else d


@dataclass(frozen=True)
class Directions(Directional):
    """The caller's own directions.

    Parameters
    ----------
    rows : array_like, shape (k, m)
        Displacements in units of ``step``, at most 1 of them (of x where ``step`` is None).
    fold_over : bool
        Run the mirror image of every row as well.
    **options : Directional

    Examples
    --------
    >>> from gradiator_np import designs, jacobian
    >>> design = designs.Directions(rows=[[0.1, 0.1], [0.1, -0.1]], fold_over=True)
    >>> estimate = jacobian(lambda x: 3 * x[0] - x[1], [1.0, 2.0], method=design)
    >>> estimate.jac.round(6), estimate.nfev
    (array([ 3., -1.]), 5)
    """

    rows: ArrayLike = ()
    fold_over: bool = False
    _label: ClassVar[str] = "directions"

    def __post_init__(self) -> None:
        super().__post_init__()
        d = checks.float_array(self.rows, 2, "rows")
        if not d.size or not np.isfinite(d).all():
            raise ValueError(
                f"directions must be a finite array of shape (k, m), got shape {d.shape}"
            )
        most = np.abs(d).max()
        if self.step is not None and most > 1:
            raise ValueError(
                f"rows are in units of step, and {most:.3g} of them is further than an input may "
                f"go; divide rows by {most:.3g}, or give them in units of x and leave step out"
            )

    def _paired(self) -> bool:
        return self.fold_over

    def _directions(self, m: int, rng: np.random.Generator) -> Array:
        return checks.float_array(self.rows, 2, "rows").copy()


def choose_design(
    max_step: ArrayLike | None = None,
    *,
    spare: int = 3,
    replicates: int = 1,
    richardson: bool | Literal["auto"] = "auto",
    solver: Solver | None = None,
) -> Hadamard | Pairs:
    """The design of least variance for what limits the step.

    Parameters
    ----------
    max_step : array_like or None
        How far each input may move, on its own: a box. Then the Hadamard fold-over wins by up to
        2k in variance. None: the length of the step limits, and central pairs are optimal.
    spare, replicates, richardson, solver
        As in these designs; here ``richardson="auto"`` by default, so that the error bars hold
        truncation.

    Examples
    --------
    >>> from gradiator_np import designs
    >>> type(designs.choose_design(max_step=0.1)).__name__
    'Hadamard'
    """
    design = Pairs if max_step is None else Hadamard
    return design(
        step=max_step, spare=spare, replicates=replicates, richardson=richardson, solver=solver
    )


class DirectionalPlan:
    """A design of directions at work on one problem; see ``Plan``."""

    learned = None

    def __init__(self, design: Directional, problem: Problem) -> None:
        self.design, self.problem = design, problem
        self.paired = design._paired()
        self.levels = np.array([0.5, 1.0] if design.richardson else [1.0])
        self.replicates = design.replicates
        self.richardson: bool | str = design.richardson
        self.solver: Solver = Pinv() if design.solver is None else design.solver
        self.name = design._label + (" fold-over" if getattr(design, "fold_over", False) else "")
        wanted = self._wanted(design)
        self.rows, self.half, one_sided = self._place(design, wanted)
        self.one_sided = OneSided(one_sided)
        self.asked = False

    # -- where to look -----------------------------------------------------------------------

    def _wanted(self, design: Directional) -> Array:
        """Half widths before the bounds are looked at, shape (B, m)."""
        p = self.problem
        if design.step is None and isinstance(design, Directions):
            return np.ones(p.x.shape)
        if design.step is None:
            size = np.sqrt(np.nanmean(np.square(np.abs(p.y)))) if np.isfinite(p.y).any() else 0.0
            noise = 0.0 if p.noise is None else np.sqrt(np.mean(np.square(p.noise)))
            relative = min(max(p.eps, noise / size if size else 0.0), 0.1)
            return np.asarray(p.scale * relative ** (1 / 3 if self.paired else 1 / 2))
        wanted = per_input(design.step, p.x.shape, "step")
        if not (np.isfinite(wanted).all() and (wanted >= 0).all()):
            raise ValueError(f"step must be finite and not negative, got {design.step}")
        return wanted

    def _place(self, design: Directional, wanted: Array) -> tuple[Array, Array, Array]:
        """Directions (K, m), half widths (B, m) and one-sided steps (B, m) within the bounds."""
        p = self.problem
        up, down = p.upper - p.x, p.x - p.lower
        fixed = (up <= 0) & (down <= 0) | (wanted == 0)
        own = isinstance(design, Directions)
        moving = np.arange(p.x.shape[1]) if own else np.flatnonzero(~fixed.all(0))
        rows = self._spread(design, moving)
        # Entries of unit rows are at most 1, however they are turned.
        ahead = np.abs(rows.max(0, initial=0)) if own else np.ones(rows.shape[1])
        behind = np.abs(rows.min(0, initial=0)) if own else ahead
        if self.paired:
            ahead = behind = np.maximum(ahead, behind)
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.fmin(up / ahead, down / behind)
        half = np.where(fixed, 0.0, np.fmin(wanted, room))
        # One-sided rows where they have the smaller variance: h may be half of the longer side.
        h = np.minimum(wanted, np.maximum(up, down)) / 2
        unit = np.square(rows).sum(0) * (2 if self.paired else 1)
        with np.errstate(divide="ignore"):
            beside = OneSided.VARIANCE / h**2 < 1 / (unit * half**2)
        beside &= ~fixed & (unit > 0) & (h > 0)
        one_sided = np.where(beside, np.where(up >= down, h, -h), 0.0)
        half = np.where(beside, 0.0, half)
        still = np.flatnonzero((half != 0).any(0))
        if not own and len(still) < len(moving):
            rows = self._spread(design, still)
        return rows, half, one_sided

    def _spread(self, design: Directional, moving: Index) -> Array:
        """The design's directions, zero in inputs that do not move; shape (K, m)."""
        m = self.problem.x.shape[1]
        d = design._directions(len(moving), self.problem.rng) if len(moving) else np.zeros((0, 0))
        if d.shape[1] != len(moving):
            raise ValueError(f"directions have {d.shape[1]} columns, but x has {m} inputs")
        rows = np.zeros((len(d), m))
        rows[:, moving] = d
        return rows

    @property
    def step(self) -> Array:
        """Half width of each input, nan where it is not moved, shape (B, m)."""
        size = np.where(self.half, self.half, np.abs(self.one_sided.h))
        return np.asarray(np.where(size, size, np.nan))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Replicates, levels, signs, directions: the axes of the design's own rows."""
        return self.replicates, len(self.levels), 2 if self.paired else 1, len(self.rows)

    def ask(self, rows: Rows) -> Displacements | None:
        """The whole design at once."""
        if self.asked:
            return None
        self.asked = True
        return Displacements(self.offsets(), self.streams())

    def offsets(self) -> Array:
        """Offsets of all rows, replicates outermost, then levels, signs, directions."""
        r, _, s, k = self.shape
        signs = np.array([1.0, -1.0])[:s]
        unit = self.levels[:, None, None] * signs[:, None]  # (L, S, 1)
        own = unit[..., None, None] * (self.rows[:, None, :] * self.half)
        own = own.reshape(-1, *self.half.shape) if k else np.zeros((0, *self.half.shape))
        beside = self.one_sided.offsets()
        return np.concatenate([np.tile(a, (r, 1, 1)) for a in (own, beside)])

    def streams(self) -> Index:
        """Which random stream each row is to use, for common random numbers.

        0 is the stream of the value at x. Both ends of a pair share a stream that no other row
        has; rows whose differences are taken to x share the stream of x in the first replicate,
        and one of their own in every other.
        """
        r, levels, _, k = self.shape
        replicate = np.arange(r)
        if self.paired:
            pair = 1 + np.arange(r * levels * k).reshape(r, levels, 1, k)
            own = np.broadcast_to(pair, self.shape)
        else:
            own = np.broadcast_to(replicate[:, None, None, None], self.shape)
        beside = np.repeat(replicate, 2 * len(self.one_sided.inputs))
        return np.concatenate([own.ravel(), beside])

    # -- what was seen -----------------------------------------------------------------------

    def solve(self, rows: Rows) -> Solution:
        """The Jacobian from the rows told so far."""
        nominal = self.offsets()
        n = rows.y.shape[-1]
        told = len(rows.done)
        offsets = np.concatenate([rows.offsets, nominal[told:]]) if told else nominal
        missing = np.full((len(nominal) - told, nominal.shape[1], n), np.nan)
        values = np.concatenate([rows.values, missing])
        count = int(np.prod(self.shape))
        own_offsets = offsets[:count].reshape(*self.shape, *nominal.shape[1:])
        common = rows.moves.streams is not None
        setup = Setup(self.problem, self.paired, common, self.half, self.richardson, self.solver)
        own_values = values[:count].reshape(*self.shape, *values.shape[1:])
        regression = DesignRegression(own_offsets[0], own_values, rows.y, setup)
        solution = regression.solve()
        if len(self.one_sided.inputs):
            q2 = 2 * len(self.one_sided.inputs)
            beside = average(values[count:].reshape(self.replicates, q2, *values.shape[1:]))
            solution = self.one_sided.insert(solution, offsets[count : count + q2], beside, rows.y)
        return regression.assess(solution, incomplete=told < len(nominal) or not rows.done.all())
