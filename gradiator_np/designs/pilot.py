"""What a few runs in one direction tell of a function: its noise, and where it bends."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.base import Rows
from gradiator_np.designs.lattice import printed, quantum
from gradiator_np.designs.levels import Noise
from gradiator_np.designs.lines import (
    States,
    first_slope,
    likelihood,
    posterior,
    relative,
)
from gradiator_np.designs.mixtures import slopes
from gradiator_np.designs.pairs import CENTRE, PILOT, Lines, Pair, Pairs, round_digit
from gradiator_np.designs.quarrel import SHORT, WIDE, Quarrel, Script

Array = NDArray[np.float64]

# f0 and a pair: E = f+ + f- - 2 f0 has variance 6 s^2.
EVEN_NOISE = 6.0
# Rounding errors of a program stay below a thousand eps; above that it is noisy.
NOISY = 1e3
# The widest step: the sign of x is kept, so that a bound or a physical domain is rarely crossed.
CAP = 0.5
# A pilot that fails is drawn in, or aimed anew, as often as this.
TRIES = 4


@dataclass(frozen=True, slots=True)
class Learned:
    """What the runs at one point tell of the next.

    Attributes
    ----------
    noise, dof : array, shape (N,)
        Standard deviation per real output, and degrees of freedom.
    prior : array, shape (S,)
        Weights of the states of one input.
    slope : array, shape (N,)
        Typical slope of an output per unit t of one input.
    noisy, random : bool
        Whether there is more than rounding; whether a repetition differs.
    floor : float
        Smallest step that shows what is wanted, in units of t.
    two_scales : bool
        Whether a wiggle was taken for noise.
    doubt : array, shape (N,), or None
        By how much slopes per unit t at small and at wide steps differ, where neither can be
        preferred.
    relative : bool
        Whether noise grows with the size of an output.
    corner : bool
        Whether there is a kink or a jump at x.
    """

    noise: Array
    dof: Array
    prior: Array
    slope: Array
    noisy: bool = False
    random: bool = False
    floor: float = 0.0
    two_scales: bool = False
    doubt: Array | None = None
    relative: bool = False
    corner: bool = False


class Host(Protocol):
    """What the pilot needs of a plan."""

    book: Pairs
    rows: Rows
    states: States
    noise: Noise
    known_noise: Array | None


class Pilot(Quarrel):
    """The runs along one random direction.

    Parameters
    ----------
    host : AutoPlan
    budget : int
        Evaluations that may have been used when it ends, the one at x included.
    most : int
        The same where slopes at two scales quarrel.
    """

    def __init__(self, host: Host, budget: int, most: int) -> None:
        self.host, self.book = host, host.book
        self.budget, self.most = budget, most
        self.side = 0
        self.noisy = self.random = self.two_scales = self.corner = False
        self.doubt: Array | None = None
        self.floor = 0.0
        self.cap = CAP

    def run(self) -> Generator[Array, None, Learned | None]:
        """Ask for the pilot's rows; return what they tell, None where all of them failed."""
        start = 10.0 ** np.rint(np.log10(np.sqrt(self.book.problem.eps)))
        awake = yield from self._wake(start)
        if not awake:
            return None
        first = self._view()
        self._sizes()
        if (self.floor > 0 or self._gridded().any()) and (yield from self._printed()):
            self.noisy, self.floor = True, 0.0
            # two pairs an input tell more of a known noise than a look for another one
            self.most -= 2 * self.book.m
            yield from self._loud()
        elif self.floor > 0:
            self.noisy = True
            yield from self._coarse()
        else:
            self._first_level(first)
            yield from self._loud() if self.noisy else self._clean()
        yield from self._replace_wide()
        if not self.random and not self.side:
            yield from self._two_scales()
        return self._learn()

    # -- asking ------------------------------------------------------------------------------

    @property
    def noise(self) -> Noise:
        """The contrasts collected so far."""
        return self.host.noise

    @noise.setter
    def noise(self, value: Noise) -> None:
        self.host.noise = value

    def _view(self) -> Lines:
        return self.book.lines(self.host.rows, [self.book.pilot])

    def _spare(self) -> int:
        """Pairs that the budget still allows."""
        return (self.budget - self.book.n_rows - 1) // 2

    def _aim(self, way: int = 0) -> None:
        """Draw the direction; a one-sided one leads all inputs up (``way`` 1) or down (-1) where
        there is room, or (0) to where there is more."""
        book, rng = self.book, self.book.problem.rng
        gap = np.minimum(book.up, book.down)
        if self.side == 0 and not (gap > 0).any():
            self.side = 1
        if self.side:
            side = np.where(book.up >= book.down, 1.0, -1.0)
            if way:
                side = np.where((book.up if way > 0 else book.down) > 0, way, -way)
            gap = np.where(side > 0, book.up, book.down) / 2
        # no input may be led out of its bounds by the widest pair
        self.reach = np.minimum(1.0, np.maximum(gap, 0.0) / CAP)
        size = rng.uniform(0.5, 1.0, book.m) * self.reach
        sign = side if self.side else rng.choice([-1.0, 1.0], book.m)
        if book.pilot != PILOT:
            size = np.where(book.free, 1.0, 0.0)
            self.cap = float(min(CAP, gap[book.pilot]))
            sign = np.ones(book.m)
            if self.side:
                self.side = 1 if book.up[book.pilot] >= book.down[book.pilot] else -1
        book.direction = round_digit(sign * size * book.scale) / book.scale

    def _pairs(self, steps: list[float]) -> Script:
        """Pairs at new steps below the cap, as many as the budget allows, the first ones first."""
        done: list[float] = []
        for t in steps[: max(self._spare(), 0)]:
            t = min(t, self.cap)
            used = self.book.steps(self.book.pilot) + done
            while any(abs(t / other - 1) < 1e-3 for other in used):
                t *= 0.85
            done.append(t)
        if done:
            yield self.book.request([Pair(self.book.pilot, t, self.side) for t in done])

    def _missing(self, t: float) -> list[float]:
        """t, unless a pair has been asked for there."""
        return [] if np.isclose(self.book.steps(self.book.pilot), t, rtol=0.01).any() else [t]

    def _wake(self, start: float) -> Generator[Array, None, bool]:
        """Grow the first pair until something answers; False where every run fails."""
        book, tries = self.book, 0
        self._aim()
        # some input has to move by more than floating-point numbers round to
        size = np.abs(book.direction).max(axis=0)
        seen = np.where(size > 0, book.least / np.where(size > 0, size, 1.0), np.inf)
        t = start = min(max(start, 4 * float(seen.min())), self.cap)
        while self._spare() > 0:
            yield from self._pairs([t])
            view = self._view()
            odd, even = view.odd[0, -1], view.even[0, -1]
            if not np.isfinite(odd).any():
                tries += 1
                last = book.last(self.host.rows, book.pilot)
                if tries > TRIES:
                    return False
                if last.side == 0 and last.works != 0:
                    # the domain ends at x: the side that works will do
                    book.direction = book.direction * last.works
                    self.side = 1 if book.pilot == PILOT else last.works
                elif book.pilot == PILOT and tries > 1:
                    # each output may have a side of its own: all up, all down, at random again
                    way = (0, 1, -1)[tries % 3 - 1]
                    self.side = abs(way)
                    self._aim(way)
                t = t / 8 if book.pilot == PILOT else t
                continue
            if self._gridded().all():
                return True
            if np.nan_to_num(odd).any() or np.nan_to_num(even).any():
                self.floor = t if t > start else 0.0
                return True
            if t >= self.cap:
                return True
            t = min(100 * t, self.cap)
        return bool(np.isfinite(self._view().odd).any())

    def _replace_wide(self) -> Script:
        """Where the wide pairs failed, the domain ends there: stay inside."""
        view = self._view()
        worked = np.isfinite(view.odd[0]).any(axis=1)
        failed = ~worked & (view.t[0] > np.min(view.t[0][worked], initial=np.inf))
        if not failed.any():
            return
        wide = view.t[0][failed].min()
        good = view.t[0][worked]
        self.cap = min(self.cap, wide / 2)
        if not (good > wide / 10).any():
            yield from self._pairs([wide / 4])

    def _gridded(self) -> NDArray[np.bool_]:
        """Which of the outputs that are known take values of few digits only."""
        f0 = self.book.f0
        values = np.concatenate([f0[None], self.book.values(self.host.rows)])
        return quantum(values, f0)[np.isfinite(f0)] > 0

    def _printed(self) -> Generator[Array, None, bool]:
        """Whether outputs are rounded, which a wide pair tells from exact ones at short numbers."""
        yield from self._pairs([WIDE])
        view, f0 = self._view(), self.book.f0
        values = np.concatenate([f0[None], self.book.values(self.host.rows)])
        short, wide = int(np.nanargmin(view.t[0])), self._at(view, WIDE)
        t = view.t[0, short]
        spacing = printed(values, f0, t * view.odd[0, short], t * view.odd[0, wide])
        # errors spread evenly over a spacing
        self.noise.least = np.maximum(self.noise.least, spacing / np.sqrt(12))
        self.noise.printed = spacing > 0
        return bool(self.noise.printed.any())

    # -- the three kinds of functions --------------------------------------------------------

    def _sizes(self) -> None:
        """Largest size of each output, and the rounding error that it implies at least."""
        values = np.abs(np.nan_to_num(self.book.values(self.host.rows)))
        largest = np.maximum(values.max(axis=0), np.nan_to_num(np.abs(self.book.f0)))
        # an output that was 0 all along is taken for the smallest of the others
        some = largest[largest > 0]
        largest = np.where(largest > 0, largest, some.min() if some.size else 1.0)
        self.host.noise.size = largest
        least = 0.3 * self.book.problem.eps * largest
        self.host.noise.least = np.maximum(self.host.noise.least, least)

    def _first_level(self, first: Lines) -> None:
        """Noise at the smallest step, where a curvature is not seen, and whether it is more than
        rounding."""
        even, odd = first.even[0, -1], np.abs(first.odd[0, -1])
        self.host.noise.add(even, EVEN_NOISE)
        size = np.nan_to_num(np.abs(self.book.f0)) + np.nan_to_num(odd)
        level = np.nan_to_num(np.abs(even)) / np.sqrt(EVEN_NOISE)
        if self.host.known_noise is not None:
            level = self.host.known_noise
        ratio = np.where(size > 0, level / np.where(size > 0, size, 1.0), 0.0)
        self.noisy = bool(np.sqrt(np.mean(ratio**2)) > NOISY * self.book.problem.eps)

    def _clean(self) -> Script:
        yield from self._pairs([SHORT, *self._missing(WIDE), WIDE / 2])
        self.corner = self._corner(SHORT, WIDE / 2)

    def _loud(self) -> Script:
        book = self.book
        noise, _ = self._level()
        r = min(float(relative(noise, self.host.noise.size)), 1.0)
        # wide enough to clear the noise of a slope, short enough to hide curvature in it
        tau = float(np.clip(0.1 * r ** (1 / 3), 1e-5, 0.02))
        wide = 30 * r ** (1 / 3)
        row = book.n_rows
        offsets = [book.request([Pair(CENTRE, 0.0)])]
        wide = wide if wide < 0.07 else 0.85 * WIDE
        offsets += list(self._pairs([tau, 2 * tau, *self._missing(WIDE), wide]))
        yield np.concatenate(offsets)
        again = book.values(self.host.rows)[row]
        self.random = bool((again != book.f0)[np.isfinite(again + book.f0)].any())
        if self.random:
            self.host.noise.add(again - book.f0, 2.0)
        elif self._corner(tau, 2 * tau):
            # what looked like noise at the smallest step is a corner of a quiet function
            self.noise.clear()
            self.noise.add(self.noise.least, 1.0)
            self.noisy, self.corner = False, True
            return
        self._contrasts(tau, 2 * tau)

    def _corner(self, t: float, twice: float) -> bool:
        """Whether the even part at x is that of a jump (the same at every step) or of a kink (in
        proportion to the step, and a curvature)."""
        view = self._view()
        at = [int(np.nanargmin(view.t[0])), self._at(view, t), self._at(view, twice)]
        t0, t1, t2 = view.t[0, at]
        even = view.even[0, at] / np.maximum(self.noise.size, 1e-300)
        even = even[:, np.isfinite(even).all(axis=0)]
        if self.side or t0 == t1 or t1 == t2 or not even.size:
            return False

        def small(a: Array, b: Array) -> bool:
            return bool(np.sum(np.square(a)) < 0.01 * np.sum(np.square(b)))

        kink = even[0] / t0
        bend = (even[1] - kink * t1) / t1**2
        if small(np.concatenate([even[1] - even[0], even[2] - even[0]]), even[0]):
            # small steps see the jump over the step
            self.floor = WIDE / 4
            self.book.forget(self.book.pilot, 0.99 * WIDE / 2)
            return True
        return small(even[2] - kink * t2 - bend * t2**2, kink * t2)

    def _coarse(self) -> Script:
        """Printed digits, rounded or integer inputs: nothing answers below the floor."""
        t = self.floor
        yield from self._pairs([10 * t, 20 * t, *self._missing(WIDE), 100 * t])
        noise = self.host.noise
        noise.clear()
        self._contrasts(10 * t, 20 * t)
        # two contrasts of rounded numbers are both 0 now and then: what the others lost tells
        common = np.sqrt(np.mean(np.square(self._level()[0] / noise.size)))
        noise.least = np.maximum(noise.least, 0.1 * common * noise.size)

    def _contrasts(self, t: float, twice: float) -> None:
        """Noise at the scale that will be used: quiet programs at 1e-8 may be loud at 1e-4."""
        view = self._view()
        a, b = self._at(view, t), self._at(view, twice)
        if a == b or self.side:
            return
        ta, tb = view.t[0, a], view.t[0, b]
        r2 = (ta / tb) ** 2
        wider = self.host.noise.empty_like()
        wider.add(view.odd[0, a] - view.odd[0, b], 0.5 / ta**2 + 0.5 / tb**2)
        wider.add(view.even[0, a] - r2 * view.even[0, b], 2 * (1 + r2**2) + 4 * (1 - r2) ** 2)
        old, new = self._level()[0], wider.level()[0]
        if not self.host.noise.count.any() or np.exp(np.mean(np.log(new / old))) > 3:
            self.host.noise = wider
        else:
            self.host.noise.merge(wider)

    # -- the outcome -------------------------------------------------------------------------

    def _level(self) -> tuple[Array, Array]:
        noise, dof = self.host.noise.level()
        if self.host.known_noise is None or self.two_scales:
            return noise, dof
        known = np.maximum(self.host.known_noise, self.host.noise.least)
        return known, np.full(noise.size, np.inf)

    def _learn(self) -> Learned:
        book, states = self.book, self.host.states
        self._sizes()
        noise, dof = self._level()
        relative_noise = self.noisy and not self.two_scales and self.host.noise.relative
        if relative_noise and self.host.known_noise is None:
            book.reference = self.host.noise.reference(np.nan_to_num(np.abs(book.f0)))
        view = book.lines(self.host.rows, [book.pilot])
        start = states.prior(0.0 if self.random else 0.1)[None]
        # a direction that bounds keep short bends late, in units of itself
        reach = self.reach[self.reach > 0] if book.pilot == PILOT else np.ones(1)
        short = 0.5 * float(np.log10(np.mean(np.square(reach)))) if reach.size else 0.0
        if short < 0:
            start = states.blur(start, -short)
        slope = np.abs(slopes(view, states, noise, first_slope(view, noise), start))
        # a slope may vanish along one direction: then a typical one, relative to the output's size,
        # stands in for it
        size = self.host.noise.size
        slope = np.maximum(slope, 0.03 * np.median(slope / size) * size) + noise
        weights = posterior(start, *likelihood(view, states, noise, slope), states)
        moved = max(int((np.abs(book.direction).max(axis=0) > 0).sum()), 1)
        # inputs moved together bend up to sqrt(m) faster than one of them
        prior = states.blur(weights[0], 0.25 * np.log10(moved) + short)
        prior = 0.95 * prior + 0.05 * states.prior(1e-5)
        if book.pilot != PILOT:
            # the pilot's pairs are the input's own, and are heard again as such
            prior = start[0]
        typical = slope[0] / self._length()
        return Learned(
            noise,
            dof,
            prior,
            typical,
            self.noisy,
            self.random,
            self.floor,
            self.two_scales,
            self.doubt,
            book.reference is not None,
            self.corner,
        )
