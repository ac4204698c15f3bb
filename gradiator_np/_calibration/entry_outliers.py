"""Single residuals of single runs that the other runs contradict, replaced by what these say.

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
from scipy.special import chdtri, polygamma, psi, stdtrit

from gradiator_np._calibration.kriging import Kriging
from gradiator_np._typing import Array, Mask

#: Probability that a model of normal residuals has an entry replaced (by Bonferroni).
FALSE_ALARMS = 1e-5
#: Entries matter whose square is off by this many times the mean square of their run.
MATERIAL = 4.0
#: Fewer residuals than this do not tell how much one may differ from the others, ...
LEAST_RESIDUALS = 5
#: ... and fewer contrasts not which run of one is off.
LEAST_CONTRASTS = 2
#: Where more of a run is off than this share, the run is, or the model.
MOST_OF_A_RUN = 0.25
#: Entries of one residual that are tried: the number that are off is the largest one at which the
#: last is, since one may hide another (Rosner, Technometrics 25 (1983) 165).
MOST_OF_A_RESIDUAL = 4
#: Degrees of freedom of a variance that is known.
CERTAIN = 1e9
#: Residuals of sizes far apart have variances that underflow.
LEAST_VARIANCE = 1e-290
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
        logs = np.log(np.maximum(left, LEAST_VARIANCE) / own)
        middle = float(np.median(logs))
        scatter = 1.4826 * float(np.median(np.abs(logs - middle)))
        dof = _inverse_trigamma(scatter**2 - float(polygamma(1, 0.5 * own)))
        bias = _log_bias(own) - _log_bias(dof)
        variance = float(np.exp(middle - bias))
        each = np.maximum((dof * variance + left) / (dof + own), LEAST_VARIANCE)
        off = np.quantile(share / each, 1.0 - MOST_OF_A_RUN, axis=1)
        return cls(variance, dof, np.maximum(off / float(chdtri(1, MOST_OF_A_RUN)), 1.0))

    def moderated(self, left: Array, own: int) -> Array:
        """Variances by quadratic forms ``left`` of so many degrees of freedom."""
        found = (self.dof * self.variance + left) / (self.dof + own)
        return np.asarray(np.maximum(found, LEAST_VARIANCE))


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


def _material(y: Array) -> Array:
    """Squares (k,) below which an entry of a run matters little beside the others of it."""
    return np.asarray(MATERIAL * np.einsum("kn,kn->k", y, y) / y.shape[1])


def _may_have_outliers(model: Kriging) -> bool:
    """Whether anything is off by enough to matter: most models are done with by this."""
    return bool((np.square(model.leave_one_out_rows) > _material(model.y)[:, None]).any())


def found_outliers(model: Kriging, y: Array, filled: Array) -> tuple[Mask, Array]:
    """Entries of y (k, n) that are off, and y with these replaced.

    ``filled``: with those replaced that were found before.
    """
    k, n = y.shape
    none = np.zeros((k, n), bool)
    d = model.dof
    weights, power, precision = model.whitened(y)
    material = _material(filled)
    share = np.square(weights) / precision
    top = share.argmax(0)
    each = np.arange(n)
    largest = share[top, each]
    left = np.maximum(power - largest, 0.0)
    spread = Spread.of(left, d - 1, share)
    suspect = share[top, each] > material[top] * precision[top, each]
    suspect &= largest > _limit(CERTAIN, k * n) * spread.runs[top] * spread.variance
    if not suspect.any():
        return none, y
    mask, out = none, y.copy()
    test = _Test(d, spread, material, k * n)
    for i in np.flatnonzero(suspect).tolist():
        chosen, change = test.of_one(model.precision_matrix(i), weights[:, i], float(power[i]))
        mask[chosen, i] = True
        out[chosen, i] -= change
    wrong = mask.mean(1) > MOST_OF_A_RUN
    mask[wrong], out[wrong] = False, y[wrong]
    return mask, out


def _limit(dof: float, tests: int) -> float:
    return float(stdtrit(dof, 1.0 - 0.5 * FALSE_ALARMS / tests)) ** 2


@dataclass(frozen=True, slots=True)
class _Test:
    """Of one residual after the other, by d contrasts."""

    d: int
    spread: Spread
    material: Array
    tests: int

    def of_one(self, p: Array, w: Array, power: float) -> tuple[list[int], Array]:
        """Runs whose entries are off, the largest one first, and by how much.

        Parameters
        ----------
        p : array, shape (k, k)
            Precision of the contrasts.
        w : array, shape (k,)
            P y.
        power : float
            y'P y.
        """
        chosen: list[int] = []
        change, found, kept = np.zeros(0), 0, np.zeros(0)
        first = np.diagonal(p).copy()
        rest, diagonal = w, first
        for own in range(self.d - 1, max(0, self.d - 1 - MOST_OF_A_RESIDUAL), -1):
            # beside those left out a run may be the only one that tells of a direction
            told = diagonal > 1e-8 * first
            told[chosen] = False
            share = np.where(told, np.square(rest) / np.where(told, diagonal, 1.0), 0.0)
            j = int(share.argmax())
            if share[j] <= self.material[j] * diagonal[j]:
                break
            power = max(power - float(share[j]), 0.0)
            limit = _limit(self.spread.dof + own, self.tests) * self.spread.runs[j]
            is_off = share[j] > limit * self.spread.moderated(np.asarray(power), own)
            chosen.append(j)
            across = p[:, chosen]
            inverse = np.linalg.inv(across[chosen])
            change = inverse @ w[chosen]
            rest = w - across @ change
            diagonal = first - np.einsum("ka,ab,kb->k", across, inverse, across)
            if is_off:  # and those before, which this one may have hidden
                found, kept = len(chosen), change
        return chosen[:found], kept


def without_outliers(
    kriging: Callable[[Array, bool], Kriging], y: Array, one_noise: bool
) -> tuple[Kriging, Mask | None]:
    """The model of y (k, n) with entries that are off replaced, and which these are.

    Parameters
    ----------
    kriging : callable
        The model of some residuals, and whether slopes are taken to be alike: by that few runs are
        tested, whose contrasts do not tell which one of them is off.
    y : array, shape (k, n)
    one_noise : bool
        Whether the noise of all residuals is found as one: then the first test has curvature and
        noise of the quieter half of them, since the other may have the entries that are off.
    """
    found = kriging(y, False)
    if y.shape[1] < LEAST_RESIDUALS:
        return found, None
    coarse = found.dof < LEAST_CONTRASTS
    model = kriging(y, True) if coarse else found
    if model.dof < LEAST_CONTRASTS or not _may_have_outliers(model):
        return found, None
    if one_noise:
        _, power, _ = model.whitened(y)
        model = kriging(y[:, power <= np.median(power)], coarse)
    mask, filled = np.zeros(y.shape, bool), y
    for _ in range(PASSES):
        now, filled = found_outliers(model, y, filled)
        if (now == mask).all():
            break
        mask, model = now, kriging(filled, coarse)
    if not mask.any():
        return found, None
    return kriging(filled, False) if coarse else model, mask
