"""From the rows of a directional design to J: odd parts, extrapolation, noise, lack of fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask
from gradiator_np.designs._factorial.contrasts import (
    EXTRAPOLATED,
    PLAIN,
    average,
    even_part,
    odd_part,
    upper_tail,
)
from gradiator_np.designs._protocol import Problem
from gradiator_np.solvers._solution import Solution, Solver

# t^2 is at least this share of v: one difference tells a bias badly (0.92 instead of 0.93 held).
HEDGE = 0.3
# Curvature this clear of the noise makes third order likely to be above it too. Beside a slope that
# is, the guess of it costs noise nothing (its square over the slope), and is due: a misfit by third
# order passes for noise that curvature is not clear of (errors of 4 bars in 38 % of seeds without).
CLEAR = 10.0
# So many standard deviations of an even part, most of it y's own, are left to chance.
CHANCE = 3.0
# A lack of fit is claimed once in a thousand sound estimates, over all outputs together.
ALARM = 1e-3


@dataclass(frozen=True, slots=True)
class Setup:
    """What a design fixes before its values are seen.

    Attributes
    ----------
    problem : Problem
    paired : bool
        Whether every direction is run both ways.
    common : bool
        Whether the two ends of a pair share random numbers, and no others: even parts then hold
        the noise of whole runs, of which the odd ones tell nothing, and are left alone.
    half : array, shape (B, m)
        Half widths; 0 where an input is not moved.
    richardson : bool or "auto"
    solver : Solver
    """

    problem: Problem
    paired: bool
    common: bool
    half: Array
    richardson: bool | str
    solver: Solver


class DesignRegression:
    """The design's own rows as samples of one linear fit.

    Parameters
    ----------
    offsets : array, shape (L, S, K, B, m)
        Levels, signs, directions.
    values : array, shape (R, L, S, K, B, n)
        Replicates first; nan where a run failed.
    y : array, shape (B, n)
    setup : Setup
    """

    def __init__(self, offsets: Array, values: NDArray[Any], y: NDArray[Any], setup: Setup) -> None:
        self.offsets, self.values, self.y, self.setup = offsets, values, y, setup
        self.failed = ~np.isfinite(values).all()
        self.used_lone = False
        if setup.paired:
            self.means = average(odd_part(values[:, :, 0], values[:, :, 1]))
            share = 2.0  # an odd part has half the variance of a run
            axes: tuple[int, ...] = (0, 1)
        else:
            self.means = average(values[:, 0, 0])
            share = 1.0
            axes = (0,)
        #: Noise of one run by the scatter of replicates, and its degrees of freedom, (B, n).
        self.pure_dof = np.maximum(self.means.count - 1, 0).sum(axes)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.pure = np.sqrt(share * self.means.scatter.sum(axes) / self.pure_dof)

    # -- fits --------------------------------------------------------------------------------

    def solve(self) -> Solution:
        """The fit by the design's solver; batch axes (B,)."""
        if not self.setup.paired:
            return self._fit_values()
        solution = self._fit_odd()
        lost = np.isinf(solution.cov.variance()) & (self.setup.half != 0)[:, None, :]
        if lost.any():
            both = self._fit_values()
            # Runs whose partner failed bring curvature with them: only where J needs them.
            if np.isinf(both.cov.variance()).sum() < np.isinf(solution.cov.variance()).sum():
                self.used_lone = True
                return both
        return solution

    def _fit_odd(self) -> Solution:
        """Least squares on odd parts, extrapolated to step 0 where that is due."""
        dx = odd_part(self.offsets[:, 0], self.offsets[:, 1])  # (L, K, B, m)
        if len(dx) == 1:
            return self._fit(dx[0], self.means.mean[0], 2 * self.means.count[0])
        odd, count = self.means.mean, self.means.count
        free, w_free = _combine(EXTRAPOLATED, odd, count)
        solution = self._fit(dx[0], free, w_free)
        plain = self._fit(dx[0], *_combine(PLAIN, odd, count))
        return self._shrink(solution, plain)

    def _shrink(self, free: Solution, plain: Solution) -> Solution:
        """Between least squares, which truncation biases, and extrapolation, which is noisier.

        Their difference d is the bias plus noise of variance v, independent of ``plain`` (best
        unbiased without a bias). With a bias of variance t^2, plain - s d with
        s = t^2 / (t^2 + v) is best, and s v is what it adds to the variance. t^2 is d^2 - v of
        the entry, or its mean over the inputs, whichever is more: third derivatives may be of
        one input or of all. (95 % intervals held 0.956, 0.949, 0.933, 0.948 for a truncation of
        0, 0.25, 0.6 and 1.2 times the noise of a run; a test that takes one or the other 0.942,
        0.907, 0.906, 0.937.)
        """
        sigma, dof = self._noise(free)
        free = replace(free, cov=replace(free.cov, scale=sigma))
        plain = replace(plain, cov=replace(plain.cov, scale=sigma), dof=dof)
        h = self.setup.half[:, None, :]  # responses at the full step have one size for all inputs
        gap = (plain.coef - free.coef) * h
        known = (h != 0) & np.isfinite(free.cov.variance())
        v = np.where(known, free.cov.variance(), 0) - np.where(known, plain.cov.variance(), 0)
        v = np.maximum(v, 0) * h**2
        inputs = np.maximum(known.sum(-1, keepdims=True), 1)
        excess = np.where(known, np.abs(gap) ** 2 - v, 0)
        common = excess.sum(-1, keepdims=True) / inputs
        t2 = np.maximum(np.maximum(excess, common), 0) + HEDGE * v
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(v > 0, t2 / (t2 + v), 1.0)
            if self.setup.richardson is True:
                share = np.ones_like(share)
            back = np.where(known, 1 / h, 0)
        correction = np.where(known, share * gap, 0)
        # Products of five inputs pass for a slope that products of three leave alone: the
        # largest correction of an output stands for all. d is 3.4 times the bias at h / 2.
        later = self._guess(np.abs(correction).max(-1, initial=0) / 2)[..., None]
        extra = (share * v + later**2) * back**2
        return replace(
            plain,
            coef=plain.coef - correction * back,
            cov=replace(plain.cov, extra=extra),
            info=free.info,
        )

    def _guess(self, second: Array) -> Array:
        """The next term of a geometric series, from one of size ``second``, (B, n).

        second^2 / first, first being the odd part, at most ``second``; all at the full step. An
        output of one input among m is covered, one of all inputs alike padded by up to m^1.5.
        """
        power = np.square(np.abs(self.means.mean[-1]))
        first = np.sqrt(np.nansum(power, 0) / np.maximum(np.isfinite(power).sum(0), 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(second > 0, np.fmin(second**2 / first, second), 0.0))

    def _fit_values(self) -> Solution:
        """Least squares with an intercept on every run by itself."""
        s = 2 if self.setup.paired else 1
        dx = self.offsets.reshape(-1, *self.offsets.shape[-2:])
        means = average(self.values)
        shape = (-1, *self.y.shape)
        values, count = means.mean.reshape(shape), means.count.reshape(shape)
        base = np.where(np.isfinite(self.y), self.y, 0)
        values = values - base
        if s == 1:  # curvature lifts the mean of a pair, but not its slope: no base there
            dx = np.concatenate([np.zeros((1, *dx.shape[1:])), dx])
            values = np.concatenate([(self.y - base)[None], values])
            count = np.concatenate([np.ones((1, *count.shape[1:])), count])
        return self._fit(dx, values, count, intercept=True)

    def _fit(
        self, dx: Array, df: NDArray[Any], weights: Array, intercept: bool = False
    ) -> Solution:
        """The solver with the batch axis first; dx (k, B, m), df and weights (k, B, n)."""
        dx, df, w = (np.ascontiguousarray(np.swapaxes(a, 0, 1)) for a in (dx, df, weights))
        w = np.where(w > 0, w, w.max(-1, keepdims=True, initial=0.0))  # df is nan there
        shared = w[..., 0]
        if (w == shared[..., None]).all():
            w = np.where(shared > 0, shared, 1.0)
        return self.setup.solver.solve(dx, df, weights=w, intercept=intercept)

    # -- noise and fit -----------------------------------------------------------------------

    def _noise(self, solution: Solution) -> tuple[Array, Array]:
        """Noise of one run and its degrees of freedom: given, by replicates, by the residual."""
        if not solution.classical:
            return solution.cov.scale, solution.dof
        told = self.pure_dof > 0
        sigma = np.where(told, self.pure, solution.cov.scale)
        dof = np.where(told, self.pure_dof, solution.dof)
        given, before = self.setup.problem.noise, self.setup.problem.noise_dof
        if given is None:
            return sigma, dof
        if before is not None and np.isfinite(before).all():
            dof = np.where(np.isfinite(sigma), dof, 0)
            total = np.maximum(before + dof, 1)
            square = before * given**2 + dof * np.square(np.where(dof > 0, sigma, 0))
            return np.sqrt(square / total), before + dof
        # A noise of 0, or below rounding, leaves truncation as the error: the residual tells it.
        counts = given > self.setup.problem.eps * np.abs(np.where(np.isfinite(self.y), self.y, 0))
        return np.where(counts, given, sigma), np.where(counts, np.inf, dof)

    def assess(self, solution: Solution, *, incomplete: bool) -> Solution:
        """Put the noise into the covariance and say how far the estimate can be trusted."""
        sigma, dof = self._noise(solution)
        apart, apart_dof, before = sigma, dof, self.setup.problem.noise_dof
        independent = solution.classical & (np.isinf(dof) | (self.pure_dof > 0))
        if before is not None and self.setup.problem.noise is not None:
            # what the residual had no share in
            apart, apart_dof = self.setup.problem.noise, before
            independent = solution.classical & (before > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(independent, (solution.cov.scale / apart) ** 2, np.nan)
        misfit = upper_tail(ratio, solution.dof, apart_dof) < ALARM / ratio.shape[-1]
        # Where the line misses its samples by more than the noise, the residual is the error.
        sigma = np.where(misfit, solution.cov.scale, sigma)
        dof = np.where(misfit, solution.dof, dof)
        solution = replace(solution, cov=replace(solution.cov, scale=sigma), dof=dof)
        info, bent, third = self._curvature(sigma, dof)
        if third.any():
            h = np.where(self.setup.half, self.setup.half, np.inf)
            extra = np.square(third[..., None] / h[:, None, :])
            solution = replace(solution, cov=replace(solution.cov, extra=extra))
        info |= {"lack_of_fit": misfit, "pure_noise": self.pure, "pure_dof": self.pure_dof}
        status, message = self._report(solution, bool(misfit.any()), bool(bent.any()), incomplete)
        return replace(solution, info=solution.info | info, status=status, message=message)

    def _curvature(self, sigma: Array, dof: Array) -> tuple[dict[str, Any], Mask, Array]:
        """Even parts (B, n): their size, where they drown the odd ones, and the third order that
        they suggest where nothing has measured it."""
        nothing = np.zeros(self.y.shape)
        if not self.setup.paired or self.setup.common or not self.values.size:
            return {}, nothing.astype(bool), nothing
        even = average(even_part(self.values[:, -1, 0], self.values[:, -1, 1], self.y))
        pairs = np.isfinite(even.mean).sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            power = np.nansum(np.abs(even.mean) ** 2, 0) / pairs
            slope = np.nansum(np.abs(self.means.mean[-1]) ** 2, 0) / pairs
            # Variance of an even part: half a run's, and the whole of y's, shared by all.
            noise = sigma**2 * (0.5 / np.maximum(even.count, 1).mean(0) + 1.0)
            # y's share has one degree of freedom: the test must not count it K times.
            p = upper_tail(power / noise, 1.0, dof)
            clear = np.maximum(power, slope) > CLEAR**2 * noise
            size = np.sqrt(np.where(clear, np.maximum(power - CHANCE**2 * noise, 0), 0))
        bent = (p < ALARM / p.shape[-1]) & (power > slope)
        info = {"even": np.sqrt(power), "odd": np.sqrt(slope), "even_p": p}
        if self.setup.richardson:
            return info, bent, nothing
        return info, bent, self._guess(size)

    def _report(
        self, solution: Solution, misfit: bool, bent: bool, incomplete: bool
    ) -> tuple[Status, str]:
        lost = np.isinf(solution.cov.variance())
        free = self.setup.problem.upper > self.setup.problem.lower
        said: list[tuple[Status, str]] = []
        if incomplete:
            said.append((Status.INCOMPLETE, "some rows of the design have not been told yet"))
        if (lost & free[:, None, :]).any():
            said.append(
                (
                    Status.UNDETERMINED,
                    "no sample determines "
                    f"{int((lost & free[:, None, :]).any((0, 1)).sum())} inputs (stderr is inf): "
                    "rerun the failed points, ask for more directions (spare=), or give those "
                    "inputs a step",
                )
            )
        if misfit:
            said.append(
                (
                    Status.LACK_OF_FIT,
                    "the samples miss a linear function by more than their noise (third-order "
                    "curvature, a kink or a jump inside the step): use a smaller step or "
                    "richardson=True; stderr is that misfit",
                )
            )
        if bent:
            said.append(
                (
                    Status.LACK_OF_FIT,
                    "at this step the even part of the response (curvature or a kink at x) exceeds "
                    "the slope: pairs cancel curvature, but a kink would pass unseen; compare with "
                    "a smaller step",
                )
            )
        if self.failed and not incomplete:
            said.append((Status.FAILED_RUNS, self._failures_message()))
        if said:
            return said[0][0], "; ".join(text for _, text in said)
        if not np.isfinite(solution.cov.scale).all():
            return Status.OK, (
                "nothing tells the noise: give noise=, replicates=2 or more directions (spare=)"
            )
        if not self.setup.paired:
            return Status.OK, "stderr holds noise; curvature biases J, which fold_over=True cancels"
        if not self.setup.richardson:
            return Status.OK, (
                "stderr holds noise, and where curvature is clear of it a guess of the third "
                "order; richardson='auto' would measure that"
            )
        return Status.OK, ""

    def _failures_message(self) -> str:
        lost = int((~np.isfinite(self.values)).any((-1, -2)).sum())
        how = (
            "runs whose mirror image failed were used by themselves, so curvature biases J; "
            "rerun the failed points"
            if self.used_lone
            else "their pairs were left out"
            if self.setup.paired
            else "they were left out"
        )
        return f"{lost} of {int(np.prod(self.values.shape[:4]))} runs failed: {how}"


def _combine(c: Array, odd: NDArray[Any], count: Array) -> tuple[NDArray[Any], Array]:
    """Combination of both levels' odd parts, and its weight against one run; (K, B, n)."""
    value = c[0] * odd[0] + c[1] * odd[1]
    with np.errstate(divide="ignore"):
        weight = 2 / (c[0] ** 2 / count[0] + c[1] ** 2 / count[1])
    return value, weight
