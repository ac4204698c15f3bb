"""States of the line model, their prior, and what pairs say about them (see ``kernels.lines``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.pairs import Lines
from gradiator_np.kernels import lines as kernels

Array = NDArray[np.float64]

# Distance at which a function bends, in units of the scale: three a decade resolve a step to a
# factor of 1.5, where the error is within 10 % of its best.
RHO = 10 ** (np.arange(-15, 15) / 3)
# How much later than the cubic term the higher ones set in: 1 for a general function, 1e3 for
# one that is a cubic polynomial to all appearances (many models are polynomials of low degree).
TAIL = np.array([1.0, 10.0, 1e3])
# Jitter of an input that is rounded, meshed or stepped.
KAPPA = np.concatenate([[0.0], 10.0 ** np.arange(-8, 0)])
TERMS = 4
# Outputs share their truncation: together they count as three.
VOICES = 3.0
# Outputs that are heard for one input; those where its slope stands out most.
HEARD = 6
# Blur of what one line says about another, in log10 rho.
BLUR = np.log10(2.5)


@dataclass(frozen=True, slots=True)
class States:
    """A grid of states, flattened: S of them."""

    rho: NDArray[np.intp]
    tail: NDArray[np.intp]
    kappa: Array
    sd_odd: Array
    sd_even: Array

    @classmethod
    def grid(cls) -> States:
        """All states."""
        rho, tail, jitter = (
            a.ravel()
            for a in np.meshgrid(
                range(RHO.size), range(TAIL.size), range(KAPPA.size), indexing="ij"
            )
        )
        # an input with jitter is no polynomial
        keep = (tail == 0) | (jitter == 0)
        rho, tail, kappa = rho[keep], tail[keep], KAPPA[jitter[keep]]
        length, late = RHO[rho][:, None], TAIL[tail][:, None]
        power = np.arange(2, 2 * TERMS + 2)
        head, rest = np.minimum(power, 3) - 1, np.maximum(power - 3, 0)
        sd = length**-head * (length * late) ** -rest
        odd, even = np.ascontiguousarray(sd[:, 1::2]), np.ascontiguousarray(sd[:, ::2])
        return cls(rho, tail, kappa, odd, even)

    def take(self, keep: NDArray[np.intp]) -> States:
        """Some of the states."""
        return States(*(np.ascontiguousarray(getattr(self, a)[keep]) for a in self.__slots__))

    def prior(self, jitter: float) -> Array:
        """Weights before anything is known: ``jitter`` is the share of states with kappa > 0."""
        # Bending on the scale of x itself is what models do; a decade off costs a factor of 2.
        centred = np.exp(-np.abs(np.log10(RHO[self.rho])) * np.log(2.0))
        tail = np.array([0.6, 0.2, 0.2])[self.tail]
        kappa = np.where(self.kappa > 0, jitter / (KAPPA.size - 1), 1 - jitter)
        return normalise(centred * tail * kappa)

    def blur(self, weights: Array, shift: float, width: float = BLUR) -> Array:
        """Move weights (..., S) by ``shift`` in log10 rho and blur them."""
        grid = np.log10(RHO)
        kernel = np.exp(-0.5 * ((grid[:, None] - grid - shift) / width) ** 2)
        kernel /= kernel.sum(axis=0)
        out = np.zeros_like(weights)
        # states that differ in rho alone form one group
        group = self.tail + TAIL.size * np.searchsorted(KAPPA, self.kappa)
        for g in np.unique(group):
            at = np.flatnonzero(group == g)
            r = self.rho[at]
            out[..., at] = weights[..., at] @ kernel[np.ix_(r, r)].T
        return normalise(out)


def normalise(weights: Array) -> Array:
    """Weights that add up to one over the last axis."""
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_normalise(logs: Array) -> Array:
    """Weights from their logarithms."""
    return normalise(np.exp(logs - logs.max(axis=-1, keepdims=True)))


def heard(noise: Array, slope: Array) -> NDArray[np.intp]:
    """The outputs that tell most of each input: shape (m, c)."""
    m, n = slope.shape
    if n <= HEARD:
        return np.ascontiguousarray(np.broadcast_to(np.arange(n), (m, n)))
    loud = slope / noise
    return np.ascontiguousarray(np.argpartition(-loud, HEARD, axis=1)[:, :HEARD])


def likelihood(lines: Lines, states: States, noise: Array, slope: Array) -> tuple[Array, Array]:
    """Log-likelihoods (L, S) of the odd and of the even parts, outputs weighed together."""
    picked = heard(noise, slope)
    shape = (*picked.shape, states.rho.size)
    odd, even = np.empty(shape), np.empty(shape)
    kernels.log_likelihood(
        lines.t,
        lines.factor,
        lines.size,
        lines.odd,
        lines.even,
        noise,
        slope,
        states.sd_odd,
        states.sd_even,
        states.kappa,
        picked,
        odd,
        even,
    )
    weight = min(1.0, VOICES / picked.shape[1])
    return weight * odd.sum(axis=1), weight * even.sum(axis=1)


def posterior(prior: Array, odd: Array, even: Array, states: States, soft: bool = True) -> Array:
    """Weights (L, S) of the states after the odd and even parts.

    The even part speaks softly for an input: that f'' is large says little about f''' (a
    quadratic has no f''' at all), so its likelihood is blurred over rho, and with a chance of
    0.2 it says nothing.
    """
    logs = np.log(np.maximum(prior, 1e-300)) + odd
    if not soft:
        return log_normalise(logs + even)
    # likelihood as a weight over rho alone
    share = by_rho(states, np.exp(even - even.max(axis=1, keepdims=True)), total=False)
    share /= np.maximum(np.bincount(states.rho, minlength=RHO.size), 1)
    grid = np.log10(RHO)
    share = share @ np.exp(-0.5 * ((grid[:, None] - grid) / BLUR) ** 2)
    share = 0.8 * normalise(share) + 0.2 / RHO.size
    return log_normalise(logs + np.log(share[:, states.rho]))


def by_rho(states: States, weights: Array, total: bool = True) -> Array:
    """Weights (..., S) summed over all states of one rho, (..., R); cumulated where ``total``."""
    member = (states.rho[:, None] == np.arange(RHO.size)).astype(float)
    share = np.asarray(weights @ member)
    return share.cumsum(axis=-1) if total else share


def relative(noise: Array, slope: Array) -> float:
    """Noise over slope, all outputs together: each counts by its own noise."""
    ratio = np.square(slope / noise)
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size or ratio.max() == 0:
        return 1.0
    return float(1 / np.sqrt(np.mean(ratio)))


def first_slope(lines: Lines, noise: Array) -> Array:
    """|D| of the pair in which a cubic term at rho = 1 and the noise are least together."""
    t = lines.t
    cost = t**4 + 0.5 * (1e-6 / np.where(t > 0, t, 1.0)) ** 2
    order = np.argsort(np.where(np.isfinite(t), cost, np.inf), axis=1)
    odd = np.take_along_axis(lines.odd, order[:, :, None], axis=1)
    good = np.isfinite(odd)
    first = np.argmax(good, axis=1)
    out = np.abs(np.take_along_axis(odd, first[:, None, :], axis=1)[:, 0])
    out = np.nan_to_num(out)
    return np.asarray(out + noise)


def mixture(
    lines: Lines, states: States, noise: Array, slope: Array, weights: Array
) -> tuple[Array, Array, Array, Array]:
    """Slopes (N, L), unit variances, variances and 95 % half-widths of the mixture of states."""
    shape = (noise.size, lines.t.shape[0])
    out = [np.empty(shape) for _ in range(4)]
    kernels.estimate(
        lines.t,
        lines.factor,
        lines.size,
        lines.odd,
        noise,
        slope,
        weights,
        states.sd_odd,
        states.kappa,
        *out,
    )
    return out[0], out[1], out[2], out[3]


def slopes(lines: Lines, states: States, noise: Array, slope: Array, weights: Array) -> Array:
    """Slopes (L, N) under the state of median rho of each line: good enough for a scale."""
    middle = np.zeros_like(weights)
    at = np.argmax(np.cumsum(weights, axis=1) >= 0.5, axis=1)
    middle[np.arange(len(at)), at] = 1.0
    return np.ascontiguousarray(mixture(lines, states, noise, slope, middle)[0].T)
