"""The rounds: pairs along every input, where the errors are largest, until enough is known."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._typing import Index
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import Moves, PairRequest
from gradiator_np.designs._adaptive.failed_runs import clear_rooms
from gradiator_np.designs._adaptive.model.contrasts import pool
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.prior import TERMS
from gradiator_np.designs._adaptive.model.step_selection import (
    StepLimits,
    reach_of_terms,
    select_steps,
)
from gradiator_np.designs._adaptive.result import estimate
from gradiator_np.designs._adaptive.stages.failures import replace_failed
from gradiator_np.designs._adaptive.stages.inactive import find_inactive
from gradiator_np.designs._adaptive.stages.outliers import exclude_outliers
from gradiator_np.designs._adaptive.stages.unused_step import unused_step
from gradiator_np.designs._adaptive.state import WIDEST, AxisState, Budget, FunctionProfile

# Pairs of one input in all where only a tolerance is given.
PATIENCE = 100


@dataclass(frozen=True, slots=True)
class RoundsResult:
    """The profile with noise from all pairs, the axes, and whether the budget ended too early."""

    profile: FunctionProfile
    axes: AxisState
    short: bool


def measure(
    context: Context, profile: FunctionProfile, axes: AxisState, noise: NoiseEstimator,
    budget: Budget, again: bool = False,
) -> Generator[Moves, None, RoundsResult]:  # fmt: skip
    """Run pairs until every input has as many as its function needs, the errors wanted are met,
    or the budget ends; ``again``: as few as an earlier point's profile allows."""
    m, log, wanted = context.inputs.size, context.log, context.tolerance
    each = 2 if profile.noisy or profile.two_scales else 1
    left: float = 2 * m * each if again else budget.left(log)
    if budget.max_nfev is not None:
        # a noise-free answer gets no better than rounding allows
        pairs = left * budget.share(log) // 2
        each = max(min(int(pairs // m), 1 << 30 if profile.noisy else 4), 1)
    elif wanted:
        left = 2 * PATIENCE * m
    short, start = False, axes
    while True:
        who = _wanting(context, profile, axes, each, left)
        pairs = left * budget.share(log) // 2
        if who.size > pairs:
            short = not axes.n_pairs.all() or (bool(wanted) and left < 2)
            who = _worst(context, profile, axes, who, int(pairs))
        if not who.size:
            return RoundsResult(profile, axes, short)
        before = budget.spent(log)
        mended = log.repeats.mended
        axes = yield from request_pairs(context, profile, axes, who, each, pairs)
        axes = yield from replace_failed(context, profile, axes, who, budget)
        if log.repeats.mended and not mended:
            # what failed by chance was taken for the end of a domain
            axes = axes.as_open_as(start)
        if axes.n_pairs.max() == 1 and not (profile.random or noise.printed.any()):
            axes, gridded = yield from find_inactive(context, profile, axes, budget)
            each = max(each, 2) if gridded else each
        left -= budget.spent(log) - before
        exclude_outliers(context, profile, axes)
        if (axes.n_pairs[~axes.inactive] >= each).all():
            profile = _pooled(context, profile, axes, noise)


def _wanting(
    context: Context, profile: FunctionProfile, axes: AxisState, each: int, left: float
) -> Index:
    """The inputs that should get a pair."""
    wanted = np.flatnonzero((axes.n_pairs < each) & ~axes.inactive)
    if wanted.size:
        return wanted
    if context.tolerance:
        over = context.tolerance.ratio(estimate(context, profile, axes).solution) > 1
        return np.flatnonzero(np.asarray(over.any(axis=(0, 1)))[context.inputs])
    if profile.noisy and left >= 2:
        return np.flatnonzero(~axes.inactive)
    return wanted


def _worst(
    context: Context, profile: FunctionProfile, axes: AxisState, who: Index, left: int
) -> Index:
    """What is left goes where the error is largest."""
    spread = context.variances(profile, axes).T
    error = (spread / np.square(profile.noise)).mean(axis=1)
    order = who[np.argsort(-error[who], kind="stable")]
    return np.sort(order[: max(left, 0)])


def request_pairs(
    context: Context, profile: FunctionProfile, axes: AxisState, who: Index, each: int,
    left: float = np.inf,
) -> Generator[Moves, None, AxisState]:  # fmt: skip
    """Ask for one more pair of these inputs, of ``each`` in all; several where many are to come."""
    # a wide pair that counts on a second one says little alone
    fit = min(float(each - axes.n_pairs[who].min()), left / max(who.size, 1))
    ahead = int(np.clip(fit, 1, 4))
    known = context.infer(profile, axes).pooled.take(who)
    if not profile.nonsmooth:
        known = known.with_curvature()
    # of more pairs than the model has terms nothing but what it leaves out limits the steps
    unlimited = profile.noisy & (np.maximum(each, axes.n_pairs[who] + ahead) <= TERMS)
    smooth = np.where(unlimited, np.inf, reach_of_terms(known))
    within = np.minimum(axes.range[who], np.maximum(smooth, axes.min_step[who]))
    up, down = clear_rooms(context.log, context.inputs[who])
    most, side = np.minimum(axes.max_step[who], np.minimum(up, down)), axes.side[who]
    limits = StepLimits(
        axes.min_step[who], most, within, up, down, axes.reach[who], side,
        (most < WIDEST) | (side != 0),
    )  # fmt: skip
    choice = select_steps(known, limits, ahead)
    # after four pairs little is learned from one: four at once save rounds
    block = ahead if axes.n_pairs[who].min() >= 4 and left >= ahead * who.size else 1
    fits = np.isfinite(choice.t)
    axes, added, wanted = axes.at(who[fits], side=choice.side[fits]), [], []
    for k, step, side, shape in zip(who, choice.t, choice.side, choice.shape):
        taken: list[float] = []
        added.append(taken)
        if not np.isfinite(step):
            continue
        for part in shape[:block]:
            t = max(step * part, min(axes.min_step[k], step))
            taken.append(unused_step(context, profile, axes, k, t, taken))
            wanted.append(PairRequest(int(context.inputs[k]), taken[-1], int(side)))
    axes = axes.at(who, n_pairs=axes.n_pairs[who] + np.array([len(taken) for taken in added]))
    if wanted:
        yield context.log.request(wanted)
    return axes


def _pooled(
    context: Context, profile: FunctionProfile, axes: AxisState, noise: NoiseEstimator
) -> FunctionProfile:
    """Learn the noise anew from the contrasts of all pairs."""
    if not profile.noisy or context.known_noise is not None:
        return profile
    # repetitions apart
    known = replace(context.infer(profile, axes).pooled, differences=context.differences(profile))
    level = pool(noise, known).level()
    if profile.two_scales:
        # neighbouring steps see one wiggle alike
        return replace(profile, noise=np.maximum(level.noise, profile.noise))
    return replace(profile, noise=level.noise, dof=level.dof)
