"""Differences, and the states of the model that they leave likely."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.model.differences import CentralDifferences
from gradiator_np.designs._adaptive.model.likelihood import (
    EFFECTIVE_OUTPUTS,
    likelihood,
    posterior,
)
from gradiator_np.designs._adaptive.model.prior import States

# Share of the outputs that keep to a law of their own: beside others that are polynomials to all
# appearances two pairs say nothing of their higher terms, and 2 to 5 % of the calls under noise had
# bars of a fifth of the error.
OWN = 0.1
# Lines whose weights are worked out at once: what is between is gone before the next.
AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Posterior:
    """L lines, N real outputs, S states.

    Attributes
    ----------
    differences : CentralDifferences
    states : States
    weights : array, shape (L, S)
        Probabilities of the states of each line, common to its outputs: the prior until it is
        ``updated``.
    slope : array, shape (L, N)
        Size of the slopes: the unit of the terms of the model.
    noise : array, shape (N,) or (L, N)
        Standard deviation of one evaluation.
    jitter : array, shape (L, N), or float
        What jitter of an input acts by, as a share of ``slope``.
    alone : array, shape (L, S), or None
        The weights that a single output would have, whose higher terms say nothing of another's.
    """

    differences: CentralDifferences
    states: States
    weights: Array
    slope: Array
    noise: Array
    jitter: Array | float = 1.0
    alone: Array | None = None

    def updated(self) -> Posterior:
        """With the weights, so far the prior, updated by the likelihood of the differences."""
        weights, alone = np.empty(self.weights.shape), np.empty(self.weights.shape)
        count = min(EFFECTIVE_OUTPUTS, max(self.slope.shape[1], 1))
        for start in range(0, len(weights), AT_ONCE):
            lines = slice(start, start + AT_ONCE)
            part = self.take(lines)
            slopes, bends = likelihood(part.differences, part.states, part.noise, part.slope)
            weights[lines] = posterior(part.weights, slopes, bends, part.states)
            own = part.states.of_any_tail(part.weights)
            alone[lines] = posterior(own, slopes / count, bends / count, part.states)
        return replace(self, weights=weights, alone=alone)

    @property
    def of_outputs(self) -> Array:
        """Weights (L, S) of the states of any one output."""
        return self.weights if self.alone is None else (1 - OWN) * self.weights + OWN * self.alone

    def with_curvature(self) -> Posterior:
        """With slopes of at least what curvature makes of them within the length at which a line
        bends, a unit at most: that at x may vanish, and is no unit of the terms then."""
        length = np.minimum(self.bend_length, 1.0)
        bend = self.differences.curvature(self.noise) * length[:, None]
        unit = np.maximum(self.slope, bend)
        return replace(self, slope=unit, jitter=self.jitter * self.slope / unit)

    def take(self, lines: slice | NDArray[Any] | list[Any]) -> Posterior:
        """Some of the lines."""
        noise, jitter = (np.broadcast_to(a, self.slope.shape) for a in (self.noise, self.jitter))
        return Posterior(
            self.differences.take(lines), self.states, self.weights[lines], self.slope[lines],
            noise[lines], jitter[lines], None if self.alone is None else self.alone[lines],
        )  # fmt: skip

    def take_outputs(self, outputs: slice) -> Posterior:
        """Some of the outputs."""
        jitter = np.asarray(self.jitter)
        return replace(
            self,
            differences=self.differences.take_outputs(outputs),
            slope=self.slope[:, outputs],
            noise=self.noise[..., outputs],
            jitter=jitter[:, outputs] if jitter.ndim else self.jitter,
        )

    @property
    def bend_length(self) -> Array:
        """Median length at which each line bends, in units of t."""
        return self.states.bend_length(self.weights)
