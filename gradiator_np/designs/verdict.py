"""The answer of the default design: J, its errors, and what limits them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.designs.lines import RHO, States, by_rho
from gradiator_np.designs.mixtures import NORMAL_95
from gradiator_np.designs.pairs import Lines
from gradiator_np.designs.second_look import nearest
from gradiator_np.solvers.solution import Solution
from gradiator_np.status import Status

if TYPE_CHECKING:
    from gradiator_np.designs.auto import AutoPlan

Array = NDArray[np.float64]

# The pilot's slope is a sum of all inputs' with random signs, which cancel: in one case of eight to
# a quarter.
UNSEEN_DOUBT = 4.0
# Error bars above this share of J say that there is no answer: pure noise has 1 in the mean, and of
# nine entries less than 0.5 in one case of 200.
NO_ANSWER = 0.5


def answer(plan: AutoPlan, finished: bool) -> Solution:
    """The Jacobian from what a plan has seen so far."""
    p = plan.problem
    batch, m = p.x.shape
    view, states, weights, _, noise = plan.infer()
    coef = np.zeros((noise.size, m))
    diag, total = np.zeros(coef.shape), np.full(coef.shape, np.inf)
    if plan.inputs.size and noise.size:
        mean, unit, _, half = plan.estimate()
        coef[:, plan.inputs] = mean
        diag[:, plan.inputs] = np.where(np.isfinite(half), unit, 0.0)
        # a standard error is what a normal error of the same 95 % interval would have: the tails
        # of the mixture reach further than its middle
        total[:, plan.inputs] = np.square(half / NORMAL_95)
        if plan.kinks.any():
            # between the slopes to the two sides
            t, _, even = nearest(plan.book.lines(plan.rows, [int(j) for j in plan.inputs]))
            half_gap = np.where(plan.kinks, np.abs(even) / (2 * t[:, None]), 0.0)
            total[:, plan.inputs] += np.square(half_gap).T
    if plan.learned is not None and plan.learned.doubt is not None:
        # small steps say this, wide ones say that
        gap, doubt = np.abs(coef[:, plan.inputs] - plan.wide.T), plan.learned.doubt[:, None]
        gap = np.where(np.isfinite(gap), np.hypot(gap, doubt), UNSEEN_DOUBT * doubt)
        total[:, plan.inputs] += np.square(gap)
    known = np.isfinite(total)
    noise_part = np.square(noise)[:, None] * diag
    extra = np.where(known, np.maximum(total - noise_part, 0.0), 0.0)

    # real and imaginary parts lie side by side: (B, parts, n, ...)
    n = p.y.shape[-1]
    scale = p.scale[:, None, :]

    def parts(a: Array) -> Any:
        return a.reshape(batch, -1, n, *a.shape[1:])

    both = parts(coef)
    jac = both[:, 0] + 1j * both[:, 1] if np.iscomplexobj(p.y) else both[:, 0]
    level = np.sqrt(np.square(parts(noise)).sum(axis=1))
    cov = Covariance(
        level,
        diag=parts(noise_part).sum(axis=1) / np.square(level)[..., None] / scale**2,
        extra=parts(extra).sum(axis=1) / scale**2,
        per_output=True,
        lost=~parts(known).all(axis=1),
    )
    dof = plan.learned.dof if plan.learned is not None else np.zeros(noise.size)
    status, message = _verdict(plan, finished, view, coef, total, noise_part, weights, states)
    return Solution(
        jac / scale,
        cov,
        parts(dof).min(axis=1),
        parts(known).all(axis=(1, 2)).sum(axis=-1).astype(np.intp),
        np.ones(batch),
        np.zeros((batch, n)),
        status=status,
        message=message,
        info=_info(plan, view, states, weights),
    )


def _info(plan: AutoPlan, view: Lines, states: States, weights: Array) -> dict[str, Any]:
    """Where each input bends (units of x, nan where unknown), and its number of pairs."""
    p = plan.problem
    rho = np.full(p.x.shape, np.nan)
    if plan.inputs.size:
        rho[:, plan.inputs] = bending(states, weights) * p.scale[:, plan.inputs]
    pairs = np.zeros(p.x.shape, np.intp)
    pairs[:, plan.inputs] = np.isfinite(view.t).sum(axis=1)
    return {"rho": rho, "pairs": pairs, "step": plan.step}


def bending(states: States, weights: Array) -> Array:
    """Median rho of each input, in units of t."""
    return np.asarray(RHO[np.argmax(by_rho(states, weights) >= 0.5, axis=1)])


def _verdict(
    plan: AutoPlan,
    finished: bool,
    view: Lines,
    coef: Array,
    total: Array,
    noise_part: Array,
    weights: Array,
    states: States,
) -> tuple[str, str]:
    """Status, and one sentence on what limits the answer and what would improve it."""
    free = plan.inputs
    if not finished:
        return Status.INCOMPLETE, "not all rows have been told yet: tell them and ask again"
    if not free.size or not coef.size:
        return Status.UNDETERMINED, "every input is fixed: nothing was to be estimated"
    alive = np.isfinite(total[:, free]).any(axis=1)
    lost = ~np.isfinite(total[alive][:, free]).all(axis=0)
    if plan.short:
        return Status.BUDGET, (
            "the evaluations allowed ended "
            + (
                f"before inputs {_names(free[lost])} got any"
                if lost.any()
                else "before tol was met"
            )
            + ": raise max_evals or tol"
        )
    if lost.any() or not alive.all():
        dead = f"outputs {_names(np.flatnonzero(~alive))}" if lost.all() or not lost.any() else ""
        return Status.UNDETERMINED, (
            f"no run near x succeeded for {dead or 'inputs ' + _names(free[lost])}: "
            "give bounds or a max_step that keep the runs where the function works"
        )
    learned = plan.learned
    assert learned is not None
    corner = "a kink or a jump at x; J is their mean, and move x or take one-sided differences"
    if plan.kinks.any():
        which = _names(free[plan.kinks.any(1)])
        return (
            Status.LACK_OF_FIT,
            f"slopes to the two sides of x differ along inputs {which}: {corner}",
        )
    if learned.two_scales:
        return Status.TWO_SCALES, (
            f"below steps of {learned.floor:.1g} x the function wiggles, and J is the slope of its "
            "trend: for the slope at x itself give max_step"
        )
    if learned.doubt is not None:
        return Status.TWO_SCALES, (
            "the function bends or wiggles below 0.1 x, and J is the slope at small steps: where "
            "that is not meant give min_step"
        )
    if learned.corner:
        return Status.LACK_OF_FIT, f"slopes to the two sides of x differ: {corner}"
    size, err = np.sqrt(np.square(coef).sum()), np.sqrt(total[:, free].sum())
    if learned.noisy and err > NO_ANSWER * size and size > 0:
        return Status.NO_SIGNAL, (
            f"noise hides the response: the error bars are {err / size:.2g} of J; raise max_evals, "
            "or reduce the noise of the function"
        )
    failed = ~plan.rows.done | ~np.isfinite(plan.book.values(plan.rows)[:, alive]).all(axis=1)
    fixed = np.flatnonzero(~plan.book.free)
    if fixed.size:
        return Status.UNDETERMINED, f"inputs {_names(fixed)} are fixed by their bounds"
    limit = _limit(plan, total[:, free], noise_part[:, free])
    if failed.any():
        return Status.FAILED_RUNS, f"{int(failed.sum())} runs failed and were replaced; {limit}"
    return Status.OK, limit


def _limit(plan: AutoPlan, total: Array, noise_part: Array) -> str:
    assert plan.learned is not None
    weight = 1 / np.square(plan.learned.noise)[:, None]
    share = float((weight * noise_part).sum() / max((weight * total).sum(), 1e-300))
    if not plan.learned.noisy:
        if share > 0.5:
            return "accuracy is limited by rounding: nothing short of a complex step improves it"
        return "accuracy is limited by truncation and rounding: more max_evals raise the order"
    if share > 0.5:
        return "accuracy is limited by noise: four times the max_evals halve the error"
    return "accuracy is limited by curvature: more max_evals raise the order of the differences"


def _names(inputs: NDArray[np.intp]) -> str:
    head = ", ".join(str(int(j)) for j in inputs[:5])
    return f"{head}{', ...' if inputs.size > 5 else ''}"
