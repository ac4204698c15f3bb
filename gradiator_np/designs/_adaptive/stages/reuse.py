"""What was learned at another point, and whether it holds here; noise where no pilot could run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.model.contrasts import surprise
from gradiator_np.designs._adaptive.model.differences import NoiseGrowth
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.prior import normalise
from gradiator_np.designs._adaptive.model.quantization import decade
from gradiator_np.designs._adaptive.stages.nonsmooth import broken
from gradiator_np.designs._adaptive.stages.rounds import RoundsResult
from gradiator_np.designs._adaptive.state import AxisState, FunctionProfile

# Degrees of freedom that the noise found at another point counts for here, and the ratio of noise
# levels that calls for a new pilot.
TRUST, OTHER_NOISE = 30.0, 3.0


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Another point's profile in this one's units."""

    profile: FunctionProfile
    axes: AxisState
    noise: NoiseEstimator


def adopt(context: Context, given: FunctionProfile, axes: AxisState) -> WarmStart:
    """Start from the profile of another point."""
    size = np.nan_to_num(np.abs(context.log.f0))
    known = np.where(given.dof > 0, np.minimum(given.dof, TRUST), 0.0)
    noise = replace(
        NoiseEstimator.empty(size.size),
        size=size,
        least=np.minimum(given.noise, 0.3 * context.problem.eps * size),
        squares=known * np.square(given.noise),
        count=known,
    )
    growth, prior = given.growth, given.prior
    if growth is not None:
        growth = NoiseGrowth(
            None if growth.reference is None else noise.reference(size),
            None if growth.digits is None else np.where(growth.digits > 0, decade(size), 0.0),
            growth.least,
        )
    if len(prior) != context.log.batch:
        prior = given.typical_prior[None]
    profile = replace(given, growth=growth, prior=prior)
    return WarmStart(profile, axes.within(given.min_step, given.max_step), noise)


def is_stale(context: Context, found: RoundsResult, given: FunctionProfile) -> bool:
    """Whether what was learned at another point does not hold here: another noise, or a function
    that bends much earlier."""
    known = replace(
        context.infer(found.profile, found.axes).pooled,
        differences=context.differences(found.profile),
        noise=given.noise,
    )
    expected = context.states.bend_length(given.typical_prior)
    bent = np.median(known.bend_length) < expected / 5
    if not given.noisy or context.known_noise is not None:
        return bool(bent or broken(known.differences, known.noise, known.slope).any())
    # by the curvature expected beforehand: afterwards noise may pass for it
    prior = context.priors(found.profile, found.axes)[1]
    prior = prior.reshape(len(known.weights), -1, prior.shape[-1]).mean(axis=1)
    before = replace(
        known,
        weights=normalise(prior),
        slope=np.broadcast_to(given.slope, known.slope.shape),
    )
    return bool(bent or surprise(before) > OTHER_NOISE**2)


def noise_of_pairs(context: Context, profile: FunctionProfile) -> FunctionProfile:
    """Noise where no pilot told it: from second differences at the smallest steps that something
    answers, and curvature that reaches these would pass for noise."""
    if context.known_noise is not None:
        return profile
    # inputs too short a step for any answer leave it to the pilot
    for lines in (context.inputs, [context.log.pilot]):
        view = context.log.differences(lines, profile.growth)
        answers = (np.nan_to_num(view.slope) != 0) | (np.nan_to_num(view.second) != 0)
        answers = answers.any(axis=2)
        if answers.any():
            break
    second = replace(view, t=np.where(answers, view.t, np.nan)).nearest()[2]
    second = second[answers.any(axis=1)]
    m = len(second)
    if not m:
        return profile
    noise = replace(
        NoiseEstimator.empty(profile.noise.size),
        size=np.nan_to_num(np.abs(context.log.f0)),
        least=profile.noise,
    )
    k = np.arange(1, m)[:, None]
    # all share the noise of f0: what they differ by, and their mean
    apart = (np.cumsum(second, axis=0)[:-1] - k * second[1:]) / np.sqrt(k * (k + 1))
    level = noise.add(apart, 2.0).add(second.mean(axis=0), 4 + 2 / m).level()
    return replace(profile, noise=level.noise, dof=level.dof)
