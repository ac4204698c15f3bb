"""A Jacobian beside an estimate of it, entry by entry: what disagrees, what could be found."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradiator_np._results import JacobianEstimate
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers._solution import student_quantile

# Where smaller steps drown in noise, an accusation stands from so many times ``detectable`` on.
BEYOND_DOUBT = 5.0
# Share of what two looks differ by that may be left in the second one: truncation of first order
# falls to 1/4 at a quarter of the steps, and a third of the difference is left. Bars that miss
# truncation miss it at both steps: of right Jacobians of Mancino's function 11 in 100 were called
# wrong where p < 0.05 and half of the gap confirmed an entry, 2 where the level alpha did, none of
# 400 with this share on top.
LEFT = 1 / 3
# Share of the calls in which a mistake of the size ``detectable`` is found.
POWER = 0.95
# Entries that are smaller than this beside their row (in units of x) need not be known any better.
NEGLIGIBLE = 1e-6
# Nobody's mistake: differences of this share of the entry, and of y / x. Rounding inside of fun
# may exceed what its values show (seen: 15 standard errors, at 7e-12 of the largest entry).
ROUNDING = 1e-10


class Look(NamedTuple):
    """Given and estimated entries side by side, (..., n, m).

    Attributes
    ----------
    gap : array
        Given less estimated.
    unit, dof : array
        One standard error, and its degrees of freedom.
    p : array
        Two-sided p-value.
    tested : array of bool
        Which entries have one.
    """

    gap: NDArray[Any]
    unit: Array
    dof: Array
    p: Array
    tested: Mask

    @classmethod
    def of(cls, given: NDArray[Any], estimate: JacobianEstimate) -> Look:
        solution = estimate.solution
        half = solution.interval(0.95)
        dof = np.broadcast_to(solution.dof[..., None], half.shape)
        tested = np.isfinite(half) & (dof > 0)
        dof = np.where(tested, np.minimum(dof, 1e8), 1.0)
        # One standard error, by the interval: a mixture's is not its standard deviation.
        unit = np.where(tested, half, 1.0) / student_quantile(0.975, dof)
        share = max(ROUNDING, float(np.finfo(given.dtype).eps))
        unit = np.hypot(unit, share * (np.abs(given) + _natural(estimate)))
        gap = given - solution.coef
        return cls(gap, unit, dof, _two_sided(gap, unit, dof), tested)

    def wider(self, by: Array) -> Look:
        """The same with so much more of a standard error, as a root of squares."""
        unit = np.hypot(self.unit, by)
        return self._replace(unit=unit, p=_two_sided(self.gap, unit, self.dof))

    def detectable(self, alpha: float) -> Array:
        """The mistake that is found with probability ``POWER``, by the first step of Holm's."""
        level = 1 - alpha / (2 * max(int(self.tested.sum()), 1))
        t = student_quantile(level, self.dof) + student_quantile(POWER, self.dof)
        return np.where(self.tested, t * self.unit, np.inf)


class Comparison(NamedTuple):
    """What one look says: adjusted p-values, wrong entries, mistakes that would be found."""

    look: Look
    adjusted: Array
    wrong: Mask
    detectable: Array

    @classmethod
    def of(cls, look: Look, alpha: float) -> Comparison:
        adjusted = _holm(look.p, look.tested)
        return cls(look, adjusted, look.tested & (adjusted < alpha), look.detectable(alpha))

    def confirmed_by(self, second: Look, alpha: float) -> Comparison:
        """What is left after a second look at smaller steps, a test of its own at level alpha.

        Truncation would have shrunk, a wiggle of f would have changed: the second look is wider by
        what the first one may have left of its own. Where it is hidden in its own noise,
        accusations stand that are far beyond any doubt, and the others cannot be told.
        """
        before, after = self.look.gap, second.gap
        again = Comparison.of(second.wider(LEFT * np.abs(after - before)), alpha)
        unit = np.where(second.tested, second.unit, np.inf)
        size = np.abs(before)
        same = again.wrong & ((before.conj() * after).real > 0.5 * size**2)
        blind = 2 * unit > 0.25 * size
        stands = same | (blind & (size > BEYOND_DOUBT * self.detectable))
        dropped = self.wrong & ~stands
        adjusted, detectable = self.adjusted.copy(), self.detectable.copy()
        adjusted[dropped] = 1.0
        detectable[dropped] = np.where(blind, np.inf, again.detectable)[dropped]
        return self._replace(adjusted=adjusted, wrong=self.wrong & stands, detectable=detectable)


def entry_size(given: NDArray[Any], estimate: JacobianEstimate) -> Array:
    """What a share of an entry is taken of: itself, or of its row where it is 0."""
    frame = estimate.frame
    assert frame.x is not None
    assert frame.step is not None
    step = np.where(np.isfinite(frame.step), np.abs(frame.step), 1.0)
    unit = np.where(frame.x != 0, np.abs(frame.x), step)[..., None, :]
    entry = np.abs(given)
    row = (np.maximum(entry, np.abs(estimate.solution.coef)) * unit).max(-1, keepdims=True) / unit
    return np.asarray(np.where(entry == 0, row, np.maximum(entry, NEGLIGIBLE * row)))


def _natural(estimate: JacobianEstimate) -> Array:
    """|y / x|, 0 where x is: what an entry is measured against, (..., n, m)."""
    frame = estimate.frame
    assert frame.x is not None
    assert frame.y is not None
    x = np.abs(frame.x)[..., None, :]
    with np.errstate(divide="ignore"):
        return np.asarray(np.abs(frame.y)[..., :, None] * np.where(x > 0, 1 / x, 0))


def _two_sided(gap: NDArray[Any], unit: Array, dof: Array) -> Array:
    from scipy.special import stdtr

    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(gap != 0, np.abs(gap) / unit, 0.0)
    return np.asarray(2 * stdtr(dof, -t))


def _holm(p: Array, tested: Mask) -> Array:
    """Adjusted p-values; nan where not tested."""
    q = p[tested]
    order = np.argsort(q)
    adjusted = np.empty_like(q)
    adjusted[order] = np.maximum.accumulate(q[order] * (q.size - np.arange(q.size)))
    out = np.full(p.shape, np.nan)
    out[tested] = np.minimum(adjusted, 1.0)
    return out
