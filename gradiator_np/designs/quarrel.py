"""Slopes at two scales: is the slope at small steps the slope of the trend?"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.levels import Noise
from gradiator_np.designs.pairs import Lines, Pairs

Array = NDArray[np.float64]
Script = Generator[Array, None, None]

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
# Share of that which a term of fifth order does not explain.
FIFTH = 0.1
# Relative error of a slope below which no error bar is at stake that the status could save.
AT_STAKE = 1e-4
# Wiggles of fewer radians per unit t are seen by the wide pairs themselves.
FASTEST = 30.0
# The pilot's widest pair: where a function bends on the scale of x, this shows it.
WIDE = 0.2


class Quarrel:
    """The part of a pilot that holds slopes at small and at wide steps against each other."""

    book: Pairs
    budget: int
    most: int
    cap: float
    floor: float
    noisy: bool
    two_scales: bool
    doubt: Array | None

    @property
    def noise(self) -> Noise:
        """The contrasts collected so far."""
        raise NotImplementedError

    @noise.setter
    def noise(self, value: Noise) -> None:
        raise NotImplementedError

    def _view(self) -> Lines:
        raise NotImplementedError

    def _pairs(self, steps: list[float]) -> Script:
        raise NotImplementedError

    def _level(self) -> tuple[Array, Array]:
        raise NotImplementedError

    def _length(self) -> float:
        """Length of the direction, in units of the scales."""
        return float(np.sqrt(np.square(self.book.direction[0]).sum())) or 1.0

    @staticmethod
    def _at(view: Lines, t: float) -> int:
        """The pair whose step is nearest to t."""
        return int(np.nanargmin(np.abs(np.log(view.t[0] / t))))

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
        self._allow(2 * len(wanted))
        yield from self._pairs(wanted)
        if self._smooth(small):
            return
        self._allow(4)
        yield from self._pairs([WIDE / 4, 2 * WIDE])
        g = self._view().odd[0, small]
        if self._window(WIDE / 4, g) or self._window(WIDE / 2, g):
            return
        d = self._view().odd[0, self._at(self._view(), WIDE / 2)]
        # signs are random: what m slopes differ by together, each does by 1 / sqrt(m) of
        self.doubt = np.nan_to_num(np.abs(g - d)) / self._length()
        self.book.forget_steps(self.book.pilot, (WIDE / 4, WIDE / 2, 2 * WIDE))

    def _allow(self, more: int) -> None:
        self.budget = min(self.budget + more, self.most)

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
        """Whether slope, second and third derivative at a small step are those of the wide pairs.

        A wiggle of w radians per unit t changes f'' by w times what it changes the slope, and
        f''' by w^2 times: where these agree, so do the slopes. Over 148 points of 37 classical
        problems only Osborne's second, which bends at 0.08, is taken for a wiggle.
        """
        view = self._view()
        t, odd, even = view.t[0], view.odd[0], view.even[0]
        a, b = self._at(view, WIDE / 2), self._at(view, WIDE)
        if a == b or not np.isfinite(odd[[a, b]]).any():
            return True
        noise, g = self._level()[0], odd[small]
        weight = self._weights(g, odd[b])
        ta, tb, ts, tiny = t[a] ** 2, t[b] ** 2, t[small] ** 2, int(np.nanargmin(t))
        least = AT_STAKE**2 * _sum(weight * g**2)

        def quarrel(off: Array, sd: Array, change: Array, share: float, tell: float) -> bool:
            seen = _sum(weight * np.maximum(np.square(off) - 9 * sd**2, 0.0))
            return bool(seen > share**2 * _sum(weight * change**2) and seen > tell**2 * least)

        # the wide pairs extrapolated to 0 with a cubic term, against what is there; a function
        # that bends at rho leaves (0.1 / rho)^2 of the change from one to the other
        third = (odd[b] - odd[a]) / (tb - ta)
        off = g - (odd[a] - third * ta)
        if quarrel(off, noise * np.sqrt(1 / ts + 2 / ta), odd[b] - odd[a], SMOOTH, 1.0):
            return False
        bend, wider = even[a] / (2 * ta), even[b] / (2 * tb)
        off_even = even[small] / (2 * ts) - (tb * bend - ta * wider) / (tb - ta)
        if quarrel(off_even, np.sqrt(1.5) * noise / ts, wider - bend, SMOOTH, FASTEST / 2):
            return False
        if tiny == small:
            return True
        # what a fifth-order term leaves in the slope follows from what it leaves in f'''
        share = ta * tb / (ta + tb)
        # three times over: the noise is a guess from one contrast, and is divided by 1e-14 here
        sd = 3 * share * noise / (np.sqrt(2.0) * t[tiny] * ts)
        off_third = share * (third - (g - odd[tiny]) / ts)
        return not quarrel(off - off_third, sd, off, FIFTH, 5.0)

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
        # a wiggle that repeats within ``short`` is this loud at least
        least = np.maximum(noise, 0.1 * short * np.abs(g - trend))
        level = np.sqrt(np.maximum((np.square(1.2 * short * res) + even**2) / 2, least**2))
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
        self.noise.clear()
        for _ in range(2):
            # the mean of two squares
            self.noise.add(level, 1.0)
        self.two_scales = self.noisy = True
        self.floor = short
        self.book.forget(self.book.pilot, 0.99 * short)
        return True


def _sum(a: Array) -> float:
    """Sum of what is finite."""
    return float(np.where(np.isfinite(a), a, 0.0).sum())
