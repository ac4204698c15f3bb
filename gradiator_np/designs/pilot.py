"""What a few runs in one direction tell of a function: its noise, and where it bends."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

from gradiator_np.designs.base import Rows
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
        Smallest step that answers, in units of t.
    """

    noise: Array
    dof: Array
    prior: Array
    slope: Array
    noisy: bool = False
    random: bool = False
    floor: float = 0.0
    two_scales: bool = False
    remarks: tuple[str, ...] = ()


@dataclass
class Noise:
    """Sums of squares of contrasts that hold nothing but noise, per output."""

    squares: Array
    count: Array
    size: Array
    least: Array

    @classmethod
    def empty(cls, n: int) -> Noise:
        """Nothing known yet."""
        return cls(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n))

    def add(self, contrast: Array, variance: Array | float) -> None:
        """Contrasts (..., N) whose variance is ``variance`` at unit noise; nan is left out."""
        terms = np.square(contrast) / variance
        good = np.isfinite(terms)
        axes = tuple(range(terms.ndim - 1))
        self.squares = self.squares + np.where(good, terms, 0.0).sum(axis=axes)
        self.count = self.count + good.sum(axis=axes)

    def level(self) -> tuple[Array, Array]:
        """Noise and degrees of freedom, shrunk over outputs.

        Variances of outputs are drawn from a scaled inverse chi-square (Smyth 2004,
        doi 10.2202/1544-6115.1027), of the absolute or of the relative noise, whichever
        scatters less.
        """
        known = self.count > 0
        if not known.any():
            return np.maximum(self.least, np.finfo(float).tiny), np.zeros(self.least.size)
        count = np.where(known, self.count, 1.0)
        var = np.maximum(self.squares / count, np.square(self.least))
        var = np.maximum(var, np.finfo(float).tiny)
        if var.size == 1:
            return np.sqrt(var), np.where(known, self.count, 0.0)
        best: tuple[float, Array, float] | None = None
        for unit in (np.ones_like(var), np.maximum(self.size, 1e-3 * self.size.max()) ** 2):
            if not (unit > 0).all():
                continue
            e = np.log(var / unit) - digamma(count / 2) + np.log(count / 2)
            centre = np.average(e, weights=known)
            excess = np.average((e - centre) ** 2, weights=known) * known.sum() / max(
                known.sum() - 1, 1
            ) - np.average(polygamma(1, count / 2), weights=known)
            d0 = 2 * _trigamma_inverse(excess) if excess > 0 else np.inf
            # e has the mean of log s0^2 + log(d0 / 2) - digamma(d0 / 2)
            common = centre
            if np.isfinite(d0):
                common = centre + digamma(d0 / 2) - np.log(d0 / 2)
            if best is None or excess < best[0]:
                best = (excess, np.exp(common) * unit, d0)
        assert best is not None
        _, common_var, d0 = best
        # beyond a hundred degrees of freedom nothing changes
        d0 = min(d0, 100.0)
        own = np.where(known, self.count, 0.0)
        shrunk = (d0 * common_var + own * var) / (d0 + own)
        return np.maximum(np.sqrt(shrunk), self.least), _pooled_dof(d0, own)


def _pooled_dof(d0: float, own: Array) -> Array:
    # the common value itself rests on all outputs together
    return np.minimum(d0, own.sum()) + own


def _trigamma_inverse(y: float) -> float:
    """x with trigamma(x) = y, by Newton's iteration on 1 / trigamma (Smyth 2004, appendix)."""
    if y > 1e7:
        return 1 / np.sqrt(y)
    if y < 1e-6:
        return 1 / y
    x = 0.5 + 1 / y
    for _ in range(20):
        tri = polygamma(1, x)
        step = tri * (1 - tri / y) / polygamma(2, x)
        x += step
        if abs(step) < 1e-8 * x:
            break
    return float(x)


class Host(Protocol):
    """What the pilot needs of a plan."""

    book: Pairs
    rows: Rows
    states: States
    noise: Noise
    known_noise: Array | None


Script = Generator[Array, None, None]


@dataclass
class Pilot:
    """The runs along one random direction."""

    host: Host
    budget: int
    noisy: bool = False
    random: bool = False
    floor: float = 0.0
    cap: float = CAP
    remarks: list[str] = field(default_factory=list)

    def run(self) -> Generator[Array, None, Learned]:
        """Ask for the pilot's rows; return what they tell."""
        host, book = self.host, self.host.book
        self.side = self._aim()
        least = 10.0 ** np.rint(np.log10(np.sqrt(book.problem.eps)))
        yield from self._wake(least)
        lines = book.lines(host.rows, [self.host.book.pilot])
        first = lines.even[0, -1]
        d = np.abs(lines.odd[0, -1])
        self._sizes()
        if self.floor > 0:
            t = self.floor
            yield from self._pairs([10 * t, 20 * t, 100 * t, 0.2])
            self._contrasts(10 * t, 20 * t, reset=True)
            self.noisy = True
        else:
            host.noise.add(first, EVEN_NOISE)
            u = np.abs(first) / np.sqrt(EVEN_NOISE)
            size = np.abs(book.f0) + d
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = np.where(size > 0, u / size, 0.0)
            ratio = ratio[np.isfinite(ratio)]
            self.noisy = bool(np.sqrt(np.mean(ratio**2)) > NOISY * book.problem.eps)
            if host.known_noise is not None:
                self.noisy = bool((host.known_noise > NOISY * book.problem.eps * size).any())
            if self.noisy:
                yield from self._loud()
            else:
                yield from self._clean(d, least)
        return self._learn()

    def _aim(self) -> int:
        """Draw the direction; returns the side of one-sided pilots, 0 for pairs."""
        book, rng = self.host.book, self.host.book.problem.rng
        gap = np.minimum(book.up, book.down)
        side = 0
        if not (gap > 0).any():
            gap, side = np.maximum(book.up, book.down) / 2, 1
        # no input may be led out of its bounds by the widest pair
        size = rng.uniform(0.5, 1.0, book.m) * np.minimum(1.0, gap / CAP)
        sign = rng.choice([-1.0, 1.0], book.m)
        if side:
            sign = np.where(book.up >= book.down, 1.0, -1.0)
        d = np.broadcast_to(sign * size, book.scale.shape)
        if book.pilot != PILOT:
            d = np.where(book.free, 1.0, 0.0) * np.ones_like(book.scale)
            self.cap = float(min(CAP, gap[book.pilot]))
        book.direction = round_digit(d * book.scale) / book.scale
        return side

    def _pairs(self, steps: list[float]) -> Script:
        done: list[float] = []
        for t in steps:
            t = min(t, self.cap)
            while any(
                abs(t / other - 1) < 1e-3
                for other in self.host.book.steps(self.host.book.pilot) + done
            ):
                t *= 0.85
            done.append(t)
        yield self.host.book.request([Pair(self.host.book.pilot, t, self.side) for t in done])

    def _wake(self, t: float) -> Script:
        """Grow the first pair until something answers."""
        host, book = self.host, self.host.book
        start = t
        while True:
            yield from self._pairs([t])
            lines = book.lines(host.rows, [self.host.book.pilot])
            odd, even = lines.odd[0, -1], lines.even[0, -1]
            if not np.isfinite(odd).any() and t > 1e-3 * start:
                t /= 8
                self.cap = t
                continue
            if (odd[np.isfinite(odd)] != 0).any() or (even[np.isfinite(even)] != 0).any():
                break
            if t >= self.cap or t < start:
                break
            t = min(100 * t, self.cap)
        if t > start:
            self.floor = t

    def _sizes(self) -> None:
        """Largest size of each output, and the rounding error that it implies at least."""
        host = self.host
        values = np.abs(host.book.values(host.rows))
        values = np.where(np.isfinite(values), values, 0.0)
        largest = np.maximum(values.max(axis=0), np.nan_to_num(np.abs(host.book.f0)))
        # an output that was 0 all along is taken for the smallest of the others
        some = largest[largest > 0]
        largest = np.where(largest > 0, largest, some.min() if some.size else 1.0)
        host.noise.size = largest
        host.noise.least = 0.3 * host.book.problem.eps * largest

    def _clean(self, d: Array, least: float) -> Script:
        noise, _ = self._level()
        r = relative(noise, d)
        wide = float(np.clip(100 * r ** (1 / 3), 1e-3, 0.1))
        yield from self._pairs([1e3 * least, wide, 0.2])
        lines = self.host.book.lines(self.host.rows, [self.host.book.pilot])
        if self.side:
            return
        # two more figures, unless curvature is already seen in them
        odd = lines.t[0, 0] * (lines.odd[0, 0] - lines.odd[0, 1])
        even = lines.even[0, 1]
        for contrast, variance in ((odd, 0.5), (even, EVEN_NOISE)):
            level, _ = self._level()
            keep = np.abs(contrast) / np.sqrt(variance) < 4 * level
            self.host.noise.add(np.where(keep, contrast, np.nan), variance)

    def _loud(self) -> Script:
        host, book = self.host, self.host.book
        noise, _ = self._level()
        size = np.sqrt(np.nanmean(np.square(book.f0))) or np.nanmax(host.noise.size)
        r = min(float(np.sqrt(np.nanmean(np.square(noise))) / size), 1.0)
        tau = max(0.1 * r ** (1 / 3), 1e-5)
        wide = 30 * r ** (1 / 3)
        if tau > 0.02:
            tau = 0.02
        book_rows = book.n_rows
        offsets = [book.request([Pair(CENTRE, 0.0)])]
        steps = [tau, 2 * tau, 0.2, wide if wide < 0.07 else 0.2]
        spare = self.budget - book.n_rows - 1
        for part in self._pairs(steps[: max(min(spare // 2, 4), 2)]):
            offsets.append(part)
        yield np.concatenate(offsets)
        again = book.values(host.rows)[book_rows]
        self.random = bool((again != book.f0)[np.isfinite(again)].any())
        if self.random:
            host.noise.add(again - book.f0, 2.0)
        self._contrasts(tau, 2 * tau)

    def _contrasts(self, t: float, twice: float, reset: bool = False) -> None:
        """Noise at the scale that will be used: quiet programs at 1e-8 may be loud at 1e-4."""
        host = self.host
        lines = host.book.lines(host.rows, [self.host.book.pilot])
        a = int(np.nanargmin(np.abs(lines.t[0] - t)))
        b = int(np.nanargmin(np.abs(lines.t[0] - twice)))
        ta, tb = lines.t[0, a], lines.t[0, b]
        r2 = (ta / tb) ** 2
        wider = Noise.empty(host.noise.count.size)
        wider.size, wider.least = host.noise.size, host.noise.least
        wider.add(lines.odd[0, a] - lines.odd[0, b], 0.5 / ta**2 + 0.5 / tb**2)
        wider.add(lines.even[0, a] - r2 * lines.even[0, b], 2 * (1 + r2**2) + 4 * (1 - r2) ** 2)
        if reset:
            host.noise = wider
            return
        old, new = self._level()[0], wider.level()[0]
        if np.exp(np.mean(np.log(new / old))) > 3:
            host.noise = wider
        else:
            host.noise.squares = host.noise.squares + wider.squares
            host.noise.count = host.noise.count + wider.count

    def _level(self) -> tuple[Array, Array]:
        if self.host.known_noise is not None:
            noise = np.maximum(self.host.known_noise, self.host.noise.least)
            return noise, np.full(noise.size, np.inf)
        return self.host.noise.level()

    def _learn(self) -> Learned:
        host, book = self.host, self.host.book
        self._sizes()
        noise, dof = self._level()
        lines = book.lines(host.rows, [self.host.book.pilot])
        states = host.states
        weights = states.prior(0.0 if self.random else 0.1)[None]
        start = weights
        slope = first_slope(lines, noise)
        slope = np.abs(slopes(lines, states, noise, slope, start))
        slope = slope + 1e-3 * slope.max() + 1e-300
        odd, even = likelihood(lines, states, noise, slope)
        weights = posterior(start, odd, even, states)
        moved = max(int((np.abs(book.direction).max(axis=0) > 0).sum()), 1)
        # inputs moved together bend up to sqrt(m) faster than one of them
        prior = states.blur(weights[0], 0.25 * np.log10(moved))
        prior = 0.95 * prior + 0.05 * states.prior(1e-5)
        if book.pilot != PILOT:
            # the pilot's pairs are the input's own, and are heard again as such
            prior = start[0]
        typical = slope[0] / np.sqrt(np.square(book.direction[0]).sum() or 1.0)
        return Learned(
            noise,
            dof,
            prior,
            typical,
            self.noisy,
            self.random,
            self.floor,
            False,
            tuple(self.remarks),
        )


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
    return out + 1e-3 * out.max() + 1e-300


def mixture(
    lines: Lines, states: States, noise: Array, slope: Array, weights: Array
) -> tuple[Array, Array, Array, Array]:
    """Slopes (N, L), unit variances, variances and 95 % half-widths of the mixture of states."""
    shape = (noise.size, lines.t.shape[0])
    out = [np.empty(shape) for _ in range(4)]
    kernels.estimate(
        lines.t,
        lines.factor,
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
