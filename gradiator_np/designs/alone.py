"""Slopes of all outputs along all inputs, where some outputs contradict the others.

The outputs of an input share the distance at which it bends. One that does not bend there, or whose
pairs were hit by an outlier, is heard alone: its own pairs choose between curvature and noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradiator_np.designs.lines import States, likelihood, posterior
from gradiator_np.designs.pairs import Lines

Array = NDArray[np.float64]

# Share of the prior that an output heard alone gives to states that its input knows nothing of,
# and that of noise of its own in them.
OPEN, JITTER = 0.5, 0.1
# Log-likelihood by which one pair's absence has to be better than any other's.
CULPRIT = 10.0


def culprit(line: Lines, states: States, prior: Array, noise: Array, slope: Array) -> int | None:
    """The pair of one line (of three and more) without which the others agree."""
    prior = (1 - OPEN) * prior + OPEN * states.prior(0.0)
    slots = np.flatnonzero(np.isfinite(line.t[0]))
    found = np.zeros(slots.size)
    for k, slot in enumerate(slots):
        rest = slots[slots != slot]
        odd, even = likelihood(
            Lines(*(np.ascontiguousarray(getattr(line, a)[:, rest]) for a in line.__slots__)),
            states, noise, slope,
        )  # fmt: skip
        logs = (odd + even)[0]
        found[k] = logs.max() + np.log(prior @ np.exp(logs - logs.max()))
    best, second = np.argsort(-found)[:2]
    return int(slots[best]) if found[best] - found[second] > CULPRIT else None


def hear(
    view: Lines,
    states: States,
    prior: Array,
    noise: Array,
    slope: Array,
    entries: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[Lines, States, Array, Array, Array]]:
    """Output and line of the ``entries`` (L, N), and what ``mixture`` takes of them: K lines of one
    output each, states, noise, slopes and weights, as these entries alone know them."""
    prior = (1 - OPEN) * prior + OPEN * states.prior(JITTER)
    line, output = np.nonzero(entries)
    # each is a line of its own, with one output
    own = Lines(
        view.t[line],
        view.factor[line],
        *(a[line, :, output][..., None] for a in (view.size, view.odd, view.even)),
    )
    level, b = noise[output][:, None], slope[line, output][:, None]
    weights = np.broadcast_to(prior, (line.size, prior.size))
    if line.size:
        weights = posterior(weights, *likelihood(own, states, level, b), states)
    return output, line, (own, states, level, b, weights)
