"""What a few runs in one direction tell of a function: its noise, and where it bends."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.base import Rows
from gradiator_np.designs.levels import Noise
from gradiator_np.designs.lines import States, likelihood, posterior
from gradiator_np.designs.pairs import CENTRE, PILOT, Lines, Pair, Pairs
from gradiator_np.kernels import lines as kernels

Array = NDArray[np.float64]

# f0 and a pair: E = f+ + f- - 2 f0 has variance 6 s^2.
EVEN_NOISE = 6.0
# Rounding errors of a program stay below a thousand eps; above that it is noisy.
NOISY = 1e3
# The widest step: the sign of x is kept, so that a bound or a physical domain is rarely crossed.
CAP = 0.5
# The pilot's widest pair: where a function bends on the scale of x, this shows it.
WIDE = 0.2
# The slope that wide pairs are held against: here rounding is 1e-13 of it, and few programs
# wiggle on so short a scale.
SHORT = 1e-3
# Relative error at which a slope is good enough to contradict another.
CLEAR_SLOPE = 3e-3
# Share of the change between two wide pairs that their extrapolation may miss.
SMOOTH = 0.25
# Share of the quarrel by which the wide pairs may differ among themselves (ignition of hydrogen,
# a sigmoid, has 0.33).
SHARED = 0.25
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


class Host(Protocol):
    """What the pilot needs of a plan."""

    book: Pairs
    rows: Rows
    states: States
    noise: Noise
    known_noise: Array | None


Script = Generator[Array, None, None]


class Pilot:
    """The runs along one random direction.

    Parameters
    ----------
    host : AutoPlan
    budget : int
        Evaluations that may have been used when it ends, the one at x included.
    """

    def __init__(self, host: Host, budget: int) -> None:
        self.host, self.book = host, host.book
        self.budget = budget
        self.side = 0
        self.noisy = self.random = self.two_scales = False
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
        if self.floor > 0:
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

    def _length(self) -> float:
        return float(np.sqrt(np.square(self.book.direction[0]).sum())) or 1.0

    def _view(self) -> Lines:
        return self.book.lines(self.host.rows, [self.book.pilot])

    def _spare(self) -> int:
        """Pairs that the budget still allows."""
        return (self.budget - self.book.n_rows - 1) // 2

    def _aim(self) -> None:
        """Draw the direction."""
        book, rng = self.book, self.book.problem.rng
        gap = np.minimum(book.up, book.down)
        if self.side == 0 and not (gap > 0).any():
            self.side = 1
        if self.side:
            gap = np.maximum(book.up, book.down) / 2
        # no input may be led out of its bounds by the widest pair
        size = rng.uniform(0.5, 1.0, book.m) * np.minimum(1.0, np.maximum(gap, 0.0) / CAP)
        sign = rng.choice([-1.0, 1.0], book.m)
        if self.side:
            sign = np.where(book.up >= book.down, 1.0, -1.0)
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

    def _wake(self, start: float) -> Generator[Array, None, bool]:
        """Grow the first pair until something answers; False where every run fails."""
        book, t = self.book, start
        self._aim()
        tries = 0
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
                    self.side = 1
                elif tries > 1:
                    self._aim()
                t = t / 8 if book.pilot == PILOT else t
                continue
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
        failed = ~np.isfinite(view.odd[0]).any(axis=1)
        if not failed.any():
            return
        wide = view.t[0][failed].min()
        good = view.t[0][~failed]
        self.cap = min(self.cap, wide / 2)
        if not (good > wide / 10).any():
            yield from self._pairs([wide / 4])

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
        yield from self._pairs([SHORT, WIDE, WIDE / 2])

    def _loud(self) -> Script:
        book = self.book
        noise, _ = self._level()
        r = min(relative(noise, self.host.noise.size), 1.0)
        # wide enough to clear the noise of a slope, short enough to hide curvature in it
        tau = float(np.clip(0.1 * r ** (1 / 3), 1e-5, 0.02))
        wide = 30 * r ** (1 / 3)
        row = book.n_rows
        offsets = [book.request([Pair(CENTRE, 0.0)])]
        offsets += list(self._pairs([tau, 2 * tau, WIDE, wide if wide < 0.07 else WIDE]))
        yield np.concatenate(offsets)
        again = book.values(self.host.rows)[row]
        self.random = bool((again != book.f0)[np.isfinite(again + book.f0)].any())
        if self.random:
            self.host.noise.add(again - book.f0, 2.0)
        self._contrasts(tau, 2 * tau)

    def _coarse(self) -> Script:
        """Printed digits, rounded or integer inputs: nothing answers below the floor."""
        t = self.floor
        yield from self._pairs([10 * t, 20 * t, WIDE, 100 * t])
        noise = self.host.noise
        noise.clear()
        self._contrasts(10 * t, 20 * t)
        # two contrasts of rounded numbers are both 0 now and then: what the others lost tells
        common = np.sqrt(np.mean(np.square(self._level()[0] / noise.size)))
        noise.least = np.maximum(noise.least, 0.1 * common * noise.size)

    @staticmethod
    def _at(view: Lines, t: float) -> int:
        return int(np.nanargmin(np.abs(np.log(view.t[0] / t))))

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

    # -- slopes at two scales ----------------------------------------------------------------

    def _two_scales(self) -> Script:
        """Is the slope at small steps the slope of the trend?

        Event-driven integrators, moving meshes, iteration counts and wiggles are smooth at small
        steps, with a slope that is up to 20 % and more off the trend.
        """
        if self.cap < 2 * WIDE:
            return
        view = self._view()
        t = view.t[0]
        # the shortest step whose slope stands well out of the noise
        sd = self._level()[0] / np.where(t > 1e-6, np.sqrt(2.0) * t, np.nan)[:, None]
        size = np.abs(view.odd[0, self._at(view, WIDE)])
        size = np.nan_to_num(size)
        size = size + 1e-2 * size.max()
        ratio = sd[:, size > 0] / size[size > 0]
        clear = (ratio < CLEAR_SLOPE).mean(axis=1) if ratio.size else np.zeros(t.size)
        usable = np.flatnonzero((clear > 0.5) & (t < WIDE / 4))
        if not usable.size:
            return
        small = int(usable[np.argmin(t[usable])])
        wanted = [w for w in (WIDE / 2, WIDE) if not np.isclose(t, w, rtol=0.01).any()]
        self.budget += 2 * len(wanted)
        yield from self._pairs(wanted)
        if self._smooth(small):
            return
        self.budget += 4
        yield from self._pairs([WIDE / 4, 2 * WIDE])
        g = self._view().odd[0, small]
        if self._window(WIDE / 4, g) or self._window(WIDE / 2, g):
            return
        if not self._grows(g):
            d = self._view().odd[0, self._at(self._view(), WIDE / 2)]
            # signs are random: what m slopes differ by together, each does by 1 / sqrt(m) of
            self.doubt = np.nan_to_num(np.abs(g - d)) / self._length()
        self.book.forget_steps(self.book.pilot, (WIDE / 4, WIDE / 2, 2 * WIDE))

    def _grows(self, g: Array) -> bool:
        """Whether what a cubic leaves grows with the step, as a term in t^5 does (16 times from
        one window to the next) and a wiggle does not (it halves)."""
        view = self._view()
        weight = self._weights(g, view.odd[0, self._at(view, WIDE)])
        near, far = (
            _sum(weight * np.square(self._residual(view, short))) for short in (WIDE / 4, WIDE / 2)
        )
        return bool(far > 16 * near)

    def _residual(self, view: Lines, short: float) -> Array:
        """What pairs at t, 2t, 4t leave when a slope and a cubic term are taken out."""
        d1, d2, d4 = view.odd[0, [self._at(view, short * k) for k in (1, 2, 4)]]
        return np.asarray(d1 - 1.25 * d2 + 0.25 * d4)

    def _weights(self, g: Array, d: Array) -> Array:
        """What makes outputs comparable: one over their squared slopes."""
        size = np.fmax(np.square(d), np.square(g))
        size = np.nan_to_num(size)
        return np.asarray(1 / (size + 1e-4 * size.mean() + 1e-100))

    def _smooth(self, small: int) -> bool:
        """Whether the wide pairs, extrapolated, meet the slope at a small step."""
        view = self._view()
        t, g = view.t[0], view.odd[0, small]
        a, b = self._at(view, WIDE / 2), self._at(view, WIDE)
        if a == b or not np.isfinite(view.odd[0, [a, b]]).any():
            return True
        r2 = (t[b] / t[a]) ** 2
        trend = (r2 * view.odd[0, a] - view.odd[0, b]) / (r2 - 1)
        weight = self._weights(g, view.odd[0, b])
        sd = np.square(self._level()[0]) * (1 / t[small] ** 2 + 2 / t[a] ** 2)
        off = _sum(weight * np.maximum(np.square(g - trend) - 9 * sd, 0.0))
        change = _sum(weight * np.square(view.odd[0, b] - view.odd[0, a]))
        # a function that bends at rho leaves (0.1 / rho)^2 of the change; below 1e-4 of the slope
        # no error bar is at stake that the status could save
        return bool(off < SMOOTH**2 * change or off < 1e-8 * _sum(weight * g**2))

    def _window(self, short: float, g: Array) -> bool:
        """Whether pairs at t, 2t, 4t agree on a trend that the small steps contradict."""
        view = self._view()
        at = [self._at(view, short * k) for k in (1, 2, 4)]
        if len(set(at)) < 3:
            return False
        (d1, d2, d4), (e1, e2, e4) = view.odd[0, at], view.even[0, at]
        trend = (4 * d2 - d4) / 3
        res = self._residual(view, short)
        # both contrasts cancel a quadratic and a cubic term; their coefficients of t^4 and t^6
        # are small, and 1.2 and 2.04 bring them to the noise of one run
        even = (e1 - 0.3125 * e2 + e4 / 64) / 2.04
        noise, _ = self._level()
        level = np.sqrt(np.maximum((np.square(1.2 * short * res) + even**2) / 2, noise**2))
        sd = 0.475 * level / short
        weight = self._weights(g, view.odd[0, self._at(view, WIDE)])
        quarrel = weight * np.square(g - trend)

        def norm(a: Array) -> float:
            return float(_sum(weight * np.square(a)))

        # a smooth function with a term in t^4 gives 3.53, always
        if norm(g - trend) <= 16 * norm(sd):
            return False
        if not (
            # a trend is what wide pairs share: a sigmoid's slopes fall from pair to pair
            max(norm(res), norm(d2 - d1)) < SHARED**2 * norm(g - trend)
            and _sum(quarrel * weight * sd**2) < 0.01 * _sum(quarrel)
            and _sum(quarrel * weight * g**2) < 9 * _sum(quarrel * weight * trend**2)
        ):
            return False
        self.host.noise.clear()
        for _ in range(2):
            # the mean of two squares
            self.host.noise.add(level, 1.0)
        self.two_scales = self.noisy = True
        self.floor = short
        self.book.forget(self.book.pilot, 0.99 * short)
        return True

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
        slope = np.abs(slopes(view, states, noise, first_slope(view, noise), start))
        slope = slope + 1e-3 * slope.max() + 1e-300
        weights = posterior(start, *likelihood(view, states, noise, slope), states)
        moved = max(int((np.abs(book.direction).max(axis=0) > 0).sum()), 1)
        # inputs moved together bend up to sqrt(m) faster than one of them
        prior = states.blur(weights[0], 0.25 * np.log10(moved))
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
        )


def _sum(a: Array) -> float:
    """Sum of what is finite."""
    return float(np.where(np.isfinite(a), a, 0.0).sum())


def relative(noise: Array, slope: Array) -> float:
    """Noise over slope, all outputs together: each counts by its own noise."""
    ratio = np.square(slope / noise)
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size or ratio.max() == 0:
        return 1.0
    return float(1 / np.sqrt(np.mean(ratio)))


def first_slope(lines: Lines, noise: Array) -> Array:
    """|D| of the pair in which a cubic term at rho = 1 and the noise are least together."""
    t = lines.t
    cost = t**4 + 0.5 * (1e-6 / np.where(t > 0, t, 1.0)) ** 2
    order = np.argsort(np.where(np.isfinite(t), cost, np.inf), axis=1)
    odd = np.take_along_axis(lines.odd, order[:, :, None], axis=1)
    good = np.isfinite(odd)
    first = np.argmax(good, axis=1)
    out = np.abs(np.take_along_axis(odd, first[:, None, :], axis=1)[:, 0])
    out = np.nan_to_num(out)
    return np.asarray(out + 1e-3 * out.max() + 1e-300)


def mixture(
    lines: Lines, states: States, noise: Array, slope: Array, weights: Array
) -> tuple[Array, Array, Array, Array]:
    """Slopes (N, L), unit variances, variances and 95 % half-widths of the mixture of states."""
    shape = (noise.size, lines.t.shape[0])
    out = [np.empty(shape) for _ in range(4)]
    kernels.estimate(
        lines.t,
        lines.factor,
        lines.size,
        lines.odd,
        noise,
        slope,
        weights,
        states.sd_odd,
        states.kappa,
        *out,
    )
    return out[0], out[1], out[2], out[3]


def slopes(lines: Lines, states: States, noise: Array, slope: Array, weights: Array) -> Array:
    """Slopes (L, N) under the state of median rho of each line: good enough for a scale."""
    middle = np.zeros_like(weights)
    at = np.argmax(np.cumsum(weights, axis=1) >= 0.5, axis=1)
    middle[np.arange(len(at)), at] = 1.0
    return np.ascontiguousarray(mixture(lines, states, noise, slope, middle)[0].T)


def round_digit(a: Array) -> Array:
    """To one significant decimal digit."""
    a = np.asarray(a, float)
    size = np.abs(a)
    power = 10.0 ** np.floor(np.log10(np.where(size > 0, size, 1.0)))
    return np.where(size > 0, np.rint(a / power) * power, 0.0)
