"""Pairs that an outlier hit: left out where the others of their input then agree."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import OPEN, Context
from gradiator_np.designs._adaptive.model.differences import CentralDifferences
from gradiator_np.designs._adaptive.model.likelihood import likelihood
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.state import AxisState, FunctionProfile

# Share of the outputs that an outlier hits at least.
HIT = 0.1
# Pairs of an input up to which outliers are looked for one by one: among many one does little harm.
SUSPECTS = 8
# Two pairs whose slopes differ by so many standard deviations (root mean square over outputs), all
# of it by one run, up to this share.
CLEAR, EXACT = 10.0, 0.1
# Log-likelihood by which one pair's absence has to be better than any other's.
EVIDENT = 10.0


def exclude_outliers(context: Context, profile: FunctionProfile, axes: AxisState) -> None:
    """Exclude from the log pairs that one run spoils, and one without which the others of its
    input agree."""
    if profile.random:
        _exclude_hits(context, profile)
    view = context.differences(profile)
    several = (view.n_pairs > 2) & (view.n_pairs <= SUSPECTS)
    if not (profile.noisy and several.any()):
        return
    known = context.infer(profile, axes).pooled
    # what hits one output of many is as likely a bend of its own
    hit = context.inconsistent(profile, axes).mean(axis=1) > HIT
    for k in np.flatnonzero(several & hit):
        line = Posterior(
            view.take([k]),
            context.states,
            profile.typical_prior[None],
            known.slope[[k]],
            profile.noise,
        )
        slot = find_outlier(line)
        if slot is not None:
            context.log.exclude_pair(int(context.inputs[k]), slot)


def _exclude_hits(context: Context, profile: FunctionProfile) -> None:
    log, view = context.log, context.differences(profile)
    # no difference of slopes weighs more than it would at the widest step
    nearest = view.nearest()[1][:, None]
    spread = np.ptp(np.where(np.isfinite(view.slope), view.slope, nearest), axis=1)
    widest = np.nan_to_num(view.t).max(axis=1)[:, None]
    shift = np.nan_to_num(np.sqrt(2.0) * widest * spread / profile.noise)
    far = np.square(shift).mean(axis=1) > CLEAR**2
    for k in np.flatnonzero(far & (view.n_pairs > 1) & (view.n_pairs <= SUSPECTS)):
        line = context.inputs[[k]]
        while (slot := find_hit(log.differences(line, profile.growth), profile.noise)) is not None:
            log.exclude_pair(int(line[0]), slot)


def find_hit(line: CentralDifferences, noise: Array) -> int | None:
    """The pair of one line of which one run is off, as another pair shows: by as much as its slope
    is, its second difference departs from that of the other.

    An event on one side of x, which a wider pair reaches, looks the same, and is as well left out.
    """
    slope, second, t = line.slope[0], line.second[0], line.t[0]
    alive = np.isfinite(slope).any(axis=0)
    worked = np.isfinite(slope[:, alive]).all(axis=1) & ~line.sided[0] & alive.any()
    found, most = None, CLEAR**2
    for a, b in permutations(np.flatnonzero(worked), 2):
        square = (t[a] / t[b]) ** 2
        sd = noise[alive] * np.sqrt(2 * (1 + square))
        shift = 2 * t[a] * (slope[a] - slope[b])[alive] / sd
        even = (second[a] - square * second[b])[alive] / sd
        size = float(np.mean(np.square(shift)))
        off = min(np.mean(np.square(even - shift)), np.mean(np.square(even + shift)))
        # curvature does not grow towards x
        near, far = (np.sum(np.square(second[p][alive] / sd)) for p in (a, b))
        if size > most and off < EXACT**2 * size and (t[a] > t[b] or near > far):
            found, most = int(a), size
    return found


def find_outlier(line: Posterior) -> int | None:
    """The pair of one line (of three and more) without which the others agree; ``weights`` are
    the prior."""
    states, view = line.states, line.differences
    prior = (1 - OPEN) * line.weights[0] + OPEN * states.prior(0.0)
    slots = np.flatnonzero(np.isfinite(view.t[0]))
    found = np.zeros(slots.size)
    for k, slot in enumerate(slots):
        rest = view.take_pairs(slots[slots != slot])
        slopes, bends = likelihood(rest, states, line.noise, line.slope)
        logs = (slopes + bends)[0]
        found[k] = logs.max() + np.log(prior @ np.exp(logs - logs.max()))
    best, second = np.argsort(-found)[:2]
    return int(slots[best]) if found[best] - found[second] > EVIDENT else None
