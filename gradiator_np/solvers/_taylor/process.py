"""A Gaussian process on scattered samples: which rows and outputs are fitted together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gradiator_np._typing import Array, Index, Mask
from gradiator_np.solvers._taylor.kernel import (
    ADDITIVE,
    Kernel,
    RandomTaylor,
    SquaredExponential,
)
from gradiator_np.solvers._taylor.model import (
    NU,
    RHO,
    RHO_STATIONARY,
    OutputPosteriors,
    PosteriorMoments,
    StateAverage,
)
from gradiator_np.solvers._taylor.prior import (
    empirical_bayes_prior,
    learn_anisotropy,
    length_weights,
    plausible_lengths,
)
from gradiator_np.solvers._taylor.spectrum import (
    N_S,
    LengthScaleGrid,
    SharedSamples,
    factor_trend,
)

#: Outputs that share their rows, and the covariances of those rows.
OutputGroups = list[tuple[Index, LengthScaleGrid]]


#: Outputs handled at a time, and outputs that the shared prior is learned from: bounds the memory.
CHUNK = 64
#: Up to this share of the samples, those that are outliers in one output are left out in all: the
#: outputs go on sharing their decompositions, which are what takes the time.
COMMON = 0.02
#: Residuals are measured by their median where that is so much smaller than a normal one's, and
#: the noise is above this share of the output's spread. 10 % of outliers as large as the output
#: left errors 100 times those without outliers; they are 1.3 times.
CROWD = 0.7
NOISY = 1e-2
#: Samples that suffice to learn the anisotropy, and which length scales come into question; and
#: contrasts that do where inputs are many. With 300 errors and coverage at 200 inputs, 3 samples
#: each, are those with all 399, to 0.01; with 150 intervals held 0.79 in place of 0.83.
SUBSET, CONTRASTS = 150, 300


class OutputsInStates(NamedTuple):
    """Some outputs of the same rows, and which states they are likely in."""

    out: Index
    rows: Index
    outputs: OutputPosteriors
    states: StateAverage


def nearest(u: Array, limit: int, p: int) -> Index:
    """Indices of the samples that can matter, nearest first.

    The nearest max(20, 4 p) that span what all samples span, and what lies within 8 times their
    radius: beyond that, Taylor terms of order two alone are 64 times larger.
    """
    size = np.linalg.norm(u, axis=1)
    order = np.argsort(size, kind="stable")[:limit]
    size = size[order]
    core = max(20, 4 * p)
    full = factor_trend(u[order], contrasts=False).rank if core < len(order) else 0
    while core < len(order) and factor_trend(u[order[:core]], 1e-3, contrasts=False).rank < full:
        core *= 2
    if core >= len(order):
        return np.asarray(order)
    return np.asarray(order[size <= 8.0 * size[core - 1]])


def spacing(u: Array) -> float:
    """Median distance of a sample to the nearest other one; infinite for one sample."""
    size = np.square(u).sum(1)
    square = size[:, None] + size - 2.0 * (u @ u.T)
    np.fill_diagonal(square, np.inf)
    return float(np.sqrt(max(np.median(square.min(1)), 0.0)))


def _spread(rows: Index, count: int) -> Index:
    """So many of the rows or up to twice as many, evenly spread; all of less than half as many
    again."""
    if len(rows) < 1.5 * count:
        return rows
    if len(rows) < 2 * count:
        return rows[np.linspace(0, len(rows) - 1, count).astype(np.intp)]
    return rows[:: len(rows) // count]


def kernels_of(radius: float, farthest: float, apart: float) -> tuple[Kernel, ...]:
    """Length scales that come into question, for samples of this median and largest distance from
    the centre, and this one from each other."""
    # exp(25) at the farthest sample: a smaller rho would leave it without weight anyway.
    series = np.unique(np.maximum(radius * RHO, farthest / 5.0))
    # What changes before the next sample is reached cannot be told from noise.
    stationary = [rho for rho in radius * RHO_STATIONARY if rho > apart]
    return (
        *(SquaredExponential(float(rho)) for rho in stationary),
        *(RandomTaylor(float(rho)) for rho in series),
    )


class TaylorProcess:
    """Scaled samples and the outputs' masks: what is fitted, and fitted again without outliers.

    Parameters
    ----------
    u, y : array, shape (k, m) and (k, n)
        Scaled displacements and outputs; y is 0 where ``mask`` is False.
    w : array, shape (k, n)
        Weights.
    mask : array of bool, shape (k, n)
        Which outputs of which samples count; outliers are taken out of it.
    intercept : bool
    noise : array of int, shape (n,), or None
        Index on the grid of a noise that is known.
    """

    def __init__(
        self,
        u: Array,
        y: Array,
        w: Array,
        mask: Mask,
        intercept: bool,
        noise: Index | None,
    ) -> None:
        self.u, self.y, self.w, self.mask, self.intercept = u, y, w, mask, intercept
        n = y.shape[1]
        self.first = np.zeros(n, np.intp) if noise is None else noise
        self.last = np.full(n, N_S, np.intp) if noise is None else noise + 1
        # A noise that is known fixes the amplitude within the cell as well.
        self.nu = np.full(n, NU) if noise is None else np.where(noise > 0, 1e12, NU)
        size = np.linalg.norm(u, axis=1)
        moved = size[size > 0]
        self.radius = float(np.median(moved)) if moved.size else 1.0
        self.lengths = kernels_of(self.radius, float(moved.max(initial=0.0)), spacing(u))
        self._learn_kernel()

    def _grid(self, rows: Index, weights: Array) -> LengthScaleGrid:
        return LengthScaleGrid(self._shared(rows, weights), self.kernels, self.radius)

    def _shared(self, rows: Index, weights: Array) -> SharedSamples:
        return SharedSamples(self.u[rows], self.anisotropy, self.additive, weights, self.intercept)

    def _evaluated(
        self, grid: LengthScaleGrid, rows: Index, out: Index
    ) -> tuple[OutputPosteriors, Array]:
        """Outputs on the rows of a grid, and their restricted likelihood in every state."""
        y = self.y[np.ix_(rows, out)]
        outputs = OutputPosteriors(grid, y, self.first[out], self.last[out], self.nu[out])
        return outputs, outputs.likelihood()

    def _learn_kernel(self) -> None:
        """Anisotropy, and the length scales that come into question, from a subset of the rows."""
        self.anisotropy, self.additive = np.ones(self.u.shape[1]), ADDITIVE
        self.kernels = self.lengths
        self.plausible = np.ones(len(self.kernels), np.bool_)
        self.grids: dict[bytes, LengthScaleGrid] = {}
        p = self.u.shape[1] + self.intercept
        common, out = self._shared_rows(2 * p)
        few = max(SUBSET, min(4 * p, p + CONTRASTS))
        rows = _spread(common, few)
        if len(rows) < 2 or not len(out):
            return
        weights = self.w[:, out[0]]
        part = self._shared(rows, weights[rows])
        self.anisotropy, self.additive = learn_anisotropy(
            part, self.y[np.ix_(rows, out)], 3.0 * self.radius
        )
        # Decompositions of some samples rule out length scales for the dear ones of all.
        for count in (few, 4 * few):
            if len(common) >= 1.5 * count:
                rows = _spread(common, count)
                like = self._evaluated(self._grid(rows, weights[rows]), rows, out[:CHUNK])[1]
                self._keep_only(plausible_lengths(like, self._prior(like)))

    def _prior(self, like: Array) -> Array:
        return empirical_bayes_prior(like, length_weights(self.kernels, self.radius))

    def _keep_only(self, keep: Mask) -> None:
        self.kernels = tuple(k for k, kept in zip(self.kernels, keep) if kept)

    def _shared_rows(self, enough: int) -> tuple[Index, Index]:
        """Rows that many outputs have, and some of these outputs."""
        rows = np.flatnonzero(self.mask[:, self.mask.any(0)].all(1))
        if len(rows) < enough:
            rows = np.flatnonzero(self.mask[:, self.mask.sum(0).argmax()])
        return rows, np.flatnonzero(self.mask[rows].all(0))[: 4 * CHUNK]

    def fit(self) -> tuple[PosteriorMoments, Array, OutputGroups]:
        """Posterior of all outputs at the centre, their leave-one-out residuals (k, n), and groups
        of those that share their rows and weights."""
        groups = self._groups()
        moments, loo = self._empty_moments(), np.zeros(self.mask.shape)
        for part in self._posteriors(groups):
            moments.fill(part.out, part.outputs.moments(part.states, np.zeros(self.u.shape[1])))
            loo[np.ix_(part.rows, part.out)] = part.outputs.leave_one_out(part.states)
        return moments, loo, groups

    def keep(self) -> None:
        """Keep the posteriors of all outputs, for `at`."""
        self._kept = list(self._posteriors(self._groups()))

    def at(self, u: Array) -> PosteriorMoments:
        """Posterior of value and gradient at the displacement u (m,), once `keep` was called."""
        moments = self._empty_moments()
        for part in self._kept:
            moments.fill(part.out, part.outputs.moments(part.states, u))
        return moments

    def _empty_moments(self) -> PosteriorMoments:
        n, p = self.y.shape[1], self.u.shape[1] + self.intercept
        return PosteriorMoments(*(np.zeros(shape) for shape in ((n, p), (n, p, p), (n, p), n, n)))

    def _groups(self) -> OutputGroups:
        shown = np.where(self.mask, self.w, 0.0)
        _, member = np.unique(shown, axis=1, return_inverse=True)
        groups, known = [], self.grids
        self.grids = {}  # decompositions of rows that are no longer asked for are let go
        for g in range(int(member.max()) + 1):
            out = np.flatnonzero(member == g)
            weights = shown[:, out[0]]
            key = weights.tobytes()
            rows = np.flatnonzero(weights)
            self.grids[key] = known[key] if key in known else self._grid(rows, weights[rows])
            groups.append((out, self.grids[key]))
        return groups

    def _posteriors(self, groups: OutputGroups) -> Iterator[OutputsInStates]:
        """Empirical Bayes and Bayesian model averaging: the prior of the states from some of the
        outputs, then all outputs with their states, some at a time."""
        step = -(-self.y.shape[1] // CHUNK)
        rows = [np.flatnonzero(self.mask[:, out[0]]) for out, _ in groups]
        evaluated = [
            self._evaluated(grid, own, out[out % step == 0])
            for (out, grid), own in zip(groups, rows)
            if (out % step == 0).any()
        ]
        together = np.concatenate([like for _, like in evaluated])
        prior = self._prior(together)
        self.plausible = plausible_lengths(together, prior)
        for i, (out, grid) in enumerate(groups):
            for start in range(0, len(out), CHUNK):
                part = out[start : start + CHUNK]
                outputs, like = evaluated[i] if step == 1 else self._evaluated(grid, rows[i], part)
                yield OutputsInStates(part, rows[i], outputs, outputs.averaged(prior, like))

    def drop_outliers(self, moments: PosteriorMoments, loo: Array, groups: OutputGroups) -> bool:
        """Mask entries whose externally studentised residual is too rare to be noise."""
        from scipy.special import stdtrit

        dropped = gross = False
        for out, grid in groups:
            d = grid.dof
            if d < 4:
                continue
            z2 = np.minimum(np.square(loo[:, out]), d - 1e-6)
            t = np.sqrt(z2 * (d - 1) / (d - z2))
            # Many outliers pass for noise, far above most residuals. (Without noise it is curvature
            # that has such tails.)
            middle = np.median(t[self.mask[:, out[0]]], axis=0) / 0.6745
            crowd = (middle < CROWD) & (moments.noise[out] > NOISY) & (d >= 10)
            t = t / np.where(crowd, np.maximum(middle, 1e-9), 1.0)
            # One false alarm in 1000 outputs; the worst first, since outliers hide each other.
            rare = stdtrit(d - 1, 1.0 - 5e-4 / len(t))
            far = t > np.maximum(rare, 0.5 * t.max(0))
            if len(far) > SUBSET and far.any(1).sum() <= COMMON * len(far):
                far[:] = far.any(1)[:, None]
            self.mask[:, out] &= ~far
            dropped |= bool(far.any())
            gross |= bool((t > 2.0 * rare).any())
        if gross:
            self._learn_kernel()
        elif dropped:
            # Each new set of rows is one more decomposition for each length scale.
            self._keep_only(self.plausible)
            for grid in self.grids.values():
                grid.keep_only(self.plausible)
        return dropped
