"""The state machine behind `LeastSquares`: flat points out, residuals in, nothing is run here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np.lsq import trust_region as tr
from gradiator_np.lsq.moves import NEXT, inside, narrowing, weakest
from gradiator_np.lsq.neighbours import around
from gradiator_np.lsq.patience import Patience

Array = NDArray[np.float64]
Index = NDArray[np.intp]

#: First moves, in units of the scale: the steps that follow are this long, and at a noise of
#: 1e-2 the best forward step is 1.7 sqrt(sigma / rms r) = 0.17.
FIRST = 0.2
#: First trust radius, per root of the number of parameters (0.5: 15 % more runs, 4 % fewer solved).
RADIUS = 0.3
#: A sum of squares this many times the first one says nothing local.
RUNAWAY = 1e4
#: A geometry point is due where the expected loss by errors of J exceeds this many predicted
#: decreases.
POOR = 10.0
#: Samples in the model once the minimum is found and only its intervals are to be narrowed.
MANY = 400
#: Trial radius below which x does not move any more.
LEAST = 1e-14
#: Radius at which parameters that only noise answered are given up.
FARTHEST = 1e12


def default_scale(x: Array) -> Array:
    """|x|, where that is 0 the median of the others, or 1."""
    size = np.abs(x)
    other = float(np.median(size[size > 0])) if size.any() else 1.0
    return np.where(size > 0, size, other)


@dataclass(slots=True)
class Proposal:
    """What the pending points are for."""

    kind: str  # "start", "trial" or "geometry"
    ids: list[int]
    predicted: float = 0.0
    length: float = 0.0
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """The model about the centre, and what it promises."""

    model: tr.LocalModel
    rows: Index
    u: Array
    held: NDArray[np.bool_]
    predicted: float
    loss: tr.Loss
    hope: float
    noise: float  # standard deviation of the sum of squares by noise


class Search:
    """Trust region over the random-Taylor model.

    Parameters
    ----------
    x0, scale, low, high : array, shape (m,)
    sigma : array, shape (n,) or (1,), or None
        Noise of one evaluation of each residual, where it is known.
    x_tol : pair of arrays, shape (m,), or None
        Half width wanted of each parameter's 95 % interval: absolute, and relative to |x|.
    jac0 : array, shape (n, m), or None
        An earlier Jacobian: it takes the place of the first moves.
    rng : Generator or None
        On which side of the centre the runs next to it lie.
    runaway : float
        A sum of squares this many times the first one counts as failed.
    """

    def __init__(
        self, x0: Array, scale: Array, low: Array, high: Array,
        sigma: Array | None = None, x_tol: tuple[Array, Array] | None = None,
        jac0: Array | None = None,
        rng: np.random.Generator | None = None, runaway: float = RUNAWAY,
    ) -> None:  # fmt: skip
        self.x0, self.scale, self.low, self.high = x0, scale, low, high
        self.sigma, self.x_tol, self.jac0 = sigma, x_tol, jac0
        self.runaway = runaway
        self.rng = rng or np.random.default_rng(0)
        self.invented: set[int] = set()  # samples that no run made
        self.m = len(x0)
        self.points: list[Array] = []
        self.values: list[Array | None] = []  # None where pending or failed
        self.centre = -1
        self.radius = RADIUS * float(np.sqrt(self.m))
        self.patience = Patience(self.m)
        self.poor = self.side = 0
        self.repeat = False
        self.width = 1  # points of the last round
        self.fine = False  # the minimum is found: what is left is x_tol
        self.status = ""
        self.proposal: Proposal | None = None
        self.tries = np.zeros(self.m, np.intp)
        self.limit = np.inf
        self.rounding = 0.0  # of a value, by the first run
        self.grain = 0.0  # |x - centre| / scale at which noise equals curvature

    # -- samples -----------------------------------------------------------------------------

    def add(self, point: Array, value: Array | None) -> int:
        """Take a sample that was not asked for."""
        self.points.append(np.asarray(point, float))
        self.values.append(None)
        self._record(len(self.points) - 1, value)
        return len(self.points) - 1

    def _record(self, i: int, value: Array | None) -> None:
        if value is None or not np.isfinite(value).all():
            return
        size = float(value @ value)
        if not np.isfinite(size) or size > self.limit:
            return
        if self.limit == np.inf and size > 0:
            self.limit = self.runaway * max(size, 1e-290)
            self.rounding = 4.0 * tr.EPS * float(np.max(np.abs(value)))
        self.values[i] = value

    def size(self, i: int) -> float:
        """Sum of squares of sample i, inf where it failed."""
        value = self.values[i]
        return float(value @ value) if value is not None else np.inf

    @property
    def good(self) -> Index:
        return np.array([i for i, v in enumerate(self.values) if v is not None], np.intp)

    # -- what to run next --------------------------------------------------------------------

    def propose(self, most: int = 1) -> list[int]:
        """Indices of the points to run next; empty at the end."""
        if self.proposal is not None:
            return self.proposal.ids
        if self.status:
            return []
        ids = self._start()
        if ids:
            self.proposal = Proposal("start", ids)
            return ids
        if self.centre < 0:
            self.status = "failed"
            return []
        return self._iterate(most)

    def _start(self) -> list[int]:
        """x0 and a move of each input; failed moves turned round, then shortened."""
        out = []
        if not self.points:
            out.append(self._ask(self.x0))
        if self.jac0 is not None:
            if self.centre < 0:
                return out
            self._moves_from(self.jac0)
        base = self.points[self.centre] if self.centre >= 0 else self.x0
        for j in np.flatnonzero((self.tries >= 0) & (self.high > self.low)):
            while 0 <= self.tries[j] < 8:
                size = FIRST * 0.25 ** (self.tries[j] // 2) * (-1.0) ** self.tries[j]
                self.tries[j] += 1
                point = base.copy()
                point[j] += size * self.scale[j]
                if self.low[j] <= point[j] <= self.high[j] and point[j] != base[j]:
                    out.append(self._ask(point))
                    break
        return out

    def _moves_from(self, jac: Array) -> None:
        """Samples that an earlier Jacobian foretells, in place of the first moves."""
        value = self.values[self.centre]
        assert value is not None
        for j in np.flatnonzero(self.tries >= 0):
            point = self.points[self.centre].copy()
            point[j] += FIRST * self.scale[j]
            self.invented.add(self.add(point, value + jac[:, j] * (FIRST * self.scale[j])))
        self.tries[:] = -1
        self.jac0 = None

    def warm_start(self) -> None:
        """Start from the best sample given; inputs that the samples move need no move."""
        good = self.good
        if not len(good):
            return
        self.limit = self.runaway * max(min(self.size(int(i)) for i in good), 1e-290)
        self.centre = int(min(good, key=self.size))
        rows = self.select(self.points[self.centre])
        u = (np.array([self.points[i] for i in rows]) - self.points[self.centre]) / self.scale
        if np.linalg.matrix_rank(u, tol=1e-6) == self.m:
            self.tries[:] = -1

    def _ask(self, point: Array) -> int:
        self.points.append(np.clip(point, self.low, self.high))
        self.values.append(None)
        return len(self.points) - 1

    def _iterate(self, most: int) -> list[int]:
        state = self.state()
        self._judge(state)
        if self.status:
            return []
        model, u = state.model, state.u
        length = float(np.linalg.norm(u))
        floor = min(1.0, (8.0 * model.ratio) ** 0.25)
        self.grain = self.radius * float(np.clip(floor, 1e-3, 1.0))
        wanting = self.x_tol is not None and self.fine
        stuck = length < 1e-3 * min(1.0, floor) or state.predicted <= 0
        beside = self._beside(state, most)
        most -= len(beside)
        points: list[Array] = []
        if not most:
            kind = "geometry"
        elif wanting:
            kind = "geometry"
            points = self._narrowing(state, most)
        elif stuck or (state.loss.jac > POOR * state.predicted and self.poor < self.m):
            kind, self.poor = "geometry", self.poor + 1
            reach = self.grain / self.radius
            ways = state.loss.worst[:most]
            points = [self._inside(self._signed(way, state), reach) for way in ways]
        else:
            kind, self.poor = "trial", 0
            points.append(u)
            # Side by side: the same direction shorter and longer, then what J knows least.
            points += [self._inside(u, f) for f in (0.4 * length, 1.6 * length)][: most - 1]
            for way in state.loss.worst[: max(0, most - 3)]:
                points.append(self._inside(self._signed(way, state), 0.5))
        centre = self.points[self.centre]
        ids = [self._ask(centre + self.radius * self.scale * p) for p in points + beside]
        self.proposal = Proposal(kind, ids, state.predicted, length, floor)
        return ids

    def _beside(self, state: State, most: int) -> list[Array]:
        """A run next to the centre, along what J answers to least.

        It finds out curvature that passed for noise, and inputs that do nothing. Due before the
        search ends; side by side with others as soon as hope is low.
        """
        if most > 1 and self.patience.calm and not self.patience.checked:
            self.patience.checked = self.repeat = True
        if not self.repeat:
            return []
        self.repeat = False
        way = self.rng.choice((-1, 1)) * weakest(state.model, self.high > self.low)
        return [self._inside(way, NEXT * self.grain / self.radius)]

    def _signed(self, way: Array, state: State) -> Array:
        """Downhill, so that a geometry point may be a better one as well; in turn where level."""
        slope = float(way @ (state.model.jac.T @ state.model.c))
        self.side += 1
        if slope == 0.0:
            slope = (-1.0) ** self.side
        return np.asarray(-np.sign(slope) * way)

    def _narrowing(self, state: State, most: int) -> list[Array]:
        weight = self.radius * self.scale / self._wanted()
        ways, share = narrowing(state.model, state.held, state.loss.worst, weight)
        return [self._inside(way, share * self.grain / self.radius) for way in ways[:most]]

    def _inside(self, way: Array, reach: float) -> Array:
        return inside(way, reach, *self._box())

    def _box(self) -> tuple[Array, Array]:
        x, unit = self.points[self.centre], self.radius * self.scale
        return (self.low - x) / unit, (self.high - x) / unit

    # -- the model ---------------------------------------------------------------------------

    def select(self, x: Array) -> Index:
        """Samples for a model about x."""
        good = self.good
        u = (np.array([self.points[i] for i in good]) - x) / self.scale
        most = MANY if self.fine else max(20, 4 * (self.m + 1))
        return np.asarray(good[around(u, most, self.grain)])

    def model(self, x: Array) -> tuple[tr.LocalModel, Index]:
        """The model about x from the samples around it, in units of the trust radius."""
        rows = self.select(x)
        u = (np.array([self.points[i] for i in rows]) - x) / (self.radius * self.scale)
        y = np.array([self.values[i] for i in rows])
        sigma = None if self.sigma is None else np.broadcast_to(self.sigma, y.shape[1])
        return tr.fit(u, y, sigma, self.rounding), rows

    def state(self) -> State:
        x = self.points[self.centre]
        model, rows = self.model(x)
        u, held = tr.step(model.c, model.jac, *self._box())
        size = float(model.c @ model.c)
        ahead = model.c + model.jac @ u
        predicted = size - float(ahead @ ahead)
        loss = tr.expected_loss(model, held)
        # Errors of c look like something to gain: their part of the decrease counts once.
        hope = max(tr.gauss_newton_decrease(model, held), loss.value) + loss.jac
        return State(model, rows, u, held, predicted, loss, hope, model.noise)

    def _judge(self, state: State) -> None:
        """End where nothing more is to be gained, or look further where nothing answers."""
        size, runs = float(state.model.c @ state.model.c), len(self.points)
        near = max(state.predicted, state.loss.value) + state.loss.jac
        tired = self.patience.spent(size, state.noise, state.hope, near, runs, self.width)
        quiet = 8.0 * state.model.ratio > 1.0  # noise exceeds curvature up to the radius
        lost = quiet and not self._gained(state) and (tired or self._blind(state))
        fixed = not (self.high > self.low).any()
        done = size <= 1e-20 * self.limit or self.radius < LEAST or fixed
        if done and (self.patience.checked or fixed):
            self.status = "converged"
        elif not done and (lost or self._deaf()):
            self.patience.renew(runs)
            self.radius *= 4.0
            if self.radius > FARTHEST:
                self.status = "no signal"
        elif (done or tired) and not self.patience.checked:
            self.patience.checked = self.repeat = True
        elif tired and (self.x_tol is None or self._reached(state)):
            self.status = "noise" if 0.5 * state.noise > 1e-8 * size else "converged"
        elif tired:
            self.fine = True
            if quiet:
                self.radius *= 1.5  # runs tell most where curvature equals noise

    def _gained(self, state: State) -> bool:
        """Whether the sum of squares fell by more than noise since the first run."""
        first = self.values[int(self.good[0])]
        assert first is not None
        sigma, c = state.model.sigma, state.model.c
        fell = float(first @ first - sigma @ sigma - c @ c)
        return fell > 4.0 * tr.blur(first, sigma)

    def _deaf(self) -> bool:
        """Whether every run returned the same."""
        first, *others = (v for v in self.values if v is not None)
        return all(np.abs(v - first).max() <= self.rounding for v in others)

    def _blind(self, state: State) -> bool:
        _, lost = tr.parameter_covariance(state.model, state.held)
        return bool(lost[~state.held].all())

    def _wanted(self) -> Array:
        assert self.x_tol is not None
        absolute, relative = self.x_tol
        return absolute + relative * np.abs(self.points[self.centre])

    def _reached(self, state: State) -> bool:
        cov, lost = tr.parameter_covariance(state.model, state.held)
        half = 1.96 * np.sqrt(np.diagonal(cov)) * self.radius * self.scale
        want = self._wanted()
        return bool((half <= want).all() and not (lost & (want < np.inf)).any())

    # -- what came back ----------------------------------------------------------------------

    def tell(self, values: dict[int, Array | None]) -> None:
        """Values of all the points proposed."""
        proposal = self.proposal
        assert proposal is not None
        self.proposal, self.width = None, len(proposal.ids)
        for i, value in values.items():
            self._record(i, value)
        if proposal.kind == "start":
            self._started()
        else:
            self._moved(proposal)

    def _started(self) -> None:
        """Centre on the best run; inputs that no run beside it moves are tried again."""
        before = self.centre
        best = min(range(len(self.points)), key=self.size)
        if not np.isfinite(self.size(best)):
            return
        self.centre = best
        base = self.points[best]
        moved = np.array([self.points[i] != base for i in self.good]).any(0)
        if before < 0 and best > 0 and self.values[0] is None:
            self.tries[~moved] = 0  # x0 failed: the moves start again from here
        self.tries[moved] = -1

    def _moved(self, proposal: Proposal) -> None:
        ok = [i for i in proposal.ids if self.values[i] is not None]
        if not ok:
            self.radius *= 0.5
            return
        model, _ = self.model(self.points[self.centre])
        unit = self.radius * self.scale
        x = self.points[self.centre]
        ahead = model.predict((np.array([self.points[i] for i in ok]) - x) / unit)
        sizes = np.square(ahead).sum(1)
        here = float(model.c @ model.c)
        noise = model.noise
        limit = self.size(self.centre) + 3.0 * noise  # beyond it no noise is to blame
        best = int(np.argmin(sizes))
        # While intervals are narrowed, only a clear gain moves the centre.
        gain = noise if self.fine else 0.0
        if sizes[best] < here - gain and self.size(ok[best]) < limit:
            self.centre = ok[best]
        if proposal.kind == "trial":
            ratio = (here - float(sizes.min())) / proposal.predicted
            if proposal.ids[0] not in ok or min(self.size(i) for i in ok) > limit:
                self.radius *= 0.5
            elif ratio > 0.7:
                self.radius *= 2.0 if proposal.length > 0.9 else 1.0
            elif ratio < 0.25:
                self.radius *= max(0.5 if ratio < 0.1 else 0.7, proposal.floor)

    # -- the answer --------------------------------------------------------------------------

    def answer(self) -> tuple[Array, tr.LocalModel, NDArray[np.bool_]]:
        """The best point, the model about it, and which inputs a bound holds.

        Under noise the model's minimiser is better than the best sample two times in three, where
        it lies near: from steps over half the radius on, it is the worse one now and then.
        """
        if self.status == "no signal":
            self.centre = int(self.good[0])
        x = self.points[self.centre]
        state = self.state()
        size = float(state.model.c @ state.model.c)
        noisy = 0.5 * state.noise > 1e-8 * size and self.status != "no signal"
        near = float(np.linalg.norm(state.u)) < 0.5
        if noisy and near and 0 < state.predicted > state.loss.jac:
            x = np.clip(x + self.radius * self.scale * state.u, self.low, self.high)
        model, _ = self.model(x)
        at_low, at_high = x <= self.low, x >= self.high
        slope = model.jac.T @ model.c
        held = (at_low & (slope >= 0)) | (at_high & (slope <= 0))
        return x, model, held
