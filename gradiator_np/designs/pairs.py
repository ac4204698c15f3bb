"""Pairs of runs along lines through x: which rows they are, and what they gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.base import Problem, Rows

Array = NDArray[np.float64]

#: Line of the pilot, which moves every input at once; inputs are lines 0 .. m - 1.
PILOT = -1
#: Line of a repetition at x itself, and of one run that moves several inputs.
CENTRE, GROUP = -2, -3

# The one-sided rule (4 f(t) - f(2t) - 3 f0) / (2t) has truncation -2 a_3 t^2 and noise variance
# 6.5 s^2 / t^2: that of a pair at sqrt(2) t, whose noise is 26 times as large.
SIDED_REACH = 2**0.5
SIDED_NOISE = 26.0
# Steps that agree to this are one step to the model.
SAME_STEP = 1e-3
# Squared difference of two repetitions, in units of its variance, that noise exceeds once in 2000.
UNLIKELY = 12.1
# Sizes of inputs and outputs whose variances, relative to rounding, do not underflow, and whose
# squared variances do not overflow. Outputs below are 0, runs above have failed.
TINY, HUGE = 1e-130, 1e60


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs on one line: at +-t, or at t and 2 t on one side.

    ``side`` is 0 for a pair, +1 or -1 for the one-sided rule; ``t`` is in units of the scale.
    """

    line: int
    t: float
    side: int = 0


@dataclass(frozen=True, slots=True)
class Last:
    """The latest pair of a line, and the side on which it worked (0: both or none)."""

    t: float
    side: int
    works: int


@dataclass(frozen=True, slots=True)
class Lines:
    """What the pairs of some lines gave: L lines, P pairs at most, N real outputs.

    Attributes
    ----------
    t, factor : array, shape (L, P)
        Steps that act in the model (nan where there is no pair) and noise factors.
    size : array, shape (L, P, N)
        Variance of the noise where a pair was run, relative to that at x.
    odd, even : array, shape (L, P, N)
        Slopes per unit t and second differences; nan where a run failed.
    """

    t: Array
    factor: Array
    size: Array
    odd: Array
    even: Array

    def take(self, lines: slice | NDArray[Any] | list[Any]) -> Lines:
        """Some of the lines."""
        return Lines(*(getattr(self, a)[lines] for a in self.__slots__))


def flat(values: NDArray[Any]) -> Array:
    """Outputs of all points of a batch, (..., B, n), as real numbers (..., N), new memory."""
    if np.iscomplexobj(values):
        values = np.concatenate([values.real, values.imag], axis=-1)
    return np.array(values.reshape(*values.shape[:-2], -1), float, order="C")


def _within_reach(values: Array) -> None:
    """Mark what is too large as failed, and what is too small as 0."""
    size = np.abs(values)
    values[~(size < HUGE)] = np.nan
    values[size < TINY] = 0.0


class Pairs:
    """The book of all rows that a plan has asked for."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.scale = problem.scale = problem.scale.copy()
        self.f0: Array = flat(problem.y[None])[0]
        for a, what in ((problem.scale, "x"), (self.f0, "fun(x)")):
            size = np.max(np.abs(a), initial=0.0, where=np.isfinite(a))
            if size >= HUGE:
                raise ValueError(
                    f"{what} has the size {size:.3g}, and fourth powers would overflow: use other "
                    "units, or a method with given steps"
                )
        _within_reach(self.f0)
        self.batch, self.m = problem.x.shape
        # complex outputs count twice: their real and imaginary parts are outputs of their own
        self.per_point = self.f0.size // self.batch
        up = (problem.upper - problem.x) / self.scale
        down = (problem.x - problem.lower) / self.scale
        #: How far each input may be moved up and down at every point, in units of t.
        self.up, self.down = up.min(axis=0), down.min(axis=0)
        #: The least change of each input that floating-point numbers allow, in units of t.
        self.least = np.max(np.spacing(np.abs(problem.x)) / self.scale, axis=0)
        # a rule needs two points
        self.free = (self.room > 0) & (self.room >= 2 * self.least)
        self.direction = np.zeros((self.batch, self.m))
        only = np.flatnonzero(self.free)
        #: The line that the pilot's pairs belong to: the input itself where there is only one.
        self.pilot = int(only[0]) if only.size == 1 else PILOT
        self.pairs: list[Pair] = []
        self.first: list[int] = []
        self.left_out: set[int] = set()
        #: Size of each output that its noise is relative to; None where noise is absolute.
        self.reference: Array | None = None
        self.n_rows = 0
        #: The pairs of each line, in the order of their rows.
        self._of: dict[int, list[int]] = {}
        self._views: tuple[Any, dict[tuple[int, ...], Lines]] = (None, {})

    @property
    def room(self) -> Array:
        """How far each input may be moved to the side that is more open, in units of t."""
        return np.asarray(np.maximum(self.up, self.down))

    def shorten(self, most: Array) -> None:
        """Allow no input (m,) to be moved further than ``most``, in units of t."""
        self.up, self.down = np.minimum(self.up, most), np.minimum(self.down, most)

    def request(self, wanted: Sequence[Pair]) -> Array:
        """Offsets (k, B, m) of the runs of these pairs, which are entered into the book."""
        p, row = self.problem, 0
        moves: list[tuple[int, int, float]] = []
        for pair in wanted:
            self._enter(pair, self.n_rows + row)
            if pair.line == CENTRE:
                row += 1
                continue
            for multiple in (1.0, -1.0) if pair.side == 0 else (1.0 * pair.side, 2.0 * pair.side):
                moves.append((row, pair.line, multiple * pair.t))
                row += 1
        self.n_rows += row
        out = np.zeros((row, self.batch, self.m))
        if moves:
            at, line, t = (np.array(a) for a in zip(*moves))
            own = line != PILOT
            out[at[own], :, line[own]] = t[own, None] * self.scale[:, line[own]].T
            offset = t[~own, None, None] * self.direction * self.scale
            # what would round to nothing stays where it is
            moves = (p.x + offset) - p.x != 0
            out[at[~own]] = np.where(moves, offset, 0.0)
        # t was rounded, and x + t s may round to just outside of a bound that t s just reaches
        low = np.maximum(p.lower - p.x, -self.down * self.scale)
        return np.clip(out, low, np.minimum(p.upper - p.x, self.up * self.scale), out=out)

    def _enter(self, pair: Pair, row: int) -> None:
        self._of.setdefault(pair.line, []).append(len(self.pairs))
        self.pairs.append(pair)
        self.first.append(row)

    def rescale(self, line: int, factor: float) -> None:
        """Measure an input, and all its pairs, in a unit that many times as large."""
        self.scale[:, line] *= factor
        self.direction[:, line] /= factor
        for a in (self.up, self.down, self.least):
            a[line] /= factor
        for i in self._of.get(line, ()):
            self.pairs[i] = replace(self.pairs[i], t=self.pairs[i].t / factor)
        self._views = (None, {})

    def request_group(
        self, inputs: NDArray[np.intp], t: Array, sign: Array | float | None = None
    ) -> Array:
        """Offset (1, B, m) of a run that moves these inputs at once, upwards where that is open."""
        self._enter(Pair(GROUP, float(t.max())), self.n_rows)
        self.n_rows += 1
        out = np.zeros((1, self.batch, self.m))
        if sign is None:
            sign = np.where(self.up[inputs] >= t, 1.0, -1.0)
        out[0][:, inputs] = sign * t * self.scale[:, inputs]
        return out

    def is_open(self, line: int, side: int, reach: float) -> bool:
        """Whether a side of an input has room and was not tried by itself yet."""
        room = self.up[line] if side > 0 else self.down[line]
        tried = {self.pairs[i].side for i in self._of.get(line, ())}
        return bool(room >= reach and side not in tried)

    def group_answers(self, rows: Rows) -> bool:
        """Whether the latest row differs from x anywhere."""
        latest = self.values(rows)[self.n_rows - 1]
        same = (latest == self.f0) | ~np.isfinite(self.f0)
        return not bool(same.all())

    def last(self, rows: Rows, line: int) -> Last:
        """The latest pair of a line."""
        at = self._of[line][-1]
        pair, first = self.pairs[at], self.first[at]
        alive = np.isfinite(self.f0)
        ends = np.isfinite(self.values(rows)[first : first + 2][:, alive])
        ahead, behind = bool(ends[0].all()), bool(ends[1].all())
        works = 0 if ahead == behind else (1 if ahead else -1)
        return Last(pair.t, pair.side, works)

    def answers(self, rows: Rows, line: int) -> bool:
        """Whether the latest pair of a line differs from x anywhere."""
        first = self.first[self._of[line][-1]]
        ends = self.values(rows)[first : first + 2]
        return not bool(((ends == self.f0) | ~np.isfinite(self.f0)).all())

    def forget(self, line: int, below: float) -> None:
        """Leave the pairs of a line with steps below a limit out of every answer."""
        self.left_out |= {i for i in self._of[line] if self.pairs[i].t < below}

    def forget_steps(self, line: int, steps: tuple[float, ...]) -> None:
        """Leave some pairs of a line out of every answer."""
        self.left_out |= {
            i
            for i in self._of[line]
            if any(abs(self.pairs[i].t / t - 1) < SAME_STEP for t in steps)
        }

    def leave_out(self, line: int, slot: int) -> None:
        """Leave out the pair that is in this place of a line's view."""
        live = [i for i, p in enumerate(self.pairs) if p.line == line and i not in self.left_out]
        self.left_out.add(live[slot])

    def leave_latest_out(self, count: int) -> None:
        """Leave the latest pairs out of every answer."""
        self.left_out |= set(range(len(self.pairs) - count, len(self.pairs)))

    def values(self, rows: Rows) -> Array:
        """Real outputs (k, N) of the rows so far; nan where not done."""
        out = flat(rows.values)
        _within_reach(out)
        out[~rows.done] = np.nan
        return out

    def steps(self, line: int) -> list[float]:
        """Steps already asked for on a line."""
        return [self.pairs[i].t for i in self._of.get(line, ())]

    def lines(self, rows: Rows, lines: Sequence[int]) -> Lines:
        """What the pairs of these lines gave, one pair a row of the book; kept until more is
        known, and not to be written to."""
        key = (len(rows.done), int(rows.done.sum()), len(self.left_out), self.reference is None)
        if self._views[0] != key:
            self._views = (key, {})
        views, which = self._views[1], tuple(lines)
        if which not in views:
            views[which] = self._lines(rows, which)
        return views[which]

    def _lines(self, rows: Rows, lines: tuple[int, ...]) -> Lines:
        known, width = len(rows.done), 1
        chosen: list[tuple[int, int, int, Pair]] = []
        for k, line in enumerate(lines):
            of = [i for i in self._of.get(line, ()) if i not in self.left_out]
            of = [i for i in of if self.first[i] + 1 < known]
            chosen += [(k, slot, self.first[i], self.pairs[i]) for slot, i in enumerate(of)]
            width = max(width, len(of))
        t = np.full((len(lines), width), np.nan)
        factor = np.ones((len(lines), width))
        odd = np.full((len(lines), width, self.f0.size), np.nan)
        size = np.ones(odd.shape)
        even = np.full((len(lines), width, self.f0.size), np.nan)
        if chosen:
            where = np.array([c[:3] for c in chosen], dtype=np.intp)
            row, slot, start = where.T
            pairs = [c[3] for c in chosen]
            sided = np.array([p.side != 0 for p in pairs])
            reach = np.array([abs(p.t) for p in pairs])
            t[row, slot] = np.where(sided, SIDED_REACH * reach, reach)
            factor[row, slot] = np.where(sided, SIDED_NOISE, 1.0)
            values = self.values(rows)
            a, b = values[start], values[start + 1]
            ta = self._realised(rows, start, pairs)
            tb = self._realised(rows, start + 1, pairs)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                h = (ta - tb) / 2
                odd[row, slot] = np.where(
                    sided[:, None], (4 * a - b - 3 * self.f0) / (2 * ta), (a - b) / (2 * h)
                )
                even[row, slot] = np.where(
                    sided[:, None], self.f0 - 2 * a + b, (a - self.f0) + (b - self.f0)
                )
            if self.reference is not None:
                grown = (np.square(a) + np.square(b)) / (2 * np.square(self.reference))
                size[row, slot] = np.where(np.isfinite(grown), np.maximum(grown, 1e-6), 1.0)
        odd[~np.isfinite(odd)] = np.nan
        even[~np.isfinite(even)] = np.nan
        return Lines(t, factor, size, odd, even)

    def merged(self, rows: Rows, lines: Sequence[int], noise: Array) -> Lines:
        """The same, repetitions of a step averaged.

        Equal rows would leave rounding where their difference should be, and rounding looks like
        information on g in states that bend early. Repetitions that differ by far more than
        ``noise`` (N,) are as good as their difference says: one of them was hit by an outlier.
        """
        view = self.lines(rows, lines)
        twins = np.abs(view.t[:, :, None] / view.t[:, None] - 1) < SAME_STEP
        if twins.sum() == np.isfinite(view.t).sum():
            return view
        t, factor, size, odd, even = (
            a.copy() for a in (view.t, view.factor, view.size, view.odd, view.even)
        )
        for a in range(1, t.shape[1]):
            for b in range(a):
                twin = np.abs(t[:, a] / t[:, b] - 1) < SAME_STEP
                if not twin.any():
                    continue
                here = twin[:, None] & np.isfinite(odd[:, a])
                both = here & np.isfinite(odd[:, b])
                va, vb = factor[:, a, None] * size[:, a], factor[:, b, None] * size[:, b]
                off = np.square((odd[:, a] - odd[:, b]) * t[:, b, None] / noise) * 2 / (va + vb)
                share = np.where(both, vb / (va + vb), np.where(here, 1.0, 0.0))
                var = np.where(both, share * va * np.where(off > UNLIKELY, off, 1.0), vb)
                var = np.where(here & ~both, va, var)
                for part in (odd, even):
                    change = np.where(share > 0, part[:, a] - part[:, b], 0.0)
                    part[:, b] = np.where(share < 1, part[:, b] + share * change, part[:, a])
                    part[twin, a] = np.nan
                fewer = factor[:, a] * factor[:, b] / (factor[:, a] + factor[:, b])
                factor[:, b] = np.where(both.any(axis=1), fewer, factor[:, b])
                size[:, b] = np.where(twin[:, None], var / factor[:, b, None], size[:, b])
                t[twin, a] = np.nan
        return Lines(t, factor, size, odd, even)

    def _realised(self, rows: Rows, row: NDArray[np.intp], pairs: list[Pair]) -> Array:
        """Displacements that were really made, in units of t, per real output (k, N)."""
        u = rows.offsets[row] / self.scale
        line = np.array([p.line for p in pairs])
        along = np.take_along_axis(u, np.maximum(line, 0)[:, None, None], axis=2)[..., 0]
        if (line == PILOT).any():
            norm = np.square(self.direction).sum(axis=1)
            pilot = (u * self.direction).sum(axis=2) / np.where(norm > 0, norm, 1.0)
            along = np.where((line == PILOT)[:, None], pilot, along)
        return np.repeat(along, self.per_point, axis=1)


def round_digit(a: Array) -> Array:
    """To one significant decimal digit."""
    a = np.asarray(a, float)
    size = np.abs(a)
    power = 10.0 ** np.floor(np.log10(np.where(size > 0, size, 1.0)))
    return np.where(size > 0, np.rint(a / power) * power, 0.0)
