"""States of the line model, their prior, and what pairs say about them (see ``kernels.lines``)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.few import MOST, SHARPEST, Few
from gradiator_np.designs.pairs import Lines
from gradiator_np.kernels import lines as kernels

Array = NDArray[np.float64]

# Distance at which a function bends, in units of the scale: three a decade resolve a step to a
# factor of 1.5, where the error is within 10 % of its best.
RHO = 10 ** (np.arange(-15, 15) / 3)
# How much later than the cubic term the higher ones set in: 1 for a general function, 0.1 for one
# that is linear but for a small part that bends, 1e3 for one that is a cubic polynomial to all
# appearances (many models are polynomials of low degree).
TAIL = np.array([1.0, 0.1, 10.0, 1e3])
# Jitter of an input that is rounded, meshed or stepped.
KAPPA = np.concatenate([[0.0], 10.0 ** np.arange(-8, 0)])
TERMS = 4
# Outputs share their truncation: together they count as three.
VOICES = 3.0
# An output that does not answer by AUDIBLE standard deviations of its noise has a smaller voice:
# its silence says that an input bends nowhere, and in a sparse Jacobian most are silent.
AUDIBLE, SILENT = 5.0, 0.6
# Outputs that are heard for one input; those where its slope stands out most.
HEARD = 6
# Share of the likeliest state's weight below which a state is neither seen in a 95 % interval nor
# moves a decision.
UNSEEN = 1e-3
# Lines at a time: six outputs of 100 states are half a megabyte.
PART = 128
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
        tail = np.array([0.5, 0.1, 0.2, 0.2])[self.tail]
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
    """Log-likelihoods (L, S) of the odd and of the even parts, outputs weighed together; noise
    (N,) or (L, N)."""
    picked = heard(noise, slope)
    every = np.arange(picked.shape[0])[:, None]
    # (L, c, P)
    odd, even, size = (a[every, :, picked] for a in (lines.odd, lines.even, lines.size))
    b, level = slope[every, picked], np.broadcast_to(noise, slope.shape)[every, picked]
    weights = lines.t[:, None] * np.sqrt(2 / (lines.factor[:, None] * size)), np.sqrt(0.5 / size)
    loud = np.fmax(np.abs(odd * weights[0]), np.abs(even * weights[1])) / level[..., None]
    votes = np.where((loud > AUDIBLE).any(axis=2), 1.0, SILENT)
    odd = odd - latest(odd)[..., None]
    few = has_few(lines)
    out = np.zeros((2, picked.shape[0], states.rho.size))
    closed = np.flatnonzero(few)
    terms = np.square(states.sd_odd).T, np.square(states.sd_even).T
    for start in range(0, closed.size, PART):
        k = closed[start : start + PART]
        w = sharpness_squared(level[k] / b[k], states.kappa)
        one = Few.of(odd[k] / b[k][..., None], lines.t[k], weights[0][k], TERMS)
        out[0, k] = _together(one.likelihood_of_slopes(terms[0], w), votes[k])
        # the even parts share the error of f0
        one = Few.of(even[k] / b[k][..., None], lines.t[k], weights[1][k], TERMS)
        out[1, k] = _together(one.likelihood_of_bends(terms[1], w, 2 * level[k] / b[k]), votes[k])
    if not few.all():
        rows = np.broadcast_to(~few[:, None], b.shape)
        sharp = sharpness(level[..., None], b[..., None], states.kappa)
        pick = np.broadcast_to(np.arange(states.rho.size), sharp.shape)
        shape = (-1, *b.shape[1:], states.rho.size)
        part = fit(lines.t, weights[0], odd, b, 1.0, 0.0, sharp, states, pick, rows)[2]
        out[0, ~few] = _together(part.reshape(shape), votes[~few])
        part = fit(lines.t, weights[1], even, 2 * b, -2 * level, 1.0, sharp, states, pick, rows)[2]
        out[1, ~few] = _together(part.reshape(shape), votes[~few])
    return out[0], out[1]


def _together(logs: Array, votes: Array) -> Array:
    """Log-likelihoods (L, c, S) of outputs as one, by their votes (L, c)."""
    share = votes * np.minimum(1.0, VOICES / votes.sum(axis=1, keepdims=True))
    return np.asarray(np.einsum("lcs,lc->ls", logs, share))


def has_few(lines: Lines) -> NDArray[np.bool_]:
    """Lines with so few pairs that the closed form will do."""
    return np.asarray(np.isfinite(lines.t).sum(axis=1) <= MOST)


def sharpness_squared(ratio: Array, kappa: Array) -> Array:
    """b^2 over the variance of the noise, jitter included: (.., S), or (.., 1) where all states
    have one; ``ratio`` (..) is noise over b."""
    if kappa.size and (kappa == kappa.flat[0]).all():
        kappa = kappa[..., :1]
    return np.minimum(1 / (np.square(ratio)[..., None] + np.square(kappa)), SHARPEST)


def sharpness(noise: Array, slope: Array, kappa: Array) -> Array:
    """1 over the noise, jitter included."""
    return np.asarray(1 / np.sqrt(np.square(noise) + np.square(slope * kappa)))


def latest(values: Array) -> Array:
    """The last finite value along the last axis, 0 where there is none."""
    out = np.zeros(values.shape[:-1])
    for k in range(values.shape[-1]):
        out = np.where(np.isfinite(values[..., k]), values[..., k], out)
    return out


def fit(
    t: Array,
    weight: Array,
    y: Array,
    amp: Array,
    last: Array | float,
    prior: float,
    sharp: Array,
    states: States,
    pick: NDArray[np.intp],
    rows: NDArray[np.bool_],
) -> tuple[Array, Array, Array]:
    """Mean, variance and log-likelihood (D, C) of the ``rows`` (L, n) that are picked."""
    line = np.nonzero(rows)[0]
    shape = (line.size, pick.shape[-1])
    mean, variance, log = np.zeros((*shape, 1)), np.ones((*shape, 1)), np.zeros(shape)
    kernels.fit(
        np.square(t)[line],
        weight[rows],
        y[rows],
        amp[rows],
        np.ascontiguousarray(np.broadcast_to(last, rows.shape)[rows]),
        prior,
        sharp[rows],
        states.sd_odd if prior == 0 else states.sd_even,
        pick[rows],
        t.shape[1],
        0,
        mean,
        variance,
        log,
    )
    return mean[..., 0], variance[..., 0], log


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


def relative(noise: Array, slope: Array) -> Array:
    """Noise over slopes (.., N), all outputs together: each counts by its own noise."""
    ratio = np.square(slope / noise)
    good = np.isfinite(ratio)
    ratio = np.where(good, ratio, 0.0).sum(axis=-1) / np.maximum(good.sum(axis=-1), 1)
    return np.asarray(1 / np.sqrt(np.where(ratio > 0, ratio, 1.0)))


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


def likeliest(weights: Array) -> tuple[NDArray[np.intp], Array]:
    """The states (L, C) of each line that matter, -1 for none, and their weights."""
    matter = weights > UNSEEN * weights.max(axis=1, keepdims=True)
    count = matter.sum(axis=1)
    pick = np.argsort(~matter, axis=1, kind="stable")[:, : count.max()]
    share = np.take_along_axis(weights, pick, axis=1)
    none = np.arange(pick.shape[1]) >= count[:, None]
    return np.where(none, -1, pick), np.where(none, 0.0, share)
