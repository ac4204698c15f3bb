"""The noise of each output from contrasts that hold nothing else, shrunk over outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, zeta

from gradiator_np._typing import Array

# f0 and a pair: E = f+ + f- - 2 f0 has variance 6 s^2.
SECOND_NOISE = 6.0
# Beyond so many degrees of freedom nothing changes.
MOST_DOF = 100.0
# By how much less the log variances must scatter for noise to count as relative to f.
MARGIN = 0.5
# Among so many contrasts one whose mean square is OUTLYING times the median's comes from an
# outlier: a single normal one does in 1e-3.
SEVERAL, OUTLYING = 6, 25.0


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """What the contrasts say.

    Attributes
    ----------
    noise, dof : array, shape (N,)
        Standard deviation of one evaluation, and degrees of freedom.
    relative : bool
        Whether noise grows with the size of an output.
    """

    noise: Array
    dof: Array
    relative: bool = False


@dataclass(frozen=True, slots=True)
class NoiseEstimator:
    """Sums of squares of contrasts that hold nothing but noise, per output; nothing is changed in
    place.

    Attributes
    ----------
    squares, count : array, shape (N,)
        Sums of squares, and their degrees of freedom.
    size : array, shape (N,)
        Size of each output, for noise that is relative to it.
    least : array, shape (N,)
        Rounding: no noise is less.
    printed : array of bool, shape (N,)
        Outputs whose ``least`` is the error of a known quantization.
    digits : array, shape (N,), or None
        Powers of ten that the spacing of printed outputs grows with, 0 for the others.
    rows : array, shape (K, N)
        The contrasts at unit variance, nan where there is none.
    """

    squares: Array
    count: Array
    size: Array
    least: Array
    printed: NDArray[np.bool_]
    rows: Array
    digits: Array | None = None

    @classmethod
    def empty(cls, n: int) -> NoiseEstimator:
        """Nothing known yet."""
        zero = np.zeros(n)
        return cls(zero, zero, zero, zero, zero > 0, np.empty((0, n)))

    @property
    def n(self) -> int:
        """Number of outputs."""
        return int(self.count.size)

    def reference(self, size: Array) -> Array:
        """Sizes that relative noise refers to: none is 0."""
        return np.asarray(np.maximum(size, 1e-9 * self.size + 1e-300))

    def cleared(self) -> NoiseEstimator:
        """Without contrasts."""
        zero = np.zeros(self.n)
        return replace(self, squares=zero, count=zero, rows=np.empty((0, self.n)))

    def at_least(self, least: Array) -> NoiseEstimator:
        """With a rounding error of at least that size."""
        return replace(self, least=np.maximum(self.least, least))

    def merge(self, other: NoiseEstimator) -> NoiseEstimator:
        """With the contrasts of another."""
        return replace(
            self,
            squares=self.squares + other.squares,
            count=self.count + other.count,
            rows=np.concatenate([self.rows, other.rows]),
        )

    def add(self, contrast: Array, variance: Array | float) -> NoiseEstimator:
        """With contrasts (..., N) whose variance is ``variance`` at unit noise; nan is left out."""
        rows = contrast / np.sqrt(variance)
        rows = np.where(np.isfinite(rows), rows, np.nan).reshape(-1, self.n)
        return replace(
            self,
            squares=self.squares + np.nansum(np.square(rows), axis=0),
            count=self.count + np.isfinite(rows).sum(axis=0),
            rows=np.concatenate([self.rows, rows[np.isfinite(rows).any(axis=1)]]),
        )

    def independent(self, sd: Array) -> float:
        """How many outputs of independent noise are worth as much as these: 1 where all wiggle in
        unison. Contrasts of N independent outputs have a squared cosine of 1 / N in the mean."""
        z = np.nan_to_num(self.rows / sd)
        norm = np.sqrt(np.square(z).sum(axis=1))
        z = z[norm > 0] / norm[norm > 0, None]
        k = len(z)
        if k < 2:
            return float(self.n)
        # both products have one Frobenius norm
        together = (np.square(z @ z.T if k < self.n else z.T @ z).sum() - k) / (k * (k - 1))
        return float(np.clip(1 / max(together, 1e-12), 1.0, self.n))

    def level(self) -> NoiseLevel:
        """Noise and degrees of freedom, shrunk over outputs.

        Empirical Bayes: variances of outputs are drawn from a scaled inverse chi-square (Smyth
        2004, doi 10.2202/1544-6115.1027), of the absolute or of the relative noise, whichever
        scatters less.
        """
        level = self._shrunk()
        known = self.printed & (level.noise <= 1.1 * self.least)
        return replace(level, dof=np.where(known, MOST_DOF, level.dof))

    def _without_outliers(self) -> tuple[Array, Array]:
        """Sums of squares and counts without contrasts that an outlier hit."""
        if len(self.rows) < SEVERAL:
            return self.squares, self.count
        size = np.sqrt(self.squares / np.maximum(self.count, 1.0))
        square = np.nanmean(np.square(self.rows / np.where(size > 0, size, 1.0)), axis=1)
        out = self.rows[square > OUTLYING * np.median(square)]
        count = self.count - np.isfinite(out).sum(axis=0)
        return self.squares - np.nansum(np.square(out), axis=0), count

    def _shrunk(self) -> NoiseLevel:
        squares, count = self._without_outliers()
        known = count > 0
        if not known.any():
            return NoiseLevel(np.maximum(self.least, np.finfo(float).tiny), np.zeros(self.n))
        own = np.where(known, count, 0.0)
        count = np.where(known, count, 1.0)
        var = np.maximum(squares / count, np.square(self.least))
        var = np.maximum(var, np.finfo(float).tiny)
        if var.size == 1:
            return NoiseLevel(np.sqrt(var), own)
        half = count[known] / 2
        shift, chance = np.log(half) - digamma(half), zeta(2, half).mean()

        def common_variance(unit: Array) -> tuple[float, Array, float]:
            """Excess scatter of the log variances, their common value, and its strength d0."""
            e = np.log(var[known] / unit[known]) + shift
            centre = e.mean()
            excess = np.square(e - centre).sum() / max(half.size - 1, 1) - chance
            if excess <= 0:
                return excess, np.exp(centre) * unit, np.inf
            d0 = 2 * _trigamma_inverse(excess)
            # e has the mean of log s0^2 + log(d0 / 2) - digamma(d0 / 2)
            return excess, np.exp(centre + digamma(d0 / 2) - np.log(d0 / 2)) * unit, d0

        absolute = common_variance(np.ones_like(var))
        to_size = common_variance(self.reference(self.size) ** 2)
        # absolute noise is called relative only where that is clearly better
        relative = to_size[0] < absolute[0] - MARGIN
        _, common, d0 = to_size if to_size[0] < absolute[0] else absolute
        d0 = min(d0, MOST_DOF)
        shrunk = (d0 * common + own * var) / (d0 + own)
        # the common value itself rests on all the other outputs together
        share = (self.independent(np.sqrt(shrunk)) - 1) / (own.size - 1)
        others = (own.sum() - own.mean()) * share
        dof = np.maximum(np.minimum(d0, others) + own, 1.0)
        return NoiseLevel(np.maximum(np.sqrt(shrunk), self.least), dof, bool(relative))


def _trigamma_inverse(y: float) -> float:
    """x with trigamma(x) = y, by Newton's iteration on 1 / trigamma (Smyth 2004, appendix).

    trigamma(x) = zeta(2, x), Hurwitz's, and its derivative is -2 zeta(3, x).
    """
    if y > 1e7:
        return float(1 / np.sqrt(y))
    if y < 1e-6:
        return 1 / y
    x = 0.5 + 1 / y
    for _ in range(20):
        tri = zeta(2, x)
        step = tri * (1 - tri / y) / (-2 * zeta(3, x))
        x += step
        if abs(step) < 1e-8 * x:
            break
    return float(x)
