"""Solutions of groups of outputs, and of the members of a batch, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradiator_np._covariance import Covariance
from gradiator_np._status import Status
from gradiator_np._typing import Array, Index
from gradiator_np.solvers._solution import Solution


@dataclass(frozen=True, slots=True)
class OutputGroup:
    """Outputs that share one regression: the same inputs, weights and gaps.

    Attributes
    ----------
    outputs : array of int, or None
        Which outputs; None for all.
    inputs : array of int, or None
        Which inputs they depend on; None for all.
    weights : array, shape (b, k), or None
        Weights of the samples, 0 where they are missing.
    """

    outputs: Index | None
    inputs: Index | None = None
    weights: Array | None = None


def join_outputs(parts: Sequence[tuple[OutputGroup, Solution]], n: int, m: int) -> Solution:
    """One solution of n outputs and m inputs from those of groups, with equal leading axes.

    Covariances go by output where inputs or weights differ.
    """
    group, part = parts[0]
    if len(parts) == 1 and group.inputs is None:
        return part
    lead = part.coef.shape[:-2]
    covs = [by_output(part.cov) for _, part in parts]
    width = max(cov.factor.shape[-1] for cov in covs if cov.factor is not None)
    q = max(0 if cov.null is None else cov.null.shape[-1] for cov in covs)
    kind = np.result_type(*(p.coef for _, p in parts))
    coef = np.zeros((*lead, n, m), dtype=kind)
    factor = np.zeros((*lead, n, m, width))
    null = np.zeros((*lead, n, m, q)) if q else None
    lost = np.zeros((*lead, n, m), dtype=bool)
    scale, dof, residual = (np.empty((*lead, n)) for _ in range(3))
    value = None if part.value is None else np.empty((*lead, n), dtype=kind)
    value_stderr = None if part.value is None else np.empty((*lead, n))
    rank = np.full(lead, m, dtype=np.intp)
    cond = np.zeros(lead)
    for (group, part), cov in zip(parts, covs):
        outputs = np.arange(n) if group.outputs is None else group.outputs
        inputs = np.arange(m) if group.inputs is None else group.inputs
        at = ..., outputs[:, None], inputs
        coef[at] = part.coef
        assert cov.factor is not None
        factor[(*at, slice(cov.factor.shape[-1]))] = cov.factor
        if null is not None and cov.null is not None:
            null[(*at, slice(cov.null.shape[-1]))] = cov.null
        if cov.lost is not None:
            lost[at] = cov.lost
        scale[..., outputs], dof[..., outputs] = part.cov.scale, part.dof
        residual[..., outputs] = part.residual
        if value is not None and value_stderr is not None:
            value[..., outputs], value_stderr[..., outputs] = part.value, part.value_stderr
        # An entry that is known, or known to be zero, needs no sample.
        rank = np.minimum(rank, part.rank + (m - inputs.size))
        cond = np.fmax(cond, part.cond)
    cov = Covariance(
        scale, factor=factor, null=null, per_output=True, lost=lost if lost.any() else None
    )
    worst = _worst([part for _, part in parts])
    return Solution(
        coef, cov, dof, np.asarray(rank), np.asarray(cond), residual, value, value_stderr,
        worst.status, worst.message,
        classical=all(part.classical for _, part in parts),
    )  # fmt: skip


def join_batch(members: Sequence[Solution], batch: tuple[int, ...]) -> Solution:
    """One solution with the axes ``batch`` from its members, which have none."""
    if not batch:
        return members[0]
    covs = _alike([member.cov for member in members])
    first, *others = (replace(member, cov=cov) for member, cov in zip(members, covs))
    whole = first.map(lambda *a: np.stack(a).reshape(batch + a[0].shape), *others)
    worst = _worst(members)
    return replace(whole, status=worst.status, message=worst.message)


def _worst(parts: Sequence[Solution]) -> Solution:
    """Whose status and message stand for all: of the doubtful ones the one that knows least."""
    doubtful = [part for part in parts if part.status != Status.OK]
    return min(doubtful, key=lambda part: int(np.min(part.rank)), default=parts[0])


def _alike(covs: list[Covariance]) -> list[Covariance]:
    """The same covariances with arrays of equal shapes."""
    if any(cov.per_output for cov in covs):
        covs = [by_output(cov) for cov in covs]
    q = max(0 if cov.null is None else cov.null.shape[-1] for cov in covs)
    if not q:
        return covs
    out = []
    for cov in covs:
        assert cov.factor is not None
        null = np.zeros((*cov.factor.shape[:-1], q))
        if cov.null is not None:
            null[..., : cov.null.shape[-1]] = cov.null
        out.append(replace(cov, null=null))
    return out


def by_output(cov: Covariance) -> Covariance:
    """The same covariance with a factor and null directions for each output."""
    if cov.per_output:
        return cov
    *lead, n = cov.scale.shape

    def spread(a: Array) -> Array:
        return np.broadcast_to(a[..., None, :, :], (*lead, n, *a.shape[-2:]))

    factor = None if cov.factor is None else spread(cov.factor)
    if factor is not None and cov.loading is not None:
        factor = compressed(factor * cov.loading[..., None, :])
    return Covariance(
        cov.scale,
        diag=None if cov.diag is None else np.repeat(cov.diag[..., None, :], n, -2),
        factor=factor,
        extra=cov.extra,
        null=None if cov.null is None else spread(cov.null),
        per_output=True,
        lost=cov.lost if cov.span is None else np.isinf(cov.variance()),
    )


def compressed(factor: Array) -> Array:
    """A factor (..., m, r) with no more columns than rows and the same F F^T."""
    if factor.shape[-1] <= factor.shape[-2]:
        return factor
    triangle = np.asarray(np.linalg.qr(factor.swapaxes(-1, -2), mode="r"))
    return triangle.swapaxes(-1, -2)
