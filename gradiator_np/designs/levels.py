"""How loud each output is: sums of squares of contrasts, shrunk over outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, zeta

Array = NDArray[np.float64]

# Beyond so many degrees of freedom nothing changes.
MOST_DOF = 100.0
# By how much less the log variances must scatter for noise to count as relative to f.
MARGIN = 0.5
# Among so many contrasts one whose mean square is WILD times the median's comes from an outlier: a
# single normal one does in 1e-3.
SEVERAL, WILD = 6, 25.0


@dataclass
class Noise:
    """Sums of squares of contrasts that hold nothing but noise, per output."""

    squares: Array
    count: Array
    size: Array
    least: Array
    #: The contrasts at unit variance (K, N), nan where there is none.
    rows: Array
    #: Outputs whose ``least`` is the error of a known rounding.
    printed: NDArray[np.bool_]
    relative: bool = False

    @classmethod
    def empty(cls, n: int) -> Noise:
        """Nothing known yet."""
        zero = np.zeros(n)
        return cls(zero, zero, zero, zero, np.empty((0, n)), zero > 0)

    def reference(self, size: Array) -> Array:
        """Sizes that relative noise refers to: none is 0."""
        return np.asarray(np.maximum(size, 1e-9 * self.size + 1e-300))

    def empty_like(self) -> Noise:
        """Nothing known yet of the same outputs."""
        return replace(
            self.empty(self.count.size), size=self.size, least=self.least, printed=self.printed
        )

    def clear(self) -> None:
        """Forget all contrasts."""
        self.squares = np.zeros(self.count.size)
        self.count = np.zeros(self.count.size)
        self.rows = np.empty((0, self.count.size))

    def merge(self, other: Noise) -> None:
        """Add the contrasts of another."""
        self.squares = self.squares + other.squares
        self.count = self.count + other.count
        self.rows = np.concatenate([self.rows, other.rows])

    def add(self, contrast: Array, variance: Array | float) -> None:
        """Contrasts (..., N) whose variance is ``variance`` at unit noise; nan is left out."""
        rows = contrast / np.sqrt(variance)
        rows = np.where(np.isfinite(rows), rows, np.nan).reshape(-1, self.count.size)
        self.squares = self.squares + np.nansum(np.square(rows), axis=0)
        self.count = self.count + np.isfinite(rows).sum(axis=0)
        self.rows = np.concatenate([self.rows, rows[np.isfinite(rows).any(axis=1)]])

    def independent(self, sd: Array) -> float:
        """How many outputs of independent noise are worth as much as these: 1 where all wiggle in
        unison. Contrasts of N independent outputs have a squared cosine of 1 / N in the mean."""
        n = self.count.size
        z = np.nan_to_num(self.rows / sd)
        norm = np.sqrt(np.square(z).sum(axis=1))
        z = z[norm > 0] / norm[norm > 0, None]
        k = len(z)
        if k < 2:
            return float(n)
        # both products have one Frobenius norm
        together = (np.square(z @ z.T if k < n else z.T @ z).sum() - k) / (k * (k - 1))
        return float(np.clip(1 / max(together, 1e-12), 1.0, n))

    def level(self) -> tuple[Array, Array]:
        """Noise and degrees of freedom, shrunk over outputs.

        Variances of outputs are drawn from a scaled inverse chi-square (Smyth 2004,
        doi 10.2202/1544-6115.1027), of the absolute or of the relative noise, whichever
        scatters less.
        """
        level, dof = self._shrunk()
        return level, np.where(self.printed & (level <= 1.1 * self.least), MOST_DOF, dof)

    def _sober(self) -> tuple[Array, Array]:
        """Sums of squares and counts without contrasts that an outlier hit."""
        if len(self.rows) < SEVERAL:
            return self.squares, self.count
        size = np.sqrt(self.squares / np.maximum(self.count, 1.0))
        loud = np.nanmean(np.square(self.rows / np.where(size > 0, size, 1.0)), axis=1)
        wild = self.rows[loud > WILD * np.median(loud)]
        count = self.count - np.isfinite(wild).sum(axis=0)
        return self.squares - np.nansum(np.square(wild), axis=0), count

    def _shrunk(self) -> tuple[Array, Array]:
        squares, count = self._sober()
        known = count > 0
        if not known.any():
            return np.maximum(self.least, np.finfo(float).tiny), np.zeros(self.least.size)
        own = np.where(known, count, 0.0)
        count = np.where(known, count, 1.0)
        var = np.maximum(squares / count, np.square(self.least))
        var = np.maximum(var, np.finfo(float).tiny)
        if var.size == 1:
            return np.sqrt(var), own
        best: tuple[float, Array, float] | None = None
        half = count[known] / 2
        shift, chance = np.log(half) - digamma(half), zeta(2, half).mean()
        for unit in (np.ones_like(var), self.reference(self.size) ** 2):
            e = np.log(var[known] / unit[known]) + shift
            centre = e.mean()
            excess = np.square(e - centre).sum() / max(half.size - 1, 1) - chance
            d0 = 2 * _trigamma_inverse(excess) if excess > 0 else np.inf
            # e has the mean of log s0^2 + log(d0 / 2) - digamma(d0 / 2)
            common = centre
            if np.isfinite(d0):
                common = centre + digamma(d0 / 2) - np.log(d0 / 2)
            if best is None or excess < best[0]:
                # the absolute hypothesis comes first, and keeps its place unless clearly worse
                self.relative = best is not None and excess < best[0] - MARGIN
                best = (excess, np.exp(common) * unit, d0)
        assert best is not None
        _, common_var, d0 = best
        d0 = min(d0, MOST_DOF)
        shrunk = (d0 * common_var + own * var) / (d0 + own)
        # the common value itself rests on all the other outputs together
        share = (self.independent(np.sqrt(shrunk)) - 1) / (own.size - 1)
        others = (own.sum() - own.mean()) * share
        return np.maximum(np.sqrt(shrunk), self.least), np.maximum(
            np.minimum(d0, others) + own, 1.0
        )


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
