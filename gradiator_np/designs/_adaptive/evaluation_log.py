"""The log of the default design: which runs were asked for, and what they gave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.model.differences import (
    SAME_STEP,
    SIDED_NOISE,
    SIDED_REACH,
    CentralDifferences,
    NoiseGrowth,
)
from gradiator_np.designs._adaptive.outputs import HUGE, real_outputs, within_range
from gradiator_np.designs._adaptive.repeats import AT_X, Repeats
from gradiator_np.designs._displacements import AxisDisplacements, of_rows
from gradiator_np.designs._protocol import Problem, Rows

#: Line of the pilot, which moves every input at once; inputs are lines 0 .. m - 1.
PILOT = -1
#: Line of a repetition at x itself, and of one run that moves several inputs.
CENTRE, GROUP = -2, -3

#: What stages ask for.
Moves = AxisDisplacements

# What rounding makes of the place of a run, as a share of its distance.
SAME_RUN = 1e-9


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Two runs on one line: at +-t, or at t and 2 t on one side.

    ``side`` is 0 for a pair, +1 or -1 for the one-sided rule; ``t`` is in units of the scale.
    """

    line: int
    t: float
    side: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """Two runs on one line: how far along it they went, in units of t, and their rows."""

    line: int
    side: int
    places: tuple[float, ...]
    rows: tuple[int, int]


def _multiples(pair: PairRequest) -> tuple[float, ...]:
    """How far along their line the runs of a pair go."""
    if pair.line == CENTRE:
        return (0.0,)
    t = pair.t * (pair.side or 1)
    return (t, -t) if pair.side == 0 else (t, 2 * t)


class EvaluationLog:
    """All runs that a plan has asked for, and what came back.

    Steps are in units of ``scale``, whose own copy this is: an input may be rescaled.

    Parameters
    ----------
    problem : Problem
    max_step : array that broadcasts to (B, m), or None
        How far an input may be moved at most, in units of x.
    """

    def __init__(self, problem: Problem, max_step: Any = None) -> None:
        self.problem = problem
        self.scale = problem.scale.copy()
        self.f0: Array = real_outputs(problem.y[None])[0]
        for a, what in ((self.scale, "x"), (self.f0, "fun(x)")):
            size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
            if size >= HUGE:
                raise ValueError(
                    f"{what} has the size {size:.3g}, and fourth powers would overflow: use other "
                    "units, or a method with given steps"
                )
        within_range(self.f0)
        self.batch, self.m = problem.x.shape
        # complex outputs count twice: their real and imaginary parts are outputs of their own
        self._per_point = self.f0.size // self.batch
        up = (problem.upper - problem.x) / self.scale
        down = (problem.x - problem.lower) / self.scale
        #: How far each input may be moved up and down at every point, in units of t.
        self.up, self.down = up.min(axis=0), down.min(axis=0)
        apart = 2 * self.room < np.maximum(up, down).min(axis=0)
        if apart.any():
            # points at opposite bounds: up is to where each has more room
            turned = apart & (up < down)
            self.scale[turned] *= -1
            up, down = np.where(turned, down, up), np.where(turned, up, down)
            self.up, self.down = up.min(axis=0), down.min(axis=0)
        #: The least change of each input that floating-point numbers allow, in units of t.
        self.resolution = np.max(np.spacing(np.abs(problem.x)) / self.unit, axis=0)
        # a rule needs two points
        self.free = (self.room > 0) & (self.room >= 2 * self.resolution)
        only = np.flatnonzero(self.free)
        #: The line that the pilot's pairs belong to: the input itself where there is only one.
        self.pilot = int(only[0]) if only.size == 1 else PILOT
        if max_step is not None:
            self._shorten((max_step / self.unit).min(axis=0))
        self.direction = np.zeros((self.batch, self.m))
        self.n_rows = 0
        #: Every row as it was told, repetitions of failed runs among them.
        self.told: Rows | None = None
        self.repeats = Repeats()
        self._rows: Rows | None = None
        self._pairs: list[PairRequest] = []
        self._ends: list[tuple[int, int]] = []  # rows of both runs of each pair
        self._excluded: set[int] = set()
        # rows that serve a second pair
        self._reused: set[int] = set()
        self._rescaled = self._aimed = 0
        #: The pairs of each line, in the order of their rows.
        self._of: dict[int, list[int]] = {}
        self._views: tuple[Any, dict[Any, CentralDifferences]] = (None, {})

    def _shorten(self, most: Array) -> None:
        self.up, self.down = np.minimum(self.up, most), np.minimum(self.down, most)
        lost = np.flatnonzero(self.free & (self.room < 2 * self.resolution))
        if lost.size:
            raise ValueError(
                f"the max_step of input {lost[0]} is less than two units in the last place of x"
            )

    @property
    def unit(self) -> Array:
        """Lengths (B, m) of t = 1, in units of x; ``scale`` is negative where up leads down."""
        return np.abs(self.scale)

    @property
    def room(self) -> Array:
        """How far each input may be moved to the side that is more open, in units of t."""
        return np.asarray(np.maximum(self.up, self.down))

    @property
    def nfev(self) -> int:
        """Evaluations asked for so far, the one at x included."""
        return self.n_rows + len(self.repeats) + 1

    @property
    def version(self) -> tuple[int, ...]:
        """Changes whenever an answer may."""
        told = 0 if self.told is None else len(self.told.done)
        done = 0 if self.told is None else int(self.told.done.sum())
        # a pair may be made of runs that are there
        return told, done, len(self._pairs), len(self._excluded), self._rescaled

    def fitting(self, line: int, side: int) -> float:
        """Largest step of a pair of an input (``side`` 0), or of a one-sided rule."""
        if line < 0:
            return np.inf
        up, down = float(self.up[line]), float(self.down[line])
        return min(up, down) if side == 0 else (up if side > 0 else down) / 2

    # -- what is asked for -------------------------------------------------------------------

    def aim(self, direction: Array) -> None:
        """Let the pilot move along ``direction`` (B, m), in units of the scale."""
        self.direction = direction
        self._aimed = len(self._pairs)
        self._rescaled += 1

    def request(self, wanted: Sequence[PairRequest]) -> Moves:
        """The runs of these pairs, which are entered into the log.

        Pairs that do not fit are drawn in as a whole: with one end in place and the other at a
        bound they would be taken for what they are not. What was run already for a pair of which
        the other run failed is not run again.
        """
        p, row = self.problem, 0
        moves: list[tuple[int, int, float]] = []
        for asked in wanted:
            pair = replace(asked, t=min(asked.t, self.fitting(asked.line, asked.side)))
            rows: list[int] = []
            for multiple in _multiples(pair):
                known = self._left_over(pair.line, multiple) if multiple else None
                rows.append(self.n_rows + row if known is None else known)
                if known is None:
                    if multiple:
                        moves.append((row, pair.line, multiple))
                    row += 1
            self._enter(pair, rows)
        self.n_rows += row
        columns, out = np.zeros(row, np.intp), np.zeros((row, self.batch))
        beside: dict[int, Array] = {}
        # t was rounded, and x + t s may round to just outside of a bound that t s just reaches
        ends = -self.down * self.scale, self.up * self.scale
        low = np.maximum(p.lower - p.x, np.minimum(*ends))
        high = np.minimum(p.upper - p.x, np.maximum(*ends))
        if moves:
            at, line, t = (np.array(a) for a in zip(*moves))
            own = line != PILOT
            j = columns[at[own]] = line[own]
            out[at[own]] = np.clip(t[own, None] * self.scale[:, j].T, low[:, j].T, high[:, j].T)
            for k, along in zip(at[~own].tolist(), t[~own]):
                # as far to both sides as floating-point numbers allow; what would round to nothing
                # stays where it is
                there = np.sign(along) * self._reached(np.abs(along) * self.direction)
                beside[k] = np.clip(there, low, high)
        return Moves(columns, out, beside)

    def request_group(self, inputs: Index, t: Array, sign: Array | float | None = None) -> Moves:
        """A run that moves these inputs at once, upwards where that is open."""
        self._enter(PairRequest(GROUP, float(t.max())), [self.n_rows])
        self.n_rows += 1
        out = np.zeros((1, self.batch, self.m))
        if sign is None:
            sign = np.where(self.up[inputs] >= t, 1.0, -1.0)
        out[0][:, inputs] = sign * t * self.scale[:, inputs]
        return of_rows(out)

    def request_part(self, inputs: Index, t: float) -> Moves:
        """A pair along the part of the pilot's direction that moves these inputs."""
        self._enter(PairRequest(GROUP, t), [self.n_rows, self.n_rows + 1])
        self.n_rows += 2
        out = np.zeros((2, self.batch, self.m))
        out[0][:, inputs] = self._reached(t * self.direction)[:, inputs]
        out[1] = -out[0]
        return of_rows(out)

    def _reached(self, t: Array) -> Array:
        """Displacements (.., B, m) that floating-point numbers make of t, in units of x."""
        x = self.problem.x
        return np.asarray((x + t * self.scale) - x)

    def part_slope(self) -> Array:
        """Slope (N,) per unit t that the latest pair of a part of the direction saw."""
        ahead, behind = self.values()[self.n_rows - 2 : self.n_rows]
        return np.asarray((ahead - behind) / (2 * self._pairs[-1].t))

    def request_rows(self, offsets: Array) -> Moves:
        """Offsets (k, B, m) of another design, which makes an answer of its own of them."""
        self.n_rows += len(offsets)
        return of_rows(offsets)

    def repeat(self, rows: Index) -> Moves:
        """These rows, or x, once more: outputs that failed are taken from there."""
        self.repeats.add(self.nfev - 1, rows)
        beside = rows != AT_X
        if not beside.any():
            return Moves(np.zeros(rows.size, np.intp), np.zeros((rows.size, self.batch)))
        return self.moves.take(rows)

    def _enter(self, pair: PairRequest, rows: Sequence[int]) -> None:
        self._of.setdefault(pair.line, []).append(len(self._pairs))
        self._pairs.append(pair)
        self._ends.append((rows[0], rows[-1]))

    def _left_over(self, line: int, multiple: float) -> int | None:
        """The row of a run so far along a line that worked, while the other of its pair failed;
        it serves one pair more."""
        for pair in self.pairs(line):
            for k, (place, row) in enumerate(zip(pair.places, pair.rows)):
                there = abs(place / multiple - 1) < SAME_RUN and row not in self._reused
                if there and max(pair.rows) < len(self.rows.done):
                    worked, other = self.worked(pair.rows)[:: 1 - 2 * k]
                    if worked.all() and not other.any():
                        self._reused.add(row)
                        return row
        return None

    def worked(self, rows: tuple[int, int]) -> NDArray[np.bool_]:
        """Which outputs (2, N) worked in both runs of a pair, of those that have a value at x."""
        return np.isfinite(self.values(list(rows))[:, np.isfinite(self.f0)])

    def _since(self, line: int) -> list[int]:
        """The pairs of a line; of the pilot, along its present direction."""
        since = self._aimed if line == PILOT else 0
        return [i for i in self._of.get(line, ()) if i >= since]

    def rescale(self, line: int, factor: float) -> None:
        """Measure an input, and all its pairs, in a unit that many times as large."""
        self.scale[:, line] *= factor
        self.direction[:, line] /= factor
        for a in (self.up, self.down, self.resolution):
            a[line] /= factor
        for i in self._of.get(line, ()):
            self._pairs[i] = replace(self._pairs[i], t=self._pairs[i].t / factor)
        self._rescaled += 1

    # -- what is left out of every answer ----------------------------------------------------

    def exclude_below(self, line: int, t: float) -> None:
        """Leave out the pairs of a line with steps below a limit."""
        self._excluded |= {i for i in self._of[line] if self._pairs[i].t < t}

    def exclude_above(self, line: int, t: float) -> None:
        """Leave out the pairs of a line with steps above a limit."""
        self._excluded |= {i for i in self._of[line] if self._pairs[i].t > t}

    def exclude_steps(self, line: int, steps: tuple[float, ...]) -> None:
        """Leave out some pairs of a line."""
        self._excluded |= {
            i
            for i in self._of[line]
            if any(abs(self._pairs[i].t / t - 1) < SAME_STEP for t in steps)
        }

    def exclude_pair(self, line: int, slot: int) -> None:
        """Leave out the pair that is in this place of a line's differences."""
        live = [i for i, p in enumerate(self._pairs) if p.line == line and i not in self._excluded]
        self._excluded.add(live[slot])

    # -- what came back ----------------------------------------------------------------------

    @property
    def rows(self) -> Rows:
        """Every row so far."""
        if self._rows is None:
            p = self.problem
            self._rows = Rows(
                Moves(np.empty(0, np.intp), np.empty((0, len(p.x)))),
                np.empty((0, *p.y.shape)),
                np.empty(0, bool),
                p.y,
            )
        return self._rows

    @property
    def moves(self) -> Moves:
        """What every row moved."""
        moves = self.rows.moves
        assert isinstance(moves, Moves)
        return moves

    def record(self, rows: Rows) -> None:
        """Take what is known by now."""
        self.told, self._rows = rows, self.repeats.merged(rows)
        if self.repeats.at_x():
            self.f0 = real_outputs(self._rows.y[None])[0]
            within_range(self.f0)

    def failed(self) -> Index:
        """Rows in which an output failed that has a value at x."""
        if not len(self.rows.done):  # nor is it known whether outputs are complex
            return np.empty(0, np.intp)
        worked = np.isfinite(self.values()[:, np.isfinite(self.f0)])
        return np.flatnonzero(~worked.all(axis=1))

    def pairs(self, line: int | None = None) -> Iterator[Tried]:
        """All pairs so far, or those of a line; of the pilot, along its present direction."""
        which = range(len(self._pairs)) if line is None else self._since(line)
        for i in which:
            pair = self._pairs[i]
            if line is not None or pair.line != PILOT or i >= self._aimed:
                yield Tried(pair.line, pair.side, _multiples(pair), self._ends[i])

    @property
    def by_chance(self) -> int:
        """Runs that had to be repeated where runs fail by chance, else 0."""
        return len(self.repeats) if self.repeats.mended else 0

    def values(self, which: Any = slice(None)) -> Array:
        """Real outputs (k, N) of the rows so far, or of some of them; nan where not done."""
        out = real_outputs(self.rows.values[which])
        within_range(out)
        out[~self.rows.done[which]] = np.nan
        return out

    def values_of(self, line: int, widest: float = np.inf) -> Array:
        """Values (k, N) of the pairs of a line, of those in use with steps up to ``widest``."""
        of = (i for i in self._of.get(line, ()) if i not in self._excluded)
        rows = [row for i in of if self._pairs[i].t <= widest for row in self._ends[i]]
        return self.values([row for row in rows if row < len(self.rows.done)])

    def steps(self, line: int) -> list[float]:
        """Steps already asked for on a line; of the pilot, along its present direction."""
        return [self._pairs[i].t for i in self._since(line)]

    def answers(self, line: int) -> bool:
        """Whether the latest pair of a line differs from x anywhere."""
        ends = self.values()[list(self._ends[self._of[line][-1]])]
        return not bool(((ends == self.f0) | ~np.isfinite(self.f0)).all())

    def group_answers(self) -> bool:
        """Whether the latest row differs from x anywhere."""
        latest = self.values()[self.n_rows - 1]
        same = (latest == self.f0) | ~np.isfinite(self.f0)
        return not bool(same.all())

    def differences(
        self, lines: Sequence[int] | Index, growth: NoiseGrowth | None = None
    ) -> CentralDifferences:
        """What the pairs of these lines gave; kept until more is known, and not to be written to.

        ``growth`` tells how the noise changes with the values; None where it does not.
        """
        key = self.version
        if self._views[0] != key:
            self._views = (key, {})
        views, which = self._views[1], (tuple(int(j) for j in lines), growth is None)
        if which not in views:
            views[which] = self._differences(which[0], growth)
        return views[which]

    def _differences(
        self, lines: tuple[int, ...], growth: NoiseGrowth | None
    ) -> CentralDifferences:
        known, width = len(self.rows.done), 1
        chosen: list[tuple[int, int, int, int, PairRequest]] = []
        for k, line in enumerate(lines):
            of = [i for i in self._of.get(line, ()) if i not in self._excluded]
            of = [i for i in of if max(self._ends[i]) < known]
            chosen += [(k, slot, *self._ends[i], self._pairs[i]) for slot, i in enumerate(of)]
            width = max(width, len(of))
        shape = (len(lines), width, self.f0.size)
        t, factor = np.full(shape[:2], np.nan), np.ones(shape[:2])
        one_sided = np.zeros(shape[:2], bool)
        slope, second, ratio = np.full(shape, np.nan), np.full(shape, np.nan), np.ones(shape)
        if chosen:
            where = np.array([c[:4] for c in chosen], dtype=np.intp)
            row, slot, one, two = where.T
            pairs = [c[4] for c in chosen]
            sided = np.array([p.side != 0 for p in pairs])
            reach = np.array([abs(p.t) for p in pairs])
            t[row, slot] = np.where(sided, SIDED_REACH * reach, reach)
            factor[row, slot] = np.where(sided, SIDED_NOISE, 1.0)
            one_sided[row, slot] = sided
            values = self.values()
            a, b = values[one], values[two]
            ta, tb = self._realised(one, pairs), self._realised(two, pairs)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                h = (ta - tb) / 2
                slope[row, slot] = np.where(
                    sided[:, None], (4 * a - b - 3 * self.f0) / (2 * ta), (a - b) / (2 * h)
                )
                second[row, slot] = np.where(
                    sided[:, None], self.f0 - 2 * a + b, (a - self.f0) + (b - self.f0)
                ) - slope[row, slot] * np.where(sided[:, None], tb - 2 * ta, ta + tb)
                if growth is not None:
                    ratio[row, slot] = growth.ratio(a, b)
        slope[~np.isfinite(slope)] = np.nan
        second[~np.isfinite(second)] = np.nan
        return CentralDifferences(t, factor, ratio, slope, second, one_sided)

    def _realised(self, row: Index, pairs: list[PairRequest]) -> Array:
        """Displacements that were really made, in units of t, per real output (k, N)."""
        line = np.array([p.line for p in pairs])
        own = np.maximum(line, 0)
        along = self.moves.along(row, own) / self.scale[:, own].T
        if (pilot := line == PILOT).any():
            u = self.moves.dense(row[pilot], self.m) / self.scale
            norm = np.square(self.direction).sum(axis=1)
            along[pilot] = (u * self.direction).sum(axis=2) / np.where(norm > 0, norm, 1.0)
        return np.repeat(along, self._per_point, axis=1)
