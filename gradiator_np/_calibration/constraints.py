"""Linear constraints: equalities leave fewer coordinates, inequalities a polytope."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import qr
from scipy.optimize import linprog, nnls

from gradiator_np import _checks as checks
from gradiator_np._typing import Array, Index

#: Rows that hold to this, relative to their terms, hold but for rounding.
TOLERANCE = 1e-12


class Rows(NamedTuple):
    """Constraints low <= A x <= high, each row scaled as it was given."""

    matrix: Array
    low: Array
    high: Array

    @property
    def equal(self) -> Any:
        """Which of them are equalities."""
        return self.low == self.high


@dataclass(frozen=True, slots=True)
class Coordinates:
    """x = base + basis z of the parameters z that equalities leave free.

    Attributes
    ----------
    independent : array of int, shape (k,)
        Which of x are z.
    base : array, shape (m,)
    basis : array, shape (m, k)
    """

    independent: Index
    base: Array
    basis: Array

    @classmethod
    def all_of(cls, m: int) -> Coordinates:
        """z = x, without equalities."""
        return cls(np.arange(m), np.zeros(m), np.eye(m))

    @property
    def trivial(self) -> bool:
        return len(self.base) == len(self.independent)

    def expand(self, z: Array) -> Array:
        """x (..., m) of z (..., k)."""
        return z if self.trivial else self.base + z @ self.basis.T


def rows_of(constraints: Any, m: int) -> Rows:
    """The rows of `scipy.optimize.LinearConstraint`, one or several of them.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        For another number of columns, nan, or a lower limit above an upper one.
    """
    if not isinstance(constraints, Iterable) or isinstance(constraints, (dict, str)):
        constraints = () if constraints is None else (constraints,)
    parts = []
    for c in constraints:
        if not (hasattr(c, "A") and hasattr(c, "lb") and hasattr(c, "ub")):
            raise TypeError(
                f"constraints must be scipy.optimize.LinearConstraint, or a sequence of them, got "
                f"{c!r:.60}; a nonlinear one can be a residual of its own with a small sigma"
            )
        a = c.A.toarray() if hasattr(c.A, "toarray") else c.A
        a = np.atleast_2d(checks.numeric(a, "A of a LinearConstraint"))
        if a.shape[1] != m:
            raise ValueError(f"A of a LinearConstraint has shape {a.shape}; give {m} columns")
        low, high = (np.broadcast_to(np.asarray(v, float), len(a)) for v in (c.lb, c.ub))
        if np.isnan(low).any() or np.isnan(high).any() or not np.isfinite(a).all():
            raise ValueError("a LinearConstraint has nan; limits that are not there are -inf, inf")
        if (low > high).any():
            i = int(np.argmax(low > high))
            raise ValueError(
                f"row {i} of a LinearConstraint has lower limit {low[i]:g} above upper limit "
                f"{high[i]:g}; exchange them"
            )
        parts.append((a, low, high))
    if not parts:
        return Rows(np.zeros((0, m)), np.zeros(0), np.zeros(0))
    return Rows(*(np.concatenate(part) for part in zip(*parts)))


def require_feasible(rows: Rows, x0: Array, scale: Array, low: Array, high: Array) -> None:
    """Refuse constraints that contradict each other or the bounds, and an x0 outside of them.

    Raises
    ------
    ValueError
        With the nearest point (in units of ``scale``) that holds where only x0 is at fault.
    """
    if not len(rows.matrix) or not (broken := _broken(rows, x0)).any():
        return
    near = nearest(rows, x0, scale, low, high)
    if near is None:
        raise ValueError(
            "constraints contradict each other or the bounds: no point holds them all; leave one "
            "out, or widen its limits"
        )
    i = int(np.argmax(broken))
    shown = np.array2string(near, precision=6, separator=", ", threshold=10)
    raise ValueError(
        f"x0 breaks row {i} of the constraints: {rows.matrix[i] @ x0:g} is outside of "
        f"[{rows.low[i]:g}, {rows.high[i]:g}]; start within them, as at {shown}"
    )


def nearest(
    rows: Rows, x: Array, scale: Array, low: Array, high: Array, room: float = 0.0
) -> Array | None:
    """A point that holds constraints and bounds, the largest change of x in ``scale`` the least.

    Parameters
    ----------
    room : float
        What is left to all limits that leave it, in changes of the parameters by ``scale``.

    Returns
    -------
    array, shape (m,), or None where no point holds them all.
    """
    margin = np.where(high - low > 4.0 * room * scale, room * scale, 0.0)
    size = room * (np.abs(rows.matrix) @ scale)
    inside = np.where(rows.high - rows.low > 4.0 * size, size, 0.0)
    # variables (x - x0, d): |x - x0| <= d
    lines, upper = _half_spaces(rows._replace(low=rows.low + inside, high=rows.high - inside), x)
    reach = [np.hstack([s * np.diag(1 / scale), -np.ones((len(x), 1))]) for s in (1.0, -1.0)]
    found = _programme(
        np.append(np.zeros(len(x)), 1.0),
        np.vstack([np.hstack([lines, np.zeros((len(lines), 1))]), *reach]),
        np.append(upper, np.zeros(2 * len(x))),
        np.append(scale, 1.0),
        np.append(low + margin - x, 0.0),
        np.append(high - margin - x, np.inf),
    )
    if found is None:
        return None
    x = np.clip(x + found[:-1], low, high)
    # linear programmes hold equalities to 1e-7
    a, free = rows.matrix[rows.equal], high > low
    if len(a):
        missing = rows.low[rows.equal] - a @ x
        x[free] += scale[free] * np.linalg.lstsq((a * scale)[:, free], missing)[0]
    return x


def farthest(
    rows: Rows, j: int, sign: float, x: Array, scale: Array, low: Array, high: Array
) -> Array | None:
    """Where parameter j is largest, or least, within bounds and constraints, which x holds.

    None where it has no end.
    """
    lines, upper = _half_spaces(rows, x)
    toward = -sign * np.eye(len(x))[j]
    found = _programme(toward, lines, np.maximum(upper, 0.0), scale, low - x, high - x)
    return None if found is None else np.asarray(x + found)


def _half_spaces(rows: Rows, x: Array) -> tuple[Array, Array]:
    """Changes d of x with A d <= b, those without a limit left out."""
    value = rows.matrix @ x
    lines, upper = (
        np.vstack([rows.matrix, -rows.matrix]),
        np.append(rows.high - value, value - rows.low),
    )
    return lines[np.isfinite(upper)], upper[np.isfinite(upper)]


def _programme(
    cost: Array, lines: Array, upper: Array, scale: Array, low: Array, high: Array
) -> Array | None:
    """min cost . d over lines d <= upper and bounds; None where there is none, or no least one."""
    scaled = lines * scale
    size = np.maximum(np.abs(scaled).max(axis=1, initial=0.0), 1e-300)
    found = linprog(
        cost * scale, A_ub=scaled / size[:, None], b_ub=upper / size,
        bounds=[*zip(low / scale, high / scale)],
    )  # fmt: skip
    return None if found.x is None else np.asarray(found.x * scale)


def _broken(rows: Rows, x: Array) -> Any:
    value = rows.matrix @ x
    slack = TOLERANCE * (np.abs(rows.matrix) @ np.abs(x))
    return (value < rows.low - slack) | (value > rows.high + slack)


def reduced(rows: Rows, x0: Array, scale: Array, fixed: Any) -> Coordinates:
    """Coordinates that equalities leave; dependent ones are those that they tell best.

    Raises
    ------
    ValueError
        Where equalities tie fixed parameters only, or leave nothing to fit.
    """
    a, b = rows.matrix[rows.equal], rows.low[rows.equal]
    m = len(x0)
    if not len(a):
        return Coordinates.all_of(m)
    # Columns of fixed parameters cannot be dependent ones.
    weighted = np.where(fixed, 0.0, a * scale)
    _, r, pivots = qr(weighted, mode="economic", pivoting=True)
    size = np.abs(np.diagonal(r))
    rank = int((size > TOLERANCE * max(size[0], 1e-300)).sum())
    if rank == 0:
        raise ValueError("constraints tie only fixed parameters: leave them out")
    if rank == m:
        raise ValueError(
            "equality constraints determine every parameter, so there is nothing to fit: leave "
            "one of them out"
        )
    dependent = np.sort(pivots[:rank])
    independent = np.setdiff1d(np.arange(m), dependent).astype(np.intp)
    base, basis = np.zeros(m), np.zeros((m, len(independent)))
    # a_d x_d = b - a_i x_i, consistent since x0 holds it
    base[dependent] = np.linalg.lstsq(a[:, dependent], b)[0]
    basis[dependent] = -np.linalg.lstsq(a[:, dependent], a[:, independent])[0]
    basis[independent, np.arange(len(independent))] = 1.0
    return Coordinates(independent, base, basis)


def half_spaces(
    rows: Rows, coordinates: Coordinates, low: Array, high: Array
) -> tuple[Array, Array]:
    """Inequalities G z <= h: of the rows, and of the bounds of dependent parameters.

    Those of fixed parameters only hold wherever x0 does.
    """
    free = ~rows.equal
    dependent = np.setdiff1d(np.arange(len(low)), coordinates.independent)
    matrix = np.vstack([rows.matrix[free], np.eye(len(low))[dependent]])
    lower, upper = (
        np.append(rows.low[free], low[dependent]),
        np.append(rows.high[free], high[dependent]),
    )
    offset = matrix @ coordinates.base
    lines = matrix @ coordinates.basis
    g = np.vstack([lines, -lines])
    h = np.concatenate([upper - offset, offset - lower])
    kept = coordinates.independent
    used = np.isfinite(h) & g[:, low[kept] < high[kept]].any(axis=1)
    return g[used], h[used]


def least_distance(g: Array, h: Array) -> Array | None:
    """The shortest u with G u <= h; None where there is none.

    Lawson and Hanson, Solving Least Squares Problems (1974), ch. 23: LDP by NNLS.
    """
    size = np.linalg.norm(g, axis=1)
    used = size > 0
    if (h[~used] < 0).any():
        return None
    a, b = -(g[used] / size[used, None]), -(h[used] / size[used])  # a u >= b
    if (b <= 0).all():
        return np.zeros(g.shape[1])
    unit = float(np.abs(b).max())
    matrix = np.vstack([a.T, b / unit])
    target = np.append(np.zeros(g.shape[1]), 1.0)
    y, _ = nnls(matrix, target)
    rest = matrix @ y - target
    if abs(rest[-1]) < 1e-12:
        return None
    return np.asarray(-rest[:-1] / rest[-1] * unit)


def constrained_step(residuals: Array, jac: Array, g: Array, h: Array) -> Array:
    """min |r + J u| over |u| <= 1, G u <= h, where u = 0 holds.

    The damping at which |u| = 1 by bisection, each trial by NNLS.
    """
    size = float(np.linalg.norm(jac, 2)) or 1.0
    damping = 1e-14 * size**2
    u = _damped(residuals, jac, g, h, damping)
    if np.linalg.norm(u) <= 1.0:
        return u
    low, high = damping, size * (float(np.linalg.norm(residuals)) + size)
    for _ in range(60):
        damping = np.sqrt(low * high)
        u = _damped(residuals, jac, g, h, damping)
        length = float(np.linalg.norm(u))
        if length > 1.0:
            low = damping
        else:
            high = damping
            if length > 0.999:
                break
    return u if np.linalg.norm(u) <= 1.0 else u / float(np.linalg.norm(u))


def _damped(residuals: Array, jac: Array, g: Array, h: Array, damping: float) -> Array:
    """min |r + J u|^2 + damping |u|^2 over G u <= h: a least distance from the free minimum."""
    m = jac.shape[1]
    q, r = np.linalg.qr(np.vstack([jac, np.sqrt(damping) * np.eye(m)]))
    free = -np.linalg.solve(r, q[: len(residuals)].T @ residuals)
    # v = R (u - free): shortest v with G R^-1 v <= h - G free
    lines = np.linalg.solve(r.T, g.T).T
    v = least_distance(lines, h - g @ free)
    return np.zeros(m) if v is None else free + np.linalg.solve(r, v)
