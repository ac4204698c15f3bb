"""Central differences along lines through x: the data of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.model.quantization import decade

# The one-sided rule (4 f(s) - f(2s) - 3 f0) / (2s) has a noise variance of 6.5 sigma^2 / s^2: that
# of a pair at sqrt(2) s, whose noise is 26 times as large.
SIDED_REACH = 2**0.5
SIDED_NOISE = 26.0
# Steps that agree to this are one step to the model.
SAME_STEP = 1e-3
# The nearest pair is one that worked, of those that are nearest to this relative distance.
NEAREST = 1e-2
# Standard deviations by which a second difference stands out of its noise.
SEEN = 3.0
# Squared difference of two repetitions, in units of its variance, that noise exceeds once in 2000.
UNLIKELY = 12.1


@dataclass(frozen=True, slots=True)
class NoiseGrowth:
    """How the noise of outputs grows with their values.

    Attributes
    ----------
    reference : array, shape (N,), or None
        Sizes at x of outputs whose noise is relative to them; None where noise is absolute.
    digits : array, shape (N,), or None
        Powers of ten at x of printed outputs whose spacing grows with them, 0 for the others; None
        where there is none.
    least : array, shape (N,), or float
        Least variance, relative to that at x: rounding's, where noise is relative to a value of 0.
    """

    reference: Array | None = None
    digits: Array | None = None
    least: Array | float = 1e-6

    def ratio(self, a: Array, b: Array) -> Array:
        """Mean variance of the noise of two values (.., N), relative to that at x."""
        out = np.ones(np.broadcast_shapes(a.shape, b.shape))
        if self.reference is not None:
            mean = (np.square(a) + np.square(b)) / 2
            out = np.maximum(mean / np.square(self.reference), self.least)
        if self.digits is not None:
            for value in (a, b):
                known = self.digits > 0
                times = np.maximum(decade(value) / np.where(known, self.digits, 1.0), 1.0)
                out = out + np.where(known, (np.square(times) - 1) / 2, 0.0)
        return np.where(np.isfinite(out), out, 1.0)


@dataclass(frozen=True, slots=True)
class CentralDifferences:
    """What the pairs of some lines gave: L lines, P pairs at most, N real outputs.

    Attributes
    ----------
    t : array, shape (L, P)
        Steps that act in the model; nan where there is no pair.
    noise_factor : array, shape (L, P)
        Variance of the noise of this rule, relative to a central pair's.
    noise_ratio : array, shape (L, P, N)
        Variance of the noise where a pair was run, relative to that at x.
    slope : array, shape (L, P, N)
        (f+ - f-) / 2t; nan where a run failed.
    second : array, shape (L, P, N)
        Second difference f+ + f- - 2 f0; nan where a run failed.
    sided : array of bool, shape (L, P)
        One-sided rules.
    """

    t: Array
    noise_factor: Array
    noise_ratio: Array
    slope: Array
    second: Array
    sided: NDArray[np.bool_]

    def take(self, lines: slice | NDArray[Any] | list[Any]) -> CentralDifferences:
        """Some of the lines."""
        return CentralDifferences(*(getattr(self, a)[lines] for a in self.__slots__))

    def take_pairs(self, pairs: Index) -> CentralDifferences:
        """The same pairs of every line (L, K), or (K,) of all."""
        line = np.arange(len(self.t))[:, None]
        pick = np.broadcast_to(pairs, (len(self.t), pairs.shape[-1]))
        return CentralDifferences(*(getattr(self, a)[line, pick] for a in self.__slots__))

    def of_entries(self, line: Index, output: Index) -> CentralDifferences:
        """Single outputs (K,) of single lines (K,), each as a line of its own."""
        ratio, slope, second = (
            a[line, :, output][..., None] for a in (self.noise_ratio, self.slope, self.second)
        )
        return CentralDifferences(
            self.t[line], self.noise_factor[line], ratio, slope, second, self.sided[line]
        )

    def take_outputs(self, outputs: slice) -> CentralDifferences:
        """Some of the outputs."""
        return replace(
            self,
            noise_ratio=self.noise_ratio[..., outputs],
            slope=self.slope[..., outputs],
            second=self.second[..., outputs],
        )

    def within(self, reach: Array) -> CentralDifferences:
        """Without the pairs of each line beyond ``reach`` (L,)."""
        beyond = self.t > reach[:, None]
        lost = beyond[..., None]
        return replace(
            self,
            t=np.where(beyond, np.nan, self.t),
            slope=np.where(lost, np.nan, self.slope),
            second=np.where(lost, np.nan, self.second),
        )

    def by_point(self, batch: int) -> CentralDifferences:
        """Every point of a batch as a line of its own: L B lines of N / B outputs each."""
        if batch == 1:
            return self

        def of_outputs(a: Array) -> Array:
            each = a.reshape(*a.shape[:2], batch, -1).transpose(0, 2, 1, 3)
            return np.ascontiguousarray(each.reshape(-1, a.shape[1], each.shape[-1]))

        ratio, slope, second = map(of_outputs, (self.noise_ratio, self.slope, self.second))
        return CentralDifferences(
            np.repeat(self.t, batch, axis=0), np.repeat(self.noise_factor, batch, axis=0), ratio,
            slope, second, np.repeat(self.sided, batch, axis=0),
        )  # fmt: skip

    def basis(self, terms: int) -> Array:
        """What the higher terms of the model add to every slope, (L, P, Q); see `slope_basis`."""
        return slope_basis(self.t, self.sided, terms)

    @property
    def n_pairs(self) -> Index:
        """Pairs of every line, shape (L,)."""
        return np.asarray(np.isfinite(self.t).sum(axis=1))

    def at(self, t: float) -> int:
        """The pair of the first line whose step is nearest to t."""
        failed = ~np.isfinite(self.slope[0]).any(axis=1)
        return int(np.nanargmin(np.abs(np.log(self.t[0] / t)) + NEAREST * failed))

    def curvature(self, noise: Array) -> Array:
        """Size (L, N) of f'' / 2: the largest that a pair shows beyond ``noise`` (L or 1, N)."""
        # a one-sided rule has half of it at the step that acts in the model
        square = np.square(self.t) * np.where(self.sided, 1.0, 2.0)
        level = SEEN * np.sqrt(6.0 * self.noise_ratio) * np.atleast_2d(noise)[:, None]
        seen = np.maximum(np.abs(self.second) - level, 0.0) / square[..., None]
        return np.asarray(np.nan_to_num(seen).max(axis=1))

    def nearest(self) -> tuple[Array, Array, Array]:
        """Step (L,), slope and second difference (L, N) of each line's pair of least step, of
        those that worked."""
        works = np.isfinite(self.slope).any(axis=2) & np.isfinite(self.t)
        at = np.argmin(np.where(works, self.t, np.inf), axis=1)
        line = np.arange(at.size)
        return self.t[line, at], self.slope[line, at], self.second[line, at]

    def sorted(self) -> CentralDifferences:
        """The pairs of every line from the nearest to the widest."""
        order = np.argsort(np.where(np.isfinite(self.t), self.t, np.inf), axis=1)
        return self.take_pairs(order)


def slope_basis(t: Array, sided: NDArray[np.bool_], terms: int) -> Array:
    """What a_3, a_5, .. (``terms`` of them) add to the slope of a pair, and where some pairs are
    one-sided a_4 and a_6 as well: shape (.., Q).

    (4 f(s) - f(2s) - 3 f0) / (2s) = g + sum_p (2 - 2^(p-1)) a_p s^(p-1), with s = t / sqrt 2: of
    the other sign than a central pair's, so that the two are not to be mixed up.
    """
    power = np.arange(2, 2 * terms + 1, 2)
    out = t[..., None] ** power
    if not sided.any():
        return np.asarray(out)
    power = np.concatenate([power, [3, 5]])
    out = np.concatenate([out, np.zeros((*t.shape, 2))], axis=-1)
    one = (2 - 2.0**power) * (t[..., None] / SIDED_REACH) ** power
    return np.asarray(np.where(sided[..., None], one, out))


def merge_repeats(view: CentralDifferences, noise: Array) -> CentralDifferences:
    """Repetitions of a step averaged.

    Equal rows would leave rounding where their difference should be, and rounding looks like
    information on the slope in states that bend early. Repetitions that differ by far more than
    ``noise`` (N,) are as good as their difference says: one of them was hit by an outlier.
    """
    alike = view.sided[:, :, None] == view.sided[:, None]
    twins = (np.abs(view.t[:, :, None] / view.t[:, None] - 1) < SAME_STEP) & alike
    if twins.sum() == np.isfinite(view.t).sum():
        return view
    t, factor, ratio, slope, second, sided = (getattr(view, a).copy() for a in view.__slots__)
    for a in range(1, t.shape[1]):
        for b in range(a):
            twin = (np.abs(t[:, a] / t[:, b] - 1) < SAME_STEP) & alike[:, a, b]
            if not twin.any():
                continue
            here = twin[:, None] & np.isfinite(slope[:, a])
            both = here & np.isfinite(slope[:, b])
            va, vb = factor[:, a, None] * ratio[:, a], factor[:, b, None] * ratio[:, b]
            off = np.square((slope[:, a] - slope[:, b]) * t[:, b, None] / noise) * 2 / (va + vb)
            share = np.where(both, vb / (va + vb), np.where(here, 1.0, 0.0))
            var = np.where(both, share * va * np.where(off > UNLIKELY, off, 1.0), vb)
            var = np.where(here & ~both, va, var)
            for part in (slope, second):
                change = np.where(share > 0, part[:, a] - part[:, b], 0.0)
                part[:, b] = np.where(share < 1, part[:, b] + share * change, part[:, a])
                part[twin, a] = np.nan
            fewer = factor[:, a] * factor[:, b] / (factor[:, a] + factor[:, b])
            factor[:, b] = np.where(both.any(axis=1), fewer, factor[:, b])
            ratio[:, b] = np.where(twin[:, None], var / factor[:, b, None], ratio[:, b])
            t[twin, a] = np.nan
    return CentralDifferences(t, factor, ratio, slope, second, sided)


def round_digit(a: Array) -> Array:
    """To one significant decimal digit."""
    a = np.asarray(a, float)
    size = np.abs(a)
    power = 10.0 ** np.floor(np.log10(np.where(size > 0, size, 1.0)))
    return np.where(size > 0, np.rint(a / power) * power, 0.0)
