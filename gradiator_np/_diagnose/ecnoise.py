"""The noise of a function from its values on one line: ECNoise, and the search for a spacing.

J. J. More and S. M. Wild, Estimating computational noise, SIAM J. Sci. Comput. 33 (2011) 1292.
Differences of order j of k equispaced values lose what is smooth and keep what is noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np import _checks as checks
from gradiator_np._typing import Array, Mask

MIN_POINTS = 5
# Three levels that agree within this factor, whose differences change sign: noise (section 5).
AGREEMENT = 4.0
# Values that range over more than this share of the largest: the spacing is too large.
RANGE = 0.1
#: What the spacing is multiplied with, or divided by, where it was too small or too large.
FACTOR = 100.0
MAX_TRIES = 5


class NoiseVerdict(StrEnum):
    """What the values on a line tell about the noise of one output."""

    DETECTED = "detected"
    #: Half of the values equal their neighbours.
    TOO_SMALL = "too_small"
    #: The values differ too much, or no three levels of the table agree.
    TOO_LARGE = "too_large"
    #: A value is missing.
    FAILED = "failed"
    #: All values are equal: no noise, or the output does not depend on the line.
    CONSTANT = "constant"
    #: High differences vanish to rounding: a polynomial without noise.
    EXACT = "exact"
    #: The search for a spacing ended; the noise is an upper bound.
    BOUND = "bound"


@dataclass(frozen=True, slots=True)
class NoiseTable:
    """One difference table per output.

    Attributes
    ----------
    levels : array, shape (k - 1, n)
        Estimate of the noise from the differences of each order 1 .. k - 1.
    order : array of int, shape (n,)
        The order whose estimate is taken; 0 where none is.
    noise : array, shape (n,)
        That estimate; nan where no three orders agree.
    verdict : array of str, shape (n,)
        Values of ``NoiseVerdict``.
    """

    levels: Array
    order: NDArray[np.intp]
    noise: Array
    verdict: NDArray[Any]


@lru_cache(maxsize=64)
def level_dof(points: int, order: int) -> float:
    """Degrees of freedom of one level's estimate under white noise.

    The squares averaged are correlated: tr(G)^2 / tr(G^2) with G the covariance of the
    differences (Satterthwaite's approximation).
    """
    d = np.diff(np.eye(points), order, axis=0)
    g = d @ d.T
    return float(np.trace(g) ** 2 / np.square(g).sum())


def ecnoise(values: NDArray[Any]) -> NoiseTable:
    """Noise from values at equispaced points on a line.

    Parameters
    ----------
    values : array, shape (k, n)
        k >= 5 (7 recommended) values of n outputs, in order along the line; complex where the
        outputs are, the noise is then that of the complex number.

    Returns
    -------
    NoiseTable

    Notes
    -----
    Level j is gamma_j mean |Delta^j f|^2, gamma_j = (j!)^2 / (2j)!, whose expectation is the
    variance of white noise. Taken is the first level where the estimates of three successive
    orders agree within a factor of 4 and the differences change sign (paper, section 5).
    """
    k = len(values)
    if k < MIN_POINTS:
        raise ValueError(f"a difference table needs at least {MIN_POINTS} points, got {k}")
    n = values.shape[1]
    good = np.isfinite(values).all(0)
    f = np.where(good, values, 0)
    size = np.abs(f).max(0)
    first = np.diff(f, axis=0)
    levels, sign, gamma, d = np.empty((k - 1, n)), np.empty((k - 1, n), bool), 1.0, f
    for j in range(1, k):
        d = np.diff(d, axis=0)
        gamma *= j / (2 * (2 * j - 1))
        levels[j - 1] = np.sqrt(gamma * np.mean(np.abs(d) ** 2, 0))
        sign[j - 1] = _changes_sign(d)
    order = np.zeros(n, dtype=np.intp)
    for j in range(k - 3, 0, -1):
        three = levels[j - 1 : j + 2]
        agree = (three.max(0) <= AGREEMENT * three.min(0)) & sign[j - 1]
        order[agree] = j
    noise = np.where(order > 0, levels[order - 1, np.arange(n)], np.nan)
    spread = np.hypot(np.ptp(f.real, 0), np.ptp(f.imag, 0))
    # Rounding of the values themselves leaves this much in a difference table.
    rounding = np.finfo(float).eps * size
    verdict = np.select(
        [
            ~good,
            (first == 0).all(0),
            (first == 0).sum(0) >= k / 2,
            spread > RANGE * size,
            order > 0,
            levels[-1] <= rounding,
        ],
        [
            NoiseVerdict.FAILED,
            NoiseVerdict.CONSTANT,
            NoiseVerdict.TOO_SMALL,
            NoiseVerdict.TOO_LARGE,
            NoiseVerdict.DETECTED,
            NoiseVerdict.EXACT,
        ],
        NoiseVerdict.TOO_LARGE,
    )
    return NoiseTable(levels, order, np.where(good, noise, np.nan), verdict)


def _changes_sign(d: NDArray[Any]) -> Mask:
    """Whether differences (r, n) have both signs, in their real or imaginary parts."""
    both = (d.real.min(0) < 0) & (d.real.max(0) > 0)
    if np.iscomplexobj(d):
        both |= (d.imag.min(0) < 0) & (d.imag.max(0) > 0)
    return np.asarray(both)


class NoiseSearch:
    """Ask/tell search for a spacing at which the noise of every output shows.

    Parameters
    ----------
    centre : array, shape (n,)
        The value at the centre of the line.
    spacing : float
        First spacing between points, in units of the line's direction.
    points : int
        Values per line, odd, so that the centre is one of them.
    most : float
        Largest spacing to try.

    Attributes
    ----------
    noise, dof, spacing : array, shape (n,)
        The answer so far; nan where there is none.
    verdict : array of str, shape (n,)
    levels : array, shape (points - 1, n)
        The table at the spacing that was taken (of the last line without failures, where none was).
    """

    def __init__(
        self, centre: NDArray[Any], spacing: float, points: int = 7, most: float = np.inf
    ) -> None:
        if checks.integer(points, "points", MIN_POINTS) % 2 == 0:
            raise ValueError(f"points={points} must be odd and at least {MIN_POINTS}; 7 is usual")
        if not 0 < checks.real(spacing, "h") < np.inf:
            raise ValueError(f"the spacing h must be positive and finite, got {spacing}")
        n = len(centre)
        self.points = points
        self.noise, self.dof, self.spacing = (np.full(n, np.nan) for _ in range(3))
        self.verdict = np.full(n, NoiseVerdict.FAILED, dtype="U9")
        self.levels = np.full((points - 1, n), np.nan)
        self._centre = centre
        self._next: float | None = min(spacing, most)
        self._most = most
        self._low, self._high = 0.0, np.inf  # found too small, found too large
        self._tries = 0
        self._open = np.ones(n, dtype=bool)
        self._still = np.zeros(n)  # largest spacing so far at which values did not change
        #: Noise by a table that agrees although its values range too widely, and its order.
        self._candidate, self._candidate_order = np.full(n, np.nan), np.zeros(n, dtype=np.intp)

    def ask(self) -> Array | None:
        """Positions along the line, in order, without the centre; None at the end."""
        if self._next is None:
            return None
        half = self.points // 2
        return self._next * np.concatenate([np.arange(-half, 0.0), np.arange(1.0, half + 1)])

    def tell(self, values: NDArray[Any]) -> None:
        """Take the values (q, n) at the positions last asked for."""
        assert self._next is not None
        values = np.insert(values, self.points // 2, self._centre, axis=0)
        table, h = ecnoise(values), self._next
        self._tries += 1
        self._distrust(table, np.abs(np.diff(values, axis=0)), h)
        self._take(table, h)
        self._next = self._step(table, h)
        if self._next is None:
            self._close()

    def _distrust(self, table: NoiseTable, change: Array, h: float) -> None:
        """Turn down noise that contradicts a smaller spacing at which nothing changed.

        Printed or rounded values at nearly a whole number of quanta apart have equal differences,
        and only floating-point rounding is left above the first order (seen: exp printed to 6
        digits, noise "detected" as 2e-16 where it is 3e-6).
        """
        still = np.isin(table.verdict, (NoiseVerdict.TOO_SMALL, NoiseVerdict.CONSTANT))
        with np.errstate(invalid="ignore"):
            expected = change.mean(0) * (self._still / h)
            aliased = ~still & (expected > 10 * np.fmax(table.noise, 0.0))
        table.verdict[aliased] = NoiseVerdict.TOO_SMALL
        self._still[still & self._open] = h

    def _take(self, table: NoiseTable, h: float) -> None:
        """Close the outputs whose noise shows at this spacing."""
        found = table.verdict == NoiseVerdict.DETECTED
        # A function smaller than its own noise ranges widely at every spacing; what a hundredth
        # of the spacing does not change is noise.
        wide = (table.verdict == NoiseVerdict.TOO_LARGE) & (table.order > 0)
        with np.errstate(invalid="ignore"):
            factor = np.fmax(table.noise / self._candidate, self._candidate / table.noise)
            same = wide & (factor <= AGREEMENT)
        new = self._open & (found | same)
        # A line with a failed run bounds the spacing, and says nothing against other lines.
        told = self._open & (table.verdict != NoiseVerdict.FAILED)
        self.verdict[told] = table.verdict[told]
        self.levels[:, told] = table.levels[:, told]
        self.verdict[new] = NoiseVerdict.DETECTED
        self.noise[new] = table.noise[new]
        self.spacing[new] = h
        self.dof[new] = [level_dof(self.points, int(j)) for j in table.order[new]]
        smaller = wide & ~(table.noise >= self._candidate)
        self._candidate[smaller] = table.noise[smaller]
        self._candidate_order[smaller] = table.order[smaller]
        self._open &= ~new

    def _step(self, table: NoiseTable, h: float) -> float | None:
        """The next spacing: what most of the open outputs want; None at the end."""
        if not self._open.any() or self._tries >= MAX_TRIES:
            return None
        small = np.isin(
            table.verdict, (NoiseVerdict.TOO_SMALL, NoiseVerdict.CONSTANT, NoiseVerdict.EXACT)
        )
        if small[self._open].mean() > 0.5:
            self._low = max(self._low, h)
        else:
            self._high = min(self._high, h)
        if self._low > 0 and self._high < np.inf:
            between = float(np.sqrt(self._low * self._high))
            return between if self._low < between / 2 else None
        # Where nothing at all has moved, there is nothing to overshoot.
        dead = (table.verdict[self._open] == NoiseVerdict.CONSTANT).all()
        new = self._low * FACTOR ** (1 + dead) if self._low > 0 else self._high / FACTOR
        if new > self._most:
            return None if self._low > self._most / 2 else self._most
        return new

    def _close(self) -> None:
        """Outputs that no spacing settled."""
        bound = self._open & (self._candidate > 0)
        self.noise[bound] = self._candidate[bound]
        self.dof[bound] = [level_dof(self.points, int(j)) for j in self._candidate_order[bound]]
        self.verdict[bound] = NoiseVerdict.BOUND
        silent = self._open & np.isin(self.verdict, (NoiseVerdict.CONSTANT, NoiseVerdict.EXACT))
        self.noise[silent] = 0.0
        self.dof[silent] = np.inf
