"""The unit of a parameter that nobody gave, from runs along it alone.

|x| is the first guess, and wrong for a date, or for what starts at 0. A parameter leaps where the
residuals change by as much within a small share of its displacement as over all of it; it is silent
where the displacement changes nothing worth mentioning. Distances go up or down by factors until
the change is of the size of the residuals: the unit is where it becomes that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._calibration.fit_log import FitLog
from gradiator_np._calibration.geometry import DISPLACEMENT
from gradiator_np._calibration.trust_region import TrustRegion
from gradiator_np._checks import EPS
from gradiator_np._typing import Array, Mask

#: A first displacement that changes the residuals by less of their size, though clearly, may be too
#: short (of 153 fits of the benchmarks 4 have one).
SILENT = 1e-3
#: The slope at a hundredth of a displacement exceeds that over all of it by so much where the
#: displacement leaps (of those 153 one does, a peak of a tenth of its displacement).
LEAP = 10.0
#: The same of a run along all parameters, whose changes may cancel.
ANY_LEAP = 4.0
#: Factors of distances on the way down, and up: where nothing is heard (of a parameter at 0, whose
#: unit may be any, by the second one), and at most where something is.
SHORTER, LONGER, LONGEST = 1e-2, 30.0, 1e8
#: A change of this share of what a leap changes is one to be modelled ...
MODEST = 0.3
#: ... if a run at this share of the distance changes half as much at most; ...
CHECK = 0.1
#: ... and one below this share is not seen under noise.
SLIGHT = 0.05
#: A run that failed or is an outlier changes all so much nearer than the slope of the others says,
#: and tells no unit.
BY_CHANCE = 10.0
#: Changes that tell a unit, as shares of the residuals.
LEAST_ANSWER, MOST_ANSWER = 1e-3, 0.5
#: A change that grew by less over a longer way has reached its end.
GROWTH = 10.0
#: A gap between two distances that is closed by this factor is narrow enough.
NARROW = 4.0
#: Runs along one parameter, and those of the longer ones that nothing is heard of.
MOST_SHORTER, MOST_LONGER, MOST_UNHEARD = 10, 6, 3
#: Steps below so many units in the last place of x show these.
ULPS = 64.0
#: Standard deviations of the noise by which an answer stands out of the difference of two runs.
STANDS_OUT = 4.0
#: What is left of x where a parameter that does not answer is tried besides.
TOWARDS_ZERO = (0.1, 0.01)


@dataclass(frozen=True, slots=True)
class Line:
    """Runs along one parameter.

    Attributes
    ----------
    base : int
        Id of the run that they start from.
    j : int
    start, change : float
        A displacement with its sign, and the norm of what it changes in the residuals; inf where
        its run failed, nan where it has to be made.
    shorter : bool
        Whether the unit is looked for at shorter distances, else at longer ones.
    from_zero : bool
        Whether the parameter started at 0, so that its unit may be any.
    ids : tuple of int
        Runs that were made.
    capped : bool
        Whether a bound keeps runs from going farther.
    ended : bool
    unit : float
        What was found so far; nan where there is nothing to correct.
    elsewhere : float
        Value of the parameter at which the residuals answer to it, though they do not at x; nan.
    """

    base: int
    j: int
    start: float
    change: float
    shorter: bool
    from_zero: bool = False
    ids: tuple[int, ...] = ()
    capped: bool = False
    ended: bool = False
    unit: float = np.nan
    elsewhere: float = np.nan

    def told_by(self, log: FitLog) -> int | None:
        """Id of the run that told the unit."""
        x = log.points[self.base][self.j]
        away = (abs(log.points[i][self.j] - x) / DISPLACEMENT for i in self.ids)
        return next((i for i, d in zip(self.ids, away) if np.isclose(d, self.unit)), None)

    def result(self, unit: float = np.nan, elsewhere: float = np.nan) -> Line:
        unit = self.unit if np.isnan(unit) else unit
        return replace(self, ended=True, unit=unit, elsewhere=elsewhere)


def shorter_distance(
    line: Line, steps: Array, changes: Array, size: float, floor: float, resolution: float
) -> tuple[Line, float]:
    """Down until the change is a part of what the displacement did: the next distance, or 0.

    Parameters
    ----------
    steps, changes : array, shape (k,)
        Distances with their sign, the displacement first, and norms of what they change.
    size : float
        Norm of the residuals at the base.
    floor : float
        A change up to this is none.
    resolution : float
        Shortest distance of any use.
    """
    side, away = np.sign(steps[0]), np.abs(steps)
    whole = float(changes[0]) if np.isfinite(changes[0]) else size
    last, change = float(away[-1]), float(changes[-1])
    if len(steps) == 1:
        return line, side * SHORTER * last
    leaps = change > floor and change * away[0] > LEAP * whole * last
    if len(steps) == 2 and not leaps:
        return line.result(), 0.0
    spent = len(steps) > MOST_SHORTER
    if change > MODEST * whole:
        below = away[changes <= MODEST * whole].max(initial=0.0)
        shorter = SHORTER * last if below == 0 else float(np.sqrt(last * below))
        if spent or shorter < resolution:
            return line.result(), 0.0
        return line, side * shorter
    modest = changes <= MODEST * whole
    if modest.sum() == 1:
        return line, side * CHECK * last
    near, far = float(away[modest].min()), float(away[modest].max())
    nearer, change = float(changes[away == near][0]), float(changes[away == far][0])
    if nearer > max(0.5 * change, floor):  # by chance, as a sine that comes round
        shorter = SHORTER * near
        return (line.result(), 0.0) if spent or shorter < resolution else (line, side * shorter)
    # where the slope over that distance reaches all that the displacement did
    by_slope, nearest = far * whole / max(change, 1e-300), float(away[~modest].min())
    unit = min(by_slope, nearest)
    if change < SLIGHT * whole and not spent and DISPLACEMENT * unit > 2.0 * far:
        return line, side * DISPLACEMENT * unit
    if by_slope > BY_CHANCE * nearest:
        return line.result(), 0.0
    return line.result(unit), 0.0


def longer_distance(
    line: Line, steps: Array, changes: Array, size: float, floor: float, x: float
) -> tuple[Line, float]:
    """Up until the residuals change by a part of their size, then towards 0: as above.

    Parameters
    ----------
    floor : float
        A change up to this is none.
    x : float
        The parameter at the base.
    """
    side = np.sign(steps[0])
    up = steps * side > 0
    back, away, changes, answers = steps[~up], np.abs(steps[up]), changes[up], changes[~up]
    if len(back):
        heard = np.flatnonzero(np.isfinite(answers) & (answers > floor))
        if len(heard):
            return line.result(elsewhere=float(x + back[heard[0]])), 0.0
        return _towards_zero(line, x, side, len(back))
    least, most = max(LEAST_ANSWER * size, floor), MOST_ANSWER * size
    modest = changes <= most
    told = modest & (changes >= least)
    if told[1:].any():
        return line.result(float(away[told].max()) / DISPLACEMENT), 0.0
    if not modest[-1] and len(away) == 2 and away[1] <= LONGER * away[0]:
        return line.result(), 0.0  # the unit is right but for less than that
    beyond = float(away[~modest].min(initial=np.inf))
    near = float(away[modest & (away < beyond)].max(initial=0.0))
    spent = len(away) > MOST_LONGER or line.capped
    if np.isfinite(beyond):
        if not near or spent or beyond < NARROW * near:
            return line.result(near / DISPLACEMENT if near else np.nan), 0.0
        return line, side * float(np.sqrt(near * beyond))
    change = float(changes[away == near][0])
    if change > floor:
        # of so little all may be noise: once more
        if spent or (len(away) > 2 and not line.from_zero and change < GROWTH * changes[0]):
            return line.result(), 0.0
        least = LONGEST if line.from_zero and len(away) > 2 else LONGER
        return line, side * near * float(np.clip(0.1 * size / change, least, LONGEST))
    if len(away) < MOST_UNHEARD + line.from_zero and not line.capped:
        return line, side * near * (LONGEST if line.from_zero else LONGER)
    return _towards_zero(line, x, side, 0)


def _towards_zero(line: Line, x: float, side: float, tried: int) -> tuple[Line, float]:
    """A rate that is too fast to be seen answers once it is slower."""
    if line.from_zero or x * side <= 0 or tried == len(TOWARDS_ZERO):
        return line.result(), 0.0
    return line, (TOWARDS_ZERO[tried] - 1.0) * x


@dataclass(frozen=True, slots=True)
class ScaleSearch:
    """Lines of runs.

    Attributes
    ----------
    lines : tuple of Line
    floor : float
        A change of the residuals, in norm, that noise or rounding may make.
    restarts : bool
        Whether a fit whose units were found wrong starts from the base of its lines again.
    at_once : bool
        Whether a run along all lines together has to show that one of them leaps.
    together : int or None
        Id of that run.
    one_by_one : bool
        Whether a line starts from where the one before found a unit. (From one base the units of
        Brown's badly scaled function, whose parameters are multiplied, are each right and together
        wrong by 1e5.)
    """

    lines: tuple[Line, ...]
    floor: float = 0.0
    restarts: bool = False
    at_once: bool = False
    together: int | None = None
    one_by_one: bool = False

    def asked(self, log: FitLog, region: TrustRegion) -> tuple[ScaleSearch, list[Array]]:
        """The points to run next, in the order of the open lines; none where all have ended."""
        if self.at_once and self.together is None:
            point = log.points[self.base].copy()
            for line in self.lines:
                point[line.j] += SHORTER * line.start
            return self, [point]
        if self.one_by_one:
            return self._first_open(log, region)
        lines, points = [], list[Array]()
        for line in self._suspects(log):
            if not line.ended:
                line, point = self._point(line, log, region)
                if not line.ended:
                    points.append(point)
            lines.append(line)
        return replace(self, lines=tuple(lines), at_once=False), points

    def _first_open(self, log: FitLog, region: TrustRegion) -> tuple[ScaleSearch, list[Array]]:
        lines = list(self.lines)
        for k, line in enumerate(lines):
            if line.ended:
                continue
            lines[k], point = self._point(line, log, region)
            if not lines[k].ended:
                return replace(self, lines=tuple(lines)), [point]
            base = lines[k].told_by(log)
            for later in range(k + 1, len(lines)):
                if base is not None and not lines[later].ended:
                    lines[later] = replace(lines[later], base=base, change=np.nan)
        return replace(self, lines=tuple(lines)), []

    def _point(self, line: Line, log: FitLog, region: TrustRegion) -> tuple[Line, Array]:
        """The next point along a line that has not ended; a bound turns it round, or ends it."""
        x = log.points[line.base]
        for _ in range(2):
            line, distance = self._next(line, log)
            point = x.copy()
            point[line.j] += distance
            point = region.clip(point)
            if line.ended or abs(point[line.j] - x[line.j]) >= 0.5 * abs(distance):
                return line, point
            line = replace(line, capped=True)
        return line.result(), x

    def told(self, ids: tuple[int, ...]) -> ScaleSearch:
        """The runs that were asked for."""
        if self.at_once:
            return replace(self, together=ids[0])
        lines, following = list(self.lines), iter(ids)
        for k, line in enumerate(lines):
            run = None if line.ended else next(following, None)
            if run is not None:
                lines[k] = replace(line, ids=(*line.ids, run))
        return replace(self, lines=tuple(lines))

    @property
    def base(self) -> int:
        """Id of the run that the first line starts from."""
        return self.lines[0].base

    def units(self, m: int) -> Array:
        """The units that were found, shape (m,), nan elsewhere."""
        return self._each("unit", m)

    def elsewhere(self, m: int) -> Array:
        """Where parameters answer that do not at x, shape (m,), nan elsewhere."""
        return self._each("elsewhere", m)

    def _each(self, name: str, m: int) -> Array:
        found = np.full(m, np.nan)
        for line in self.lines:
            found[line.j] = getattr(line, name)
        return found

    def _suspects(self, log: FitLog) -> tuple[Line, ...]:
        """Lines of which one may leap: none where the run along all of them saw nothing of it."""
        if not self.at_once or self.together is None:
            return self.lines
        change, expected = change_of(log, self.base, self.together), SHORTER * self._changes
        if change > max(self.floor, ANY_LEAP * expected):
            return self.lines
        return tuple(line.result() for line in self.lines)

    @property
    def _changes(self) -> float:
        return sum(line.change for line in self.lines)

    def _next(self, line: Line, log: FitLog) -> tuple[Line, float]:
        x, base = log.points[line.base][line.j], log.residuals[line.base]
        assert base is not None
        if np.isnan(line.change) and not line.ids:
            return line, line.start
        size = float(np.linalg.norm(base[: log.n_data]))
        steps = np.array([line.start, *(log.points[i][line.j] - x for i in line.ids)])
        changes = np.array([line.change, *(change_of(log, line.base, i) for i in line.ids)])
        if np.isnan(line.change):  # the displacement has been made anew
            steps, changes = steps[1:], changes[1:]
            if len(steps) == 1 and changes[0] >= SILENT * size:
                return line.result(), 0.0
        if line.shorter:
            resolution = ULPS * EPS * abs(x)
            return shorter_distance(line, steps, changes, size, self.floor, resolution)
        return longer_distance(line, steps, changes, size, self.floor, x)


def change_of(log: FitLog, base: int, i: int) -> float:
    """Norm of what a run changes in the residuals of data; inf where it failed."""
    one, other = log.residuals[base], log.residuals[i]
    if one is None or other is None:
        return np.inf
    return float(np.linalg.norm((other - one)[: log.n_data]))


def measurable(log: FitLog, noise: float = 0.0) -> float:
    """Norm of a difference of two runs that neither noise nor rounding explains.

    Parameters
    ----------
    noise : float
        Norm of the noise of all residuals of data.
    """
    rounding = log.rounding * np.sqrt(log.n_data)
    return float(STANDS_OUT * (np.sqrt(2.0) * noise + 4.0 * rounding))


def displaced(log: FitLog, of: Mask, first: int, floor: float) -> list[Line]:
    """The run that moved each of these parameters alone and changed something, as a line inwards.

    Among the first runs, so many; from the very first one where there is such a run.
    """
    found = dict[int, Line]()
    among = log.usable[log.usable < first]
    points = np.array([log.points[i] for i in among])
    for n, base in enumerate(among.tolist()):
        if len(found) == of.sum():
            break
        moved = points != points[n]
        for k in np.flatnonzero((moved.sum(1) == 1) & (among > base)).tolist():
            j, i = int(np.argmax(moved[k])), int(among[k])
            if of[j] and j not in found:
                step, from_zero = float(points[k, j] - points[n, j]), bool(points[n, j] == 0.0)
                found[j] = Line(base, j, step, change_of(log, base, i), True, from_zero)
    return [line for line in found.values() if line.change > floor]


def after_displacements(log: FitLog, region: TrustRegion, first: int) -> ScaleSearch | None:
    """For parameters whose displacement was too short, or could not be as long as it should be.

    None where there are none.
    """
    lines, floor = [], measurable(log)
    for line in displaced(log, region.movable, first, -np.inf):
        base = log.residuals[line.base]
        assert base is not None
        size = float(np.linalg.norm(base[: log.n_data]))
        unit = abs(line.start) / DISPLACEMENT
        shortened = unit < SHORTER * region.scale[line.j]
        if line.change <= floor and not shortened:
            continue  # what does nothing is looked at once more at the end
        if line.change < (LEAST_ANSWER if shortened else SILENT) * size:
            lines.append(replace(line, shorter=False, unit=unit if shortened else np.nan))
        elif shortened:
            lines.append(line.result(unit))
    return ScaleSearch(tuple(lines), floor, one_by_one=True) if lines else None


def after_bad_trial(log: FitLog, of: Mask, first: int, floor: float) -> ScaleSearch | None:
    """Whether a displacement leapt, where a step that rests on them went wrong."""
    lines = displaced(log, of, first, floor)
    lines = [line for line in lines if line.base == lines[0].base]
    return ScaleSearch(tuple(lines), floor, restarts=True, at_once=True) if lines else None


def at_the_end(log: FitLog, gone: Mask, first: int, floor: float) -> ScaleSearch | None:
    """Whether displacements of parameters that do not answer any more leapt."""
    lines = tuple(displaced(log, gone, first, floor))
    return ScaleSearch(lines, floor, restarts=True) if lines else None


def for_silent(
    log: FitLog, center: int, silent: Mask, region: TrustRegion, floor: float
) -> ScaleSearch:
    """Farther away, and towards 0, along parameters that nothing answers to at the end."""
    x = log.points[center]
    lines = []
    for j in np.flatnonzero(silent).tolist():
        start = DISPLACEMENT * region.scale[j] * (np.sign(x[j]) or 1.0)
        lines.append(Line(center, j, start, 0.0, False, bool(log.points[0][j] == 0.0)))
    return ScaleSearch(tuple(lines), floor, one_by_one=True)
