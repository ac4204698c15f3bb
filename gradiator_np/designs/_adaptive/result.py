"""The answer of the default design: J, its errors, and what limits them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array
from gradiator_np.designs._adaptive.context import Context
from gradiator_np.designs._adaptive.model.mixture import NORMAL_95
from gradiator_np.designs._adaptive.model.noise import SECOND_NOISE
from gradiator_np.designs._adaptive.state import AxisState, FunctionProfile, Outcome
from gradiator_np.solvers._solution import Solution

Entries = NDArray[np.bool_]

# Of a wave's slope and curvature one may be near its zero at x, and the gap along the pilot's
# direction is a sum with random signs. With this factor 0.95 of 487 columns of functions that
# wiggle were within two bars of the slope at wide steps (0.92 with 1.4), as bars should be.
UNSEEN = 2.0
# Error bars above this share of J say that there is no answer: pure noise has 1 in the mean, and of
# nine entries less than 0.5 in one case of 200.
NO_ANSWER = 0.5
# What J misses of the pilot's slope, as a share of its row, below which bars that hold it will do.
MISSED = 1e-5
# Change of an output over a step as large as x, as a share of itself, that is hardly one.
HARDLY = 1e-4

FIXED = "every input is fixed: nothing was to be estimated"
CORNER = "a kink or a jump at x; J is their mean, and move x or take one-sided differences"


@dataclass(frozen=True, slots=True)
class Estimate:
    """J from what has been seen so far.

    Attributes
    ----------
    solution : Solution
        Without a verdict.
    coef : array, shape (N, m)
        Slopes of real outputs per unit t of all inputs, fixed ones included.
    variance, noise_variance : array, shape (N, m)
        Of these, in all and by noise; inf where nothing was measured.
    """

    solution: Solution
    coef: Array
    variance: Array
    noise_variance: Array


def estimate(
    context: Context, profile: FunctionProfile, axes: AxisState, outcome: Outcome | None = None
) -> Estimate:
    """J and its errors, with all that the checks of ``outcome`` say: between the slopes to the two
    sides at a kink, with the gap to wide slopes where slopes at two scales differ, and with what
    the pilot saw and J does not explain."""
    p, log, inputs, noise = context.problem, context.log, context.inputs, profile.noise
    batch, m = p.x.shape
    coef = np.zeros((noise.size, m))
    unit, variance = np.zeros(coef.shape), np.full(coef.shape, np.inf)
    if inputs.size and noise.size:
        found = context.slopes(profile, axes)
        coef[:, inputs] = found.mean
        unit[:, inputs] = np.where(np.isfinite(found.half_width), found.unit_variance, 0.0)
        # a standard error is what a normal error of the same 95 % interval would have: the tails
        # of the mixture reach further than its middle
        variance[:, inputs] = np.square(found.half_width / NORMAL_95)
        if outcome is not None:
            t, _, second = context.differences(profile).nearest()
            half_gap = np.where(outcome.kinks, np.abs(second) / (2 * t[:, None]), 0.0)
            variance[:, inputs] += np.square(half_gap).T + np.square(outcome.unexplained)
    if profile.discrepancy is not None:
        variance[:, inputs] += np.square(_gaps(context, profile, profile.discrepancy))
    known = np.isfinite(variance)
    noise_variance = np.square(noise)[:, None] * unit
    extra = np.where(known, np.maximum(variance - noise_variance, 0.0), 0.0)

    # real and imaginary parts lie side by side: (B, parts, n, ...)
    n = p.y.shape[-1]
    scale = log.scale[:, None, :]

    def parts(a: Array) -> Any:
        return a.reshape(batch, -1, n, *a.shape[1:])

    both = parts(coef)
    jac = both[:, 0] + 1j * both[:, 1] if np.iscomplexobj(p.y) else both[:, 0]
    level = np.sqrt(np.square(parts(noise)).sum(axis=1))
    cov = Covariance(
        level,
        diag=parts(noise_variance).sum(axis=1) / np.square(level)[..., None] / scale**2,
        extra=parts(extra).sum(axis=1) / scale**2,
        per_output=True,
        lost=~parts(known).all(axis=1),
    )
    solution = Solution(
        jac / scale,
        cov,
        parts(profile.dof).min(axis=1),
        parts(known).all(axis=(1, 2)).sum(axis=-1).astype(np.intp),
        np.ones(batch),
        np.zeros((batch, n)),
    )
    return Estimate(solution, coef, variance, noise_variance)


def _gaps(context: Context, profile: FunctionProfile, gap: Array) -> Array:
    """By how much slopes (N, m) at small and at wide steps differ, from what they do along the
    pilot's direction, ``gap`` (N,) for each of m alike.

    The square is shared out by how fast the slope of each input changes: a wave A sin(w t) has a
    slope of A w and a curvature of A w^2, whose root goes as w among the inputs of one wave.
    """
    t, _, second = context.differences(profile).nearest()
    hidden = np.sqrt(SECOND_NOISE) * profile.noise
    curvature = np.nan_to_num(np.fmax(np.abs(second), hidden) / np.square(t)[:, None])
    square = curvature / curvature.max(axis=0)
    share = np.sqrt(square / square.mean(axis=0)).T
    return np.asarray(UNSEEN * np.abs(gap)[:, None] * share)


def assemble_solution(
    context: Context, outcome: Outcome, profile: FunctionProfile, finished: bool
) -> Solution:
    """J from what the stages found, with a status and what limits the answer."""
    found = estimate(context, profile, outcome.axes, outcome)
    status, message = Status.INCOMPLETE, "not all rows have been told yet: tell them and ask again"
    if finished:
        status, message = _verdict(context, outcome, profile, found)
    return replace(
        found.solution,
        status=status,
        message=message + _rescaled_words(outcome.rescaled),
        info=_info(context, profile, outcome.axes),
    )


def steps_used(context: Context) -> Array:
    """The largest step of each input that was used, (B, m), in units of x; nan where none was."""
    out, unit = np.full(context.problem.x.shape, np.nan), context.log.unit
    for j in context.inputs:
        used = context.log.steps(int(j))
        if used:
            out[:, j] = max(used) * unit[:, j]
    return out


def _info(context: Context, profile: FunctionProfile, axes: AxisState) -> dict[str, Any]:
    """Where each input bends (units of x, nan where unknown), and its number of pairs."""
    shape, inputs = context.problem.x.shape, context.inputs
    known = context.infer(profile, axes).pooled
    rho = np.full(shape, np.nan)
    if inputs.size:
        rho[:, inputs] = known.bend_length * context.log.unit[:, inputs]
    pairs = np.zeros(shape, np.intp)
    pairs[:, inputs] = known.differences.n_pairs
    return {"rho": rho, "pairs": pairs, "step": steps_used(context)}


def _verdict(
    context: Context, outcome: Outcome, profile: FunctionProfile, found: Estimate
) -> tuple[Status, str]:
    """Status, and one sentence on what limits the answer and what would improve it."""
    free, variance = context.inputs, found.variance
    if not free.size or not found.coef.size:
        return Status.UNDETERMINED, FIXED
    alive = np.isfinite(variance[:, free]).any(axis=1)
    lost = ~np.isfinite(variance[alive][:, free]).all(axis=0)
    if outcome.short:
        none = lost if alive.any() else np.ones(free.size, bool)
        what = (
            f"inputs {_names(free[none])} were moved"
            if none.any()
            else "the errors wanted were met"
        )
        return Status.BUDGET, (
            f"the evaluations allowed ended before {what}: raise max_nfev, atol or rtol"
        )
    if lost.any() or not alive.all():
        dead = f"outputs {_names(np.flatnonzero(~alive))}" if lost.all() or not lost.any() else ""
        return Status.UNDETERMINED, (
            f"no run near x succeeded for {dead or 'inputs ' + _names(free[lost])}: "
            "give bounds or a max_step that keep the runs where the function works"
        )
    values = context.log.values()
    if (values[:, alive] == context.log.f0[alive])[context.log.rows.done].all():
        return Status.NO_RESPONSE, (
            f"{context.log.nfev} runs gave the same numbers to the last bit: J is 0 where fun does "
            "not read what it is given, or answers to wider steps only"
        )
    rough = _roughness(context, outcome, profile, found.coef[:, free])
    if rough is not None:
        return rough
    # noise that few contrasts told has Student's tails
    reach = np.square(stdtrit(np.maximum(profile.dof, 1.0), 0.975) / NORMAL_95)[:, None]
    wide = free[_is_wide(context, profile, found.coef, reach * found.variance)[free]]
    if wide.size:
        return Status.UNRESOLVED, (
            f"error bars of inputs {_names(wide)} are wider than half of J: give x_scale, the "
            "change of x that matters, or raise max_nfev"
        )
    size = np.sqrt(np.square(found.coef).sum())
    err = np.sqrt((reach * variance)[:, free].sum())
    if profile.noisy and err > NO_ANSWER * size and size > 0:
        return Status.NO_SIGNAL, (
            f"noise hides the response: the error bars are {err / size:.2g} of J; raise max_nfev, "
            "or reduce the noise of the function"
        )
    fixed = np.flatnonzero(~context.log.free)
    if fixed.size:
        return Status.UNDETERMINED, f"inputs {_names(fixed)} are fixed by their bounds"
    limit = _limit(profile, variance[:, free], found.noise_variance[:, free])
    inert = free[outcome.axes.inactive]
    if inert.size:
        limit = f"inputs {_names(inert)} change nothing; {limit}"
    failed = ~context.log.rows.done | ~np.isfinite(values[:, alive]).all(axis=1)
    n_failed = int(failed.sum()) + len(context.log.repeats)
    if n_failed:
        return Status.FAILED_RUNS, f"{n_failed} runs failed and were replaced; {limit}"
    return Status.OK, limit


def _is_wide(
    context: Context, profile: FunctionProfile, coef: Array, variance: Array
) -> NDArray[np.bool_]:
    """Inputs (m,) of which the error bars are no answer, though the function is smooth: those of
    outputs that change by no more than rounding do not count."""
    if profile.noisy or context.tolerance:
        return np.zeros(context.problem.x.shape[-1], bool)
    # What an input and an output are like, all points of a batch tell together: steps of 1e-12
    # among others of 1 are an accident, and an output that is 0 at one point is no small one.
    scale = context.log.scale
    batch, rows = len(scale), len(coef) // len(scale)
    unit = np.repeat(scale.max(axis=0) / scale, rows, axis=0)
    coef, error = coef * unit, np.sqrt(np.nan_to_num(variance)) * unit
    largest = np.abs(coef).max(axis=1, keepdims=True) + 1e-300
    row = largest * np.sqrt(np.square(coef / largest).sum(axis=1, keepdims=True))
    values = np.abs(np.nan_to_num(context.log.values())).max(axis=0, initial=0.0)
    typical = np.tile(values.reshape(batch, rows).max(axis=0), batch)
    size = np.maximum(row, HARDLY * typical[:, None])
    share = np.minimum(error / (size + 1e-300), 1.0)
    of_points = np.square(share).reshape(batch, rows, -1).mean(axis=1)
    return np.asarray(np.sqrt(of_points.max(axis=0)) > NO_ANSWER)


def _roughness(
    context: Context, outcome: Outcome, profile: FunctionProfile, coef: Array
) -> tuple[Status, str] | None:
    """What is not smooth on the scale of the steps, with slopes ``coef`` (N, m); None where all
    is."""
    if outcome.kinks.any():
        which = _names(context.inputs[outcome.kinks.any(1)])
        return (
            Status.LACK_OF_FIT,
            f"slopes to the two sides of x differ along inputs {which}: {CORNER}",
        )
    if profile.unresolved > 0:
        return Status.UNRESOLVED, (
            "the function changes by as much as it ever does within a small step: give x_scale, "
            f"the change of x that matters ({profile.unresolved:.1g} * abs(x) to begin with), "
            "or move the origin of x"
        )
    missed = outcome.unexplained > MISSED * np.sqrt(np.square(coef).sum(axis=1, keepdims=True))
    if missed.any():
        which = _names(context.inputs[missed.any(axis=0)])
        return Status.LACK_OF_FIT, (
            f"J does not add up to the slope along all inputs together, by what inputs {which} do "
            "at small steps; stderr holds what is missing: raise max_nfev"
        )
    if profile.two_scales:
        return Status.TWO_SCALES, (
            f"below steps of {profile.min_step:.1g} x the function wiggles, and J is the slope of "
            "its trend: for the slope at x itself give max_step"
        )
    if profile.discrepancy is not None:
        return Status.TWO_SCALES, (
            "the function bends or wiggles below 0.1 x, and J is the slope at small steps: where "
            "that is not meant give min_step"
        )
    if profile.nonsmooth:
        return Status.LACK_OF_FIT, f"slopes to the two sides of x differ: {CORNER}"
    return None


def _limit(profile: FunctionProfile, variance: Array, noise_variance: Array) -> str:
    weight = 1 / np.square(profile.noise)[:, None]
    share = float((weight * noise_variance).sum() / max((weight * variance).sum(), 1e-300))
    if not profile.noisy:
        if share > 0.5:
            return "accuracy is limited by rounding: nothing short of a complex step improves it"
        return "accuracy is limited by truncation and rounding: a larger max_nfev raises the order"
    if share > 0.5:
        return "accuracy is limited by noise: four times the max_nfev halves the error"
    return "accuracy is limited by curvature: a larger max_nfev raises the order of the differences"


def _rescaled_words(rescaled: tuple[int, ...]) -> str:
    if not rescaled:
        return ""
    return (
        f"; noise hides what inputs {_names(np.array(rescaled))} do at steps of the size of x, and "
        "theirs reach beyond it: give x_scale or max_step where that is too far"
    )


def _names(inputs: NDArray[np.intp]) -> str:
    head = ", ".join(str(int(j)) for j in inputs[:5])
    return f"{head}{', ...' if inputs.size > 5 else ''}"
