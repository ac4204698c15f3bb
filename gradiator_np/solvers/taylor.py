"""Jacobians from samples lying anywhere, by the random-Taylor model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.solvers.solution import Constraints, Solution
from gradiator_np.solvers.taylor_cloud import Cloud, Groups, nearest
from gradiator_np.solvers.taylor_model import EPS, N_S, PER, S_MIN, Linear, Moments
from gradiator_np.status import Status

Array = NDArray[np.float64]


#: Outliers hide smaller ones, so they are looked for again: each time those above half the worst.
ROUNDS = 10
# Noise of this share of the outputs' standard deviations is half of their variance: from there on
# the samples say more of what the model does not explain than of what it does.
MOSTLY_NOISE = 0.7


@dataclass(frozen=True, slots=True)
class Taylor:
    """Value, Jacobian, curvature and noise of scattered samples in one model.

    Parameters
    ----------
    noise : float or array_like, shape (n,), or None
        Standard deviation of one evaluation, in units of y, where it is known.
    x_scale : array_like, shape (m,), or None
        Unit of each input: over these displacements f bends alike. Default: the median nonzero
        displacement of each input.
    max_samples : int
        Only that many nearest samples are used: the cost is cubic in their number.
    robust : bool
        Let single outputs drop out whose leave-one-out residual says that they are outliers.

    Notes
    -----
    About the centre, f_i = c_i + J_i u + kappa_i g(u) + sigma_i e with c and J free, g a random
    Taylor series of order two and up with Cov g(u) g(u') = rho^2 psi(u.u'/rho^2),
    psi(t) = exp(t) - 1 - t, and more along each input and along the slope of f_i. Its generalised
    least squares gives J with a covariance that holds noise and curvature together. rho, kappa
    and sigma are not chosen but averaged over by their restricted likelihood, in a prior that the
    outputs share. ``info["rho"]`` (n, m) tells how far each input goes before f bends.
    """

    noise: ArrayLike | None = None
    x_scale: ArrayLike | None = None
    max_samples: int = 2000
    robust: bool = True

    def solve(
        self,
        dx: Array,
        df: NDArray[Any],
        *,
        weights: Array | None = None,
        intercept: bool = False,
        constraints: Constraints | None = None,
        jac0: NDArray[Any] | None = None,
    ) -> Solution:
        """Fit the model; see `Solver`. ``df`` are values (less any constant)."""
        if constraints is not None:
            raise ValueError(
                "Taylor knows no constraints; use solver='pinv' for sparsity= or known="
            )
        if jac0 is not None:
            df = df - np.matmul(dx, np.swapaxes(jac0, -1, -2))
        if df.dtype.kind == "c":
            solution = _complex(self, dx, df, weights, intercept)
        elif dx.ndim > 2 or df.ndim > 2:
            solution = _batched(self, dx, df, weights, intercept)
        else:
            solution = _solve(self, dx, df, weights, intercept)
        if jac0 is not None:
            solution = replace(solution, coef=solution.coef + jac0)
        return solution


def _solve(opt: Taylor, dx: Array, df: Array, weights: Array | None, intercept: bool) -> Solution:
    """One cloud, real outputs."""
    k, m = dx.shape
    n = df.shape[1]
    w = np.ones((k, n)) if weights is None else np.broadcast_to(_columns(weights), (k, n))
    told = (np.isfinite(df) & (w > 0)).any(1)
    if told.any() and not told.all():
        dx, df, w = dx[told], df[told], w[told]
    scale = _input_scale(opt, dx)
    near = nearest(dx / scale, opt.max_samples, m + intercept)
    near = _told_once(near, dx, df, w)
    u, y, w = dx[near] / scale, df[near], w[near]
    mask = np.isfinite(y) & (w > 0)
    y = np.where(mask, y, 0.0)
    offset, spread = _output_scale(y, mask, intercept)
    noise, spread = _known_noise(opt, n, spread)
    cloud = Cloud(u, (y - offset) / spread, w, mask, intercept, noise)
    moments, groups = cloud.fit()
    for _ in range(ROUNDS if opt.robust else 0):
        if not cloud.drop_outliers(moments, groups):
            break
        moments, groups = cloud.fit()
    if intercept:
        moments = _extrapolated(moments, groups)
    return _assemble(cloud, moments, groups, scale, offset, spread, opt)


def _told_once(rows: NDArray[np.intp], dx: Array, df: Array, w: Array) -> NDArray[np.intp]:
    """Without runs repeated to the last bit.

    A function without noise tells nothing the second time; taken as samples of their own, such
    rows say that nothing scatters, curvature included.
    """
    if len(np.unique(dx[rows], axis=0)) == len(rows):
        return rows
    whole = np.hstack([dx[rows], df[rows], w[rows]])
    first = np.unique(whole, axis=0, return_index=True)[1]
    return np.asarray(rows[np.sort(first)])


def _columns(weights: Array) -> Array:
    return weights[:, None] if weights.ndim == 1 else weights


def _input_scale(opt: Taylor, dx: Array) -> Array:
    """Unit of each input; 1 where the input was never moved."""
    m = dx.shape[1]
    if opt.x_scale is not None:
        scale = np.broadcast_to(np.asarray(opt.x_scale, float), (m,))
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"x_scale must be positive and finite, got {scale}")
        return scale
    moved = np.where(dx == 0, np.nan, np.abs(dx))
    used = ~np.isnan(moved).all(0)
    scale = np.ones(m)
    scale[used] = np.nanmedian(moved[:, used], axis=0)
    return scale


def _output_scale(y: Array, mask: NDArray[np.bool_], intercept: bool) -> tuple[Array, Array]:
    """What is subtracted from each output and the unit of the rest."""
    count = np.maximum(mask.sum(0), 1)
    offset = y.sum(0) / count if intercept else np.zeros(y.shape[1])
    spread = np.sqrt((np.square(y - offset) * mask).sum(0) / count)
    least = np.maximum(EPS * np.abs(y).max(0, initial=0.0), np.finfo(float).tiny / EPS)
    return offset, np.maximum(spread, least)


def _known_noise(opt: Taylor, n: int, spread: Array) -> tuple[NDArray[np.intp] | None, Array]:
    """Grid index of a noise that is known, and output units in which it lies on the grid."""
    if opt.noise is None:
        return None, spread
    noise = np.broadcast_to(np.asarray(opt.noise, float), (n,))
    if not (np.isfinite(noise) & (noise >= 0)).all():
        raise ValueError(f"noise must be finite and not negative, got {noise}")
    with np.errstate(divide="ignore"):
        index = np.rint(PER * np.log10(noise / spread)) - S_MIN
    index = np.clip(index, 0, N_S - 1)
    on_grid = noise / 10.0 ** ((index + S_MIN) / PER)
    return index.astype(np.intp), np.where((index > 0) & (index < N_S - 1), on_grid, spread)


def _assemble(
    cloud: Cloud,
    moments: Moments,
    groups: Groups,
    scale: Array,
    offset: Array,
    spread: Array,
    opt: Taylor,
) -> Solution:
    """Back to the caller's units, with status and message."""
    n, m = len(spread), len(scale)
    inputs = slice(int(cloud.intercept), None)
    coef = moments.beta[:, inputs] * (spread[:, None] / scale)
    value = offset + spread * moments.beta[:, 0] if cloud.intercept else None
    value_err = spread * np.sqrt(moments.cov[:, 0, 0]) if cloud.intercept else None
    var = np.einsum("npp->np", moments.cov)[:, inputs]
    sd = np.sqrt(np.maximum(var, np.finfo(float).tiny))
    corr = moments.cov[:, inputs, inputs] / (sd[:, :, None] * sd[:, None, :])
    corr[:, np.arange(m), np.arange(m)] = 1.0 + 1e-9  # rounding must not spoil the factor
    noise = spread * np.maximum(moments.noise, np.finfo(float).tiny)
    unit = (sd / np.maximum(moments.noise, np.finfo(float).tiny)[:, None])[:, :, None]
    factor = unit / scale[:, None] * _factor(corr)
    known = var > 0
    factor_half = np.where(known, moments.half[:, inputs] / sd, 1.96)
    q = max(group.lin.null.shape[1] for _, group in groups)
    null = np.zeros((n, m, q))
    dof = np.zeros(n)
    for out, group in groups:
        dof[out] = max(group.dof, 1)
        b = group.lin.null[inputs] / scale[:, None]
        b[np.abs(b) * scale[:, None] < 1e-10] = 0.0
        if b.shape[1]:
            null[out, :, : b.shape[1]] = b
            if value_err is not None and np.abs(group.lin.null[0]).max() > 1e-10:
                value_err[out] = np.inf
            basis = np.linalg.svd(b, full_matrices=False)[0]
            coef[out] -= coef[out] @ basis @ basis.T
    y = np.where(cloud.mask, cloud.y * spread, 0.0)
    fitted = cloud.u @ (coef * scale).T + (0.0 if value is None else value - offset)
    count = np.maximum(cloud.mask.sum(0), 1)
    residual = np.sqrt((np.square(y - fitted) * cloud.mask).sum(0) / count)
    lin = max((group.lin for _, group in groups), key=lambda one: one.rank)
    slope = coef * (scale / spread[:, None])
    status, message = _verdict(groups, cloud, slope, moments, opt.noise is None)
    return Solution(
        coef,
        Covariance(noise, factor=factor, null=null if null.any() else None, per_output=True),
        np.full(n, np.inf) if opt.noise is not None else dof,
        np.array(max(lin.rank - int(cloud.intercept), 0), np.intp),
        np.array(lin.cond),
        residual,
        value,
        value_err,
        status,
        message,
        {
            "interval_factor": factor_half,
            "rho": np.exp(moments.log_rho)[:, None] * scale / cloud.bend,
            "n_used": cloud.mask.sum(0),
        },
    )


def _factor(corr: Array) -> Array:
    """Square-root factors of correlation matrices (n, m, m)."""
    try:
        factor = np.asarray(np.linalg.cholesky(corr))
    except np.linalg.LinAlgError:
        lam, vec = np.linalg.eigh(corr)
        root = vec * np.sqrt(np.maximum(lam, 0.0))[:, None, :]
        factor = root / np.sqrt(np.square(root).sum(2, keepdims=True))
    return factor


def _verdict(
    groups: Groups,
    cloud: Cloud,
    slope: Array,
    moments: Moments,
    unknown: bool,
) -> tuple[str, str]:
    """Status and message; ``slope`` in scaled units, ``unknown``: nobody gave the noise."""
    n, p = len(slope), cloud.u.shape[1] + cloud.intercept
    short = [(len(out), group.lin.rank) for out, group in groups if group.lin.rank < p]
    if short:
        lacking = sum(count for count, _ in short)
        which = "" if lacking == n else f" (of {lacking} of the {n} outputs)"
        return Status.UNDETERMINED, (
            f"the samples{which} determine {min(rank for _, rank in short)} of {p} coefficients "
            "(inputs and value); add samples that differ in the other directions"
        )
    if cloud.intercept and any(_outside(group.lin) > 1.001 for _, group in groups):
        return Status.EXTRAPOLATION, (
            "x lies farther from the middle of the samples than any of them (error bars are wider "
            "for it); add samples around x"
        )
    if any(group.dof == 0 for _, group in groups):
        return Status.OK, (
            "as many samples as coefficients: the error bars rest on the prior that f bends over "
            "the distances at which it changes; add samples"
        )
    half = moments.half[:, int(cloud.intercept) :]
    if (half > np.abs(slope)).all() and moments.noise.max() > 0.3:
        return Status.NO_SIGNAL, "no slope stands out of its error; add samples or spread them"
    if unknown and np.median(moments.noise) > MOSTLY_NOISE:
        return Status.TWO_SCALES, (
            "most of what the outputs differ by is taken for noise, and J is the slope of their "
            "trend; a function without noise that bends between neighbouring samples looks the "
            "same: give noise=, repeat a run, or add samples nearer to x"
        )
    return Status.OK, ""


def _outside(lin: Linear) -> float:
    """Hidden extrapolation: the leverage of x over the largest of a sample."""
    most = np.square(lin.q1).sum(1).max(initial=0.0)
    return float(np.square(lin.back[0]).sum() / most) if most > 0 else 1.0


def _extrapolated(moments: Moments, groups: Groups) -> Moments:
    """Wider bars where x lies outside of the samples.

    The random series is that about x, and the less is told of it the farther away the samples
    are. At leverages 3 and 13 times the largest of a sample (3 samples an input), intervals held
    0.85 and 0.79; with the fourth root of that ratio they hold 0.93 and 0.90.
    """
    wider = np.ones(len(moments.noise))
    for out, group in groups:
        wider[out] = max(1.0, _outside(group.lin)) ** 0.25
    return replace(
        moments,
        cov=moments.cov * np.square(wider)[:, None, None],
        half=moments.half * wider[:, None],
    )


def _batched(
    opt: Taylor, dx: Array, df: NDArray[Any], weights: Array | None, intercept: bool
) -> Solution:
    """Independent clouds on leading axes."""
    batch = np.broadcast_shapes(dx.shape[:-2], df.shape[:-2])
    dx = np.broadcast_to(dx, batch + dx.shape[-2:])
    df = np.broadcast_to(df, batch + df.shape[-2:])
    k, n = df.shape[-2:]
    if weights is not None:
        full = weights if weights.shape[-2:] == (k, n) and weights.ndim >= 2 else weights[..., None]
        weights = np.broadcast_to(full, (*batch, k, n))
    parts = [
        _solve(opt, dx[i], df[i], None if weights is None else weights[i], intercept)
        for i in np.ndindex(*batch)
    ]
    return stack(parts, batch)


def stack(parts: list[Solution], batch: tuple[int, ...]) -> Solution:
    """Solutions of equal shape on leading axes ``batch``."""

    def pile(items: list[Any]) -> Any:
        return np.stack(items).reshape(batch + np.shape(items[0]))

    q = max(0 if s.cov.null is None else s.cov.null.shape[-1] for s in parts)
    null = None
    if q:
        n, m = parts[0].coef.shape
        null = np.zeros((len(parts), n, m, q))
        for piece, s in zip(null, parts):
            if s.cov.null is not None:
                piece[..., : s.cov.null.shape[-1]] = s.cov.null
        null = null.reshape((*batch, n, m, q))
    cov = Covariance(
        pile([s.cov.scale for s in parts]),
        factor=pile([s.cov.factor for s in parts]),
        null=null,
        per_output=True,
    )
    worst = next((s for s in parts if s.status != Status.OK), parts[0])
    return Solution(
        pile([s.coef for s in parts]),
        cov,
        pile([s.dof for s in parts]),
        pile([s.rank for s in parts]),
        pile([s.cond for s in parts]),
        pile([s.residual for s in parts]),
        None if parts[0].value is None else pile([s.value for s in parts]),
        None if parts[0].value_stderr is None else pile([s.value_stderr for s in parts]),
        worst.status,
        worst.message,
        {key: pile([s.info[key] for s in parts]) for key in parts[0].info},
    )


def _complex(
    opt: Taylor, dx: Array, df: NDArray[Any], weights: Array | None, intercept: bool
) -> Solution:
    """Real and imaginary parts as outputs of their own."""
    n = df.shape[-1]
    if weights is not None and weights.ndim == df.ndim:
        weights = np.concatenate([np.broadcast_to(weights, df.shape)] * 2, -1)
    both = replace(opt, noise=None if opt.noise is None else _twice(opt.noise, n))
    s = both.solve(dx, np.concatenate([df.real, df.imag], -1), weights=weights, intercept=intercept)
    re, im = np.s_[..., :n], np.s_[..., n:]
    scale = np.hypot(s.cov.scale[re], s.cov.scale[im])
    part = s.cov.factor * (s.cov.scale / np.concatenate([scale, scale], -1))[..., None, None]
    factor = np.concatenate([part[..., :n, :, :], part[..., n:, :, :]], -1)
    null = None if s.cov.null is None else s.cov.null[..., :n, :, :]
    err = np.hypot(*(s.cov.stderr()[..., rows, :] for rows in (slice(0, n), slice(n, None))))
    half = s.info["interval_factor"] * s.cov.stderr()
    half = np.hypot(half[..., :n, :], half[..., n:, :])
    return Solution(
        s.coef[..., :n, :] + 1j * s.coef[..., n:, :],
        Covariance(scale, factor=factor, null=null, per_output=True),
        np.minimum(s.dof[re], s.dof[im]),
        s.rank,
        s.cond,
        np.hypot(s.residual[re], s.residual[im]),
        None if s.value is None else s.value[re] + 1j * s.value[im],
        None if s.value_stderr is None else np.hypot(s.value_stderr[re], s.value_stderr[im]),
        s.status,
        s.message,
        {
            "interval_factor": np.divide(half, err, out=np.ones_like(err), where=err > 0),
            "rho": np.minimum(s.info["rho"][..., :n, :], s.info["rho"][..., n:, :]),
            "n_used": np.minimum(s.info["n_used"][re], s.info["n_used"][im]),
        },
    )


def _twice(noise: ArrayLike, n: int) -> Array:
    one = np.broadcast_to(np.asarray(noise, float) / np.sqrt(2.0), (n,))
    return np.concatenate([one, one])
