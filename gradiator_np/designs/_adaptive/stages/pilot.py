"""The pilot: what a few runs along one direction tell of a function's noise and bends."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace

import numpy as np

from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.evaluation_log import PILOT, Moves
from gradiator_np.designs._adaptive.model.differences import NoiseGrowth
from gradiator_np.designs._adaptive.model.likelihood import first_slope
from gradiator_np.designs._adaptive.model.mixture import slopes
from gradiator_np.designs._adaptive.model.noise import SECOND_NOISE, NoiseEstimator, NoiseLevel
from gradiator_np.designs._adaptive.model.posterior import Posterior
from gradiator_np.designs._adaptive.model.quantization import (
    digit_growth,
    has_few_digits,
    printed_spacing,
)
from gradiator_np.designs._adaptive.model.scale_consistency import FULL_UP, WIDE
from gradiator_np.designs._adaptive.stages.noise_level import (
    LOUDER,
    level_of,
    measure_noise,
    measure_staircase,
)
from gradiator_np.designs._adaptive.stages.pilot_line import PilotLine
from gradiator_np.designs._adaptive.stages.small_scale import (
    CLOSER,
    NOISY,
    Kind,
    SmallScale,
    examine_small_scale,
    small_step,
)
from gradiator_np.designs._adaptive.stages.wide_scale import (
    ScaleComparison,
    compare_rough,
    compare_smooth,
)
from gradiator_np.designs._adaptive.state import Budget, FunctionProfile

Script = Generator[Moves, None, None]

# A pilot that fails is drawn in, or aimed anew, as often as this.
TRIES = 4
# The first step of a direction that is kept short, as a share of the widest of the small ones.
SHORTEST = 0.1
# Factor from one pair to the next, for as long as nothing answers.
GROWTH = 100.0
# The direction moves inputs by half of its step at least.
ROOMY = 2.0
# Wherever slopes hold, pairs of single inputs are this much shorter than the pilot's.
WITHIN = 0.7


@dataclass(frozen=True, slots=True)
class PilotResult:
    """What the pilot found.

    Attributes
    ----------
    profile : FunctionProfile or None
        None where every run failed.
    noise : NoiseEstimator
        The contrasts behind ``profile.noise``.
    max_step : float
        Steps beyond it failed, in units of t.
    line : PilotLine
        The runs themselves.
    posterior : Posterior or None
        What they say of each point's slope along the direction, which J has to agree with.
    """

    profile: FunctionProfile | None
    noise: NoiseEstimator
    max_step: float
    line: PilotLine
    posterior: Posterior | None


@dataclass(frozen=True, slots=True)
class _Findings:
    """What becomes the profile."""

    noise: NoiseEstimator
    small: SmallScale | None = None
    noisy: bool = True
    min_step: float = 0.0
    scales: ScaleComparison = field(default_factory=ScaleComparison)


def run_pilot(context: Context, budget: Budget) -> Generator[Moves, None, PilotResult]:
    """Ask for the pilot's rows; return what they tell."""
    line = PilotLine(context, budget)
    least = yield from _first_answer(line)
    noise = NoiseEstimator.empty(context.log.f0.size)
    if least is None:
        return PilotResult(None, noise, line.max_step, line, None)
    noise = _with_rounding(line, replace(noise, size=line.sizes()))
    found = yield from _kind(line, noise, least)
    yield from line.replace_wide(found.noisy)
    # where nothing answers below a step, small steps have been told from wide ones already
    steps = found.min_step > 0 or context.min_step > 0
    if found.noisy and not (line.random or line.side or steps):
        scales = yield from compare_rough(line, level_of(line, found.noise).noise)
        found = replace(found, scales=scales)
    if found.scales.amplitude is not None:
        # the mean of two squares
        amplitude = found.scales.amplitude
        noise = found.noise.cleared().add(amplitude, 1.0).add(amplitude, 1.0)
        found = replace(found, noise=noise, noisy=True, min_step=found.scales.min_step)
    profile, posterior = _profile(line, found)
    return PilotResult(profile, found.noise, line.max_step, line, posterior)


def _first_answer(line: PilotLine) -> Generator[Moves, None, float | None]:
    """Grow the first pair until something answers: the step below which nothing does, 0 where the
    smallest step is answered at once; None where every run fails."""
    log, tries, turned = line.log, 0, False
    line.aim()
    # some input has to move by more than floating-point numbers round to
    size = np.abs(log.direction).max(axis=0)
    seen = np.where(size > 0, log.resolution / np.where(size > 0, size, 1.0), np.inf)
    start = FULL_UP * 10.0 ** np.rint(np.log10(line.context.problem.eps) / 2)
    # of a direction that is kept short inputs move by less of themselves, which rounds more
    start = min(start / line.share, SHORTEST * small_step(line.context.problem.eps))
    least = max(4 * float(seen.min()), ROOMY * line.context.min_step)
    t = before = start = min(max(start, least), line.max_step)
    while line.spare > 0 or line.allow(2):
        yield from line.pairs([t])
        view = line.view
        slope, second = view.slope[0, -1], view.second[0, -1]
        if not np.isfinite(slope).any():
            tries += 1
            if tries > TRIES:
                return None
            line.turn(tries)
            t = t / 8
        elif np.nan_to_num(slope).any() or np.nan_to_num(second).any() or t >= line.max_step:
            if t <= start or line.is_lost(t, before):
                return 0.0
            if turned and before <= start and not has_few_digits(log.values(), log.f0).any():
                # is it the step that tells, or the direction?
                yield from line.pairs([start])
                if np.nan_to_num(line.at(start)[0]).any():
                    return 0.0
            return float(t)
        else:
            if t <= start and line.spare > 1:
                # the step is too short, or f does not change along this line, as x[0] / x[1] does
                # not along x (one direction in ten)
                turned = line.turn_aside()
            t, before = min(GROWTH * t, line.max_step), t
    return float(before) if np.isfinite(line.view.slope).any() else None


def _kind(
    line: PilotLine, noise: NoiseEstimator, least: float
) -> Generator[Moves, None, _Findings]:
    """What kind of function it is, by what its smallest steps show."""
    context = line.context
    # what jumps by more spacings than steps grew by is rounded elsewhere: its inputs are
    printed = noise.printed.any() and not (least > 0 and _jumps(line, noise, least))
    known = context.known_noise
    rough = known is not None and _beyond_rounding(line, noise, known)
    if printed or rough or context.min_step > 0:
        if printed:
            # two pairs an input tell more of a known noise than a look for another one
            line.reserve_second_pairs()
        noise = yield from measure_noise(line, noise)
        return _Findings(_rounded(line, noise))
    if least > 0:
        noise = yield from _staircase(line, noise, least)
        return _Findings(noise, min_step=line.first_answer)
    first = line.at(line.smallest)[1]
    small = yield from examine_small_scale(line, noise, known is not None)
    if small.kind is Kind.SMOOTH:
        start, noise = small.max_step, _with_rounding(line, small.noise, small.max_step)
        scales = yield from compare_smooth(line, level_of(line, noise).noise, start)
        return _Findings(noise, small, noisy=False, scales=scales)
    noise = noise.add(first, SECOND_NOISE)
    if small.kind is Kind.STILL:
        least = line.smallest / CLOSER
        noise = yield from _staircase(line, noise, least)
        return _Findings(noise, small, min_step=least)
    noise, least = _rounded(line, (yield from measure_noise(line, noise))), 0.0
    if small.jumps and noise.printed.any():
        # to the next multiple of the spacing
        small = replace(small, jumps=False)
    elif small.jumps:
        # small steps see the jump over the step
        least = WIDE / 4
        line.log.exclude_below(line.log.pilot, 0.99 * WIDE / 2)
    return _Findings(noise, small, min_step=least)


def _jumps(line: PilotLine, noise: NoiseEstimator, t: float) -> bool:
    """Whether some output changes by so much at the first step that answers that it would have
    changed by its known spacing at the step before."""
    slope, second = line.at(t)
    change = np.abs(slope) * t + np.abs(second) / 2
    return bool((noise.printed & (change > GROWTH * np.sqrt(12) * noise.least)).any())


def _staircase(
    line: PilotLine, noise: NoiseEstimator, step: float
) -> Generator[Moves, None, NoiseEstimator]:
    """Noise of a function that stands still below a ``step``."""
    return _rounded(line, (yield from measure_staircase(line, noise, step)), stands=True)


def _rounded(line: PilotLine, noise: NoiseEstimator, stands: bool = False) -> NoiseEstimator:
    """With rounding at least; of a program that rounds, or ``stands`` still, never less than here:
    inputs rounded to decimals show no noise at round steps, which all start from one rounded x."""
    noise = _with_rounding(line, noise)
    if not (stands or noise.printed.any()):
        return noise
    level = level_of(line, noise).noise
    # of a known spacing a few contrasts show more by chance
    return noise.at_least(np.where(noise.printed & (level < LOUDER * noise.least), 0.0, level))


def _beyond_rounding(line: PilotLine, noise: NoiseEstimator, level: Array) -> bool:
    """Whether noise is more than a program's own rounding."""
    ratio = level / np.maximum(noise.size, 1e-300)
    return bool(np.sqrt(np.mean(np.square(ratio))) > NOISY * line.context.problem.eps)


def _with_rounding(
    line: PilotLine, noise: NoiseEstimator, widest: float = np.inf
) -> NoiseEstimator:
    """With the rounding error of floating-point numbers, and of printed digits, at least."""
    size = line.sizes(widest)
    # an output that was 0 all along is taken for the smallest of the others
    some = size[size > 0]
    size = np.where(size > 0, size, some.min() if some.size else 1.0)
    # what more values say supersedes what few did
    noise = replace(noise, size=size, least=0.3 * line.context.problem.eps * size)
    values = line.log.values()
    spacing = printed_spacing(values, line.log.f0, line.still)
    # errors spread evenly over a spacing
    error = spacing / np.sqrt(12)
    if not _beyond_rounding(line, noise, error):
        return replace(noise.at_least(error), printed=spacing < 0, digits=None)
    growth = digit_growth(values, line.log.f0, spacing)
    return replace(noise.at_least(error), printed=spacing > 0, digits=growth)


# -- the outcome -----------------------------------------------------------------------------


def _profile(line: PilotLine, found: _Findings) -> tuple[FunctionProfile, Posterior]:
    context, log = line.context, line.log
    two_scales = found.scales.amplitude is not None
    level: NoiseLevel = found.noise.level() if two_scales else level_of(line, found.noise)
    reference = None
    if found.noisy and not two_scales and level.relative and context.known_noise is None:
        reference = found.noise.reference(np.nan_to_num(np.abs(log.f0)))
    rounding = np.square(np.clip(found.noise.least / level.noise, 1e-3, 1.0))
    growth = NoiseGrowth(reference, found.noise.digits, rounding)
    known, slope, prior = _posterior(line, found, level.noise, growth)
    gap, small = found.scales.discrepancy, found.small
    widest = np.inf
    if not found.noisy and not found.scales.agree:
        widest = WITHIN * float(np.nanmax(log.differences([log.pilot]).t[0])) * line.share
    profile = FunctionProfile(
        level.noise, level.dof, prior, slope / line.length, found.noisy, line.random,
        min_step=found.min_step * line.share, max_step=widest, two_scales=two_scales,
        # signs are random: what m slopes differ by together, each does by 1 / sqrt(m) of
        discrepancy=None if gap is None else gap / line.length,
        growth=growth,
        nonsmooth=small is not None and (small.kinked or small.jumps),
        unresolved=0.0 if small is None else small.unresolved,
    )  # fmt: skip
    return profile, known


def _posterior(
    line: PilotLine, found: _Findings, noise: Array, growth: NoiseGrowth
) -> tuple[Posterior, Array, Array]:
    """What is known along the direction, the size of the slopes (N,) there, and the prior (B, S)
    of single inputs."""
    context, log, batch = line.context, line.log, line.log.batch
    view = log.differences([log.pilot], growth).by_point(batch)
    narrow = found.small is not None and found.small.max_step < small_step(context.problem.eps)
    every = context.states.prior(0.0 if line.random else 0.1, narrow=narrow)
    possible = np.flatnonzero(every)
    states, start = context.states.take(possible), np.tile(every[possible], (batch, 1))
    # a direction that bounds keep short bends late, in units of itself
    short = float(np.log10(line.share))
    if short < 0:
        start = states.blur(start, -short)
    each = noise.reshape(batch, -1)
    first = Posterior(view, states, start, first_slope(view, each), each)
    slope = np.abs(slopes(first)).ravel()
    # a slope may vanish along one direction: then a typical one, relative to the output's size,
    # stands in for it
    size = found.noise.size
    slope = np.maximum(slope, 0.03 * np.median(slope / size) * size) + noise
    known = replace(first, slope=slope.reshape(batch, -1)).updated()
    part = np.abs(log.direction).max(axis=0)
    moved = part[part > 0]
    # inputs moved together bend up to sqrt(m) faster than one of them; what bends early is one of
    # them, by its part of the step
    alone = 0.25 * np.log10(max(moved.size, 1)) + short
    if not (found.noisy or found.scales.agree) and moved.size:
        alone = float(np.log10(moved).mean())
    prior = states.blur(known.weights, alone)
    prior = 0.95 * prior + 0.05 * states.prior(1e-5)
    out = np.zeros((batch, every.size))
    # where the pilot's pairs are the input's own they are used again as such
    out[:, possible] = prior if log.pilot == PILOT else start
    if not (found.small is not None and found.small.kinked):
        slope = known.with_curvature().slope.ravel()
    return known, slope, out
