"""Hyperparameters of the line model and their prior: what Bayesian model averaging runs over.

Along one input, f - f0 is a slope and a random Taylor series (see ``kernels.line_model``) whose
hyperparameters live on a grid: rho, the length at which the function bends; tail, how much later
than the cubic term the higher ones set in; kappa, the jitter of an input that is rounded. One
point of the grid is called a *state*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradiator_np._typing import Array, Index

# Length at which a function bends, in units of the scale: three a decade resolve a step to a
# factor of 1.5, where the error is within 10 % of its best.
RHO = 10 ** (np.arange(-24, 15) / 3)
# Below this a function is not expected to bend unless there is evidence that it does.
NARROWEST = 0.99e-5
# How much later than the cubic term the higher ones set in: 1 for a general function, 0.1 for one
# that is linear but for a small part that bends, 1e3 for one that is a cubic polynomial to all
# appearances (many models are polynomials of low degree).
TAIL = np.array([1.0, 0.1, 10.0, 1e3])
TAIL_PRIOR = np.array([0.7, 0.1, 0.1, 0.1])
# Jitter of an input that is rounded, meshed or stepped, and that of every other: what the first
# operation on it rounds, in units in the last place.
KAPPA = np.concatenate([[0.0], 10.0 ** np.arange(-8, 0)])
OWN_ROUNDING = 0.5
# Terms of each parity.
TERMS = 4
# Share of the likeliest state's weight below which a state is neither seen in a 95 % interval nor
# moves a decision.
NEGLIGIBLE = 1e-3
# Blur of what one line says about another, in log10 rho.
BLUR = np.log10(2.5)


@dataclass(frozen=True, slots=True)
class States:
    """A grid of hyperparameters, flattened: S states.

    Attributes
    ----------
    rho, tail, jitter : array of int, shape (S,)
        Places in ``RHO``, ``TAIL`` and ``KAPPA``, in the order of ``rho``.
    kappa : array, shape (S,)
        Jitter in units of the scale, rounding included.
    sd_odd, sd_even : array, shape (S, TERMS)
        Prior standard deviations of the terms t^3, t^5, .. and t^2, t^4, .. at unit slope.
    """

    rho: Index
    tail: Index
    jitter: Index
    kappa: Array
    sd_odd: Array
    sd_even: Array

    @classmethod
    def grid(cls, eps: float = np.finfo(float).eps) -> States:
        """All states, for numbers of the relative precision ``eps``."""
        rho, tail, jitter = (
            a.ravel()
            for a in np.meshgrid(
                range(RHO.size), range(TAIL.size), range(KAPPA.size), indexing="ij"
            )
        )
        # an input with jitter is no polynomial
        keep = (tail == 0) | (jitter == 0)
        rho, tail, jitter = rho[keep], tail[keep], jitter[keep]
        kappa = np.maximum(KAPPA[jitter], OWN_ROUNDING * eps)
        length, late = RHO[rho][:, None], TAIL[tail][:, None]
        power = np.arange(2, 2 * TERMS + 2)
        head, rest = np.minimum(power, 3) - 1, np.maximum(power - 3, 0)
        sd = length**-head * (length * late) ** -rest
        odd, even = np.ascontiguousarray(sd[:, 1::2]), np.ascontiguousarray(sd[:, ::2])
        return cls(rho, tail, jitter, kappa, odd, even)

    def take(self, keep: Index) -> States:
        """Some of the states."""
        return States(*(np.ascontiguousarray(getattr(self, a)[keep]) for a in self.__slots__))

    def sd_slope(self, terms: int) -> Array:
        """Prior deviations (S, Q) of so many terms of slopes: a_3, .., and a_4, a_6 beside them."""
        if terms == TERMS:
            return self.sd_odd
        return np.ascontiguousarray(np.concatenate([self.sd_odd, self.sd_even[:, 1:3]], axis=1))

    def prior(self, jitter: float, *, narrow: bool = False, centre: float = 1.0) -> Array:
        """Weights before anything is known.

        Parameters
        ----------
        jitter : float
            Share of the states with more jitter than rounding.
        narrow : bool
            Whether the function may bend within 1e-5 of x.
        centre : float
            The length at which it is likeliest to bend: the scale of x itself is what models do.
        """
        rho = RHO[self.rho]
        # a decade off costs a factor of 2
        centred = np.exp(-np.abs(np.log10(rho / centre)) * np.log(2.0))
        if not narrow:
            centred = np.where(rho < NARROWEST, 0.0, centred)
        tail = TAIL_PRIOR[self.tail]
        share = np.where(self.jitter > 0, jitter / (KAPPA.size - 1), 1 - jitter)
        return normalise(centred * tail * share)

    def blur(self, weights: Array, shift: float, width: float = BLUR) -> Array:
        """Move weights (..., S) by ``shift`` in log10 rho and blur them."""
        grid = np.log10(RHO)
        kernel = np.exp(-0.5 * ((grid[:, None] - grid - shift) / width) ** 2)
        kernel /= kernel.sum(axis=0)
        out = np.zeros_like(weights)
        # states that differ in rho alone form one group
        group = self.tail + TAIL.size * self.jitter
        for g in np.unique(group):
            at = np.flatnonzero(group == g)
            r = self.rho[at]
            out[..., at] = weights[..., at] @ kernel[np.ix_(r, r)].T
        return normalise(out)

    def of_any_tail(self, weights: Array) -> Array:
        """Weights (L, S) whose tails are as before anything was known."""
        _, group = np.unique(self.rho * KAPPA.size + self.jitter, return_inverse=True)
        tail = TAIL_PRIOR[self.tail]
        total = np.zeros((group.max(initial=-1) + 1, len(weights)))
        np.add.at(total, group, weights.T)
        return np.asarray(total[group].T * tail / np.bincount(group, tail)[group])

    def by_rho(self, weights: Array) -> Array:
        """Weights (..., S) summed over all states of one rho, (..., R)."""
        first = np.flatnonzero(np.diff(self.rho, prepend=-1))
        out = np.zeros((*weights.shape[:-1], RHO.size))
        out[..., self.rho[first]] = np.add.reduceat(weights, first, axis=-1)
        return out

    def bend_length(self, weights: Array, share: float = 0.5) -> Array:
        """The quantile ``share`` of rho under weights (..., S), in units of t."""
        cumulated = self.by_rho(weights).cumsum(axis=-1)
        return np.asarray(RHO[np.argmax(cumulated >= share, axis=-1)])


def normalise(weights: Array) -> Array:
    """Weights that add up to one over the last axis."""
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_normalise(logs: Array) -> Array:
    """Weights from their logarithms."""
    return normalise(np.exp(logs - logs.max(axis=-1, keepdims=True)))


def likeliest(weights: Array) -> tuple[Index, Array]:
    """The states (L, C) of each line that matter, -1 for none, and their weights."""
    matter = weights > NEGLIGIBLE * weights.max(axis=1, keepdims=True)
    count = matter.sum(axis=1)
    pick = np.argsort(~matter, axis=1, kind="stable")[:, : count.max()]
    share = np.take_along_axis(weights, pick, axis=1)
    none = np.arange(pick.shape[1]) >= count[:, None]
    return np.where(none, -1, pick), np.where(none, 0.0, share)
