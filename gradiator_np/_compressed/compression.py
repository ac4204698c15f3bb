"""J of one column for each colour: what is estimated in place of a sparse J.

Columns of J that share no row are moved together (Curtis, Powell and Reid, IMA Journal of Applied
Mathematics 13 (1974) 117). What is estimated is s -> fun(x + S (s - s0)), where column c of S holds
the units of the inputs of colour c. Designs, error bars, failures and workers are those of any
other function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._samples import Samples
from gradiator_np._settings import METHODS, Settings, bounds_of, scale_of, step_of
from gradiator_np._structure import Layout
from gradiator_np._typing import Array
from gradiator_np.designs._finite_difference.stencil import RULES
from gradiator_np.sparsity import Coloring

#: How far the default would go where nothing is in the way, in units of x.
WIDE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Compression:
    """The function of one input for each colour that stands for ``fun``.

    Attributes
    ----------
    x : array, shape batch + (m,)
        The point, in the caller's precision.
    layout : Layout
        Of x.
    coloring : Coloring
    seeds : array, shape batch + (m,)
        How far each input moves for one unit of its colour, in units of x; 0 where it is fixed.
        Powers of two, so that x + seeds t is exact where s0 + t is.
    centre : array, shape batch + (c,)
        s0: of the size of x in units of the seeds, so that s is as coarse as x is.
    limits : pair of array, shape batch + (m,), or None
        Bounds of x.
    """

    x: NDArray[Any]
    layout: Layout
    coloring: Coloring
    seeds: Array
    centre: Array
    limits: tuple[Array, Array] | None

    @classmethod
    def of(
        cls,
        point: checks.Point,
        known: Mapping[str, Any],
        coloring: Coloring,
        common_seeds: bool | None = None,
    ) -> tuple[Compression, Settings]:
        """The compression at one point, and what complete options mean for it.

        Raises
        ------
        ValueError
            For options that only a J of all inputs has.
        """
        _refuse(known)
        x, layout = point
        each = x.reshape(-1, layout.size).astype(np.float64, copy=False)
        scale = scale_of(each, known["x_scale"], layout)
        step = step_of(each, scale, known["rel_step"], known["abs_step"], layout)
        seeds = _units(each, scale) if step is None else (each + step) - each
        limits = bounds_of(known["bounds"], x, layout)
        room = None
        if limits is not None:
            seeds, room = _within(
                seeds, limits[1] - each, each - limits[0], _reach(known["method"], step is not None)
            )
        colors, count = coloring.column_colors, coloring.n_column_colors
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.abs(each / seeds)
        largest = np.max(size, initial=1.0, where=np.isfinite(size))
        centre = np.full((len(each), count), 2.0 ** np.ceil(np.log2(largest)))
        batch = layout.batch
        self = cls(
            x, layout, coloring,
            seeds.reshape(x.shape),
            centre.reshape(*batch, count),
            limits and (limits[0].reshape(x.shape), limits[1].reshape(x.shape)),
        )  # fmt: skip
        inner = {**known, "x_scale": 1.0, "rel_step": None}
        inner["abs_step"] = None if step is None else 1.0
        if room is not None:
            ahead, back = (
                _per_color(np.minimum, side, colors, count, np.inf).reshape(*batch, count)
                for side in room
            )
            inner["bounds"] = self.centre - back, self.centre + ahead
        for name, worst, start in (("min_step", np.maximum, 0.0), ("max_step", np.minimum, np.inf)):
            if known[name] is not None:
                most = checks.positive(known[name], layout, name).reshape(seeds.shape)
                each_step = np.divide(most, np.abs(seeds), out=np.full(seeds.shape, start),
                                      where=seeds != 0)  # fmt: skip
                inner[name] = _per_color(worst, each_step, colors, count, start).reshape(
                    *batch, count
                )
        if known["atol"] is not None:
            inner["atol"] = self._tolerances(known["atol"])
        return self, Settings.of(self.point, inner, common_seeds)

    @property
    def point(self) -> checks.Point:
        """s0, where the compressed J is estimated."""
        layout = Layout((self.coloring.n_column_colors,), self.layout.batch)
        return checks.Point(self.centre.astype(self.x.dtype), layout)

    def expect(self, y: Layout) -> None:
        """Refuse values of another size than the pattern has rows."""
        n = self.coloring.pattern.shape[0]
        if y.size != n:
            raise ValueError(
                f"sparsity has {n} rows, but the output has {y.size} numbers: one row for each"
            )

    def __call__(self, s: NDArray[Any]) -> NDArray[Any]:
        """Points of ``fun`` (k, *batch, m) for s (k, *batch, c); never out of bounds."""
        points = np.take(s - self.centre.astype(self.x.dtype), self.coloring.column_colors, axis=-1)
        points *= self.seeds
        points += self.x
        return self._bounded(points)

    def along(self, u: Array, t: Array) -> NDArray[Any]:
        """Points x + t seeds u (k, *batch, m), for u of shape batch + (m,) and t (k, *batch)."""
        points = self.x + t[..., None] * (self.seeds * u)
        return self._bounded(points.astype(self.x.dtype, copy=False))

    # -- back to all inputs ------------------------------------------------------------------

    def entries(self, compressed: NDArray[Any]) -> NDArray[Any]:
        """Entries of the pattern (*batch, nnz) of a compressed J (*batch, n, c); 0 where fixed."""
        return self._gathered(compressed, self.seeds, 0.0)

    def errors(self, compressed: Array) -> Array:
        """Their errors; inf where an input is fixed."""
        return self._gathered(compressed, np.abs(self.seeds), np.inf)

    def _gathered(self, compressed: NDArray[Any], units: Array, lost: float) -> NDArray[Any]:
        """Entries of inputs, of numbers by colour, per unit of x."""
        stack = compressed.reshape(-1, *compressed.shape[-2:])
        parts = []
        for found, unit in zip(stack, units.reshape(len(stack), -1)):
            with np.errstate(divide="ignore", invalid="ignore"):
                data = self.coloring.decompress(found.T, steps=unit).data
            if not unit.all():
                data[unit[self.coloring.pattern.indices] == 0] = lost
            parts.append(data)
        return np.stack(parts).reshape(*compressed.shape[:-2], -1)

    def tangents(self, u: NDArray[Any]) -> NDArray[Any]:
        """What each output has for a tangent (..., *batch, n, c) where x has u (..., *batch, m)."""
        columns = self.coloring.pattern.indices
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(u == 0, 0.0, u / self.seeds)
        out = np.zeros((*u.shape[:-1], *self._compressed_shape), u.dtype)
        out[(..., *self.cells)] = scaled[..., columns]
        return out

    @property
    def cells(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Row and colour of each entry of the pattern: where it lies in the compressed J."""
        pattern = self.coloring.pattern
        rows = np.repeat(np.arange(pattern.shape[0]), pattern.row_counts)
        return rows, self.coloring.column_colors[pattern.indices]

    @property
    def _compressed_shape(self) -> tuple[int, int]:
        return self.coloring.pattern.shape[0], self.coloring.n_column_colors

    def steps(self, by_color: Array) -> Array:
        """Steps of inputs (*batch, m) of those of colours, nan where an input is fixed."""
        step = by_color[..., self.coloring.column_colors] * np.abs(self.seeds)
        return np.where(self.seeds == 0, np.nan, step)

    def samples(self, found: Samples) -> Samples:
        """Runs of ``fun`` of those of the compressed function."""
        return replace(found, points=self(found.points))

    def _bounded(self, points: NDArray[Any]) -> NDArray[Any]:
        if self.limits is None or points.dtype.kind == "c":
            return points
        return np.clip(points, *self.limits, out=points)

    def _tolerances(self, atol: Any) -> Array:
        """The standard error wanted of each entry of the compressed J, (*batch, n, c)."""
        wanted = checks.real(atol, "atol of a sparse Jacobian")
        if not wanted > 0:
            raise ValueError(f"atol must be positive, got {atol!r:.60}")
        units = np.abs(self.seeds)[..., self.coloring.pattern.indices]
        out = np.full((*self.layout.batch, *self._compressed_shape), np.inf)
        out[(..., *self.cells)] = np.where(units > 0, wanted * units, np.inf)
        return out


def _refuse(known: Mapping[str, Any]) -> None:
    """Refuse options that a compressed J has no place for."""
    if known["jac0"] is not None:
        raise ValueError("jac0 is the prior of a whole Jacobian; with sparsity leave it out")
    method = known["method"]
    if not isinstance(method, str) and getattr(method, "step", None) is not None:
        raise ValueError(
            f"with sparsity, inputs of one colour move together: give the steps as rel_step or "
            f"abs_step (with method one of {', '.join(METHODS)}), not in the design {method!r:.60}"
        )


def _units(x: Array, scale: Array) -> Array:
    """The powers of two nearest to the scales, away from zero."""
    _, exponent = np.frexp(np.sqrt(2) * scale)
    return np.copysign(np.ldexp(0.5, exponent), x)


def _reach(method: Any, given: bool) -> float:
    """How far a method goes, in units of the seeds; wants to go, where it chooses its steps."""
    rule = RULES.get(method) if isinstance(method, str) else None
    if given:
        return float(max(RULES["3-point"].points if rule is None else rule.points))
    return WIDE if rule is None else 2 * max(rule.points) * rule.relative_step(checks.EPS)


def _within(
    seeds: Array, up: Array, down: Array, reach: float
) -> tuple[Array, tuple[Array, Array]]:
    """Seeds that lead where there is room, and the room ahead and back in units of them.

    A colour moves all of its inputs at once: of two at opposite bounds each moves inside. One with
    less room than ``reach`` has a smaller unit instead of limiting the others.
    """
    ahead, back = np.where(seeds > 0, up, down), np.where(seeds > 0, down, up)
    turn = (ahead < reach * np.abs(seeds)) & (back > ahead)
    seeds = np.where(turn, -seeds, seeds)
    ahead, back = np.where(turn, back, ahead), np.where(turn, ahead, back)
    fixed = ahead <= 0
    _, exponent = np.frexp(np.where(fixed, 1.0, ahead) / reach)
    small = np.copysign(np.ldexp(0.5, exponent), seeds)  # the power of two below
    seeds = np.where(ahead < reach * np.abs(seeds), small, seeds)
    size = np.abs(seeds)
    room = [np.where(fixed, np.inf, side / size) for side in (ahead, back)]
    return np.where(fixed, 0.0, seeds), (room[0], room[1])


def _per_color(
    worst: np.ufunc, values: Array, colors: NDArray[Any], count: int, start: float
) -> Array:
    """The least or the largest value of each colour, (B, c)."""
    out = np.full((count, len(values)), start)
    worst.at(out, colors, values.T)
    return out.T
