"""The limit of a contrast whose step goes to 0: what noise and truncation leave open of it.

A second difference of size s follows V(s) = H + c_1 s + c_2 s^2 + ... + noise, of symmetric points
with even powers alone. Each c_k is Gaussian with standard deviation A q^(k/2): a function whose
Taylor series converges up to the distance q^(-1/2) in units of the largest step. A and q are not
known; they are averaged over a grid, weighed by what the values of several sizes say of them
(restricted likelihood: H is free). The answer is the mean and the variance of that mixture. So is
the noise, where few degrees of freedom told it: of noise that is held for known at a third of what
it is, two sizes that differ by noise alone show truncation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, ndtr, ndtri, stdtrit

from gradiator_np._typing import Array

#: Grid of log A about its centre and its prior standard deviation: a factor of 2 either way. One
#: entry alone may be small by chance, with none beside it to tell: a factor of 3.3. (By 2 intervals
#: of u' H u hold 91 to 94 %.)
AMPLITUDES, AMPLITUDE_SD, ALONE_SD = np.linspace(-6.0, 6.0, 25), 0.7, 1.2
#: Prior standard deviation of log q about its centre, the square of step over scale; its grid
#: reaches from so far below to the largest, and its places are that far apart.
RATE_SD, RATE_BELOW, RATE_APART = 1.2, 4.0, 1.0
#: Prior density, relative to that of the centre, that everything on the grid has.
SURPRISE = 1e-3
#: Amplitudes and rates of the entries of one output differ by about these factors (logs): a
#: population. (A rate that all must share leaves errors of 28 bars where one input has a pole.)
SPREAD, SPREAD_OF_RATES = 0.5, 1.2
#: Entries share inputs and are no independent witnesses: all together count as so many.
VOICES = 6
#: The Taylor series has to converge at the largest step.
LARGEST_RATE = 0.9
#: Intervals that error bars are made from; so many degrees of freedom are as good as infinite.
LEVEL, NORMAL, HALVINGS = 0.95, 1e6, 14
#: Grid of the log of noise over what was seen; places of less probability are left out. Quantiles
#: of 97.5 % of such mixtures are within 4 % of those of Student's laws.
NOISE_APART, NOISE_SELDOM = 0.5, 2e-4
#: Of many sizes the errors of high divided differences are as good as one: what keeps them apart.
JITTER = 1e-12
#: Components of less probability are left out of intervals.
NEGLIGIBLE = 1e-6
#: Tables that are kept of one grid.
KEPT = 512
#: Powers beyond as many as there are sizes.
TERMS = 6


@dataclass(frozen=True, slots=True)
class Contrasts:
    """Second differences of one kind, at several sizes.

    Attributes
    ----------
    values : array, shape (E, K)
        In units of the noise of one evaluation.
    sizes : array, shape (K,)
        In units of the largest step that the rate q refers to.
    noise : array, shape (K, K)
        Covariance of the errors of one row at unit noise.
    even : bool
        Whether the points are symmetric about x.
    centred : bool
        Whether the limit is known to be 0: such rows tell A and q alone.
    amplitude : float
        The guess of A of these rows: the size of the second derivatives themselves.
    """

    values: Array
    sizes: Array
    noise: Array
    even: bool
    centred: bool
    amplitude: float

    @property
    def told(self) -> int:
        """How many contrasts do not depend on the limit."""
        return len(self.sizes) - (not self.centred)

    def at(self, noise: float) -> Contrasts:
        """The same in units of another noise, given in units of this one."""
        return replace(self, values=self.values / noise, amplitude=self.amplitude / noise)


class Table(NamedTuple):
    """Rows of one kind, for each of C combinations of A and q.

    Attributes
    ----------
    back : array, shape (K, K)
        From values to divided differences, the first of which is the limit, if that is free.
    root : array, shape (C L, L)
        Whitens the L others, one combination after the other.
    logdet : array, shape (C,)
        Log determinant of their covariance.
    weights : array, shape (C, L)
        The limit is the first divided difference less so much of each other.
    variance, noise : array, shape (C,)
        Of the limit, and the part of it that noise has.
    """

    back: Array
    root: Array
    logdet: Array
    weights: Array
    variance: Array
    noise: Array


class Amplitudes:
    """The grid of A, in units of each row's guess, and of q.

    Parameters
    ----------
    rate : float
        The guess of q.
    alone : bool
        Whether there is one entry.
    """

    def __init__(self, rate: float, alone: bool = False) -> None:
        top = np.log(LARGEST_RATE)
        low = min(np.log(rate), top) - RATE_BELOW
        log_q = np.linspace(low, top, 1 + int(np.ceil((top - low) / RATE_APART)))
        of_q = np.log(np.exp(-0.5 * ((log_q - np.log(rate)) / RATE_SD) ** 2) + SURPRISE)
        of_a = -0.5 * (AMPLITUDES / (ALONE_SD if alone else AMPLITUDE_SD)) ** 2
        self.log_prior = (of_q[:, None] + of_a).ravel()
        self._rates = len(log_q)
        self.q, self.a = (
            g.ravel() for g in np.meshgrid(np.exp(log_q), np.exp(AMPLITUDES), indexing="ij")
        )
        self._tables: dict[Any, Table] = {}
        self._blurs = _blur(log_q, SPREAD_OF_RATES), _blur(AMPLITUDES, SPREAD)

    def table(self, of: Contrasts) -> Table:
        """What the combinations mean for rows like these; kept, since outputs share it."""
        amplitude = round(float(np.log(of.amplitude)), 9)
        key = (of.sizes.tobytes(), of.noise.tobytes(), of.even, of.centred, amplitude)
        found = self._tables.get(key)
        if found is None:
            if len(self._tables) >= KEPT:
                self._tables.clear()
            found = self._tables[key] = self._table(of)
        return found

    def _table(self, of: Contrasts) -> Table:
        """Values of a smooth function exceed their noise by up to 16 digits, and so would the
        condition of their covariance. Divided differences are small one after the other; of them
        the covariance is graded, and as well conditioned as its correlations.
        """
        free = 0 if of.centred else 1  # the first divided difference is the limit itself
        k, power = len(of.sizes), 2 if of.even else 1
        exponents = power * np.arange(1 - free, k + 1 - free + TERMS)
        columns = of.sizes[:, None] ** exponents
        back = np.linalg.inv(columns[:, :k]).astype(np.float64, copy=False)
        shape = back @ columns
        shape[:, :k] = np.eye(k)
        sd = of.amplitude * self.a[:, None] * self.q[:, None] ** (exponents / 2)
        sd[:, :free] = 0.0
        scaled = shape * sd[:, None, :]
        covariance = scaled @ scaled.mT + back @ of.noise @ back.T
        rest = covariance[:, free:, free:]
        combinations, others = rest.shape[:2]
        scale = np.sqrt(np.einsum("ckk->ck", rest))
        correlation = rest / (scale[:, :, None] * scale[:, None, :])
        np.einsum("ckk->ck", correlation)[:] += JITTER
        # By eigenvalues: rounding of sizes far apart makes some of them negative.
        vals, vecs = np.linalg.eigh(correlation)
        vals = np.maximum(vals, JITTER)
        inverse = (vecs / vals[:, None, :]) @ vecs.mT
        logdet = np.log(vals).sum(1) + 2 * np.log(scale).sum(1)
        root = (vecs / np.sqrt(vals)[:, None, :]).mT / scale[:, None, :]
        weights, variance = np.zeros((combinations, others)), np.zeros(combinations)
        noise = np.zeros(combinations)
        if free:
            cross = covariance[:, 0, 1:] / scale
            weights = np.einsum("ck,ckl->cl", cross, inverse)
            variance = covariance[:, 0, 0] - np.einsum("ck,ck->c", weights, cross)
            weights = weights / scale
            full = np.concatenate([np.ones((combinations, 1)), -weights], axis=1) @ back
            noise = np.einsum("ck,kl,cl->c", full, of.noise, full)
        return Table(
            back, root.reshape(combinations * others, others), logdet, weights,
            np.maximum(variance, np.finfo(float).tiny), noise,
        )  # fmt: skip

    def likelihood(self, of: Contrasts) -> Array:
        """Log likelihood (E, C) of each combination for each row."""
        table = self.table(of)
        combinations, others = table.weights.shape
        if others == 0:
            return np.zeros((len(of.values), combinations))
        rest = (of.values @ table.back.T)[:, -others:]
        chi2 = np.square(rest @ table.root.T).reshape(len(rest), combinations, others).sum(2)
        return np.asarray(-0.5 * (chi2 + table.logdet))

    def at_noise(self, of: Contrasts, dof: float) -> Array:
        """Log likelihood (E, S, C) of each size of the noise and each combination, by the
        probability of that noise."""
        return np.stack([
            self.likelihood(of.at(noise)) - of.told * np.log(noise) + np.log(share)
            for noise, share in zip(*noises(dof))
        ], axis=1)  # fmt: skip

    def population(self, likelihood: Array) -> Array:
        """Log prior (C,) of one more entry, given the rows (E, C) of others like it."""
        if len(likelihood) < 2:  # what one says of itself is told once
            return np.asarray(self.log_prior)
        rate, amplitude = self._blurs
        grid = likelihood.reshape(len(likelihood), self._rates, -1)
        top = grid.max((1, 2), keepdims=True)
        near = np.log(rate @ np.exp(grid - top) @ amplitude.T + 1e-300)
        told = near.mean(0) * min(len(grid), VOICES)
        centre = told + self.log_prior.reshape(self._rates, -1)
        weights = rate.T @ np.exp(centre - centre.max()) @ amplitude
        return np.asarray(np.log(weights + 1e-300).ravel())

    def limits(self, of: Contrasts, log_prior: Array, dof: float) -> tuple[Array, Array, Array]:
        """Limit, its variance, and the part of it that noise has, each (E,).

        The variance is that of Student's law with ``dof`` degrees of freedom whose 95 % interval
        is that of the mixture: the few combinations that would allow for anything, at small
        probability, have their share of the interval and no more.
        """
        log = (self.at_noise(of, dof) + log_prior).reshape(len(of.values), -1)
        share = np.exp(log - log.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        each, sd, of_noise = [], [], []
        for noise in noises(dof)[0]:
            here = of.at(noise)
            table = self.table(here)
            d = here.values @ table.back.T
            each.append(noise * (d[:, :1] - d[:, 1:] @ table.weights.T))
            sd.append(noise * np.sqrt(table.variance))
            of_noise.append(noise**2 * table.noise)
        every = np.concatenate(each, axis=1)
        mean = (share * every).sum(1)
        half = _interval(mean, every, np.concatenate(sd), share) / float(
            stdtrit(min(dof, NORMAL), 0.5 + LEVEL / 2)
        )
        return mean, half**2, share @ np.concatenate(of_noise)

    def log_variance(
        self, log_prior: Array, size: Array, noise: Array, even: bool, amplitude: float
    ) -> Array:
        """Expected log of the variance of one difference of each size (S,), noise included."""
        share = np.exp(log_prior - log_prior.max())
        share /= share.sum()
        t = np.multiply.outer(self.q, size**2)
        t = np.minimum(t**2 if even else t, LARGEST_RATE)
        return np.asarray(share @ np.log(noise + (amplitude * self.a[:, None]) ** 2 * t / (1 - t)))


@lru_cache(maxsize=32)
def amplitudes_of(rate: float, alone: bool) -> Amplitudes:
    """The grid about one guess of q, with the tables that were made of it."""
    return Amplitudes(rate, alone)


def _blur(log: Array, spread: float) -> Array:
    """Probability (C, C) of each place on a grid, given where the population's centre is."""
    kernel = np.exp(-0.5 * ((log[:, None] - log) / spread) ** 2)
    return np.asarray(kernel / kernel.sum(1, keepdims=True))


@lru_cache(maxsize=64)
def noises(dof: float) -> tuple[list[float], list[float]]:
    """Sizes of noise in units of what was seen with some degrees of freedom, and how probable each
    is, before its size was known."""
    if dof >= NORMAL:
        return [1.0], [1.0]
    edges = NOISE_APART * (np.arange(-40, 81) - 0.5)
    share = np.diff(1 - chdtr(dof, dof * np.exp(-2 * edges)))
    some = share > NOISE_SELDOM
    sizes = np.exp(edges[:-1] + NOISE_APART / 2)
    return sizes[some].tolist(), (share[some] / share[some].sum()).tolist()


def _interval(mean: Array, each: Array, sd: Array, share: Array) -> Array:
    """Half widths (E,) of 95 % intervals about means of mixtures of Gaussian components (E, C) at
    ``each`` with standard deviations (C,)."""
    some = (share > NEGLIGIBLE).any(0)
    each, sd, share = each[:, some], sd[some], share[:, some]
    quantile = float(ndtri(0.5 + LEVEL / 2))
    off = np.abs(each - mean[:, None])
    low = quantile * sd.min() * np.ones(len(mean))
    high = quantile * sd.max() + off.max(1)
    for _ in range(HALVINGS):
        half = np.sqrt(low * high)
        outside = ndtr((off - half[:, None]) / sd) + ndtr((-off - half[:, None]) / sd)
        wide = (share * outside).sum(1) < 1 - LEVEL
        low, high = np.where(wide, low, half), np.where(wide, half, high)
    return np.asarray(high)


def group(labels: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[np.intp]]]:
    """Rows of labels (E, L) that are alike: each pattern, and who has it."""
    patterns, which = np.unique(labels, axis=0, return_inverse=True)
    return [(p, np.flatnonzero(which.ravel() == i)) for i, p in enumerate(patterns)]
