"""The pseudo-inverse solver: least squares with error bars, weights, gaps and known structure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradiator_np.covariance import Covariance
from gradiator_np.solvers.groups import Group, Task
from gradiator_np.solvers.influence import left_out
from gradiator_np.solvers.linear import LinearFit, compressed, least_squares
from gradiator_np.solvers.rows import Part, Rows, value_stderr
from gradiator_np.solvers.solution import Constraints, Solution
from gradiator_np.solvers.symmetric import fit_symmetric

Array = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Pinv:
    r"""Least squares by the Moore-Penrose inverse, left or right as the samples demand.

    Each row of J minimises

    .. math:: \sum_k w_k (df_k - J dx_k)^2 + \mathrm{ridge} |J - J_0|^2

    and where the samples leave a choice it is the one nearest to the prior :math:`J_0` (0 where
    none is given), in the caller's units of x.

    Parameters
    ----------
    rcond : float, optional
        Singular values of the samples (columns scaled to norm 1) below ``rcond`` times the
        largest count as zero. By default max(k, m) times the machine epsilon.
    ridge : float
        Penalty on the squared distance from ``jac0``, in squared units of x: the variance of the
        noise over the variance that an entry of J is believed to have. It shrinks J, and its
        errors are those of the Bayesian solution; entries that no sample determines keep
        ``stderr`` inf all the same.
    errors : {"classical", "hc3"}
        "classical": one noise level per output, from the residuals. "hc3": from the leave-one-out
        residual of each sample, for noise whose size differs between samples in ways that no
        weights tell (MacKinnon and White, Journal of Econometrics 29, 1985).
    noise : float or array_like, shape (n,), optional
        Standard deviation of one sample of weight 1, in units of y; by default from the
        residuals.

    Raises
    ------
    ValueError
        For options out of range.

    Notes
    -----
    ``df`` may be complex: its noise is then that of the complex number, and errors are those of
    the modulus. With symmetric constraints all outputs share one noise level, and rows of J are
    correlated: products with several nonzero entries of v neglect that.
    """

    rcond: float | None = None
    ridge: float = 0.0
    errors: Literal["classical", "hc3"] = "classical"
    noise: ArrayLike | None = None

    def __post_init__(self) -> None:
        if self.rcond is not None and not 0 <= self.rcond < 1:
            raise ValueError(f"rcond={self.rcond!r} must lie in [0, 1); None takes rounding")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge={self.ridge!r} must be finite and not negative; 0 is none")
        if self.errors not in ("classical", "hc3"):
            raise ValueError(f"errors={self.errors!r} is unknown; choose 'classical' or 'hc3'")
        if self.noise is not None and self.errors == "hc3":
            raise ValueError(
                "errors='hc3' take the noise from each residual, so noise= cannot be given as "
                "well; drop one of the two"
            )

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
        """Fit df = J dx (+ c where ``intercept``); see ``Solver.solve``."""
        *batch, k, m = dx.shape
        n = df.shape[-1]
        b = math.prod(batch)
        if weights is not None:
            weights = weights.reshape((b, *weights.shape[len(batch) :]))
        if jac0 is not None:
            jac0 = np.broadcast_to(jac0, (*batch, n, m)).reshape(b, n, m)
        constraints = constraints or Constraints()
        task = Task.of(dx.reshape(b, k, m), df.reshape(b, k, n), weights, constraints, jac0)
        if constraints.symmetric:
            whole = fit_symmetric(task, self, intercept)
        else:
            parts = [(group, self.fit(task, group, intercept)) for group in task.groups()]
            whole = _combine(task, parts)
        return _solution(task, whole, tuple(batch))

    def fit(self, task: Task, group: Group, intercept: bool) -> Part:
        """Fit the outputs of one group."""
        dx, df = task.select(group)
        rows = Rows.of(dx, df, group.weights, intercept)
        linear = self.linear(rows)
        count = rows.count - intercept
        dof = count - linear.rank
        if self.ridge:
            dof = count - dx.shape[2] + self.ridge * np.square(linear.factor).sum((1, 2))
        rss = linear.rss[:, 0::2] + linear.rss[:, 1::2] if rows.is_complex else linear.rss
        scale, dof = self.scale(rss, dof[:, None], group.outputs)
        with np.errstate(divide="ignore", invalid="ignore"):
            misfit = rss / rows.total[:, None]
        np.sqrt(misfit, out=misfit)
        cov = Covariance(
            scale, factor=linear.factor, null=linear.null, span=linear.span, unit=linear.unit
        )
        part = Part(
            rows.joined(linear.coef), cov, dof, linear.rank, linear.cond, misfit,
        )  # fmt: skip
        if intercept:
            part = _with_value(part, rows, linear)
        return _with_hc3(part, rows, linear) if self.errors == "hc3" else part

    def scale(self, rss: Array, dof: Array, outputs: Index | None) -> tuple[Array, Array]:
        """Noise of one sample and its degrees of freedom, each of the shape of rss."""
        if self.noise is not None:
            noise = np.asarray(self.noise, dtype=np.float64)
            if outputs is not None and noise.ndim:
                noise = noise[outputs]
            return np.array(np.broadcast_to(noise, rss.shape)), np.full(rss.shape, np.inf)
        dof = np.maximum(dof, 0.0)
        scale = rss / np.where(dof > 0, dof, np.nan)
        return np.sqrt(scale, out=scale), np.broadcast_to(dof, rss.shape)

    def linear(self, rows: Rows, *, compact: bool = True) -> LinearFit:
        """Solve the weighted rows, with the ridge as further rows."""
        if not self.ridge:
            return least_squares(rows.x, rows.f, self.rcond, compact=compact)
        b, _, m = rows.x.shape
        seen = least_squares(rows.x, rows.f[:, :, :0], self.rcond, compact=compact)
        extra = np.broadcast_to(math.sqrt(self.ridge) * np.eye(m), (b, m, m))
        fit = least_squares(
            np.concatenate([rows.x, extra], 1),
            np.concatenate([rows.f, np.zeros((b, m, rows.f.shape[2]))], 1),
        )
        rss = np.square(rows.f - rows.x @ fit.coef.swapaxes(1, 2)).sum(1)
        return LinearFit(
            fit.coef, fit.factor, seen.null, seen.rank, seen.cond, rss, seen.span, seen.unit
        )


def _with_value(part: Part, rows: Rows, linear: LinearFit) -> Part:
    """Add the value at dx = 0 and its error."""
    assert rows.mean_x is not None
    assert rows.mean_f is not None
    value = rows.joined(rows.mean_f - np.matvec(linear.coef, rows.mean_x))
    error = value_stderr(part.cov, rows.mean_x[:, None], rows.total[:, None])
    return replace(part, value=value, value_stderr=error)


def _with_hc3(part: Part, rows: Rows, linear: LinearFit) -> Part:
    """Let the leave-one-out residual of each sample stand in for one noise level."""
    z = rows.x @ linear.factor
    scale = part.cov.scale
    errors = left_out(rows, linear, z, scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        loading = np.where(errors == 0, 0.0, errors / scale[:, :, None])
    inverse = linear.factor @ z.swapaxes(1, 2)
    part = replace(part, cov=replace(part.cov, factor=inverse, loading=loading))
    if rows.mean_x is None or part.value_stderr is None:
        return part
    root = 1.0 if rows.root is None else rows.root
    share = root / np.where(rows.total > 0, rows.total, 1.0)[:, None]
    influence = share - np.vecmat(rows.mean_x, inverse)
    error = np.sqrt(np.square(influence[:, None] * errors).sum(-1))
    known = np.isfinite(part.value_stderr)
    return replace(part, value_stderr=np.where(known, error, part.value_stderr))


def _combine(task: Task, parts: list[tuple[Group, Part]]) -> Part:
    """One part for all outputs; covariances go by output where inputs or weights differ."""
    group, part = parts[0]
    if len(parts) == 1 and group.inputs is None:
        return part
    b, _, m = task.dx.shape
    n = task.df.shape[2]
    every = np.arange(m)
    width = max(_width(p.cov) for _, p in parts)
    q = max(0 if p.cov.null is None else p.cov.null.shape[2] for _, p in parts)
    coef = np.zeros((b, n, m), dtype=task.df.dtype)
    factor = np.zeros((b, n, m, width))
    null = np.zeros((b, n, m, q)) if q else None
    lost = np.zeros((b, n, m), dtype=bool)
    scale, dof, residual = (np.empty((b, n)) for _ in range(3))
    value = None if part.value is None else np.empty((b, n), dtype=task.df.dtype)
    value_stderr = None if part.value is None else np.empty((b, n))
    rank = np.full(b, m, dtype=np.intp)
    cond = np.zeros(b)
    for group, part in parts:
        outputs = np.arange(n) if group.outputs is None else group.outputs
        inputs = every if group.inputs is None else group.inputs
        at = np.arange(b), outputs, inputs
        coef[np.ix_(*at)] = part.coef
        own = _own_factor(part.cov)
        factor[np.ix_(*at, np.arange(own.shape[-1]))] = own
        if null is not None and part.cov.null is not None:
            null[np.ix_(*at, np.arange(part.cov.null.shape[2]))] = part.cov.null[:, None]
        if part.cov.span is not None:
            lost[np.ix_(*at)] = np.isinf(part.cov.variance())
        scale[:, outputs], dof[:, outputs] = part.cov.scale, part.dof
        residual[:, outputs] = part.residual
        if value is not None and value_stderr is not None:
            value[:, outputs], value_stderr[:, outputs] = part.value, part.value_stderr
        # An entry that is known, or known to be zero, needs no sample.
        rank = np.minimum(rank, part.rank + (m - inputs.size))
        cond = np.fmax(cond, part.cond)
    cov = Covariance(
        scale, factor=factor, null=null, per_output=True, lost=lost if lost.any() else None
    )
    return Part(coef, cov, dof, rank, cond, residual, value, value_stderr)


def _width(cov: Covariance) -> int:
    assert cov.factor is not None
    m, r = cov.factor.shape[1:]
    return int(r if cov.loading is None else min(m, r))


def _own_factor(cov: Covariance) -> Array:
    """The factor of each output, shape (b, n or 1, m, r)."""
    assert cov.factor is not None
    factor = cov.factor[:, None]
    if cov.loading is None:
        return factor
    return compressed(factor * cov.loading[:, :, None, :])


def _solution(task: Task, part: Part, batch: tuple[int, ...]) -> Solution:
    """Give back the batch axes, add prior and known entries, and say what limits the answer."""
    coef = part.coef if task.offset is None else part.coef + task.offset
    m = task.dx.shape[2]
    status, message = "ok", ""
    cov = part.cov
    if not (cov.null is None and cov.span is None and cov.lost is None):
        status = "undetermined"
        message = (
            f"the samples determine {int(part.rank.min())} of {m} directions of x; entries whose "
            "stderr is inf are the least-norm choice: add samples along those inputs"
        )
    elif not part.dof.all():
        message = (
            "as many unknowns as samples: nothing tells the noise, so stderr is nan; "
            "add samples or give the noise"
        )

    return Solution(
        coef, cov, part.dof, part.rank, part.cond, part.residual, part.value, part.value_stderr,
        status, message,
    ).with_batch(batch)  # fmt: skip
