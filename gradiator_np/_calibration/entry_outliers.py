r"""Single residuals of single runs that the other runs contradict, and what these say in their place.

An entry is tested by its leave-one-out residual, externally studentised: the variance is that of
its residual without it, moderated by that of all residuals (Smyth, Stat. Appl. Genet. Mol. Biol. 3
(2004) 3, eqs. 4 to 7), and no less than what the other residuals of its run are off by. Replaced
by the prediction of the others, it leaves curvature, noise and coefficients as if it were not
there (Dubrule, Math. Geol. 15 (1983) 687), and all residuals share one decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import polygamma, psi, stdtrit

from gradiator_np._calibration.kriging import Kriging
from gradiator_np._typing import Array, Mask

#: Probability that a model of normal residuals has an entry replaced (by Bonferroni).
import os
FALSE_ALARMS = float(os.environ.get('FA','1e-3'))
MATERIAL = float(os.environ.get('MAT','1'))
if 1: pass
#: Fewer residuals than this do not tell how much one may differ from the others, ...
LEAST_RESIDUALS = 5
#: ... and fewer contrasts not which run of one is off.
LEAST_CONTRASTS = 2
#: Where more of a run is off than this share, the run is, or the model.
MOST_OF_A_RUN = 0.25
#: Passes: curvature and noise follow what is replaced.
PASSES = 4


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of residuals about the model: scaled inverse chi-squared, by all residuals.

    Attributes
    ----------
    variance, dof : float
        Its scale, and how alike they are: as so many degrees of freedom for each residual.
    runs : array, shape (k,)
        Mean square of what each run is off by, at least 1.
    """

    variance: float
    dof: float
    runs: Array

    @classmethod
    def of(cls, left: Array, own: int, share: Array) -> Spread:
        """By quadratic forms (n,) without their largest entry, and the entries' shares (k, n)."""
        logs = np.log(np.maximum(left, 1e-290) / own)
        middle = float(np.median(logs))
        scatter = 1.4826 * float(np.median(np.abs(logs - middle)))
        dof = _inverse_trigamma(scatter**2 - float(polygamma(1, 0.5 * own)))
        bias = _log_bias(own) - _log_bias(dof)
        variance = float(np.exp(middle - bias))
        each = (dof * variance + left) / (dof + own)
        off = np.quantile(share / each, 1.0 - MOST_OF_A_RUN, axis=1) / float(stdtrit(1e9, 1 - MOST_OF_A_RUN / 2)) ** 2
        return cls(variance, dof, np.maximum(off, 1.0))

    def moderated(self, left: Array, own: int) -> Array:
        return (self.dof * self.variance + left) / (self.dof + own)


def _log_bias(dof: float) -> float:
    """Mean of log(chi-squared / dof)."""
    return float(psi(0.5 * dof) - np.log(0.5 * dof))


def _inverse_trigamma(excess: float) -> float:
    """d with trigamma(d / 2) = excess: Smyth's Newton steps; 1e3 at most."""
    if excess <= 2e-3:
        return 1e3
    y = 0.5 + 1.0 / excess
    for _ in range(8):
        tri = float(polygamma(1, y))
        y += tri * (1.0 - tri / excess) / float(polygamma(2, y))
    return min(2.0 * y, 1e3)


def found_outliers(model: Kriging, y: Array) -> tuple[Mask, Array]:
    """Entries of y (k, n) that are off, and y with these replaced."""
    k, n = y.shape
    none = np.zeros((k, n), bool)
    d = model.dof
    weights, power, precision = model.whitened(y)
    mean_square = np.einsum("kn,kn->k", model.y, model.y) / n
    material = MATERIAL * np.maximum(mean_square, np.median(mean_square))
    share = np.square(weights) / precision
    if (share <= material[:, None] * precision).all():
        return none, y
    top = share.argmax(0)
    each = np.arange(n)
    largest = share[top, each]
    left = np.maximum(power - largest, 0.0)
    spread = Spread.of(left, d - 1, share)
    limit = _limit(spread.dof + d - 1, k * n)
    suspect = share[top, each] > material[top] * np.broadcast_to(precision, (k, n))[top, each]
    suspect &= largest > limit * spread.runs[top] * spread.moderated(left, d - 1)
    if not suspect.any():
        return none, y
    mask, filled = none, y.copy()
    for i in np.flatnonzero(suspect).tolist():
        chosen, change = _of_one(model.precision_matrix(i), weights[:, i], power[i], d, spread,
                                 material, k * n)
        mask[chosen, i] = True
        filled[chosen, i] -= change
    wrong = mask.mean(1) > MOST_OF_A_RUN
    mask[wrong], filled[wrong] = False, y[wrong]
    return mask, filled


def _limit(dof: float, tests: int) -> float:
    return float(stdtrit(dof, 1.0 - 0.5 * FALSE_ALARMS / tests)) ** 2


def _of_one(p: Array, w: Array, power: float, d: int, spread: Spread, material: Array, tests: int):
    chosen: list[int] = []
    change = np.zeros(0)
    first = np.diagonal(p).copy()
    rest, diagonal = w, first
    while d - len(chosen) >= LEAST_CONTRASTS:
        own = d - len(chosen) - 1
        told = diagonal > 1e-8 * first
        told[chosen] = False
        share = np.where(told, np.square(rest) / np.where(told, diagonal, 1.0), 0.0)
        j = int(share.argmax())
        left = max(power - share[j], 0.0)
        limit = _limit(spread.dof + own, tests) * spread.runs[j]
        off = share[j] / diagonal[j]
        if share[j] <= limit * spread.moderated(left, own) or off <= material[j]:
            break
        chosen.append(j)
        power = left
        across = p[:, chosen]
        inverse = np.linalg.inv(across[chosen])
        change = inverse @ w[chosen]
        rest = w - across @ change
        diagonal = first - np.einsum("ka,ab,kb->k", across, inverse, across)
    return chosen, change


def without_outliers(kriging: Callable[[Array, bool], Kriging], y: Array) -> tuple[Kriging, Mask | None]:
    found = kriging(y, False)
    if y.shape[1] < LEAST_RESIDUALS:
        return found, None
    coarse = found.dof < LEAST_CONTRASTS
    model = kriging(y, True) if coarse else found
    if model.dof < LEAST_CONTRASTS:
        return found, None
    mask, filled = np.zeros(y.shape, bool), y
    for _ in range(PASSES):
        now, filled = found_outliers(model, y)
        if (now == mask).all():
            break
        mask, model = now, kriging(filled, coarse)
    if coarse and mask.any():
        model = kriging(filled, False)
    return found if not mask.any() else model, mask if mask.any() else None
