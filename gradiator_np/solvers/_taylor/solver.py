"""Jacobians from samples lying anywhere, by universal kriging with a random Taylor series."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np import _checks as checks
from gradiator_np._checks import EPS
from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array, Mask
from gradiator_np.solvers import _regression
from gradiator_np.solvers._groups import join_batch
from gradiator_np.solvers._regression import RegressionProblem
from gradiator_np.solvers._solution import Solution, student_quantile
from gradiator_np.solvers._taylor.model import PosteriorMoments
from gradiator_np.solvers._taylor.process import OutputGroups, TaylorProcess, nearest
from gradiator_np.solvers._taylor.spectrum import N_S, PER, S_MIN, TrendFactors

#: Outliers hide smaller ones, so they are looked for again: each time those above half the worst.
ROUNDS = 10
# Noise of this share of the outputs' standard deviations is half of their variance: from there on
# more of the samples is unexplained by the model than explained.
MOSTLY_NOISE = 0.7
# An output turns within the samples where its length scale is below so many of their radii. With
# errors above this share of its slopes intervals then held 0.5 to 0.85 of 270 outputs (sines, tanh,
# bells of 2 to 6 inputs), 0.9 and more with smaller ones: that f turns alike everywhere is a guess.
TURNS, DOUBTFUL = 1.3, 0.1


@dataclass(frozen=True, slots=True)
class Taylor:
    """Value, Jacobian, curvature and noise of scattered samples in one model.

    Parameters
    ----------
    x_scale : array_like, shape (m,), or None
        Unit of each input: over these displacements f bends alike. Default: the median nonzero
        displacement of each input.
    max_samples : int
        Only that many nearest samples are used: the cost is cubic in their number.
    robust : bool
        Let single outputs drop out whose leave-one-out residual makes them outliers.

    Notes
    -----
    Universal kriging about the centre: f_i = c_i + J_i u + kappa_i g(u) + sigma_i e, with a linear
    trend c and J that is free, a Gaussian process g and noise e. g is a random Taylor series of
    order two and up, Cov g(u) g(u') = rho^2 psi(u.u'/rho^2) with psi(t) = exp(t) - 1 - t, and more
    along each input and along the slope of f_i. Generalised least squares gives J with a
    covariance that holds noise and curvature together. The hyperparameters rho, kappa and sigma are
    not chosen but averaged over (Bayesian model averaging): weights are their restricted likelihood
    (REML) times a prior that is learned from all outputs (empirical Bayes).
    ``info["rho"]`` (n, m), the length scale of each input, tells how far it goes before f bends.

    Examples
    --------
    A function that bends along its first input only, from scattered values:

    >>> import numpy as np
    >>> from gradiator_np.solvers import Taylor
    >>> dx = np.random.default_rng(0).uniform(-0.5, 0.5, (12, 2))
    >>> solution = Taylor().solve(dx, np.exp(dx[:, 0]) + 3 * dx[:, 1], intercept=True)
    >>> solution.coef.round(3), solution.value.round(3), solution.info["rho"].round(1)
    (array([[1., 3.]]), array([1.]), array([[2.9, 9.5]]))
    """

    x_scale: ArrayLike | None = None
    max_samples: int = 2000
    robust: bool = True

    solve = _regression.solve

    def fit(self, problem: RegressionProblem) -> Solution:
        """The solution of a checked problem; ``df`` are values (less any constant)."""
        dx, df, jac0 = problem.dx, problem.df, problem.jac0
        if jac0 is not None:
            df = df - np.matmul(dx, np.swapaxes(jac0, -1, -2))
        weights = np.broadcast_to(problem.output_weights, df.shape)
        members = [
            FittedTaylor.of(
                self, dx[i], df[i], weights[i], problem.intercept, problem.noise
            ).solution()
            for i in np.ndindex(*problem.batch)
        ]
        solution = join_batch(members, problem.batch)
        return solution if jac0 is None else replace(solution, coef=solution.coef + jac0)


@dataclass(frozen=True, slots=True)
class FittedTaylor:
    """The model of one problem's outputs, fitted: value and Jacobian at the centre, and elsewhere.

    Real and imaginary parts are outputs of their own, each with half of the noise's variance.

    Attributes
    ----------
    process : TaylorProcess
    groups : list of tuple
        Outputs that share their rows.
    moments : PosteriorMoments
        At the centre.
    scale : array, shape (m,)
        Unit of the inputs.
    offset, spread : array, shape (n,)
        What was subtracted from outputs, and their unit.
    noise_known, is_complex : bool
    """

    process: TaylorProcess
    groups: OutputGroups
    moments: PosteriorMoments
    scale: Array
    offset: Array
    spread: Array
    noise_known: bool
    is_complex: bool

    @classmethod
    def of(
        cls,
        opt: Taylor,
        dx: Array,
        df: NDArray[Any],
        w: Array,
        intercept: bool,
        known: Array | None,
    ) -> FittedTaylor:
        """Fit one problem; ``known`` is the noise that is given."""
        m, is_complex = dx.shape[1], df.dtype.kind == "c"
        if is_complex:
            df, w = np.concatenate([df.real, df.imag], 1), np.concatenate([w, w], 1)
            known = None if known is None else np.tile(known / np.sqrt(2.0), 2)
        informative = (np.isfinite(df) & (w > 0)).any(1)
        if informative.any() and not informative.all():
            dx, df, w = dx[informative], df[informative], w[informative]
        scale = input_scale(opt.x_scale, dx)
        near = nearest(dx / scale, opt.max_samples, m + intercept)
        near = _without_repeats(near, dx, df, w)
        u, y, w = dx[near] / scale, df[near], w[near]
        mask = np.isfinite(y) & (w > 0)
        y = np.where(mask, y, 0.0)
        offset, spread = _output_scale(y, mask, intercept)
        noise, spread = noise_on_grid(known, spread)
        process = TaylorProcess(u, (y - offset) / spread, w, mask, intercept, noise)
        moments, loo, groups = process.fit()
        for _ in range(ROUNDS if opt.robust else 0):
            if not process.drop_outliers(moments, loo, groups):
                break
            moments, loo, groups = process.fit()
        return cls(process, groups, moments, scale, offset, spread, known is not None, is_complex)

    def keep(self) -> None:
        """Keep what `at` needs: memory of k times n numbers and more."""
        self.process.keep()

    def solution(self) -> Solution:
        """Value and Jacobian at the centre."""
        return self._solution(self.moments, np.zeros(len(self.scale)))

    def at(self, displacement: Array) -> Solution:
        """Value and Jacobian at a displacement (m,) from the centre, once `keep` was called."""
        u = displacement / self.scale
        return self._solution(self.process.at(u), u)

    def _solution(self, moments: PosteriorMoments, u: Array) -> Solution:
        if self.process.intercept:
            moments = _extrapolated(moments, self.groups, u)
        solution = _assemble(self, moments, u)
        return _join_parts(solution) if self.is_complex else solution


def _without_repeats(rows: NDArray[np.intp], dx: Array, df: Array, w: Array) -> NDArray[np.intp]:
    """Without runs repeated to the last bit.

    A function without noise tells nothing the second time; taken as independent samples, such
    rows would be evidence that nothing scatters, curvature included.
    """
    if len(np.unique(dx[rows], axis=0)) == len(rows):
        return rows
    whole = np.hstack([dx[rows], df[rows], w[rows]])
    first = np.unique(whole, axis=0, return_index=True)[1]
    return np.asarray(rows[np.sort(first)])


def input_scale(x_scale: ArrayLike | None, dx: Array) -> Array:
    """Unit of each input, by default the median displacement; 1 where the input was never moved."""
    m = dx.shape[1]
    if x_scale is not None:
        scale = np.broadcast_to(checks.numeric(x_scale, "x_scale"), (m,))
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"x_scale must be positive and finite, got {scale}")
        return scale
    moved = np.where(dx == 0, np.nan, np.abs(dx))
    used = ~np.isnan(moved).all(0)
    scale = np.ones(m)
    scale[used] = np.nanmedian(moved[:, used], axis=0)
    return scale


def _output_scale(y: Array, mask: Mask, intercept: bool) -> tuple[Array, Array]:
    """What is subtracted from each output and the unit of the rest."""
    count = np.maximum(mask.sum(0), 1)
    offset = y.sum(0) / count if intercept else np.zeros(y.shape[1])
    spread = np.sqrt((np.square(y - offset) * mask).sum(0) / count)
    least = np.maximum(EPS * np.abs(y).max(0, initial=0.0), np.finfo(float).tiny / EPS)
    return offset, np.maximum(spread, least)


def noise_on_grid(noise: Array | None, spread: Array) -> tuple[NDArray[np.intp] | None, Array]:
    """Grid index of a noise that is known, and output units in which it lies on the grid."""
    if noise is None:
        return None, spread
    with np.errstate(divide="ignore"):
        index = np.rint(PER * np.log10(noise / spread)) - S_MIN
    index = np.clip(index, 0, N_S - 1)
    on_grid = noise / 10.0 ** ((index + S_MIN) / PER)
    return index.astype(np.intp), np.where((index > 0) & (index < N_S - 1), on_grid, spread)


def _assemble(fitted: FittedTaylor, moments: PosteriorMoments, u: Array) -> Solution:
    """Moments at u, back in the caller's units, with status and message."""
    process, groups = fitted.process, fitted.groups
    scale, offset, spread = fitted.scale, fitted.offset, fitted.spread
    n, m = len(spread), len(scale)
    inputs = slice(int(process.intercept), None)
    coef = moments.beta[:, inputs] * (spread[:, None] / scale)
    value = offset + spread * moments.beta[:, 0] if process.intercept else None
    value_err = spread * np.sqrt(moments.cov[:, 0, 0]) if process.intercept else None
    var = np.einsum("npp->np", moments.cov)[:, inputs]
    sd = np.sqrt(np.maximum(var, np.finfo(float).tiny))
    corr = moments.cov[:, inputs, inputs] / (sd[:, :, None] * sd[:, None, :])
    corr[:, np.arange(m), np.arange(m)] = 1.0 + 1e-9  # rounding must not spoil the factor
    noise = spread * np.maximum(moments.noise, np.finfo(float).tiny)
    unit = (sd / np.maximum(moments.noise, np.finfo(float).tiny)[:, None])[:, :, None]
    factor = unit / scale[:, None] * correlation_factor(corr)
    known = var > 0
    factor_half = np.where(known, moments.half[:, inputs] / sd, 1.96)
    q = max(grid.lin.null.shape[1] for _, grid in groups)
    null = np.zeros((n, m, q))
    dof = np.zeros(n)
    for out, grid in groups:
        dof[out] = max(grid.dof, 1)
        b = grid.lin.null[inputs] / scale[:, None]
        b[np.abs(b) * scale[:, None] < 1e-10] = 0.0
        if b.shape[1]:
            null[out, :, : b.shape[1]] = b
            if value_err is not None and np.abs(_row(u) @ grid.lin.null).max() > 1e-10:
                value_err[out] = np.inf
            basis = np.linalg.svd(b, full_matrices=False)[0]
            coef[out] -= coef[out] @ basis @ basis.T
    y = np.where(process.mask, process.y * spread, 0.0)
    plane = (process.u - u) @ (coef * scale).T + (0.0 if value is None else value - offset)
    count = np.maximum(process.mask.sum(0), 1)
    residual = np.sqrt((np.square(y - plane) * process.mask).sum(0) / count)
    lin = max((grid.lin for _, grid in groups), key=lambda one: one.rank)
    slope = coef * (scale / spread[:, None])
    dof = np.full(n, np.inf) if fitted.noise_known else dof
    status, message = _status(fitted, slope, moments, dof, u)
    return Solution(
        coef,
        Covariance(noise, factor=factor, null=null if null.any() else None, per_output=True),
        dof,
        np.array(max(lin.rank - int(process.intercept), 0), np.intp),
        np.array(lin.cond),
        residual,
        value,
        value_err,
        status,
        message,
        {
            "rho": np.exp(moments.log_rho)[:, None] * scale / process.anisotropy,
            "n_used": process.mask.sum(0),
        },
        factor_half,
    )


def correlation_factor(corr: Array) -> Array:
    """Square-root factors of correlation matrices (n, m, m)."""
    try:
        factor = np.asarray(np.linalg.cholesky(corr))
    except np.linalg.LinAlgError:
        lam, vec = np.linalg.eigh(corr)
        root = vec * np.sqrt(np.maximum(lam, 0.0))[:, None, :]
        factor = root / np.sqrt(np.square(root).sum(2, keepdims=True))
    return factor


def _status(
    fitted: FittedTaylor, slope: Array, moments: PosteriorMoments, dof: Array, u: Array
) -> tuple[Status, str]:
    """Status and message; ``slope`` in scaled units, ``dof`` infinite where noise was given."""
    groups, process = fitted.groups, fitted.process
    n, p = len(slope), process.u.shape[1] + process.intercept
    short = [(len(out), grid.lin.rank) for out, grid in groups if grid.lin.rank < p]
    if short:
        lacking = sum(count for count, _ in short)
        which = "" if lacking == n else f" (of {lacking} of the {n} outputs)"
        return Status.UNDETERMINED, (
            f"the samples{which} determine {min(rank for _, rank in short)} of {p} coefficients "
            "(inputs and value); add samples that differ in the other directions"
        )
    if process.intercept and any(hidden_extrapolation(grid.lin, u) > 1.001 for _, grid in groups):
        return Status.EXTRAPOLATION, (
            "x lies farther from the middle of the samples than any of them (error bars are wider "
            "for it); add samples around x"
        )
    if any(grid.dof == 0 for _, grid in groups):
        return Status.OK, (
            "as many samples as coefficients: the error bars rest on the prior that f bends over "
            "the distances at which it changes; add samples"
        )
    half = moments.half[:, int(process.intercept) :] * _of_all(slope.size, dof)[:, None]
    if (half > np.abs(slope)).all() and moments.noise.max() > 0.3:
        return Status.NO_SIGNAL, "no slope stands out of its error; add samples or spread them"
    if np.isfinite(dof).all() and np.median(moments.noise) > MOSTLY_NOISE:
        return Status.TWO_SCALES, (
            "most of what the outputs differ by is taken for noise, and J is the slope of their "
            "trend; a function without noise that bends between neighbouring samples looks the "
            "same: give noise=, repeat a run, or add samples nearer to x"
        )
    return _turning(process, slope, moments)


def _turning(process: TaylorProcess, slope: Array, moments: PosteriorMoments) -> tuple[Status, str]:
    """Doubt error bars of outputs that turn within samples too few to follow them."""
    start = int(process.intercept)
    variance = np.einsum("npp->n", moments.cov[:, start:, start:])
    length = np.exp(moments.log_rho) / process.radius
    turns = (length < TURNS) & (variance > DOUBTFUL**2 * np.square(slope).sum(1))
    if not turns.any():
        return Status.OK, ""
    first = int(np.flatnonzero(turns)[0])
    return Status.TWO_SCALES, (
        f"{turns.sum()} of {len(turns)} outputs turn within the samples (output {first} over "
        f"{length[first]:.2g} of their median distance from x), and error bars rest on the guess "
        "that they do so everywhere alike; take samples nearer to x, or more of them"
    )


def _of_all(count: int, dof: Array) -> Array:
    """By how much intervals that hold all of ``count`` entries at 95 % are wider than single ones.

    At the level of single entries one of twelve that are all 0 stands out in 46 of 100 fits.
    """
    return np.asarray(student_quantile(1 - 0.025 / count, dof) / student_quantile(0.975, dof))


def _row(u: Array) -> Array:
    """The row of the design matrix, with intercept, at u."""
    return np.concatenate([[1.0], u])


def hidden_extrapolation(lin: TrendFactors, u: Array) -> float:
    """Hidden extrapolation: the leverage of u over the largest of a sample."""
    most = np.square(lin.q1).sum(1).max(initial=0.0)
    return float(np.square(_row(u) @ lin.back).sum() / most) if most > 0 else 1.0


def _extrapolated(moments: PosteriorMoments, groups: OutputGroups, u: Array) -> PosteriorMoments:
    """Wider bars where u lies outside of the samples.

    The random series is that about x, and the samples determine the less of it the farther away
    they are. At leverages 3 and 13 times the largest of a sample (3 samples an input), intervals
    held 0.85 and 0.79; with the fourth root of that ratio they hold 0.93 and 0.90.
    """
    wider = np.ones(len(moments.noise))
    for out, grid in groups:
        wider[out] = max(1.0, hidden_extrapolation(grid.lin, u)) ** 0.25
    return replace(
        moments,
        cov=moments.cov * np.square(wider)[:, None, None],
        half=moments.half * wider[:, None],
    )


def _join_parts(s: Solution) -> Solution:
    """Complex outputs of their real and imaginary parts."""
    n = len(s.coef) // 2
    assert s.cov.factor is not None
    assert s.interval_factor is not None
    scale = np.hypot(s.cov.scale[:n], s.cov.scale[n:])
    part = s.cov.factor * (s.cov.scale / np.concatenate([scale, scale]))[:, None, None]
    stderr = s.cov.stderr()
    err = np.hypot(stderr[:n], stderr[n:])
    half = s.interval_factor * stderr
    half = np.hypot(half[:n], half[n:])
    return replace(
        s,
        coef=s.coef[:n] + 1j * s.coef[n:],
        cov=Covariance(
            scale,
            factor=np.concatenate([part[:n], part[n:]], -1),
            null=None if s.cov.null is None else s.cov.null[:n],
            per_output=True,
        ),
        dof=np.minimum(s.dof[:n], s.dof[n:]),
        residual=np.hypot(s.residual[:n], s.residual[n:]),
        value=None if s.value is None else s.value[:n] + 1j * s.value[n:],
        value_stderr=None
        if s.value_stderr is None
        else np.hypot(s.value_stderr[:n], s.value_stderr[n:]),
        info={key: np.minimum(a[:n], a[n:]) for key, a in s.info.items()},
        interval_factor=np.divide(half, err, out=np.ones_like(err), where=err > 0),
    )
