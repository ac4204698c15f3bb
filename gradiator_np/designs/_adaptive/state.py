"""What the stages of the default design hand on: typed, frozen, none changed in place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradiator_np._typing import Array, Index
from gradiator_np.designs._adaptive.evaluation_log import EvaluationLog
from gradiator_np.designs._adaptive.model.differences import NoiseGrowth
from gradiator_np.designs._adaptive.model.noise import NoiseEstimator
from gradiator_np.designs._adaptive.model.prior import States
from gradiator_np.solvers._solution import Solution

# The widest step: the sign of x is kept, so that a bound or a physical domain is rarely crossed.
WIDEST = 0.5
# Steps that clear a grid of inputs by this factor see its slope to some 10 %.
CLEAR = 5.0
# Share of the widest step down to which there are steps to choose from: repetitions tell nothing.
ROOM = 0.5


@dataclass(frozen=True, slots=True)
class FunctionProfile:
    """What the runs at one point tell of the next.

    Attributes
    ----------
    noise, dof : array, shape (N,)
        Standard deviation per real output, and degrees of freedom.
    prior : array, shape (B, S), or (1, S) for all points
        Weights of the states of one input at each point.
    slope : array, shape (N,)
        Typical slope of an output per unit t of one input.
    noisy, random : bool
        Whether there is more than rounding; whether a repetition differs.
    min_step, max_step : float
        Smallest step that shows what is wanted, and the widest up to which the function was seen to
        be smooth, in units of t.
    two_scales : bool
        Whether a wiggle was taken for noise.
    discrepancy : array, shape (N,), or None
        By how much slopes per unit t at small and at wide steps differ, where neither can be
        preferred.
    growth : NoiseGrowth or None
        How noise changes with the values; None where it is absolute.
    nonsmooth : bool
        Whether there is a kink or a jump at x.
    unresolved : float
        Step at which the function changes by as much as it ever does, though it repeats; 0 where
        there is none.
    """

    noise: Array
    dof: Array
    prior: Array
    slope: Array
    noisy: bool = False
    random: bool = False
    min_step: float = 0.0
    max_step: float = np.inf
    two_scales: bool = False
    discrepancy: Array | None = None
    growth: NoiseGrowth | None = None
    nonsmooth: bool = False
    unresolved: float = 0.0

    @property
    def typical_prior(self) -> Array:
        """Weights (S,) of the states, the mean of all points."""
        return np.asarray(self.prior.mean(axis=0))


@dataclass(frozen=True, slots=True)
class AxisState:
    """What is known of the free inputs beside their pairs, shape (m,) each.

    Attributes
    ----------
    max_step, min_step : array
        Largest step of a central pair (0 where none fits), and smallest, in units of t.
    range : array
        Widest step up to which the function was seen to be smooth, in units of t.
    failure_limit : array
        Steps beyond which runs have failed.
    side : array of int
        +1 or -1 where only that side works, else 0.
    jitter : array
        Grid of an input that is rounded, in units of t; 0 where it is not.
    inactive : array of bool
        Nothing answers to the input.
    n_pairs : array of int
        Pairs asked for by the rounds.
    narrow : array of bool
        Inputs that bend where the pilot did not see it.
    centre : array
        Length at which an input is likely to bend that the pilot could hardly move; nan for the
        others.
    """

    max_step: Array
    min_step: Array
    range: Array
    failure_limit: Array
    side: Index
    jitter: Array
    inactive: NDArray[np.bool_]
    n_pairs: Index
    narrow: NDArray[np.bool_]
    centre: Array

    @classmethod
    def start(cls, max_step: Array, min_step: Array) -> AxisState:
        """Nothing known but the limits."""
        m = max_step.size
        return cls(
            max_step, min_step, np.full(m, np.inf), np.full(m, WIDEST), np.zeros(m, np.intp),
            np.zeros(m),
            np.zeros(m, bool), np.zeros(m, np.intp), np.zeros(m, bool), np.full(m, np.nan),
        )  # fmt: skip

    def at(self, which: Any, **values: Any) -> AxisState:
        """With other values for some inputs."""
        out = {}
        for name, value in values.items():
            out[name] = getattr(self, name).copy()
            out[name][which] = value
        return replace(self, **out)

    def within(self, least: float, most: float) -> AxisState:
        """With steps at which the function shows its slope: beyond ``least`` at all, and at most
        ``most``; limits of the caller's go before what was seen."""
        floor = np.maximum(self.min_step, np.minimum(CLEAR * least, ROOM * self.max_step))
        return replace(self, min_step=floor, range=np.minimum(self.range, np.maximum(most, floor)))

    def as_open_as(self, other: AxisState) -> AxisState:
        """With the limits and sides of another state."""
        return replace(
            self,
            max_step=other.max_step,
            failure_limit=other.failure_limit,
            side=other.side,
        )

    @property
    def widest(self) -> Array:
        """Largest step of a central pair that shows the slope; 0 where no pair fits."""
        return np.minimum(self.max_step, self.range)

    @property
    def reach(self) -> Array:
        """Largest step that no failed run forbids."""
        return np.where(self.side != 0, np.minimum(self.failure_limit, WIDEST), WIDEST)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Wanted standard errors.

    Attributes
    ----------
    atol : float, array that broadcasts to (n, m), or None
        Absolute, y per x.
    rtol : float or None
        Relative to the norm of the row of J.
    """

    atol: Any = None
    rtol: float | None = None

    def __bool__(self) -> bool:
        return self.atol is not None or self.rtol is not None

    def ratio(self, solution: Solution) -> Array:
        """Standard errors (B, n, m) over those that are wanted."""
        err = solution.cov.stderr()
        most = np.full(err.shape, np.inf)
        if self.atol is not None:
            most = np.broadcast_to(self.atol, err.shape)
        if self.rtol is not None:
            norm = np.sqrt(np.square(np.abs(solution.coef)).sum(axis=-1, keepdims=True))
            most = np.minimum(most, self.rtol * norm)
        return np.asarray(np.divide(err, most, out=np.full(err.shape, np.inf), where=most > 0))


@dataclass(frozen=True, slots=True)
class Budget:
    """Evaluations that are allowed.

    Attributes
    ----------
    max_nfev : int or None
        The caller's limit.
    m : int
        Free inputs.
    extra : int
        Beyond the default limit, for inputs whose unit had to be searched for.
    """

    max_nfev: int | None
    m: int
    extra: int = 0

    @property
    def limit(self) -> int:
        """Evaluations in all, the one at x included."""
        return self.max_nfev or 5 * self.m + 10 + self.extra

    def spent(self, log: EvaluationLog) -> int:
        """Evaluations that count: those that stand in for one that failed by chance do so where
        the caller has set the limit."""
        return log.nfev - (log.by_chance if self.max_nfev is None else 0)

    def left(self, log: EvaluationLog) -> int:
        """Evaluations that are left."""
        return self.limit - self.spent(log)

    def share(self, log: EvaluationLog) -> float:
        """Share of what is left that will come back."""
        return 1.0 if self.max_nfev is None else 1 - log.by_chance / max(log.nfev - 1, 1)

    def more(self, extra: int) -> Budget:
        """With so many more."""
        return replace(self, extra=self.extra + extra)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the stages found, as far as they got.

    Attributes
    ----------
    profile : FunctionProfile or None
        None before the pilot has ended.
    axes : AxisState
    noise : NoiseEstimator
    budget : Budget
    unexplained : array, shape (N, m)
        By how much J misses the slope that the pilot saw, as errors per unit t of its entries.
    short : bool
        The evaluations allowed ended before what was wanted.
    kinks : array of bool, shape (m, N)
        Entries whose slopes to the two sides of x differ.
    rescaled : tuple of int
        Inputs whose unit was found by their answer.
    """

    profile: FunctionProfile | None
    axes: AxisState
    noise: NoiseEstimator
    budget: Budget
    kinks: NDArray[np.bool_]
    unexplained: Array
    short: bool = False
    rescaled: tuple[int, ...] = field(default=())


def uninformed_profile(
    log: EvaluationLog, states: States, known_noise: Array | None
) -> FunctionProfile:
    """What is known where the pilot has not ended yet."""
    size = np.nan_to_num(np.abs(log.f0))
    size = np.where(size > 0, size, size.max() or 1.0)
    noise = np.maximum(0.3 * log.problem.eps * size, 1e-300)
    if known_noise is not None:
        noise = np.maximum(known_noise, noise)
    return FunctionProfile(noise, np.zeros(log.f0.size), states.prior(1e-5)[None], size)
