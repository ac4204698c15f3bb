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
# The pilot's widest pair: where a function bends on the scale of x, this shows it.
WIDE = 0.2


class Quarrel:
    """The part of a pilot that holds slopes at small and at wide steps against each other."""

    book: Pairs
    budget: int
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
