r"""Universal kriging with the likeliest curvature and noise: contrasts of some samples.

Restricted maximum likelihood: Patterson and Thompson, Biometrika 58 (1971) 545. Two-sided products
with the reflectors of one QR decomposition serve trend, contrasts and gain alike.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.linalg import lapack

from gradiator_np._calibration.triangles import regular_inverse
from gradiator_np._checks import EPS
from gradiator_np._typing import Array

#: Noise-to-curvature ratio sigma^2 / kappa^2: four points a decade of sigma / kappa.
RATIOS = 10.0 ** (np.arange(-56, 17) / 2.0)
#: log-sd of the curvature about the size of the residuals: one and a half decades.
PRIOR_SD = 1.5 * np.log(10.0)
#: One less the leverage of a sample, of which nothing but rounding is left below this: its entries
#: are 1e-16. (Taken for an outlier, and left out with what it alone told, it cost a fit its J.)
ALONE = 1e-20
#: Reflectors that are applied at once, and what LAPACK's ``dormqr`` keeps of them.
BLOCKED, TRIANGLES = 64, 64 * 65
#: Differences of nearest neighbours bound the noise: this quantile of them (the least one is low
#: by chance, and lower where the noise of the outputs is correlated). Without the bound a narrow
#: peak passes for noise: of 26 held-out problems 2 ended noise-free at a wrong point, with it none.
NEIGHBOUR_QUANTILE = 0.1
#: The chi-squared quantile that such a difference is set against.
CHI2_TAIL = 0.02
#: Neighbours closer than this, in radii, share what is repeatable of their noise.
DUPLICATE_DISTANCE = 0.01


def psi(t: Array) -> Array:
    """psi(t) = t^2/2 + t^3/6: within a trust region two orders are enough."""
    return t * t * (0.5 + t / 6.0)


class TrendReflectors:
    """QR decomposition of a linear trend, X = Q [R; 0], with Q kept as Householder reflectors.

    Its first ``rank`` columns span the trend, the others the contrasts that it does not reach.
    Q itself costs k^3 numbers' work to form and as much in each product (k samples).

    Attributes
    ----------
    rank : int
    back : array, shape (p, rank)
        X^+ = back Q1'.
    null : array, shape (p, p - rank)
        Coefficients that no sample tells.
    """

    def __init__(self, x: Array, tol: float = 1e-11) -> None:
        k, p = x.shape
        size = min(k, p)
        qr, self._tau, _, _ = lapack.dgeqrf(x, lwork=BLOCKED * max(k, p))
        self._reflectors = np.asfortranarray(qr[:, :size])
        top = np.triu(qr[:size])
        inverse = regular_inverse(top, tol)
        self._turn: Array | None = None  # of the first columns, where R is singular
        if inverse is not None:
            self.rank, self.back, self.null = p, inverse, np.zeros((p, 0))
        else:
            self._turn, s, vt = np.linalg.svd(top)
            self.rank = int((s > tol * s[0]).sum())
            self.back, self.null = vt[: self.rank].T / s[: self.rank], vt[self.rank :].T

    def _product(self, rows: Array, transposed: str) -> Array:
        """M Q or M Q' of rows (n, k)."""
        if not len(rows):
            return rows
        work = len(rows) * min(BLOCKED, len(self._tau)) + TRIANGLES
        return np.asarray(
            lapack.dormqr("R", transposed, self._reflectors, self._tau, rows, work)[0]
        )

    def coordinates(self, columns: Array) -> Array:
        """Q' M of columns (k, n)."""
        out = self._product(columns.T, "N").T
        if self._turn is not None:
            out[: len(self._turn)] = self._turn.T @ out[: len(self._turn)]
        return out

    def vectors(self, contrasts: Array) -> Array:
        """Q [0; V] of contrasts V (k - rank, n)."""
        out = np.zeros((len(self._reflectors), contrasts.shape[1]))
        out[self.rank :] = contrasts
        if self._turn is not None:
            out[: len(self._turn)] = self._turn @ out[: len(self._turn)]
        return self._product(out.T, "T").T


class Kriging:
    """Contrasts of some samples at their likeliest curvature and noise.

    Parameters
    ----------
    u : array, shape (k, m)
    y : array, shape (k, n)
    multiplicity : array, shape (n,)
        How many outputs a column of ``y`` stands for.
    noise : array, shape (n,), or None
        Standard deviation of one evaluation where it is known.
    prior_curvature : float
        What curvature is expected, in root mean squares of the values.
    second_difference : float or None
        Mean square of r(x - d) - 2 r(x) + r(x + d), which bounds the noise.
    slopes_are_alike : bool
        Slopes are random, of one size for all outputs, and nothing bends: for tests of samples
        that are too few for their curvature.

    Attributes
    ----------
    group : array of int, shape (n,)
        Which level of noise an output has.
    ratio : array, shape (g,)
        sigma^2 / kappa^2 of each level, and ...
    floor : float
        ... what rounding of the kernel adds to each, which is no noise of the runs.
    kappa2 : float
    weights : array, shape (k, n)
        Of the samples' kernels in the posterior mean.
    """

    def __init__(
        self,
        u: Array,
        y: Array,
        multiplicity: Array,
        noise: Array | None,
        prior_curvature: float,
        second_difference: float | None,
        slopes_are_alike: bool = False,
    ) -> None:
        self.u, self.y = u, y
        columns = np.ones((len(u), 1)) if slopes_are_alike else np.hstack([np.ones((len(u), 1)), u])
        self._trend = trend = TrendReflectors(columns)
        rank = trend.rank
        inner = u @ u.T
        # K is symmetric: its products from the left are those from the right, transposed
        kernel = trend.coordinates(trend.coordinates(inner if slopes_are_alike else psi(inner)).T)
        self._within, self._between = kernel[:rank, :rank], kernel[:rank, rank:]
        lam, self._modes = np.linalg.eigh(kernel[rank:, rank:])
        self._lam = lam = np.maximum(lam, 0.0)
        values = trend.coordinates(y)
        self._of_trend, along = values[:rank], self._modes.T @ values[rank:]
        levels, self.group = None, np.zeros(y.shape[1], np.intp)
        if noise is not None:
            levels, self.group = np.unique(noise, return_inverse=True)
        counts = np.asarray(np.bincount(self.group, multiplicity), np.float64)
        self._count = n = float(multiplicity.sum())
        most = _most_noise(inner, y, n, second_difference) if noise is None else np.inf
        size = max(float(np.mean(_row_squares(y))) / n * prior_curvature**2, 1e-300)
        one = len(counts) == 1
        power = np.stack(
            [_row_squares(along if one else along[:, self.group == g]) for g in range(len(counts))]
        )
        self.ratio, self.floor, self.kappa2 = _likeliest(lam, power, counts, levels, most, size)
        self._inverse = 1.0 / (lam + self.ratio[:, None])
        self._along, self._scaled = along, self._each(self._inverse.T) * along
        self._contrasts = contrasts = trend.vectors(self._modes)
        self.weights = contrasts @ self._scaled
        # no contrast reaches a sample that alone tells of a direction: what is left is rounding
        self._alone = alone = _row_squares(contrasts) < ALONE
        self._precision = np.square(contrasts) @ self._inverse.T
        self._precision[alone] = np.inf
        self._precision = np.maximum(self._precision, 1e-300)

    def _each(self, of_groups: Array) -> Array:
        """Columns (.., g) of the groups for each output, or for all where they are of one."""
        return of_groups if of_groups.shape[1] == 1 else of_groups[:, self.group]

    @property
    def dof(self) -> int:
        return len(self._modes)

    @property
    def noise(self) -> Array:
        """Standard deviation of one evaluation, shape (n,)."""
        return np.asarray(np.sqrt((self.ratio - self.floor) * self.kappa2)[self.group])

    def shares(self) -> Array:
        """What each sample has of the quadratic form: its leave-one-out residual, whitened."""
        if self._precision.shape[1] == 1:
            return np.asarray(_row_squares(self.weights) / self._precision[:, 0])
        return np.asarray((np.square(self.weights) / self._each(self._precision)).sum(1))

    def whitened(self, y: Array) -> tuple[Array, Array, Array]:
        """Of other outputs (k, n) of the same samples: P y (k, n), y'P y (n,), and P's diagonal.

        P is the precision of the contrasts, in units of 1 / kappa^2.
        """
        if y is self.y:
            along, weights = self._along, self.weights
            scaled = self._scaled
        else:
            along = self._contrasts.T @ y
            scaled = self._each(self._inverse.T) * along
            weights = self._contrasts @ scaled
        precision = np.broadcast_to(self._each(self._precision), weights.shape)
        return weights, np.einsum("dn,dn->n", scaled, along), precision

    def precision_matrix(self, output: int) -> Array:
        """P (k, k) of one output."""
        rows = self._contrasts
        group = 0 if len(self._inverse) == 1 else self.group[output]
        return np.asarray((rows * self._inverse[group]) @ rows.T)

    @property
    def leave_one_out_rows(self) -> Array:
        """Leave-one-out residuals (k, n): Dubrule, Math. Geol. 15 (1983) 687."""
        return self.weights / self._each(self._precision)

    def leave_one_out(self) -> float:
        """Sum of squares of the leave-one-out residuals, over samples."""
        return float(_row_squares(self.leave_one_out_rows).sum()) / len(self.u)

    def coefficients(self) -> Array:
        """Value and slopes at u = 0, (m + 1, n)."""
        back = self._trend.back
        return np.asarray(back @ self._of_trend - self._gain @ self._scaled)

    @cached_property
    def _gain(self) -> Array:
        """Covariance of the coefficients with each contrast, (m + 1, d)."""
        return np.asarray(self._trend.back @ (self._between @ self._modes))

    def covariances(self, rounding: float, kappa2: float | None = None) -> Array:
        """Of value and slopes at u = 0, (g, m + 1, m + 1).

        Parameters
        ----------
        rounding : float
            Error of one value by rounding: slopes are known no better, be it ever so repeatable.
        kappa2 : float
            Of a curvature that is not the likeliest one, at the same noise. The coefficients stay
            those of the likeliest, which are not the best by another.
        """
        kappa2 = self.kappa2 if kappa2 is None else kappa2
        ratio = ((self.ratio - self.floor) * (self.kappa2 / kappa2) + self.floor)[:, None]
        best = 1.0 / (self._lam + ratio)
        told = best - np.square(self._inverse - best) / best
        back, null = self._trend.back, self._trend.null
        gram = back @ back.T
        spread = back @ self._within @ back.T + ratio[:, None] * gram
        spread -= (self._gain * told[:, None]) @ self._gain.T
        least = ratio * np.diagonal(gram)
        each = np.arange(len(gram))
        spread[:, each, each] = np.maximum(spread[:, each, each], least)  # rounding
        # What no sample tells is as uncertain as the curvature prior allows.
        spread += null @ null.T
        # of the weighted estimate: contrasts beside the trend
        pull = self._gain * self._inverse[:, None]
        return np.asarray(kappa2 * spread + rounding**2 * (gram + pull @ pull.swapaxes(1, 2)))

    def kappa2_of_few(self, bend: float, in_noise: float) -> float:
        """kappa^2 where contrasts are too few to tell it in all directions.

        Each is of one direction, and tells what its kernel has beside the noise: runs in a cluster
        tell of noise alone. With fewer than two for each input, slopes may change by ``bend`` times
        their size over |u| = 1, by ``in_noise`` times where there are as many and noise hides them.
        """
        slopes = self.coefficients()[1:]
        enough = 2 * len(slopes)
        told = float((self._lam / (self._lam + self.ratio[:, None])).sum(1).max())
        if told >= enough:
            return self.kappa2
        change = bend if self.dof < enough else in_noise
        return max(self.kappa2, change**2 * float(_row_squares(slopes).sum()) / self._count)


def _row_squares(rows: Array) -> Array:
    """Sum of squares of each row, without an array of them."""
    return np.asarray(np.einsum("kn,kn->k", rows, rows))


def _most_noise(inner: Array, y: Array, n: float, second_difference: float | None) -> float:
    """Largest noise variance that the values of neighbours allow.

    What two runs differ by has a mean square of 2 sigma^2 and more. The smaller ones among the
    differences of nearest neighbours, over an unlikely quantile of their chi-squared, bound sigma.
    A second difference of three runs on a line has one of 6 sigma^2 and more, and hardly a slope:
    where curvature of many inputs passes for noise it bounds it a hundred times lower.
    """
    from scipy.special import gammaincinv

    lowest = 2.0 / n * gammaincinv(0.5 * n, CHI2_TAIL)
    square = np.diagonal(inner)
    apart = square[:, None] + square - 2.0 * inner
    apart[apart < DUPLICATE_DISTANCE**2] = np.inf
    pairs = np.flatnonzero(np.isfinite(apart.min(1)))
    if not len(pairs):
        return np.inf
    # One at a time: all at once take as much memory as the runs do.
    nearest = apart[pairs].argmin(1)
    gaps = (y[i] - y[j] for i, j in zip(pairs, nearest))
    differences = np.array([gap @ gap for gap in gaps]) / n
    least = np.quantile(differences, NEIGHBOUR_QUANTILE)
    most = float(least / (2.0 * lowest))
    if second_difference is not None:
        most = min(most, float(second_difference / (6.0 * lowest)))
    return most


def _likeliest(
    lam: Array, power: Array, counts: Array, levels: Array | None, most: float, size: float
) -> tuple[Array, float, float]:
    """The likeliest parameters.

    Parameters
    ----------
    lam : array, shape (d,)
        Eigenvalues of the kernel among the contrasts.
    power : array, shape (g, d)
        Sums of squares of the outputs along them, for each level of noise.
    counts : array, shape (g,)
        How many outputs have it.
    levels : array, shape (g,), or None
    most : float
        Largest variance of the noise.
    size : float
        Expected kappa^2.

    Returns
    -------
    ratio : array, shape (g,)
    floor, kappa2 : float
    """
    n, d = float(counts.sum()), len(lam)
    floor = 8 * EPS * max(float(lam[-1]) if d else 1.0, 1e-300)
    if d == 0:
        known = np.zeros(1) if levels is None else levels
        return known**2 / size + floor, floor, size
    if levels is None:
        r = RATIOS[:, None] + floor
    else:
        kappa2 = size * 10.0 ** (np.arange(-48, 17) / 4.0)
        r = levels**2 / kappa2[:, None] + floor
    inverse = 1.0 / (lam + r[:, :, None])
    quad = (inverse * power).sum((1, 2))
    logdet = -(np.log(inverse).sum(2) @ counts)
    if levels is None:
        # Without the prior kappa^2 would be quad / (n d); one Newton-like step shrinks it.
        raw = np.log(np.maximum(quad, 1e-300) / (n * d))
        weight = 0.5 * n * d * PRIOR_SD**2 * 4.0
        kappa2 = np.exp((weight * raw + np.log(size)) / (weight + 1.0))
        kappa2 = np.minimum(kappa2, max(most, r[0, 0] * kappa2[0], 1e-280) / r[:, 0])
    log_k2 = np.log(kappa2)
    value = -0.5 * (n * d * log_k2 + logdet + quad / kappa2)
    value -= 0.5 * np.square((log_k2 - np.log(size)) / (2.0 * PRIOR_SD))
    if levels is None:
        # Less noise is slightly likelier, so that nothing wins a tie.
        value -= 0.05 * np.log10(np.maximum(r[:, 0] * kappa2 / size, 1e-26))
    best = int(np.argmax(value))
    return r[best], floor, float(kappa2[best])
